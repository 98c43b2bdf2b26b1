"""The addresses of the API."""

from django.urls import URLPattern, URLResolver, include, path
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerView
from rest_framework.routers import SimpleRouter

from ml.api import (
    DriftCheckViewSet,
    LeakageCheckViewSet,
    MLModelViewSet,
    PerformanceViewSet,
    PredictionViewSet,
    TradeFeaturesViewSet,
)
from positions.api import (
    InstrumentViewSet,
    OrderIntentViewSet,
    PositionExitViewSet,
    StopMoveViewSet,
    TradeViewSet,
    WorkerLeaseViewSet,
)
from tradingsite.kit.api import StrictView


class SchemaView(StrictView, SpectacularAPIView):
    """This API as OpenAPI describes it."""


class DocsView(StrictView, SpectacularSwaggerView):
    """The same as a page."""


router = SimpleRouter()
router.register("trades", TradeViewSet)
router.register("exits", PositionExitViewSet)
router.register("stop-moves", StopMoveViewSet)
router.register("order-intents", OrderIntentViewSet)
router.register("instruments", InstrumentViewSet)
router.register("leases", WorkerLeaseViewSet)
router.register("features", TradeFeaturesViewSet)
router.register("models", MLModelViewSet)
router.register("predictions", PredictionViewSet)
router.register("drift-checks", DriftCheckViewSet)
router.register("performance", PerformanceViewSet)
router.register("leakage-checks", LeakageCheckViewSet)

urlpatterns: list[URLPattern | URLResolver] = [
    path("schema/", SchemaView.as_view(), name="schema"),
    path("docs/", DocsView.as_view(url_name="schema"), name="docs"),
    path("", include(router.urls)),
]
