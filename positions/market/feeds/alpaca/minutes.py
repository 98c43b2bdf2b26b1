"""The minutes of a session, put together from bars that come early, late, twice or corrected."""

import queue
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import structlog

from positions.market.bar_files import MINUTE, BarRows, Mask, Whole, joined, microseconds
from positions.market.bars import FIELDS, BarBatch, Floats, Universe
from positions.market.calendar import Session
from positions.market.feeds.alpaca.counts import FeedCounts
from positions.market.quarantine import PriceMemory, is_far, is_sane, quarantine

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Arrival:
    """A minute of the universe, or later news of the last one: `revises` batches have only the symbols that changed."""

    batch: BarBatch
    revises: bool


@dataclass(frozen=True, slots=True)
class Placed:
    """Bars with the minute of the session and the column of the universe that each belongs to."""

    minutes: Whole
    columns: Whole
    rows: BarRows

    def take(self, wanted: Mask) -> "Placed":
        return Placed(self.minutes[wanted], self.columns[wanted], self.rows.take(wanted))


@dataclass(frozen=True, slots=True)
class _Minute:
    """What has come of one minute, arrays over the universe: `values` (6, symbols)."""

    has: Mask
    values: Floats
    trade_count: Floats
    seen_at: Whole

    @classmethod
    def empty(cls, symbols: int) -> "_Minute":
        return cls(
            np.zeros(symbols, dtype=bool),
            np.full((len(FIELDS), symbols), np.nan),
            np.full(symbols, np.nan),
            np.zeros(symbols, dtype=np.int64),
        )

    def put(self, placed: Placed) -> None:
        self.has[placed.columns] = True
        self.values[:, placed.columns] = placed.rows.values
        self.trade_count[placed.columns] = placed.rows.trade_count
        self.seen_at[placed.columns] = placed.rows.seen_at

    def batch(self, start: datetime) -> BarBatch:
        return BarBatch(start, MINUTE, *self.values)


