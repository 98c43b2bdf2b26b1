"""Whether the exit rules help: what trades made beside what their plans alone would have made, trade by trade.

A trade's plan is its initial stop, its target and the session's close (positions/ledger.py). Both results are in R,
after costs (of a live trade what was taken, of its plan COST_PER_SHARE), so that their difference is what the rule that
closed the trade was worth. Only rules that act before the plan ends can make one: the three early rules, and the stop
that breakeven moved.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from enum import StrEnum
from math import ceil
from typing import Any, Protocol, Self

import numpy as np

from ml.statistics import Floats, Interval, session_error, student_interval, summed_error, summed_interval
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
#: What the follow-up of plans must reproduce before anything is concluded from it: so many exits, and more than half
#: of the results to within so many R.
SAME_EXITS, CLOSE_R = 0.99, 0.02

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
    """Trades that no rule touched, against their plans: `same` ended for the same reason, `close` with as good as the
    same result."""

    n: int
    same: int
    close: int

    @property
    def holds(self) -> bool:
        return self.n > 0 and self.same >= SAME_EXITS * self.n and self.close > self.n / 2


@dataclass(frozen=True, slots=True)
class Sums:
    """Sums over `n` >= 1 trades of one session, in R: results `r`, what the same trades made `otherwise`, and what was
    `saved` and `given_up`; their difference in `dollars`; how many `lost` and `would_lose`, and what these made."""

    n: int
    r: float
    otherwise: float
    saved: float
    given_up: float
    dollars: float
    lost: int
    lost_r: float
    would_lose: int
    would_lose_r: float


@dataclass(frozen=True, slots=True)
class SessionImpact:
    """One session's part in an `Impact`: by exit reason, and of all trades that count."""

    fidelity: Fidelity
    excluded: Mapping[str, int]
    reasons: Mapping[str, Sums]
    together: Sums | None

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Self:
        """What `asdict` made of one."""
        return cls(
            Fidelity(**stored["fidelity"]),
            stored["excluded"],
            {reason: Sums(**sums) for reason, sums in stored["reasons"].items()},
            Sums(**stored["together"]) if stored["together"] else None,
        )


@dataclass(frozen=True, slots=True)
class Impact:
    """Every exit reason by the trades that it closed, and all together by all trades that count.

    `excluded`: why so many closed trades do not count. Where fidelity does not hold there is no figure.
    """

    fidelity: Fidelity
    excluded: Mapping[str, int]
    together: Effect | None
    reasons: Mapping[str, Effect]

    @property
    def rules(self) -> Mapping[ExitReason, Effect]:
        """Of these the rules'."""
        return {rule: self.reasons[rule] for rule in RULES if rule in self.reasons}


def impact(trades: Iterable[ClosedTrade]) -> Impact:
    """Closed trades beside their own plans."""
    by_session: dict[date, list[ClosedTrade]] = defaultdict(list)
    for trade in trades:
        by_session[trade.session].append(trade)
    return summed_impact([session_impact(of) for of in by_session.values()])


def session_impact(trades: Iterable[ClosedTrade]) -> SessionImpact:
    """Closed trades of one session."""
    excluded: Counter[str] = Counter()
    by_reason: dict[str, list[ClosedTrade]] = defaultdict(list)
    for trade in trades:
        reason = why_excluded(trade)
        if reason:
            excluded[reason] += 1
        else:
            by_reason[str(trade.exit_reason)].append(trade)
    counted = [trade for of in by_reason.values() for trade in of]
    return SessionImpact(
        _fidelity(counted),
        dict(excluded),
        {reason: _sums(of) for reason, of in by_reason.items()},
        _sums(counted) if counted else None,
    )


