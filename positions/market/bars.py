"""Bars in memory: one bar, one minute of the whole universe, one session of it. Bars carry their start (UTC)."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from positions.market.calendar import Session

Floats = NDArray[np.float64]

#: Quantities of a bar, in the order in which arrays of them are stacked.
FIELDS = ("open", "high", "low", "close", "volume", "vwap")


@dataclass(frozen=True, slots=True)
class Universe:
    """The symbols that are watched together; every array over symbols is in this order.

    `sectors[i]` is "" where unknown. `sector_etfs[i]` names a symbol that may or may not be in the universe.
    `index` is the position of the market index, None where there is none. `tradable[i]` is False for a pseudo-symbol,
    for funds that only measure the market or a sector, and for what the watchlist excludes.
    """

    symbols: tuple[str, ...]
    sectors: tuple[str, ...]
    sector_etfs: tuple[str, ...]
    tradable: tuple[bool, ...]
    index: int | None

    def __len__(self) -> int:
        return len(self.symbols)


@dataclass(frozen=True, slots=True)
class BarBatch:
    """One bar of every symbol: arrays of shape (symbols,), NaN where a symbol had no trade.

    `share_above_vwap` is given where the market file knows it for a wider universe than ours.
    """

    start: datetime
    length: timedelta
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats
    vwap: Floats
    share_above_vwap: float | None = None

    @property
    def end(self) -> datetime:
        """When the bar is complete and may be looked at."""
        return self.start + self.length


@dataclass(frozen=True, slots=True)
class SessionBars:
    """One session of a universe: `values` has shape (6, bars, symbols) in the order of FIELDS, NaN where no bar.

    `vwap` is NaN throughout where the source has none. Prices in dollars, volume in shares of the feed.
    """

    session: Session
    length: timedelta
    universe: Universe
    values: Floats
    share_above_vwap: Floats | None = None

    def batches(self) -> Iterator[BarBatch]:
        values, share = self.values, self.share_above_vwap
        for i in range(values.shape[1]):
            above = None if share is None or np.isnan(share[i]) else float(share[i])
            opened, high, low, close, volume, vwap = values[:, i, :]
            yield BarBatch(
                self.session.open + i * self.length, self.length, opened, high, low, close, volume, vwap, above
            )

    @property
    def bar_count(self) -> int:
        """Bars of real symbols; an index that is only a calculation is not one."""
        real = np.array([not symbol.startswith("^") for symbol in self.universe.symbols])
        return int(np.isfinite(self.values[3][:, real]).sum())


class BarHistory:
    """The sessions before the current one, oldest first: what indicators open on and volume profiles are made of.

    Keeps at most `sessions` of them, in memory.
    """

    def __init__(self, sessions: int = 10) -> None:
        self._limit = sessions
        self._sessions: list[SessionBars] = []

    def append(self, bars: SessionBars) -> None:
        self._sessions = [*self._sessions, bars][-self._limit :]

    def recent(self, symbol: int, count: int) -> Floats:
        """The last bars of a symbol that exist, shape (6, at most count), oldest first."""
        parts: list[Floats] = []
        found = 0
        for bars in reversed(self._sessions):
            column = bars.values[:, :, symbol]
            column = column[:, np.isfinite(column[3])]
            parts.append(column)
            found += column.shape[1]
            if found >= count:
                break
        if not parts:
            return np.empty((len(FIELDS), 0))
        return np.concatenate(parts[::-1], axis=1)[:, -count:]

    def volume_profile(self, bars: int, symbols: int) -> Floats:
        """Mean volume of each bar of the session over the sessions kept, shape (bars, symbols); NaN where none.

        Early closes are shorter and count for the bars they have.
        """
        total: Floats = np.zeros((bars, symbols))
        count = np.zeros((bars, symbols))
        for past in self._sessions:
            volume = past.values[4][:bars]
            known = np.isfinite(volume)
            total[: len(volume)] += np.where(known, volume, 0.0)
            count[: len(volume)] += known
        total[count == 0] = np.nan
        return total / np.maximum(count, 1)
