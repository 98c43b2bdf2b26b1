"""Tables of learning in the read-only API. A model's artifact is neither loaded nor shown."""

from ml.models import DriftCheck, LeakageCheck, MLModel, Performance, Prediction, TradeFeatures
from tradingsite.kit.api import DAY_RANGE, TIME_RANGE, ReadOnlyViewSet, serializer_of


class TradeFeaturesViewSet(ReadOnlyViewSet):
    """What the market looked like at each signal, taken or not; `missing` says why a feature is null."""

    queryset = TradeFeatures.objects.all()
    serializer_class = serializer_of(TradeFeatures)
    filterset_fields = {
        "book": ["exact"],
        "signal_key": ["exact"],
        "session": DAY_RANGE,
        "signal_at": TIME_RANGE,
    }


class MLModelViewSet(ReadOnlyViewSet):
    """Trained models with their out-of-sample figures and the gate's verdict. `book` is where a model was trained."""

    queryset = MLModel.objects.defer("artifact")
    serializer_class = serializer_of(MLModel, without=("artifact",))
    filterset_fields = {"book": ["exact"], "version": ["exact"], "serving_book": ["exact"]}


class PredictionViewSet(ReadOnlyViewSet):
    """What a model said of a signal before its outcome existed. `p_geometry` is the plan's own odds, the baseline."""

    queryset = Prediction.objects.all()
    serializer_class = serializer_of(Prediction)
    filterset_fields = {
        "book": ["exact"],
        "signal_key": ["exact"],
        "model": ["exact"],
        "predicted_at": TIME_RANGE,
    }


class DriftCheckViewSet(ReadOnlyViewSet):
    """Champions' features and errors held against those of training; `alarms` are sentences, empty without drift."""

    queryset = DriftCheck.objects.all()
    serializer_class = serializer_of(DriftCheck)
    filterset_fields = {"book": ["exact"], "model": ["exact"], "checked_at": TIME_RANGE}


class PerformanceViewSet(ReadOnlyViewSet):
    """One session in figures; null where a figure is undefined."""

    queryset = Performance.objects.all()
    serializer_class = serializer_of(Performance)
    filterset_fields = {"book": ["exact"], "session": DAY_RANGE}


class LeakageCheckViewSet(ReadOnlyViewSet):
    """What check_leakage found of a feature set; no model passes its gate unless the newest check is clean."""

    queryset = LeakageCheck.objects.all()
    serializer_class = serializer_of(LeakageCheck)
    filterset_fields = {"feature_set": ["exact"]}
