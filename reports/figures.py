"""The figures of the daily report, each with its n, its interval, and the reason where it is undefined."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import NamedTuple

import numpy as np

from ml import statistics
from ml.performance_tracker import Sample
from ml.statistics import Floats, Interval
from positions.models import ShadowTrade, Trade

#: Below this many trades an average says nothing: the half-width of its interval is about 0.4 R.
FEW_TRADES = 30
#: Below this many sessions the interval of an annual Sharpe ratio is wider than from -2 to +2.
ENOUGH_SESSIONS = 60


@dataclass(frozen=True, slots=True)
class Figure:
    """A number that can be judged. `text` is the value as people read it; where it is None, `why` says why.

    `detail` is its interval, or the counts behind a share, in words. `few`: an average over so few trades that it
    says nothing.
    """

    value: float | None
    n: int
    text: str
    interval: Interval | None = None
    detail: str = ""
    why: str = ""
    few: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """One figure of the session and the same of the whole book up to it, its baseline. `counted` is what n counts,
    `admin_path` leads to the rows that the session's is made of."""

    key: str
    label: str
    explanation: str
    counted: str
    session: Figure
    book: Figure
    admin_path: str = ""


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def dollars(amount: float | Decimal) -> str:
    rounded = round(float(amount), 2)
    return f"{'-' if rounded < 0 else '+' if rounded > 0 else ''}${abs(rounded):,.2f}"


def in_r(value: float | None) -> str:
    return "–" if value is None else f"{value:+z.2f} R"


def _count(value: float, n: int, text: str = "") -> Figure:
    return Figure(value, n, text or f"{value:,.0f}")


def _measured(
    value: float | None, n: int, pattern: str, unit: str, why: str, interval: Interval | None = None
) -> Figure:
    if value is None:
        return Figure(None, n, "–", why=why)
    between = f"{pattern.format(interval.low)} to {pattern.format(interval.high)}{unit}" if interval else ""
    return Figure(value, n, pattern.format(value) + unit, interval, between, few=n < FEW_TRADES)


def _rate(hits: int, n: int) -> Figure:
    if n == 0:
        return Figure(None, 0, "–", why="no signals")
    return Figure(hits / n, n, f"{hits / n:.1%}", detail=f"{hits:,} of {n:,}")


def _share(sample: Sample, hits: Floats, sessions: Sequence[int], why: str) -> Figure:
    """The mean of zeros and ones, of trades of these sessions."""
    interval = statistics.share_interval(int(hits.sum()), len(hits))
    if len(sample.records) > 1:
        interval = statistics.clustered_share_interval(hits, sessions)
    return _measured(statistics.mean(hits), len(hits), "{:.1%}", "", why, interval)


def _win_rate(sample: Sample) -> Figure:
    return _share(sample, (sample.pnl > 0).astype(float), _sessions(sample.closed), "no trades")


def _average(sample: Sample, r: Floats, sessions: Sequence[int], why: str) -> Figure:
    """Mean R of trades of these sessions."""
    interval = statistics.clustered_interval(r, sessions if len(sample.records) > 1 else range(len(r)))
    return _measured(statistics.mean(r), len(r), "{:+z.2f}", " R", why, interval)


def mean_r(sample: Sample, trades: Collection[Trade]) -> Figure:
    r = np.array([trade.r_multiple for trade in trades], dtype=np.float64)
    return _average(sample, r, _sessions(trades), "no trades with a known risk")


_NOT_SKIPPED, _NO_PLAN = "the model skipped nothing that was followed", "no trade whose plan's end is certain"


def _plan_results(trades: Collection[Trade | ShadowTrade]) -> Floats:
    return np.array([trade.plan_r for trade in trades], dtype=np.float64)


def _plans_lost(sample: Sample, trades: Collection[Trade | ShadowTrade], why: str) -> Figure:
    return _share(sample, (_plan_results(trades) <= 0).astype(float), _sessions(trades), why)


def _plans_mean_r(sample: Sample, trades: Collection[Trade | ShadowTrade], why: str) -> Figure:
    return _average(sample, _plan_results(trades), _sessions(trades), why)


