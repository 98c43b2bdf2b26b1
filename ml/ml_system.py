"""The face the trading loop talks to: hears of every signal, stores its features, says what the model thinks of it."""

from datetime import UTC, datetime

import structlog

from ml.feature_extractor import FeatureExtractor, SignalFeatures
from ml.feature_writer import MemoryWriter, Row, Writer
from ml.features import FEATURE_SET
from ml.models import Prediction
from ml.predictor import ModelUnusable, Predictor, Score
from ml.words import MODEL_SKIPS, Decision, PredictionMode
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

    Nothing is written to the database while a signal is being decided: its rows go to `writer`. Without a usable model
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
        writer: Writer | None = None,
    ) -> None:
        self.extractor = extractor
        self.signals = 0
        self._book = book
        self._feed = feed
        self._history = history
        self._predictor = predictor
        self._mode = mode
        self._writer = writer or MemoryWriter()
        self._features: SignalFeatures
        self._prediction: Prediction | None = None

    def on_signal(self, signal: Signal, bank: IndicatorBank) -> Opinion:
        self.signals += 1
        self._features = self.extractor.extract(signal)
        self._prediction = None
        if self._predictor is None or self._mode is PredictionMode.OFF:
            return Opinion(take=True)
        try:
            score = self._predictor.predict(self._features.values, signal.p_geometry)
        except ModelUnusable as error:
            log.error("model_unusable", signal=signal.key, reason=str(error))
            return Opinion(take=True)
        now = datetime.now(UTC)
        self._prediction = prediction_of(self._book, signal.key, self._predictor, score, self._mode, now)
        filters = self._mode is PredictionMode.FILTER and self._predictor.model.may_filter
        blocks = filters and score.decision == Decision.SKIP
        return Opinion(take=not blocks, reason=MODEL_SKIPS if blocks else "")

    def on_decision(self, signal: Signal, not_taken_reason: str) -> None:
        """Hand the signal's features over to be stored, with what became of the signal and what was predicted."""
        found = self._features
        features = {
            "book": self._book,
            "signal_key": signal.key,
            "symbol": signal.symbol,
            "session": signal.session,
            "signal_at": signal.at,
            "feed": self._feed,
            "feature_set": FEATURE_SET,
            "bars_used": found.bars_used,
            "complete": found.complete,
            "missing": found.missing,
            "taken": not not_taken_reason,
            "not_taken_reason": not_taken_reason,
            **found.values,
        }
        self._writer.hand_over(features, _row(self._prediction) if self._prediction else None)

    def on_closed(self, trade: Trade) -> None:
        """A trade has ended: from now on it is history."""
        self._history.add(trade)
        self._writer.join_outcome(self._book, trade.signal_key, Outcome(trade.outcome))

    def flush(self) -> None:
        """Write what waits: the rows of signals, and outcomes on the predictions made of them."""
        self._writer.flush()


def _row(prediction: Prediction) -> Row:
    return {field.attname: getattr(prediction, field.attname) for field in Prediction._meta.concrete_fields}
