"""What kind of market it is: regime, breadth and sector strength, from the same arrays that carry the indicators."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from positions.market.bars import Universe
from positions.market.indicators import IndicatorBank


class Regime(StrEnum):
    TREND_UP = "trend_up"
    TREND_DOWN = "trend_down"
    RANGE = "range"
    STORM = "storm"


# Entered beyond the first number, left inside the second: a regime does not flicker at a boundary.
STORM_ENTER, STORM_LEAVE = 2.0, 1.5
TREND_ENTER, TREND_LEAVE = 1.0, 0.5


def next_regime(current: Regime, trend: float, volatility: float) -> Regime:
    """The regime after one more bar.

    `trend` is (EMA20 - EMA50) of the index in its own ATR; `volatility` the mean absolute return of its last 30 bars
    against the usual one. A storm (volatility twice the usual) outranks a trend (EMAs an ATR apart). Unknown inputs
    leave the regime as it is.
    """
    if np.isnan(trend) or np.isnan(volatility):
        return current
    if volatility > (STORM_LEAVE if current is Regime.STORM else STORM_ENTER):
        return Regime.STORM
    if trend > (TREND_LEAVE if current is Regime.TREND_UP else TREND_ENTER):
        return Regime.TREND_UP
    if -trend > (TREND_LEAVE if current is Regime.TREND_DOWN else TREND_ENTER):
        return Regime.TREND_DOWN
    return Regime.RANGE


def _share(which: NDArray[np.bool_], of: NDArray[np.bool_]) -> float:
    """NaN where `of` is empty."""
    total = np.count_nonzero(of)
    return np.count_nonzero(which & of) / total if total else float("nan")


@dataclass(frozen=True, slots=True)
class Sectors:
    """Who belongs to which sector, as rows of the universe; `etf` is None where the universe has no fund for it."""

    members: dict[str, NDArray[np.int64]]
    etf: dict[str, int | None]

    @classmethod
    def of(cls, universe: Universe) -> "Sectors":
        rows: dict[str, list[int]] = {}
        etf: dict[str, int | None] = {}
        row_of = {symbol: row for row, symbol in enumerate(universe.symbols)}
        for row, (sector, fund) in enumerate(zip(universe.sectors, universe.sector_etfs, strict=True)):
            if sector and universe.tradable[row]:
                rows.setdefault(sector, []).append(row)
                etf.setdefault(sector, row_of.get(fund))
        return cls({sector: np.array(members) for sector, members in rows.items()}, etf)


class MarketState:
    """The market as a whole after the last bar: call `update` after the bank's."""

    def __init__(self, bank: IndicatorBank) -> None:
        self._bank = bank
        self._sectors = Sectors.of(bank.universe)
        self._stocks = bank.tradable
        self.regime = Regime.RANGE
        self._before = Regime.RANGE

    def open_session(self) -> None:
        """A session starts in a range, so that a restart arrives at the same regime."""
        self.regime = Regime.RANGE

    def update(self) -> None:
        self._before = self.regime
        self.revise()

    def revise(self) -> None:
        """The bank's last bar was revised: the regime is that which it leads to."""
        bank, index = self._bank, self._bank.universe.index
        if index is None or not bank.fresh[index]:
            return
        closes = bank.closes(index, 31)
        moves = float(np.abs(closes[1:] / closes[:-1] - 1.0).mean())
        trend = (bank.ema20[index] - bank.ema50[index]) / bank.atr14[index] if bank.atr14[index] > 0 else np.nan
        usual = bank.usual_index_move
        self.regime = next_regime(self._before, float(trend), moves / usual if usual > 0 else float("nan"))

    def breadth_ema20(self) -> float:
        """Share of the stocks with a known EMA20 that trade above it; NaN where none is known."""
        bank = self._bank
        return _share(bank.close > bank.ema20, self._stocks & np.isfinite(bank.ema20))

    def breadth_vwap(self) -> float:
        """Share of stocks above their session VWAP: the market file's where it has one, else the universe's."""
        bank = self._bank
        if bank.share_above_vwap is not None:
            return bank.share_above_vwap
        return _share(bank.close > bank.vwap, self._stocks & np.isfinite(bank.vwap))

    def sector_return(self, row: int) -> float:
        """Return of a symbol's sector since the open: of its fund, else the mean of its stocks. NaN where unknown."""
        sector = self._bank.universe.sectors[row]
        if sector not in self._sectors.members:
            return float("nan")
        returns = self._bank.session_returns()
        etf = self._sectors.etf[sector]
        if etf is not None and np.isfinite(returns[etf]):
            return float(returns[etf])
        known = returns[self._sectors.members[sector]]
        known = known[np.isfinite(known)]
        return float(known.mean()) if len(known) else float("nan")