def summed_impact(sessions: Sequence[SessionImpact]) -> Impact:
    """Of sessions, each given once."""
    excluded = Counter[str]()
    by_reason: dict[str, list[Sums]] = defaultdict(list)
    for session in sessions:
        excluded.update(session.excluded)
        for reason, sums in session.reasons.items():
            by_reason[reason].append(sums)
    witnesses = [session.fidelity for session in sessions]
    fidelity = Fidelity(
        sum(each.n for each in witnesses), sum(each.same for each in witnesses), sum(each.close for each in witnesses)
    )
    if not fidelity.holds:
        return Impact(fidelity, dict(excluded), None, {})
    return Impact(
        fidelity,
        dict(excluded),
        summed_effect([session.together for session in sessions if session.together]),
        {reason: summed_effect(sums) for reason, sums in by_reason.items()},
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
    close = np.abs(_results(untouched) - _plan_results(untouched)) <= CLOSE_R
    return Fidelity(len(untouched), same, int(close.sum()))


def _results(trades: Sequence[ClosedTrade]) -> Floats:
    return np.array([trade.r_multiple for trade in trades], dtype=np.float64)


def _plan_results(trades: Sequence[ClosedTrade]) -> Floats:
    return np.array([trade.plan_r for trade in trades], dtype=np.float64)


def dollars_at_risk(trades: Sequence[ClosedTrade]) -> Floats:
    """R in dollars of each trade, shape (n,)."""
    return np.array([float(trade.risk_per_share or 0) * trade.quantity for trade in trades], dtype=np.float64)


def _sums(trades: Sequence[ClosedTrade]) -> Sums:
    return session_sums(_results(trades), _plan_results(trades), dollars_at_risk(trades))


def session_sums(r: Floats, otherwise: Floats, dollars: Floats) -> Sums:
    """Results in R of n >= 1 trades of a session, what they made otherwise, and each one's R in dollars, all (n,)."""
    difference, lost, would_lose = r - otherwise, r < 0, otherwise < 0
    return Sums(
        n=len(r),
        r=float(r.sum()),
        otherwise=float(otherwise.sum()),
        saved=float(difference[would_lose].sum()),
        given_up=float(-difference[otherwise > 0].sum()),
        dollars=float((difference * dollars).sum()),
        lost=int(lost.sum()),
        lost_r=float(r[lost].sum()),
        would_lose=int(would_lose.sum()),
        would_lose_r=float(otherwise[would_lose].sum()),
    )


def effect(r: Floats, otherwise: Floats, sessions: Sequence[int], dollars: Floats) -> Effect:
    """Results in R of n >= 1 trades, and what the same trades made otherwise; each of shape (n,).

    `sessions[i]` names the session of trade i, `dollars[i]` is its R in dollars.
    """
    _, first, of = np.unique(np.asarray(sessions), return_index=True, return_inverse=True)
    inside = [of == session for session in range(len(first))]
    return summed_effect([session_sums(r[part], otherwise[part], dollars[part]) for part in inside])


def summed_effect(sessions: Sequence[Sums]) -> Effect:
    """The same of G >= 1 sessions, each given once; nothing that is said of trades takes more than these sums."""
    names = Sums.__dataclass_fields__
    of = {name: np.array([getattr(each, name) for each in sessions], dtype=np.float64) for name in names}
    total = {name: float(values.sum()) for name, values in of.items()}
    n, difference = int(total["n"]), of["r"] - of["otherwise"]
    net, net_interval = float(difference.sum()) / n, summed_interval(of["n"], difference)
    reduction, reduction_interval = _average_loss_reduction(of, total)
    verdict = _verdict(reduction, net_interval) if len(sessions) >= LEAST_SESSIONS else Verdict.INCONCLUSIVE
    mean, error = total["otherwise"] / n, summed_error(of["n"], of["otherwise"])
    return Effect(
        n=n,
        sessions=len(sessions),
        mean_r=total["r"] / n,
        otherwise_mean_r=mean,
        average_loss_reduction=reduction,
        average_loss_interval=reduction_interval,
        saved=total["saved"] / n,
        given_up=total["given_up"] / n,
        net=net,
        net_interval=net_interval,
        net_dollars=total["dollars"],
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
    of: Mapping[str, Floats], total: Mapping[str, float]
) -> tuple[float | None, Interval | None]:
    """1 - mean(r | r < 0) / mean(otherwise | otherwise < 0), and its interval, from sums a session and over all.

    The interval is that of the mean of the ratio's linearisation: each session's share in both means (Cochran 1977,
    Sampling Techniques, 6.4).
    """
    if not total["lost"] or not total["would_lose"]:
        return None, None
    average, other = total["lost_r"] / total["lost"], total["would_lose_r"] / total["would_lose"]
    reduction = 1 - average / other
    own_part = (of["lost_r"] - of["lost"] * average) / total["lost"]
    other_part = (of["would_lose_r"] - of["would_lose"] * other) / total["would_lose"]
    parts = (other_part * average / other - own_part) / other
    if len(parts) < 2 or np.allclose(parts, 0.0, atol=1e-12):
        return reduction, None
    return reduction, student_interval(reduction, session_error(parts), len(parts))
