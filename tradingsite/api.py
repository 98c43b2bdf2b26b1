"""The addresses of the API."""

from django.urls import URLPattern, URLResolver, include, path
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerView
from rest_framework.routers import SimpleRouter

from ml.api import (
    DriftCheckViewSet,
    LeakageCheckViewSet,
    MLModelViewSet,
    PerformanceViewSet,
    TradeFeaturesViewSet,
)
from positions.api import (
    ErrorNoteViewSet,
    InstrumentViewSet,
    OrderIntentViewSet,
    PositionExitViewSet,
    RuleNoteViewSet,
    ShadowTradeViewSet,
    StopMoveViewSet,
    TradeViewSet,
    WorkerLeaseViewSet,
)
from tradingsite.acting import (
    AnsweredInstructionViewSet,
    AskedPredictionViewSet,
    HaltView,
    PositionViewSet,
    ResumeView,
    SignalView,
)
from tradingsite.health import HealthView
from tradingsite.kit.api import StrictView


class SchemaView(StrictView, SpectacularAPIView):
    """This API as OpenAPI describes it."""


class DocsView(StrictView, SpectacularSwaggerView):
    """The same as a page."""


router = SimpleRouter()
router.register("trades", TradeViewSet)
router.register("positions", PositionViewSet, basename="position")
router.register("instructions", AnsweredInstructionViewSet)
router.register("shadow-trades", ShadowTradeViewSet)
router.register("exits", PositionExitViewSet)
router.register("rule-notes", RuleNoteViewSet)
router.register("error-notes", ErrorNoteViewSet)
router.register("stop-moves", StopMoveViewSet)
router.register("order-intents", OrderIntentViewSet)
router.register("instruments", InstrumentViewSet)
router.register("leases", WorkerLeaseViewSet)
router.register("features", TradeFeaturesViewSet)
router.register("models", MLModelViewSet)
router.register("predictions", AskedPredictionViewSet)
router.register("drift-checks", DriftCheckViewSet)
router.register("performance", PerformanceViewSet)
router.register("leakage-checks", LeakageCheckViewSet)

urlpatterns: list[URLPattern | URLResolver] = [
    path("schema/", SchemaView.as_view(), name="schema"),
    path("docs/", DocsView.as_view(url_name="schema"), name="docs"),
    path("health/", HealthView.as_view(), name="health"),
    path("signals/", SignalView.as_view(), name="signals"),
    path("halt/", HaltView.as_view(), name="halt"),
    path("resume/", ResumeView.as_view(), name="resume"),
    path("", include(router.urls)),
]