class SessionMinutes:
    """Minutes by their number from the session's open; `next` is the one to be released, from that of `first` on.

    Symbols that begin with ^ have no bars. Bad prints are quarantined first. One thread puts minutes together, on which
    `hand_over` is called; any other may call `take_seen` and `stale_symbols`.
    """

    def __init__(
        self,
        universe: Universe,
        session: Session,
        first: datetime,
        memory: PriceMemory,
        counts: FeedCounts,
        hand_over: Callable[[Arrival], None],
    ) -> None:
        self.symbols = tuple(symbol for symbol in universe.symbols if not symbol.startswith("^"))
        self.count = (session.close - session.open) // MINUTE
        self.next = (first - session.open) // MINUTE
        self._universe, self._open, self._counts = universe, session.open, counts
        self._memory, self._hand_over = memory, hand_over
        self._row_of = {symbol: universe.symbols.index(symbol) for symbol in self.symbols}
        self._got = np.zeros((self.count, len(universe)), dtype=bool)
        self._last_bar_end = np.full(len(universe), self._microsecond(self.next))
        self._pending: dict[int, _Minute] = {}
        self._seen: queue.SimpleQueue[BarRows] = queue.SimpleQueue()

    def start(self, minute: int) -> datetime:
        return self._open + minute * MINUTE

    def _microsecond(self, minute: int) -> int:
        return microseconds(self.start(minute))

    @property
    def is_done(self) -> bool:
        """Whether the session's last minute has been released."""
        return self.next >= self.count

    @property
    def is_complete(self) -> bool:
        """Whether every symbol has a bar of the next minute."""
        pending = self._pending.get(self.next)
        return pending is not None and bool(pending.has.sum() == len(self.symbols))

    @property
    def waiting(self) -> int:
        """Bars of minutes that are not released yet."""
        return sum(int(pending.has.sum()) for pending in self._pending.values())

    def stale_symbols(self, now: datetime, after: timedelta) -> tuple[str, ...]:
        """Symbols whose last bar ended more than `after` ago; from the first minute for those without one."""
        limit = microseconds(now - after)
        return tuple(symbol for symbol in self.symbols if self._last_bar_end[self._row_of[symbol]] < limit)

    def take_seen(self) -> BarRows:
        """Every good bar and correction seen since the last call, with the moment of it."""
        parts = []
        while not self._seen.empty():
            parts.append(self._seen.get())
        return joined(parts)

    def place(self, rows: BarRows) -> Placed:
        """Where bars belong; those of other symbols, outside the session or off its grid are counted and left out."""
        columns = np.array([self._row_of.get(symbol, -1) for symbol in rows.symbols], dtype=np.int64)[rows.codes]
        minutes, beside = np.divmod(rows.starts - self._microsecond(0), MINUTE // timedelta(microseconds=1))
        ours = (columns >= 0) & (minutes >= 0) & (minutes < self.count) & (beside == 0)
        self._counts.foreign += int((~ours).sum())
        return Placed(minutes[ours], columns[ours], rows.take(ours))

    def add(self, placed: Placed, *, corrects: bool = False) -> None:
        """Take bars in, and hand over what they change of the last released minute."""
        ahead = placed.minutes >= self.next
        for minute in np.unique(placed.minutes[ahead]).tolist():
            self._add_ahead(minute, placed.take(placed.minutes == minute), corrects)
        if not ahead.all():
            self._add_behind(placed.take(~ahead), corrects)

    def _add_ahead(self, minute: int, placed: Placed, corrects: bool) -> None:
        """Bars of a minute that is not released yet: the first wins unless a correction comes."""
        pending = self._pending.setdefault(minute, _Minute.empty(len(self._universe)))
        known = pending.has[placed.columns]
        if corrects:
            replaced = placed.columns[known]
            far = is_far(pending.values[:, replaced], self._memory.last_good[replaced])
            self._keep(minute, pending, replaced[~far])
            self._counts.revised += int(known.sum())
        else:
            first = np.zeros(len(known), dtype=bool)
            first[np.unique(placed.columns, return_index=True)[1]] = True
            self._counts.repeated += int((known | ~first).sum())
            placed = placed.take(first & ~known)
        pending.put(placed)

    def _add_behind(self, placed: Placed, corrects: bool) -> None:
        """Bars of released minutes: what is new is kept, and handed on where the last minute changes by it."""
        known = self._got[placed.minutes, placed.columns]
        if not corrects:
            self._counts.repeated += int(known.sum())
            placed, known = placed.take(~known), known[~known]
        values = placed.rows.values
        good = is_sane(values) & ~is_far(values, self._memory.last_good[placed.columns])
        self._refuse(placed.minutes[~good], placed.columns[~good])
        placed, known = placed.take(good), known[good]
        last = placed.minutes == self.next - 1
        self._counts.revised += int(known.sum())
        self._counts.late += int((~known).sum())
        self._counts.too_late += int((~last).sum())
        self._mark(placed.minutes, placed.columns)
        if len(placed.rows):
            self._seen.put(placed.rows)
        if last.any():
            changed = _Minute.empty(len(self._universe))
            changed.put(placed.take(last))
            self._hand_over(Arrival(changed.batch(self.start(self.next - 1)), revises=True))

    def release(self) -> None:
        """Hand over the next minute as it stands."""
        start = self.start(self.next)
        pending = self._pending.pop(self.next, None) or _Minute.empty(len(self._universe))
        batch, self._memory, _ = quarantine(pending.batch(start), self._memory)
        refused = pending.has & np.isnan(batch.close)  # a bar without a single number too
        rows = np.flatnonzero(refused)
        self._refuse(np.full(len(rows), self.next), rows)
        accepted = np.flatnonzero(np.isfinite(batch.close))
        self._keep(self.next, pending, accepted)
        self._mark(np.full(len(accepted), self.next), accepted)
        self._hand_over(Arrival(batch, revises=False))
        self.next += 1

    def _refuse(self, minutes: Whole, columns: Whole) -> None:
        if not len(columns):
            return
        self._counts.quarantined += len(columns)
        names = [self._universe.symbols[column] for column in columns[:10]]
        since, total = self.start(int(minutes.min())), self._counts.quarantined
        log.warning("bars_quarantined", bars=len(columns), first=since, symbols=names, in_session=total)

    def _mark(self, minutes: Whole, columns: Whole) -> None:
        self._got[minutes, columns] = True
        ends = self._microsecond(1) + minutes * (MINUTE // timedelta(microseconds=1))
        np.maximum.at(self._last_bar_end, columns, ends)

    def _keep(self, minute: int, pending: _Minute, columns: Whole) -> None:
        """For take_seen: the bars of these symbols as they came."""
        columns = columns[is_sane(pending.values[:, columns])]
        if len(columns):
            self._seen.put(
                BarRows.of(
                    [self._universe.symbols[column] for column in columns],
                    np.full(len(columns), self._microsecond(minute)),
                    pending.values[:, columns],
                    pending.trade_count[columns],
                    pending.seen_at[columns],
                )
            )
