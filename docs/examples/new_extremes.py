"""A strategy of one's own, small enough to read: a new extreme of the session on heavy volume, followed."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from positions.strategy import Signal
from positions.words import Side

if TYPE_CHECKING:
    from positions.market.indicators import IndicatorBank


class NewExtremes:
    """Long where a bar closes at the session's high above VWAP, short where it closes at its low below VWAP.

    Only on at least twice the volume that the symbol usually has in that minute, and not within half an hour of the
    open or the close.
    """

    QUIET_MINUTES = 30
    RELATIVE_VOLUME = 2.0
    STOP_ATR, TARGET_ATR = 2.0, 3.0

    def signals(self, bank: "IndicatorBank") -> list[Signal]:
        if min(bank.minute_of_session, bank.minutes_to_close) < self.QUIET_MINUTES:
            return []
        usable = bank.fresh & bank.ready & bank.tradable
        long = usable & (bank.close >= bank.session_high) & (bank.close > bank.vwap)
        short = usable & (bank.close <= bank.session_low) & (bank.close < bank.vwap)
        return [
            *self._plans(bank, np.flatnonzero(long), Side.LONG),
            *self._plans(bank, np.flatnonzero(short), Side.SHORT),
        ]

    def _plans(self, bank: "IndicatorBank", rows: Iterable[int], side: Side) -> list[Signal]:
        sign = 1 if side is Side.LONG else -1
        return [
            Signal(
                symbol=bank.universe.symbols[row],
                row=row,
                side=side,
                at=bank.now,
                session=bank.session.day,
                entry=bank.close[row],
                stop=bank.close[row] - sign * self.STOP_ATR * bank.atr14[row],
                target=bank.close[row] + sign * self.TARGET_ATR * bank.atr14[row],
            )
            for row in rows
            if bank.relative_volume(row) >= self.RELATIVE_VOLUME
        ]
