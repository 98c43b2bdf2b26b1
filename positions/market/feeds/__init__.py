"""Where bars come from. A feed that is replayed hands over whole sessions; the loop still sees them bar by bar."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Protocol

from positions.market.bars import SessionBars, Universe
from positions.words import Feed as FeedName


@dataclass(frozen=True, slots=True)
class VixReading:
    """A VIX level known before a session opens, and where it comes from (`cboe`, `vixy`, `realised`, `simulated`)."""

    level: float
    source: str


class ReplayFeed(Protocol):
    name: FeedName
    universe: Universe
    length: timedelta

    def sessions(self) -> Iterator[tuple[SessionBars, bool]]:
        """Sessions in order of time; False beside those that only warm the indicators up."""
        ...

    def vix_before(self, day: date) -> VixReading | None:
        """The last VIX close strictly before a session."""
        ...
