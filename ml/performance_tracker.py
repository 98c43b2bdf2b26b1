"""What happened in each session of a book: read once, put into figures, stored in `ml_performance`."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import date
from functools import cached_property
from operator import attrgetter
from typing import NamedTuple

import numpy as np
from django.db.models import Count, Max, Sum

from ml import statistics
from ml.gate_worth import JudgedPlans, Said, judged_plans
from ml.impact import Impact, impact, session_impact
from ml.models import Performance, Prediction, TradeFeatures
from ml.statistics import Floats
from ml.words import MODEL_SKIPS, Decision
from positions.market.calendar import sessions_between
from positions.models import ErrorNote, ShadowTrade, StopMove, Trade
from positions.words import Outcome, StopMoveStatus, TradeStatus

#: What figures and reports are made of; any other column of a trade would be a query of its own.
_READ = (
    "signal_key", "symbol", "side", "status", "session", "signal_at", "entered_at", "entry_price", "quantity",
    "exited_at", "exit_price", "exit_reason", "pnl", "r_multiple", "outcome", "unprotected_seconds", "equity",
    "managed", "breakeven_set", "risk_per_share", "plan_exit_reason", "plan_outcome", "plan_r", "plan_doubt",
    "mae_r", "mfe_r",
)  # fmt: skip
_READ_OF_SHADOWS = ("signal_key", "session", "not_taken_reason", "plan_outcome", "plan_r")


class ScoredSignal(NamedTuple):
    """One prediction: microseconds of latency, and the outcome of its signal where that is known."""

    signal_key: str
    model_id: int
    p_win: float
    p_geometry: float
    decision: str
    latency_us: float
    outcome: str | None


@dataclass(slots=True)
class SessionRecord:
    """One session of one book. `trades` are all of them in order of closing, those not closed last."""

    day: date
    trades: list[Trade] = field(default_factory=list)
    complete: dict[str, bool] = field(default_factory=dict)  # a feature row's signal key: has it every feature?
    scores: list[ScoredSignal] = field(default_factory=list)
    breakeven_moves: int = 0
    shadows: list[ShadowTrade] = field(default_factory=list)  # those followed on paper to a certain end
    errors: int = 0

    @property
    def equity_return(self) -> float | None:
        """P/L after fees as a fraction of the equity that the first trade was sized on; 0 without a closed trade, None
        where that equity is not known."""
        pnl = [trade.pnl or 0 for trade in self.trades if trade.status == TradeStatus.CLOSED]
        sized = [trade for trade in self.trades if trade.equity]
        if not pnl:
            return 0.0
        first = min(sized, key=attrgetter("signal_at"), default=None)
        return float(sum(pnl) / first.equity) if first and first.equity else None


class Sample:
    """Some sessions of a book taken together: what figures are made of."""

    def __init__(self, records: Iterable[SessionRecord]) -> None:
        self.records = list(records)
        self.trades = [trade for record in self.records for trade in record.trades]
        self.closed = [trade for trade in self.trades if trade.status == TradeStatus.CLOSED]
        #: Closed trades whose initial risk, and with it R, is known.
        self.measured = [trade for trade in self.closed if trade.r_multiple is not None]
        self.scores = [score for record in self.records for score in record.scores]
        #: What was not taken, of that what the model skipped, and closed trades: those of which it is certain what
        #: their plans alone came to.
        self.shadows = [shadow for record in self.records for shadow in record.shadows]
        self.skipped = [shadow for shadow in self.shadows if shadow.not_taken_reason == MODEL_SKIPS]
        self.planned = [trade for trade in self.closed if trade.plan_r is not None and not trade.plan_doubt]

    @cached_property
    def pnl(self) -> Floats:
        """Dollars after fees of each closed trade."""
        return np.array([float(trade.pnl or 0) for trade in self.closed])

    @cached_property
    def r(self) -> Floats:
        """R of each measured trade."""
        return np.array([trade.r_multiple for trade in self.measured], dtype=np.float64)

    @cached_property
    def returns(self) -> Floats | None:
        """Fractions of equity, one a session of the exchange from the first to the last here, 0 for those without a
        trade; None where one is not known."""
        known = {record.day: record.equity_return for record in self.records}
        days = [session.day for session in sessions_between(min(known), max(known))] if known else []
        returns = [known.get(day, 0.0) for day in days]
        return None if None in returns else np.array(returns, dtype=np.float64)

    @cached_property
    def impact(self) -> Impact:
        return impact(self.closed)

    @property
    def judged(self) -> list[JudgedPlans]:
        """What each model said of signals, beside how their plans ended where that is certain."""
        followed: list[Trade | ShadowTrade] = [*self.planned, *self.shadows]
        ends = {
            each.signal_key: (each.plan_outcome == Outcome.WIN, each.plan_r)
            for each in followed
            if each.plan_r is not None
        }
        return judged_plans(
            Said(score.model_id, score.decision == Decision.SKIP, score.p_geometry, *ends[score.signal_key])
            for score in self.scores
            if score.signal_key in ends
        )

    @cached_property
    def wins(self) -> int:
        return sum(trade.outcome == Outcome.WIN for trade in self.closed)

    @property
    def feature_rows(self) -> int:
        return sum(len(record.complete) for record in self.records)

    @property
    def complete_rows(self) -> int:
        return sum(sum(record.complete.values()) for record in self.records)

    @property
    def signals(self) -> int:
        """Feature rows, and trades that lack one: a signal whose features were lost still counts."""
        lost = sum(trade.signal_key not in record.complete for record in self.records for trade in record.trades)
        return self.feature_rows + lost

    @cached_property
    def predicted(self) -> int:
        """Signals that some model scored."""
        return len({score.signal_key for score in self.scores})

    @property
    def prediction_p99_ms(self) -> float | None:
        if not self.scores:
            return None
        return float(np.percentile([score.latency_us for score in self.scores], 99)) / 1000

    @cached_property
    def exits(self) -> dict[str, int]:
        return dict(sorted(Counter(str(trade.exit_reason) for trade in self.closed).items()))

    @property
    def breakeven_moves(self) -> int:
        return sum(record.breakeven_moves for record in self.records)

    @property
    def unprotected_seconds(self) -> float:
        return sum(trade.unprotected_seconds for trade in self.trades)

    @property
    def errors(self) -> int:
        return sum(record.errors for record in self.records)


class PerformanceTracker:
    """The sessions of one book in figures.

    A session's trades are those that were entered in it and are closed. Its win rate counts results above zero after
    fees; its Sharpe is mean R / standard deviation (n - 1) over its trades, never annualised; its drawdown is in R
    along its trades in order of closing. `predictions` counts signals that some model scored.
    """

    def __init__(self, book: str) -> None:
        self.book = book

    def read(self, first: date = date.min, last: date = date.max) -> dict[date, SessionRecord]:
        """Everything known of the sessions that had a signal or an error, in order of time. Six queries however many
        there are, which read no other session. A prediction or a stop move of a signal that came after signals were
        read is left out with it."""
        records: dict[date, SessionRecord] = {}
        session_of: dict[str, date] = {}
        within = {"book": self.book, "session__range": (first, last)}
        features = TradeFeatures.objects.filter(**within).order_by()
        for key, day, complete in features.values_list("signal_key", "session", "complete"):
            session_of[key] = day
            records.setdefault(day, SessionRecord(day)).complete[key] = complete
        for trade in sorted(Trade.objects.filter(**within).only(*_READ), key=_closing_order):
            records.setdefault(trade.session, SessionRecord(trade.session)).trades.append(trade)
        predictions = Prediction.objects.filter(book=self.book, signal_key__in=features.values("signal_key"))
        for score in map(ScoredSignal._make, predictions.order_by().values_list(*ScoredSignal._fields)):
            if score.signal_key in session_of:  # else it came after its session was read
                records[session_of[score.signal_key]].scores.append(score)
        followed = ShadowTrade.objects.filter(**within, plan_outcome__isnull=False, plan_doubt__isnull=True)
        for shadow in followed.order_by("signal_key").only(*_READ_OF_SHADOWS):
            records.setdefault(shadow.session, SessionRecord(shadow.session)).shadows.append(shadow)
        moves = StopMove.objects.filter(
            book=self.book,
            status=StopMoveStatus.CONFIRMED,
            trade__book=self.book,  # the same, and by the index of a book's sessions
            trade__session__range=(first, last),
        )
        for day, count in moves.order_by().values_list("trade__session").annotate(Count("id")):
            if day in records:
                records[day].breakeven_moves = count
        errors = ErrorNote.objects.filter(**within).order_by().values_list("session").annotate(Sum("count"))
        for day, count in errors:
            records.setdefault(day, SessionRecord(day)).errors = count
        return dict(sorted(records.items()))

    def last_session(self) -> date | None:
        """The newest session that had a signal; None in a book without any."""
        newest = [
            model.objects.filter(book=self.book).aggregate(newest=Max("session"))["newest"]
            for model in (TradeFeatures, Trade)
        ]
        return max((day for day in newest if day), default=None)

    def record_session(self, day: date) -> Performance:
        """Put one session into figures and store them; a session without a signal has a row of zeros."""
        return self.record_sessions([day])[0]

    def record_sessions(self, days: Collection[date]) -> list[Performance]:
        """The same for many sessions, in the order given; the number of reads does not grow with them."""
        if not days:
            return []
        known = self.read(min(days), max(days))
        return self.store(known.get(day, SessionRecord(day)) for day in days)

    def store(self, records: Iterable[SessionRecord]) -> list[Performance]:
        """Write one row a session, replacing what was there."""
        rows = [self.figures(record) for record in records]
        Performance.objects.bulk_create(
            rows, update_conflicts=True, unique_fields=["book", "session"], update_fields=list(_figure_columns())
        )
        return rows

    def figures(self, record: SessionRecord) -> Performance:
        """A session in figures, which are not stored."""
        sample = Sample([record])
        pnl, r = sample.pnl, sample.r
        return Performance(
            book=self.book,
            session=record.day,
            signals=sample.signals,
            feature_rows=sample.feature_rows,
            complete_feature_rows=sample.complete_rows,
            trades=len(sample.closed),
            wins=sample.wins,
            losses=len(sample.closed) - sample.wins,
            pnl=sum(trade.pnl or 0 for trade in sample.closed),
            win_rate=statistics.win_rate(pnl),
            average_pnl=statistics.mean(pnl),
            average_r=statistics.mean(r),
            profit_factor=statistics.profit_factor(pnl),
            sharpe_per_trade=statistics.sharpe_per_trade(r),
            max_drawdown_r=statistics.max_drawdown_r(r),
            equity_return=record.equity_return,
            exits=sample.exits,
            exit_effects=asdict(session_impact(sample.closed)),
            judged=[asdict(each) for each in sample.judged],
            breakeven_moves=sample.breakeven_moves,
            predictions=sample.predicted,
            prediction_p99_ms=sample.prediction_p99_ms,
            unprotected_seconds=sample.unprotected_seconds,
            errors=sample.errors,
        )


def _figure_columns() -> Iterator[str]:
    named = (column.name for column in Performance._meta.concrete_fields)
    return (name for name in named if name not in {"id", "book", "session"})


def _closing_order(trade: Trade) -> tuple[bool, float, int]:
    return trade.exited_at is None, trade.exited_at.timestamp() if trade.exited_at else 0.0, trade.pk