def exit_figure(sample: Sample, reason: str) -> Figure:
    return mean_r(sample, [trade for trade in sample.measured if trade.exit_reason == reason])


def _sessions(trades: Collection[Trade | ShadowTrade]) -> list[int]:
    return [trade.session.toordinal() for trade in trades]


def _daily(
    sample: Sample, statistic: Callable[[Floats], float | None], why: str, interval: Interval | None = None
) -> Figure:
    returns = sample.returns
    if returns is None:
        return Figure(None, 0, "–", why="the account's equity is not known")
    if len(returns) < ENOUGH_SESSIONS:
        return Figure(None, len(returns), "–", why=f"too early: {len(returns)} of {ENOUGH_SESSIONS} sessions")
    return _measured(statistic(returns), len(returns), "{:+z.2f}", "", why, interval)


def _daily_sharpe(sample: Sample) -> Figure:
    interval = None if sample.returns is None else statistics.daily_sharpe_interval(sample.returns)
    return _daily(sample, statistics.daily_sharpe, "every session had the same result", interval)


def _max_drawdown(sample: Sample) -> Figure:
    returns = sample.returns
    if returns is None:
        return Figure(None, 0, "–", why="the account's equity is not known")
    return _measured(statistics.max_drawdown(returns), len(returns), "{:.2%}", "", "no session")


class _Definition(NamedTuple):
    key: str
    label: str
    explanation: str
    counted: str
    figure: Callable[[Sample], Figure]


