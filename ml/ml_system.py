"""The face the trading loop talks to: hears of every signal, stores its features, says what the model thinks of it."""

from collections.abc import Callable
from datetime import UTC, datetime

import structlog

from ml.feature_extractor import FeatureExtractor, SignalFeatures
from ml.feature_writer import Row, Writer
from ml.features import FEATURE_SET
from ml.predictor import ModelUnusable, Predictor, Score
from ml.serving import Served
from ml.words import MODEL_SKIPS, Decision, PredictionMode
from positions.history import TradeHistory
from positions.market.indicators import IndicatorBank
from positions.models import Trade
from positions.strategy import Opinion, Signal
from positions.words import Feed, Outcome

log = structlog.get_logger(__name__)


def prediction_of(
    book: str, signal_key: str, predictor: Predictor, score: Score, mode: PredictionMode, at: datetime
) -> Row:
    """A score as the row that is logged; what moved it and its outcome come later."""
    return {
        "book": book,
        "signal_key": signal_key,
        "model_id": predictor.model.pk,
        "mode": mode.value,
        "p_raw": score.p_raw,
        "p_win": score.p_win,
        "p_geometry": score.p_geometry,
        "threshold": score.threshold,
        "decision": score.decision.value,
        "reason": score.reason,
        "overridden": predictor.model.overridden,
        "contributions": None,
        "latency_us": score.latency_us,
        "predicted_at": at,
        "outcome": None,
    }


class MLSystem:
    """Implements positions.strategy.Adviser for one book.

    Nothing is written to the database while a signal is being decided: its rows go to `writer`. `served` says who is
    to be asked (Serving.served, as it is at the moment). Without a usable champion signals go on as if the mode were
    `off`; a model that has not earned `may_filter` never blocks one; the candidate is asked when all is decided.
    """

    def __init__(
        self,
        book: str,
        feed: Feed,
        extractor: FeatureExtractor,
        history: TradeHistory,
        served: Callable[[], Served],
        writer: Writer,
    ) -> None:
        self.extractor = extractor
        self.signals = 0
        self._book = book
        self._feed = feed
        self._history = history
        self._served = served
        self._writer = writer
        self._features: SignalFeatures
        self._asked = Served()
        self._predictions: list[Row] = []
        self._last_trouble = ""

    def on_signal(self, signal: Signal, bank: IndicatorBank) -> Opinion:
        self.signals += 1
        self._features = self.extractor.extract(signal)
        self._asked, self._predictions = self._served(), []
        champion, mode = self._asked.champion_at(signal.at), self._asked.mode
        if champion is None or mode is PredictionMode.OFF:
            return Opinion(take=True)
        score = self._score(champion, signal, mode)
        filters = mode is PredictionMode.FILTER and champion.model.may_filter
        blocks = filters and score is not None and score.decision is Decision.SKIP
        return Opinion(take=not blocks, reason=MODEL_SKIPS if blocks else "")

    def _score(self, predictor: Predictor, signal: Signal, mode: PredictionMode) -> Score | None:
        """What a model says of the signal, noted to be logged; None, with a log line for each new reason, if it cannot
        say."""
        try:
            score = predictor.predict(self._features.values, signal.p_geometry)
        except ModelUnusable as error:
            trouble = f"{predictor.model}: {error}"
            if trouble != self._last_trouble:
                log.error("model_unusable", signal=signal.key, model=str(predictor.model), reason=str(error))
            self._last_trouble = trouble
            return None
        prediction = prediction_of(self._book, signal.key, predictor, score, mode, datetime.now(UTC))
        self._predictions.append(prediction)
        return score

    def on_decision(self, signal: Signal, not_taken_reason: str) -> None:
        """Hand the signal's features over to be stored, with what became of the signal and what was predicted."""
        if self._asked.candidate is not None and self._asked.mode is not PredictionMode.OFF:
            self._score(self._asked.candidate, signal, PredictionMode.SHADOW)
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
        self._writer.hand_over(features, self._predictions)

    def on_closed(self, trade: Trade) -> None:
        """A trade has ended: from now on it is history."""
        self._history.add(trade)
        self._writer.join_outcome(self._book, trade.signal_key, Outcome(trade.outcome))

    def flush(self) -> None:
        """Write what waits: the rows of signals, and outcomes on the predictions made of them."""
        self._writer.flush()
