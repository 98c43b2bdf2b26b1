"""A book before and after a date: what changed, with intervals, and what that can say."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ml.impact import LEAST_SESSIONS
from ml.performance_tracker import Sample
from ml.statistics import Floats, Interval, difference_interval

Days = NDArray[np.int64]

CAUTION = (
    "Sessions before and after a date differ in more than what was switched then: the market differs too. "
    "Only the same trades under both settings compare like with like (compare_exits)."
)


@dataclass(frozen=True, slots=True)
class Change:
    """A mean over trades after less before; the interval is at 95 %, by session. None where a side has no trade."""

    label: str
    n_before: int
    n_after: int
    sessions_before: int
    sessions_after: int
    change: float | None
    interval: Interval | None

    @property
    def verdict(self) -> str:
        if self.change is None:
            return "no trade on one side"
        if self.interval is None or min(self.sessions_before, self.sessions_after) < LEAST_SESSIONS:
            return "too few sessions"
        if self.interval.contains(0.0):
            return "may be chance"
        return f"{'higher' if self.change > 0 else 'lower'}, beyond chance"


def changes(before: Sample, after: Sample) -> tuple[Change, ...]:
    """Of trades whose R is known: their win rate and average R, and that of those that lost and that won."""
    r, days, r_after, days_after = before.r, _days(before), after.r, _days(after)
    return (
        _change("win rate", (r > 0).astype(np.float64), days, (r_after > 0).astype(np.float64), days_after),
        _change("average R", r, days, r_after, days_after),
        _change("average R, losers", r[r < 0], days[r < 0], r_after[r_after < 0], days_after[r_after < 0]),
        _change("average R, winners", r[r > 0], days[r > 0], r_after[r_after > 0], days_after[r_after > 0]),
    )


def _days(sample: Sample) -> Days:
    return np.array([trade.session.toordinal() for trade in sample.measured], dtype=np.int64)


def _change(label: str, before: Floats, days: Days, after: Floats, days_after: Days) -> Change:
    known = len(before) > 0 and len(after) > 0
    return Change(
        label=label,
        n_before=len(before),
        n_after=len(after),
        sessions_before=len(set(days.tolist())),
        sessions_after=len(set(days_after.tolist())),
        change=float(after.mean() - before.mean()) if known else None,
        interval=difference_interval(after, days_after.tolist(), before, days.tolist()) if known else None,
    )