DEFINITIONS = (
    _Definition(
        "trades",
        "Trades closed",
        "Entered in the session and closed; n is all trades, those still open or never filled included.",
        "trade",
        lambda sample: _count(len(sample.closed), len(sample.trades)),
    ),
    _Definition(
        "wins",
        "Wins",
        "Result above zero after fees; exactly zero is a loss.",
        "trade",
        lambda sample: _count(sample.wins, len(sample.closed)),
    ),
    _Definition(
        "losses",
        "Losses",
        "All other closed trades.",
        "trade",
        lambda sample: _count(len(sample.closed) - sample.wins, len(sample.closed)),
    ),
    _Definition(
        "win_rate",
        "Win rate",
        "Wins / trades. Interval: Wilson's for the session, clustered by session for the book.",
        "trade",
        _win_rate,
    ),
    _Definition(
        "pnl",
        "P/L after fees",
        "Dollars.",
        "trade",
        lambda sample: _count(float(sample.pnl.sum()), len(sample.closed), dollars(float(sample.pnl.sum()))),
    ),
    _Definition(
        "average_r",
        "Average R",
        "Mean result in units of the initial risk, after fees. Interval: Student's; over the session's trades as if "
        "they were independent (they are not quite, the truth is wider), clustered by session for the book.",
        "trade",
        lambda sample: mean_r(sample, sample.measured),
    ),
    _Definition(
        "profit_factor",
        "Profit factor",
        "Dollars gained / dollars lost.",
        "trade",
        lambda sample: _measured(
            statistics.profit_factor(sample.pnl), len(sample.closed), "{:.2f}", "", "nothing was lost"
        ),
    ),
    _Definition(
        "sharpe_per_trade",
        "Sharpe per trade",
        "Mean R / standard deviation of R, not annualised.",
        "trade",
        lambda sample: _measured(
            statistics.sharpe_per_trade(sample.r), len(sample.r), "{:+z.2f}", "", "needs two different results"
        ),
    ),
    _Definition(
        "max_drawdown_r",
        "Largest drawdown",
        "Largest fall of the running sum of R, trade by trade in order of closing.",
        "trade",
        lambda sample: _measured(
            statistics.max_drawdown_r(sample.r), len(sample.r), "{:.2f}", " R", "no trades with a known risk"
        ),
    ),
    _Definition(
        "daily_sharpe",
        "Sharpe, by day",
        "Mean / standard deviation of the sessions' returns on equity x root of 252; sessions of the exchange without "
        "a trade count as zero. Interval: Lo's (2002).",
        "session",
        _daily_sharpe,
    ),
    _Definition(
        "daily_sortino",
        "Sortino, by day",
        "The same, but over the root of the mean square of losing sessions, taken over all sessions.",
        "session",
        lambda sample: _daily(sample, statistics.sortino, "no session lost"),
    ),
    _Definition(
        "max_drawdown",
        "Largest drawdown, equity",
        "Largest fall of equity at the sessions' ends below its highest so far, each session's return earned on the "
        "equity before it.",
        "session",
        _max_drawdown,
    ),
    _Definition(
        "feature_rows",
        "Features collected",
        "Signals whose features were stored.",
        "signal",
        lambda sample: _rate(sample.feature_rows, sample.signals),
    ),
    _Definition(
        "complete_feature_rows",
        "Features complete",
        "Signals with every feature that could be known.",
        "signal",
        lambda sample: _rate(sample.complete_rows, sample.signals),
    ),
    _Definition(
        "predictions",
        "Signals scored",
        "Signals for which a model gave a probability.",
        "signal",
        lambda sample: _rate(sample.predicted, sample.signals),
    ),
    _Definition(
        "prediction_p99_ms",
        "Scoring time, p99",
        "99 of 100 predictions were at least as fast, from features to decision.",
        "prediction",
        lambda sample: _measured(sample.prediction_p99_ms, len(sample.scores), "{:.2f}", " ms", "no predictions"),
    ),
    _Definition(
        "skipped_lost",
        "Skipped, would have lost",
        "Of the signals that the model skipped, the share whose plans, followed on paper, ended as a LOSS: the gate's "
        "precision, beside that of the trades below. Plans of uncertain end are left out. Interval: as Win rate.",
        "signal",
        lambda sample: _plans_lost(sample, sample.skipped, _NOT_SKIPPED),
    ),
    _Definition(
        "skipped_r",
        "Skipped, average R",
        "What the same signals would have made. Below zero the gate saved money.",
        "signal",
        lambda sample: _plans_mean_r(sample, sample.skipped, _NOT_SKIPPED),
    ),
    _Definition(
        "taken_lost",
        "Taken, plan lost",
        "Of the closed trades, the share whose plans alone ended as a LOSS.",
        "trade",
        lambda sample: _plans_lost(sample, sample.planned, _NO_PLAN),
    ),
    _Definition(
        "taken_plan_r",
        "Taken, average R of plans",
        "What the same trades would have made by their plans alone.",
        "trade",
        lambda sample: _plans_mean_r(sample, sample.planned, _NO_PLAN),
    ),
    _Definition(
        "breakeven_moves",
        "Breakeven moves",
        "Stops that the broker confirmed at breakeven.",
        "trade",
        lambda sample: _count(sample.breakeven_moves, len(sample.trades)),
    ),
    _Definition(
        "unprotected_seconds",
        "Seconds unprotected",
        "Time that filled shares had no stop at the broker, summed over trades.",
        "trade",
        lambda sample: _count(sample.unprotected_seconds, len(sample.trades), f"{sample.unprotected_seconds:,.1f} s"),
    ),
    _Definition(
        "errors",
        "Errors",
        "Unexpected failures, of one position, a tick or what hears of a trade, after which trading went on.",
        "session",
        lambda sample: _count(sample.errors, len(sample.records)),
    ),
)


def lines(session: Sample, book: Sample) -> tuple[Line, ...]:
    """Every figure of a session beside the same of its book."""
    return tuple(
        Line(key, label, explanation, counted, figure(session), figure(book))
        for key, label, explanation, counted, figure in DEFINITIONS
    )


def exit_lines(session: Sample, book: Sample) -> tuple[Line, ...]:
    """Mean R of the trades that each reason closed, the session's most frequent first."""
    reasons = sorted(book.exits, key=lambda reason: (-session.exits.get(reason, 0), reason))
    return tuple(
        Line(reason, reason, "", "trade", exit_figure(session, reason), exit_figure(book, reason)) for reason in reasons
    )
