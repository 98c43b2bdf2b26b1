"""A candidate's test sessions, served: one signal at a time through the very Predictor that serves live."""

from collections.abc import Callable

from django.utils import timezone

from ml.features import MODEL_FEATURES
from ml.ml_system import prediction_of
from ml.models import MLModel, Prediction, TradeFeatures
from ml.predictor import Predictor
from ml.words import PredictionMode
from positions import bulk
from positions.models import Trade


def score_test_sessions(model: MLModel, progress: Callable[[int], None] = lambda signals: None) -> int:
    """Log what a model says of each signal of its test sessions, in shadow mode, with the outcome where there was a
    trade. Returns the number of predictions; signals with incomplete features get none.
    """
    predictor = Predictor(model)
    of_test = {"book": model.book, "session__gte": model.test_from, "session__lte": model.test_to}
    outcomes = dict(Trade.objects.filter(**of_test).values_list("signal_key", "outcome"))
    names = [feature.name for feature in MODEL_FEATURES]
    signals = TradeFeatures.objects.filter(**of_test, complete=True).order_by("signal_at", "signal_key")
    keys, features, predictions = [], [], []
    for key, *values in signals.values_list("signal_key", *names):
        row = dict(zip(names, values, strict=True))
        score = predictor.predict(row, row["p_geometry"])
        prediction = prediction_of(model.book, key, predictor, score, PredictionMode.SHADOW, timezone.now())
        keys.append(key)
        features.append(row)
        predictions.append(prediction)
        progress(1)
    told = predictor.explain(features)
    bulk.insert(
        Prediction,
        (
            {**prediction, "contributions": contributions, "outcome": outcomes.get(key)}
            for key, prediction, contributions in zip(keys, predictions, told, strict=True)
        ),
    )
    return len(predictions)
