"""Where bars come from. A feed that is replayed hands over whole sessions; the loop still sees them bar by bar."""

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Protocol

from positions.market.bars import Floats, SessionBars, Universe
from positions.words import Feed as FeedName


@dataclass(frozen=True, slots=True)
class VixReading:
    """A VIX level known before a session opens, and where it comes from (`cboe`, `vixy`, `realised`, `simulated`)."""

    level: float
    source: str


#: A close older than this, in calendar days, says nothing of a session: the history has ended before it.
OLDEST_VIX_DAYS = 7


@dataclass(frozen=True, slots=True, eq=False)
class VixHistory:
    """VIX closes by New York date, oldest first."""

    days: tuple[date, ...]
    closes: Floats
    source: str

    def before(self, day: date) -> VixReading | None:
        """The last close strictly before a day, None where there is none of the week before."""
        known = bisect_left(self.days, day)
        if not known or (day - self.days[known - 1]).days > OLDEST_VIX_DAYS:
            return None
        return VixReading(float(self.closes[known - 1]), self.source)


class ReplayFeed(Protocol):
    name: FeedName
    universe: Universe
    length: timedelta
    vix: VixHistory | None

    def sessions(self) -> Iterator[tuple[SessionBars, bool]]:
        """Sessions in order of time; False beside those that only warm the indicators up."""
        ...
