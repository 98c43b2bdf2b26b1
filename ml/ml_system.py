"""The face the trading loop talks to: hears of every signal, stores its features, says what the model thinks of it."""

from datetime import UTC, datetime

import structlog

from ml.feature_extractor import FeatureExtractor, SignalFeatures
from ml.features import FEATURE_SET
from ml.models import Prediction, TradeFeatures
from ml.predictor import ModelUnusable, Predictor, Score
from ml.words import Decision, PredictionMode
from positions.history import TradeHistory
from positions.market.indicators import IndicatorBank
from positions.models import Trade
from positions.strategy import Opinion, Signal
from positions.words import Feed, Outcome

log = structlog.get_logger(__name__)


def prediction_of(
    book: str, signal_key: str, predictor: Predictor, score: Score, mode: PredictionMode, at: datetime
) -> Prediction:
    """A score as the row that is logged; not yet saved."""
    return Prediction(
        book=book,
        signal_key=signal_key,
        model=predictor.model,
        mode=mode,
        p_raw=score.p_raw,
        p_win=score.p_win,
        p_geometry=score.p_geometry,
        threshold=score.threshold,
        decision=score.decision,
        reason=score.reason,
        latency_us=score.latency_us,
        predicted_at=at,
    )


class MLSystem:
    """Implements positions.strategy.Adviser for one book.

    Nothing is written while a signal is being decided: rows wait in memory until `flush`. Without a usable model
    signals go on as if the mode were `off`; a model that has not earned `may_filter` never blocks one.
    """

    def __init__(
        self,
        book: str,
        feed: Feed,
        extractor: FeatureExtractor,
        history: TradeHistory,
        predictor: Predictor | None = None,
        mode: PredictionMode = PredictionMode.OFF,
    ) -> None:
        self.extractor = extractor
        self.signals = 0
        self._book = book
        self._feed = feed
        self._history = history
        self._predictor = predictor
        self._mode = mode
        self._features: SignalFeatures
        self._closed: dict[Outcome, list[str]] = {outcome: [] for outcome in Outcome}
        self._rows: list[TradeFeatures] = []
        self._predictions: list[Prediction] = []

    def on_signal(self, signal: Signal, bank: IndicatorBank) -> Opinion:
        self.signals += 1
        self._features = self.extractor.extract(signal)
        if self._predictor is None or self._mode is PredictionMode.OFF:
            return Opinion(take=True)
        try:
            score = self._predictor.predict(self._features.values, signal.p_geometry)
        except ModelUnusable as error:
            log.error("model_unusable", signal=signal.key, reason=str(error))
            return Opinion(take=True)
        now = datetime.now(UTC)
        self._predictions.append(prediction_of(self._book, signal.key, self._predictor, score, self._mode, now))
        filters = self._mode is PredictionMode.FILTER and self._predictor.model.may_filter
        blocks = filters and score.decision == Decision.SKIP
        return Opinion(take=not blocks, reason="model_skips" if blocks else "")

    def on_decision(self, signal: Signal, not_taken_reason: str) -> None:
        """Hand the signal's features over to be stored, with what became of the signal."""
        found = self._features
        self._rows.append(
            TradeFeatures(
                book=self._book,
                signal_key=signal.key,
                symbol=signal.symbol,
                session=signal.session,
                signal_at=signal.at,
                feed=self._feed,
                feature_set=FEATURE_SET,
                bars_used=found.bars_used,
                complete=found.complete,
                missing=found.missing,
                taken=not not_taken_reason,
                not_taken_reason=not_taken_reason,
                **found.values,
            )
        )

    def on_closed(self, trade: Trade) -> None:
        """A trade has ended: from now on it is history."""
        self._history.add(trade.symbol, trade.outcome == Outcome.WIN, trade.r_multiple or 0.0)
        self._closed[Outcome(trade.outcome)].append(trade.signal_key)

    def flush(self) -> None:
        """Write what waits, in batches, and join outcomes to the predictions made of their signals."""
        rows, self._rows = self._rows, []
        predictions, self._predictions = self._predictions, []
        TradeFeatures.objects.bulk_create(rows, batch_size=500)
        Prediction.objects.bulk_create(predictions, batch_size=500)
        for outcome, keys in self._closed.items():
            Prediction.objects.filter(book=self._book, signal_key__in=keys).update(outcome=outcome)
            keys.clear()
