"""The market behind the simulated Alpaca: a feed's bars as prices at every moment, and the bars that are known by then.

Inside a bar the price runs in straight lines from the open over one extreme and the other to the close, a third of the
bar each; the low comes first where the bar rises, the high first where it falls. Between bars the price jumps. A symbol
without a bar does not trade. Times are aware UTC, prices dollars.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from itertools import groupby

import numpy as np

from positions.market.bars import Floats, SessionBars
from positions.market.calendar import NEW_YORK
from positions.market.feeds import ReplayFeed

#: Late prints are in the bar by then.
CORRECTED_AFTER = timedelta(seconds=30)
LATE_VOLUME = 0.1  # of a corrected bar's volume
SHARES_A_TRADE = 100  # no feed of ours counts trades


@dataclass(frozen=True, slots=True)
class Bar:
    start: datetime
    open: float
    high: float
    low: float
    close: float
    volume: int
    trades: int
    vwap: float


class Tape:
    """One feed, session after session. `today` is the session that is traded or was last, `tomorrow` the one after it;
    None after the last.

    A share `corrected` of the bars comes without its late prints at first.
    """

    def __init__(self, feed: ReplayFeed, corrected: float = 0.0) -> None:
        symbols = feed.universe.symbols
        self.row_of = {symbol: row for row, symbol in enumerate(symbols) if not symbol.startswith("^")}
        self.length = feed.length
        self.past: list[SessionBars] = []
        self.today: SessionBars | None = None
        self._corrected = corrected
        self._known: Floats = np.full((1, len(symbols)), np.nan)  # last price before each bar of today, and after all
        self._coming = feed.sessions()
        self.tomorrow: SessionBars | None = None
        for bars, traded in self._coming:
            self.tomorrow = bars
            if traded:
                break
            self.past.append(bars)
            self._known = _carried(self._known[-1], bars.values[3])
            self.tomorrow = None
        self.next_session()
        if self.today is None:
            raise ValueError("the feed has no session to trade")

    def next_session(self) -> None:
        """Today is over: tomorrow comes."""
        if self.today is not None:
            self.past.append(self.today)
        self.today = self.tomorrow
        self.tomorrow = next((bars for bars, _ in self._coming), None)
        closes = self.today.values[3] if self.today else np.empty((0, self._known.shape[1]))
        self._known = _carried(self._known[-1], closes)

    # -- prices

    def price(self, symbol: str, at: datetime) -> float:
        """The last price by then, NaN before the first trade."""
        row, number = self.row_of[symbol], self._number(at)
        if self._trades(row, number):
            return self._inside(row, number, at)
        return float(self._known[min(max(number, 0), len(self._known) - 1), row])

    def last_close(self, symbol: str) -> float:
        """What the session before today closed at, NaN without one."""
        return float(self._known[0, self.row_of[symbol]])

    def trades(self, symbol: str, at: datetime) -> bool:
        """Whether the symbol has a bar then."""
        return self._trades(self.row_of[symbol], self._number(at))

    def crossing(self, symbol: str, start: datetime, end: datetime, level: float) -> datetime | None:
        """When the price first reaches a level in a stretch that ends no later than the next turn after `start`."""
        row, number = self.row_of[symbol], self._number(start)
        if not self._trades(row, number):
            return None
        first, last = self._inside(row, number, start), self._inside(row, number, end)
        if first == last or not min(first, last) <= level <= max(first, last):
            return None
        return start + (end - start) * ((level - first) / (last - first))

    def next_turn(self, at: datetime) -> datetime:
        """The next moment at which prices may change direction or jump."""
        if self.today is None:
            return datetime.max.replace(tzinfo=UTC)
        session, third = self.today.session, self.length / 3
        if at < session.open:
            return session.open
        turn = session.open + ((at - session.open) // third + 1) * third
        return turn if turn <= session.close else datetime.max.replace(tzinfo=UTC)

    def starts_bar(self, at: datetime) -> bool:
        return self.today is not None and (at - self.today.session.open) % self.length == timedelta(0)

    def _number(self, at: datetime) -> int:
        return (at - self.today.session.open) // self.length if self.today else 0

    def _trades(self, row: int, number: int) -> bool:
        return (
            self.today is not None
            and 0 <= number < self.today.values.shape[1]
            and bool(np.isfinite(self.today.values[3, number, row]))
        )

    def _inside(self, row: int, number: int, at: datetime) -> float:
        assert self.today is not None
        opened, high, low, close = (float(price) for price in self.today.values[:4, number, row])
        turns = (opened, low, high, close) if close >= opened else (opened, high, low, close)
        way = 3 * ((at - self.today.session.open - number * self.length) / self.length)
        third = min(int(way), 2)
        return turns[third] + (turns[third + 1] - turns[third]) * (way - third)

    # -- bars

    def bar_ends(self) -> list[datetime]:
        """When today's bars are complete."""
        if self.today is None:
            return []
        return [self.today.session.open + (i + 1) * self.length for i in range(self.today.values.shape[1])]

    def last_bar(self, symbol: str, by: datetime) -> Bar | None:
        """The last bar that is complete by then."""
        row = self.row_of[symbol]
        for bars in reversed([*self.past, *([self.today] if self.today else [])]):
            count = max(0, (by - bars.session.open) // self.length)
            known = np.flatnonzero(np.isfinite(bars.values[3, :count, row]))
            if len(known):
                return self._bar(bars, row, int(known[-1]), by)
        return None

    def bar_ending(self, symbol: str, end: datetime, by: datetime) -> Bar | None:
        """Today's bar as it was known at a moment, None without a trade."""
        if self.today is None:
            return None
        row, number = self.row_of[symbol], self._number(end - self.length)
        return self._bar(self.today, row, number, by) if self._trades(row, number) else None

    def is_corrected(self, symbol: str, end: datetime) -> bool:
        """Whether late prints are added to the bar half a minute after its end."""
        return self.today is not None and self._is_corrected(self.row_of[symbol], self._number(end - self.length))

    def minutes(self, symbol: str, start: datetime, end: datetime, by: datetime) -> list[Bar]:
        """Complete bars of the feed's own length that start from `start` to `end`, as known at a moment."""
        row = self.row_of[symbol]
        found: list[Bar] = []
        for bars in [*self.past, *([self.today] if self.today else [])]:
            opened, count = bars.session.open, bars.values.shape[1]
            if bars.session.close <= start or opened > end:
                continue
            first = max(0, -((opened - start) // self.length))
            last = min(count, (end - opened) // self.length + 1, (by - opened) // self.length)
            finite = np.flatnonzero(np.isfinite(bars.values[3, first : max(first, last), row]))
            found += [self._bar(bars, row, first + int(i), by) for i in finite]
        return found

    def bars(self, symbol: str, width: timedelta, start: datetime, end: datetime, by: datetime) -> list[Bar]:
        """Bars of a whole number of minutes, aligned to the hour, or of days, which start at midnight in New York.

        The last one may still be forming, as at Alpaca.
        """
        if width == self.length:
            return self.minutes(symbol, start, end, by)
        reach = max(width, timedelta(days=1))
        grouped = groupby(self.minutes(symbol, start - reach, end + reach, by), lambda bar: _bucket(bar.start, width))
        return [_joined(at, list(parts)) for at, parts in grouped if start <= at <= end]

    def _is_corrected(self, row: int, number: int) -> bool:
        return (row * 7919 + number * 104729) % 1000 < 1000 * self._corrected

    def _bar(self, bars: SessionBars, row: int, number: int, by: datetime) -> Bar:
        opened, high, low, close, volume, vwap = (float(value) for value in bars.values[:, number, row])
        start = bars.session.open + number * self.length
        if self._is_corrected(row, number) and by < start + self.length + CORRECTED_AFTER:
            volume *= 1 - LATE_VOLUME
        middle = vwap if vwap == vwap else (high + low + close) / 3
        return Bar(start, opened, high, low, close, int(volume), _trades(volume), round(middle, 6))


def _trades(volume: float) -> int:
    return max(1, int(volume) // SHARES_A_TRADE)


def _carried(before: Floats, closes: Floats) -> Floats:
    """The last price before each bar and after the last, shape (bars + 1, symbols)."""
    prices = np.vstack([before, closes])
    known = np.where(np.isfinite(prices), np.arange(len(prices))[:, None], 0)
    return np.asarray(np.take_along_axis(prices, np.maximum.accumulate(known, axis=0), axis=0))


def _bucket(start: datetime, width: timedelta) -> datetime:
    if width >= timedelta(days=1):
        return datetime.combine(start.astimezone(NEW_YORK).date(), time(), NEW_YORK).astimezone(UTC)
    midnight = start.replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight + (start - midnight) // width * width


def _joined(start: datetime, parts: list[Bar]) -> Bar:
    volume = sum(bar.volume for bar in parts)
    weights = sum(bar.vwap * bar.volume for bar in parts)
    return Bar(
        start,
        parts[0].open,
        max(bar.high for bar in parts),
        min(bar.low for bar in parts),
        parts[-1].close,
        volume,
        sum(bar.trades for bar in parts),
        round(weights / volume, 6) if volume else parts[-1].close,
    )
