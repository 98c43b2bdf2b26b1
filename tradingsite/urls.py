from django.contrib import admin
from django.urls import include, path, register_converter
from django.views.generic import RedirectView

from tradingsite.health import MetricsView, healthz, readyz
from tradingsite.views import SessionConverter, halting, report, reports

handler400 = "tradingsite.errors.bad_request"
handler404 = "tradingsite.errors.not_found"
handler500 = "tradingsite.errors.server_error"

register_converter(SessionConverter, "session")

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="admin:index")),
    path("admin/", admin.site.urls),
    path("reports/", reports, name="reports"),
    path("reports/<slug:folder>/<session:day>/", report, name="report"),
    path("halting/", halting, name="halting"),
    path("healthz", healthz, name="healthz"),
    path("readyz", readyz, name="readyz"),
    path("metrics", MetricsView.as_view(), name="metrics"),
    path("api/v1/", include("tradingsite.api")),
]
