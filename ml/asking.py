"""Asking a book's champion about features, outside the trading process."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from threading import Lock

from ml.features import FEATURES
from ml.models import MLModel, TradeFeatures
from ml.predictor import FeatureRow, Score
from ml.serving import Serving

#: A symbol's features are those of its newest signal, unless that lies so long before the book's newest.
OLDEST = timedelta(days=14)


class NobodyToAsk(Exception):
    """No model serves the book, or it may not speak; the message says why."""


@dataclass(frozen=True, slots=True)
class Opinion:
    """What a model says of features; it is not stored, because no signal was given."""

    model: MLModel
    score: Score


_lock = Lock()


@cache
def _serving(book: str) -> Serving:
    return Serving(book)


def ask(book: str, features: FeatureRow) -> Opinion:
    """Score features by name, None where unknown (`p_geometry` is known), with the model that serves the book at this
    moment; the first question loads it, which takes seconds. Raises NobodyToAsk and ModelUnusable."""
    with _lock:
        serving = _serving(book)
        serving.refresh()
        served = serving.served()
        champion = served.champion_at(datetime.now(UTC))
    if champion is None:
        raise NobodyToAsk(served.reason)
    return Opinion(champion.model, champion.predict(features, float(features["p_geometry"] or 0.0)))


def newest_features(book: str, symbol: str) -> TradeFeatures | None:
    """Of the newest signal of a symbol."""
    of_book = TradeFeatures.objects.filter(book=book, p_geometry__isnull=False)
    newest = of_book.values_list("signal_at", flat=True).first()
    return None if newest is None else of_book.filter(symbol=symbol, signal_at__gte=newest - OLDEST).first()


def values_of(row: TradeFeatures) -> FeatureRow:
    return {feature.name: getattr(row, feature.name) for feature in FEATURES}
