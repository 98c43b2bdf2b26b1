"""How far prices went while a trade lived and after it was left: what its worst and its best moment were."""

from bisect import bisect_left
from collections.abc import Sequence
from datetime import datetime

import numpy as np

from positions.market.bars import BarBatch, Floats
from positions.market.calendar import Session


class Excursions:
    """The lowest and the highest price of each symbol since the entry of its open trade, of which there is one at most.

    A bar that lies only partly in the trade's life is left out: it does not say on which side of entry or exit its
    prices were. Where a bar of its life was missed, nothing is known of a trade.
    """

    def __init__(self, symbols: int) -> None:
        self._lowest: Floats = np.full(symbols, np.inf)
        self._highest: Floats = np.full(symbols, -np.inf)
        self._entered: dict[int, datetime] = {}  # by row
        self._seen_until: datetime

    def open_session(self, session: Session) -> None:
        self._entered, self._seen_until = {}, session.open

    def follow(self, row: int, entered_at: datetime) -> None:
        """A trade was entered in the symbol of a row, or filled further."""
        if row not in self._entered and entered_at >= self._seen_until:
            self._entered[row] = entered_at
            self._forget(row)

    def on_bar(self, batch: BarBatch) -> None:
        """Take in a completed bar of every symbol; trades that ended in it have been asked for before."""
        if batch.start != self._seen_until:
            self._entered = {row: at for row, at in self._entered.items() if at >= batch.start}
        self._seen_until = batch.end
        np.fmin(self._lowest, batch.low, out=self._lowest)
        np.fmax(self._highest, batch.high, out=self._highest)
        for row, entered_at in self._entered.items():
            if entered_at > batch.start:
                self._forget(row)

    def end(self, row: int) -> tuple[float, float] | None:
        """Lowest and highest price since the entry, infinite where no bar lay in the trade's life; None if not known.

        The trade is followed no more.
        """
        if self._entered.pop(row, None) is None:
            return None
        return float(self._lowest[row]), float(self._highest[row])

    def _forget(self, row: int) -> None:
        self._lowest[row], self._highest[row] = np.inf, -np.inf


class Aftermath:
    """How far prices went between a trade's end and the session's close."""

    def open_session(self, session: Session) -> None:
        self._close = session.close
        self._starts: list[datetime] = []
        self._low: list[Floats] = []
        self._high: list[Floats] = []
        self._seen_until = session.open
        self._known_from = session.open

    def on_bar(self, batch: BarBatch) -> None:
        """Take in a completed bar of every symbol. After one that was missed nothing is known of what ended before."""
        if batch.start != self._seen_until:
            self._known_from = batch.start
        self._seen_until = batch.end
        self._starts.append(batch.start)
        self._low.append(batch.low)
        self._high.append(batch.high)

    def of(self, ends: Sequence[tuple[int, datetime]]) -> list[tuple[float, float] | None]:
        """At the close, for each row and moment of an end: lowest and highest price over the bars that began at that
        moment or later. None without such a bar, and where a bar was missed."""
        if not self._starts or self._seen_until < self._close:
            return [None for _ in ends]
        lowest = np.fmin.accumulate(np.array(self._low)[::-1])[::-1]
        highest = np.fmax.accumulate(np.array(self._high)[::-1])[::-1]
        found: list[tuple[float, float] | None] = []
        for row, ended_at in ends:
            first = bisect_left(self._starts, ended_at)
            known = first < len(self._starts) and ended_at >= self._known_from and np.isfinite(lowest[first, row])
            found.append((float(lowest[first, row]), float(highest[first, row])) if known else None)
        return found
