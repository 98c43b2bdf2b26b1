"""Signals, the protocol a strategy fulfils, the default strategy, and the word it wants from above."""

from dataclasses import dataclass, field
from datetime import date, datetime
from typing import TYPE_CHECKING, Protocol

import numpy as np

from positions.words import SIGN, Side

if TYPE_CHECKING:
    from positions.market.indicators import IndicatorBank


@dataclass(frozen=True, slots=True)
class Signal:
    """A plan: enter `symbol` on `side` near `entry`, out at `stop` or `target`. Prices in dollars.

    `at` (aware UTC) is the end of the bar that gave it; `row` is the symbol's place in the universe.
    """

    symbol: str
    row: int
    side: Side
    at: datetime
    session: date
    entry: float
    stop: float
    target: float
    #: Who gave it, "" for the strategy itself.
    source: str = ""
    #: Names the signal within its book, the same in every run.
    key: str = field(init=False)

    def __post_init__(self) -> None:
        """Take what numpy hands out (a strategy reads arrays) and hold plain values. Raises ValueError for a side."""
        object.__setattr__(self, "row", int(self.row))
        object.__setattr__(self, "side", Side(self.side))
        for name in ("entry", "stop", "target"):
            object.__setattr__(self, name, float(getattr(self, name)))
        object.__setattr__(self, "key", f"{self.symbol}-{self.at:%Y%m%dT%H%M%SZ}-{self.side}")

    @property
    def risk(self) -> float:
        return abs(self.entry - self.stop)

    @property
    def reward(self) -> float:
        return abs(self.target - self.entry)

    @property
    def p_geometry(self) -> float:
        """Probability that a driftless random walk reaches the target before the stop (gambler's ruin); NaN for a plan
        without a distance."""
        whole = self.risk + self.reward
        return self.risk / whole if whole else float("nan")


class BadSignal(Exception):
    """A strategy gave something that is no signal of the market it was shown; the message names it."""


@dataclass(frozen=True, slots=True)
class Opinion:
    """What the model says of a signal. `take` is False only where the mode lets it block; `reason` says why."""

    take: bool
    reason: str = ""


class Adviser(Protocol):
    """The word from above: the loop hands over every signal and what became of it; ml answers, the roof plugs it in."""

    def on_signal(self, signal: Signal, bank: "IndicatorBank") -> Opinion: ...

    def on_decision(self, signal: Signal, not_taken_reason: str) -> None:
        """What became of the signal: "" if a trade was entered, else why not."""
        ...


class Strategy(Protocol):
    """Yours: a class without constructor arguments whose `signals` is called once a completed bar.

    It sees the market as arrays over symbols (`bank.close`, `bank.vwap`, `bank.ema20`, ...; NaN where not known yet)
    and must not look at anything else.
    """

    def signals(self, bank: "IndicatorBank") -> list[Signal]: ...


class OnlyWatching:
    """Gives no signal: what is open is watched, and nothing is entered."""

    def signals(self, bank: "IndicatorBank") -> list[Signal]:
        return []


class VwapCross:
    """Momentum entries: the close crosses the session's VWAP in the direction of EMA20 against EMA50.

    Not in the first or last 30 minutes of a session. The stop lies behind the extreme of the last 12 bars, the target
    at the session's extreme, each at 0.75 to 4 ATR from the entry.
    """

    QUIET_MINUTES = 30
    SWING_BARS = 12
    NEAREST_ATR, FARTHEST_ATR = 0.75, 4.0

    def signals(self, bank: "IndicatorBank") -> list[Signal]:
        if bank.minute_of_session < self.QUIET_MINUTES or bank.minutes_to_close < self.QUIET_MINUTES:
            return []
        above = bank.close > bank.vwap
        was_above = bank.previous_close > bank.previous_vwap
        known = bank.fresh & bank.ready & np.isfinite(bank.previous_vwap)
        long = known & above & ~was_above & (bank.ema20 > bank.ema50)
        short = known & ~above & was_above & (bank.ema20 < bank.ema50)
        rows = np.flatnonzero((long | short) & bank.tradable)
        return [self._plan(bank, int(row), Side.LONG if long[row] else Side.SHORT) for row in rows]

    def _plan(self, bank: "IndicatorBank", row: int, side: Side) -> Signal:
        entry, atr = float(bank.close[row]), float(bank.atr14[row])
        nearest, farthest = self.NEAREST_ATR * atr, self.FARTHEST_ATR * atr
        if side is Side.LONG:
            risk = entry - bank.lowest(row, self.SWING_BARS)
            reward = float(bank.session_high[row]) - entry
        else:
            risk = bank.highest(row, self.SWING_BARS) - entry
            reward = entry - float(bank.session_low[row])
        return Signal(
            symbol=bank.universe.symbols[row],
            row=row,
            side=side,
            at=bank.now,
            session=bank.session.day,
            entry=entry,
            stop=entry - SIGN[side] * min(max(risk, nearest), farthest),
            target=entry + SIGN[side] * min(max(reward, nearest), farthest),
        )
