"""What a model's word on signals was worth: those that it let through beside those that it refused, by their plans.

Taken or not, every signal's plan is followed to its end after the same costs (positions/ledger.py,
positions/shadow.py), so that both sides are measured alike. Intervals are by session, and take sums by session only.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import NamedTuple

import numpy as np

from ml.impact import LEAST_SESSIONS, Verdict
from ml.statistics import Floats, Interval, session_error, student_interval, summed_interval


class Said(NamedTuple):
    """What a model said of a signal, and how the signal's plan ended: `r` in R after costs."""

    model: int
    refused: bool
    p_geometry: float
    won: bool
    r: float


@dataclass(frozen=True, slots=True)
class JudgedPlans:
    """Sums over the signals of a session that a model refused, or those that it let through: `n` >= 1, of them `won`,
    results `r` of their plans, and `p_geometry`."""

    model: int
    refused: bool
    n: int
    won: int
    r: float
    p_geometry: float


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two, `n` >= 1 signals. `right`: the share in which the model was right, WINs of what it let through,
    LOSSes of what it refused; `by_geometry` the same share by the plans' own odds."""

    n: int
    right: float
    right_interval: Interval | None
    by_geometry: float
    mean_r: float
    mean_r_interval: Interval | None


@dataclass(frozen=True, slots=True)
class GateWorth:
    """Of all `n` >= 1 signals the share that `won`, with `geometry` what their plans' own odds say of it; a side
    without a signal is None. `difference` is the mean R of what was let through less that of what was refused.

    Effective: what was refused made less than what was let through and less than nothing, both by more than chance
    explains. Harmful: it made more than what was let through, or more than nothing. Inconclusive otherwise, and below
    LEAST_SESSIONS.
    """

    n: int
    sessions: int
    won: float
    geometry: float
    let_through: Side | None
    refused: Side | None
    difference: float | None
    difference_interval: Interval | None
    verdict: Verdict


def judged_plans(said: Iterable[Said]) -> list[JudgedPlans]:
    """The signals of one session, by model, what was let through first."""
    by_side: dict[tuple[int, bool], list[Said]] = defaultdict(list)
    for each in said:
        by_side[each.model, each.refused].append(each)
    return [
        JudgedPlans(
            model=model,
            refused=refused,
            n=len(of),
            won=sum(each.won for each in of),
            r=sum(each.r for each in of),
            p_geometry=sum(each.p_geometry for each in of),
        )
        for (model, refused), of in sorted(by_side.items())
    ]


def gate_worth(by_session: Mapping[date, Sequence[JudgedPlans]]) -> GateWorth | None:
    """Of one model, both its sides at the most a session; None without a signal."""
    judged = [each for session in by_session.values() for each in session]
    if not judged:
        return None
    n = sum(each.n for each in judged)
    sessions = sum(map(bool, by_session.values()))
    let_through, refused = (_side([each for each in judged if each.refused is side]) for side in (False, True))
    both = let_through and refused and _difference(by_session.values(), let_through, refused)
    difference, interval = both or (None, None)
    return GateWorth(
        n=n,
        sessions=sessions,
        won=sum(each.won for each in judged) / n,
        geometry=sum(each.p_geometry for each in judged) / n,
        let_through=let_through,
        refused=refused,
        difference=difference,
        difference_interval=interval,
        verdict=_verdict(refused, interval) if sessions >= LEAST_SESSIONS else Verdict.INCONCLUSIVE,
    )


def _side(judged: Sequence[JudgedPlans]) -> Side | None:
    """Of one side, a session once."""
    if not judged:
        return None

    def each_session(value: Callable[[JudgedPlans], float]) -> Floats:
        return np.array([value(each) for each in judged], dtype=np.float64)

    counts, r = each_session(lambda each: each.n), each_session(lambda each: each.r)
    right = each_session(lambda each: each.n - each.won if each.refused else each.won)
    by_geometry = each_session(lambda each: each.n - each.p_geometry if each.refused else each.p_geometry)
    n, interval = counts.sum(), summed_interval(counts, right)
    return Side(
        n=int(n),
        right=float(right.sum() / n),
        right_interval=interval and interval.within(0.0, 1.0),
        by_geometry=float(by_geometry.sum() / n),
        mean_r=float(r.sum() / n),
        mean_r_interval=summed_interval(counts, r),
    )


def _difference(
    sessions: Iterable[Sequence[JudgedPlans]], let_through: Side, refused: Side
) -> tuple[float, Interval | None]:
    """The sessions are the same on both sides, so what a session adds to either mean is taken together."""

    def added(each: JudgedPlans) -> float:
        side, sign = (refused, -1) if each.refused else (let_through, 1)
        return sign * (each.r - each.n * side.mean_r) / side.n

    difference = let_through.mean_r - refused.mean_r
    parts = np.array([sum(map(added, session)) for session in sessions if session], dtype=np.float64)
    if len(parts) < 2 or np.allclose(parts, 0.0, atol=1e-12):
        return difference, None
    return difference, student_interval(difference, session_error(parts), len(parts))


def _verdict(refused: Side | None, difference: Interval | None) -> Verdict:
    if refused is None or refused.mean_r_interval is None or difference is None:
        return Verdict.INCONCLUSIVE
    if difference.low > 0 and refused.mean_r_interval.high < 0:
        return Verdict.EFFECTIVE
    if difference.high < 0 or refused.mean_r_interval.low > 0:
        return Verdict.HARMFUL
    return Verdict.INCONCLUSIVE
