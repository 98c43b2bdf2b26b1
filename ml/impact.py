"""Whether the exit rules help: what trades made beside what their plans alone would have made, trade by trade.

A trade's plan is its initial stop, its target and the session's close (positions/ledger.py). Both results are in R,
after the same costs, so that their difference is what the rule that closed the trade was worth. Only rules that act
before the plan ends can make one: the three early rules, and the stop that breakeven moved.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from enum import StrEnum
from math import ceil
from typing import Protocol

import numpy as np

from ml.statistics import Floats, Interval, clustered_error, clustered_interval
from positions.words import ExitReason, PlanDoubt

#: Exit reasons that are a rule's doing; every other one but `manual` is the plan's own.
RULES = (ExitReason.LOW_VOLUME, ExitReason.TIME_LIMIT, ExitReason.MOMENTUM_REVERSAL, ExitReason.BREAKEVEN_STOP)
PLANNED = (ExitReason.STOP, ExitReason.TARGET, ExitReason.SESSION_CLOSE)

#: A rule is worth its name where it makes the average loss smaller by this fraction.
LOSS_REDUCTION = 0.10
#: In R: a net effect that is surely above minus this does no harm; a half-width of this is what INCONCLUSIVE waits for.
SMALL_R = 0.05
#: Below so many sessions there is no verdict: their interval is too easily narrow by chance.
LEAST_SESSIONS = 20
#: What the follow-up of plans must reproduce before anything is concluded from it.
SAME_EXITS, MEDIAN_DIFFERENCE_R = 0.99, 0.02

_DOUBTS = {
    PlanDoubt.BOTH_TOUCHED: "stop and target in one bar of the plan",
    PlanDoubt.AT_LAST_PRICE: "no bar for the plan to leave in",
}

CAUTION = (
    "A smaller average loss proves nothing by itself: of 60,000 simulated trades on a market without drift, where "
    "nothing can help, the time limit and breakeven together cut it by 55% and changed the result by -0.001 R a trade "
    "(95%: -0.009 to +0.007); on a rising market they cut it by 56% and the result from +0.127 to +0.058 R. "
    "What counts is the net effect."
)


class Verdict(StrEnum):
    """`harmless`: smaller losses that were not paid for by more than SMALL_R a trade."""

    EFFECTIVE = "effective"
    HARMLESS = "harmless"
    HARMFUL = "harmful"
    INCONCLUSIVE = "inconclusive"


class ClosedTrade(Protocol):
    """What is asked of a closed trade and of its plan; money is dollars a share, R after costs."""

    @property
    def session(self) -> date: ...
    @property
    def managed(self) -> bool: ...
    @property
    def breakeven_set(self) -> bool: ...
    @property
    def quantity(self) -> int: ...
    @property
    def risk_per_share(self) -> Decimal | None: ...
    @property
    def exit_reason(self) -> str | None: ...
    @property
    def r_multiple(self) -> float | None: ...
    @property
    def plan_exit_reason(self) -> str | None: ...
    @property
    def plan_r(self) -> float | None: ...
    @property
    def plan_doubt(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Effect:
    """The same trades as they ended and as they would have ended otherwise. All in R but `net_dollars`, their sum.

    `average_loss_reduction`: 1 - mean losing result / mean losing result otherwise, None where either had no loser.
    `saved` by trades that would have lost and `given_up` by trades that would have won, over all n; `net` is the mean
    difference. `improvement`: net / |mean result otherwise|, None unless that is more than two standard errors from
    zero. Intervals by session. `trades_needed`: about how many more until the net effect is known to within SMALL_R;
    None where the verdict is reached or nothing can be said of it.
    """

    n: int
    sessions: int
    mean_r: float
    otherwise_mean_r: float
    average_loss_reduction: float | None
    average_loss_interval: Interval | None
    saved: float
    given_up: float
    net: float
    net_interval: Interval | None
    net_dollars: float
    improvement: float | None
    verdict: Verdict
    trades_needed: int | None


@dataclass(frozen=True, slots=True)
class Fidelity:
    """Trades that no rule touched, against their plans: `same` ended for the same reason."""

    n: int
    same: int
    median_difference_r: float | None

    @property
    def holds(self) -> bool:
        return (
            self.median_difference_r is not None
            and self.same >= SAME_EXITS * self.n
            and self.median_difference_r <= MEDIAN_DIFFERENCE_R
        )


@dataclass(frozen=True, slots=True)
class Impact:
    """Every rule by the trades that it closed, and all together by all trades that count.

    `excluded`: why so many closed trades do not count. Where fidelity does not hold there is no figure.
    """

    fidelity: Fidelity
    excluded: Mapping[str, int]
    together: Effect | None
    rules: Mapping[ExitReason, Effect]


def impact(trades: Iterable[ClosedTrade]) -> Impact:
    """Closed trades beside their own plans."""
    excluded: Counter[str] = Counter()
    counted = []
    for trade in trades:
        reason = why_excluded(trade)
        if reason:
            excluded[reason] += 1
        else:
            counted.append(trade)
    fidelity = _fidelity(counted)
    if not fidelity.holds:
        return Impact(fidelity, dict(excluded), None, {})
    by_rule = {rule: [trade for trade in counted if trade.exit_reason == rule] for rule in RULES}
    return Impact(
        fidelity,
        dict(excluded),
        beside_plan(counted),
        {rule: beside_plan(closed) for rule, closed in by_rule.items() if closed},
    )


def why_excluded(trade: ClosedTrade) -> str:
    """Why a closed trade says nothing of the rules; "" where it does."""
    if trade.exit_reason == ExitReason.MANUAL or not trade.managed:
        return "taken over by hand"
    if trade.r_multiple is None or trade.risk_per_share is None:
        return "initial risk not known"
    if trade.plan_r is None:
        return "end of the plan not known"
    return _DOUBTS[PlanDoubt(trade.plan_doubt)] if trade.plan_doubt else ""


def _fidelity(trades: Sequence[ClosedTrade]) -> Fidelity:
    untouched = [trade for trade in trades if trade.exit_reason in PLANNED and not trade.breakeven_set]
    same = sum(trade.exit_reason == trade.plan_exit_reason for trade in untouched)
    differences = np.abs(_results(untouched) - _plan_results(untouched))
    return Fidelity(len(untouched), same, float(np.median(differences)) if untouched else None)


def beside_plan(trades: Sequence[ClosedTrade]) -> Effect:
    """At least one trade, none of which `why_excluded` leaves out."""
    sessions = [trade.session.toordinal() for trade in trades]
    return effect(_results(trades), _plan_results(trades), sessions, dollars_at_risk(trades))


def _results(trades: Sequence[ClosedTrade]) -> Floats:
    return np.array([trade.r_multiple for trade in trades], dtype=np.float64)


def _plan_results(trades: Sequence[ClosedTrade]) -> Floats:
    return np.array([trade.plan_r for trade in trades], dtype=np.float64)


def dollars_at_risk(trades: Sequence[ClosedTrade]) -> Floats:
    """R in dollars of each trade, shape (n,)."""
    return np.array([float(trade.risk_per_share or 0) * trade.quantity for trade in trades], dtype=np.float64)


def effect(r: Floats, otherwise: Floats, sessions: Sequence[int], dollars: Floats) -> Effect:
    """Results in R of n >= 1 trades, and what the same trades made otherwise; each of shape (n,).

    `sessions[i]` names the session of trade i, `dollars[i]` is its R in dollars.
    """
    difference = r - otherwise
    n, net, net_interval = len(r), float(difference.mean()), clustered_interval(difference, sessions)
    reduction, reduction_interval = _average_loss_reduction(r, otherwise, sessions)
    days = len(set(sessions))
    verdict = _verdict(reduction, net_interval) if days >= LEAST_SESSIONS else Verdict.INCONCLUSIVE
    mean, error = float(otherwise.mean()), clustered_error(otherwise, sessions)
    return Effect(
        n=n,
        sessions=days,
        mean_r=float(r.mean()),
        otherwise_mean_r=mean,
        average_loss_reduction=reduction,
        average_loss_interval=reduction_interval,
        saved=float(difference[otherwise < 0].sum()) / n,
        given_up=float(-difference[otherwise > 0].sum()) / n,
        net=net,
        net_interval=net_interval,
        net_dollars=float((difference * dollars).sum()),
        improvement=net / abs(mean) if error is not None and abs(mean) > 2 * error else None,
        verdict=verdict,
        trades_needed=_trades_needed(n, net_interval) if verdict is Verdict.INCONCLUSIVE else None,
    )


def _verdict(reduction: float | None, net: Interval | None) -> Verdict:
    if net is None:
        return Verdict.INCONCLUSIVE
    if net.high < 0:
        return Verdict.HARMFUL
    if reduction is not None and reduction >= LOSS_REDUCTION:
        if net.low > 0:
            return Verdict.EFFECTIVE
        if net.low > -SMALL_R:
            return Verdict.HARMLESS
    return Verdict.INCONCLUSIVE


def _trades_needed(n: int, net: Interval | None) -> int | None:
    """The half-width shrinks with the root of n. None without an interval, or where it is as narrow already."""
    if net is None or net.width / 2 <= SMALL_R:
        return None
    return ceil(n * (net.width / 2 / SMALL_R) ** 2) - n


def _average_loss_reduction(
    r: Floats, otherwise: Floats, sessions: Sequence[int]
) -> tuple[float | None, Interval | None]:
    """1 - mean(r | r < 0) / mean(otherwise | otherwise < 0), and its interval.

    The interval is that of the mean of the ratio's linearisation: each trade's share in both means (Cochran 1977,
    Sampling Techniques, 6.4).
    """
    if np.array_equal(r, otherwise):
        return 0.0, None
    lost, would_lose = r < 0, otherwise < 0
    if not lost.any() or not would_lose.any():
        return None, None
    average, other = float(r[lost].mean()), float(otherwise[would_lose].mean())
    reduction = 1 - average / other
    own_part = lost * (r - average) / lost.mean()
    other_part = would_lose * (otherwise - other) / would_lose.mean()
    influence = (other_part * average / other - own_part) / other
    return reduction, clustered_interval(reduction + influence, sessions)
