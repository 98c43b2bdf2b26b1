"""Trading as it is done live: bars come one by one as plain rows, the clock ticks, every row is written at once."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from queue import SimpleQueue
from typing import NamedTuple

import numpy as np

from ml.feature_writer import FeatureWriter
from ml.serving import Serving
from positions.broker.exchange import SimulatedExchange
from positions.clock import ReplayClock
from positions.loop import TradingLoop
from positions.market.bars import FIELDS, BarBatch, BarHistory, SessionBars, Universe
from positions.market.calendar import Session
from positions.market.feeds import ReplayFeed
from positions.store import OrmStore
from tradingsite.replaying import ReplayOptions, wire

TEN_SECONDS = timedelta(seconds=10)


class Bar(NamedTuple):
    """What a data provider sends when a minute of a symbol is over; the fields after `start` are those of FIELDS."""

    symbol: str
    start: datetime
    open: float
    high: float
    low: float
    close: float
    volume: float
    vwap: float


def rows_of(bars: SessionBars) -> Iterator[list[Bar]]:
    """The rows of each minute."""
    for minute in range(bars.values.shape[1]):
        start = bars.session.open + minute * bars.length
        yield [
            Bar(symbol, start, *bars.values[:, minute, row].tolist())
            for row, symbol in enumerate(bars.universe.symbols)
            if np.isfinite(bars.values[FIELDS.index("close"), minute, row])
        ]


def batch_of(start: datetime, length: timedelta, rows: list[Bar], universe: Universe) -> BarBatch:
    values = np.full((len(FIELDS), len(universe)), np.nan)
    for bar in rows:
        assert bar.start == start
        values[:, universe.symbols.index(bar.symbol)] = bar[2:]
    return BarBatch(start, length, *values)


class Live:
    """One book's desk at a simulated exchange; everything it knows of today came through `arrived`, bar by bar."""

    def __init__(
        self, book: str, feed: ReplayFeed, writer: FeatureWriter | None, serving: Serving | None = None
    ) -> None:
        options = ReplayOptions.in_force()
        self.exchange = SimulatedExchange(feed.universe, cost_per_share=options.exits.cost_per_share)
        self.clock, self.arrived = ReplayClock(datetime.min.replace(tzinfo=UTC)), SimpleQueue[list[Bar]]()
        wired = wire(
            book, feed.name, feed.universe, options, self.exchange, OrmStore(book), self.clock, writer, serving
        )
        self.system, self.loop = wired.system, TradingLoop(wired.desk)
        self.universe, self.past = feed.universe, BarHistory()

    def session(self, session: Session, length: timedelta, minutes: Iterator[list[Bar]]) -> SessionBars:
        """Trade one session; returns what was received, from which tomorrow's indicators open."""
        self.loop.open_session(session, length, self.past)
        received = []
        for number, rows in enumerate(minutes):
            start = session.open + number * length
            received.append(self._minute(batch_of(start, length, rows, self.universe), rows))
            self.system.flush()
        self.exchange.close_session(self.clock.now())
        self.loop.close_session(self.clock.now())
        values = np.stack([[getattr(batch, name) for name in FIELDS] for batch in received], axis=1)
        return SessionBars(session, length, self.universe, values)

    def _minute(self, traded: BarBatch, rows: list[Bar]) -> BarBatch:
        """What the exchange trades in a minute reaches the desk when the minute is over."""
        self.clock.sleep_until(traded.start)
        self.exchange.open_bar(traded)
        while self.clock.now() < traded.end:
            self.loop.tick(self.clock.now())
            if self.clock.now().second == 30:
                self.loop.tick_breakeven()
            self.clock.sleep_until(self.clock.now() + TEN_SECONDS)
        self.exchange.trade_bar(traded)
        self.arrived.put(rows)
        batch = batch_of(traded.start, traded.length, self.arrived.get(), self.universe)
        self.loop.on_bar(batch)
        return batch


def trade_live(
    book: str, feed: ReplayFeed, writer: FeatureWriter | None = None, serving: Serving | None = None
) -> None:
    """Warm up on stored sessions, then trade the others as they come; features go through `writer`."""
    live = Live(book, feed, writer, serving)
    for bars, trading in feed.sessions():
        if trading:
            live.system.extractor.vix = feed.vix.before(bars.session.day) if feed.vix else None
            live.past.append(live.session(bars.session, bars.length, rows_of(bars)))
        else:
            live.past.append(bars)
