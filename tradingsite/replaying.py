"""Wires a replay: a feed, the simulated exchange and the very objects that trade live, on one book."""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta

from django.conf import settings
from django.utils.module_loading import import_string

from ml.feature_extractor import FeatureExtractor
from ml.ml_system import MLSystem
from positions import leases, live_settings
from positions.breakeven_manager import BreakevenStopManager
from positions.broker.exchange import SimulatedExchange
from positions.broker.port import Broker
from positions.clock import Clock, ReplayClock
from positions.execution import Execution
from positions.exit_monitor import ExitMonitor
from positions.history import TradeHistory
from positions.loop import Desk, TradingLoop, replay_bar
from positions.market.bars import BarHistory, SessionBars, Universe
from positions.market.feeds import ReplayFeed
from positions.market.indicators import IndicatorBank
from positions.market.market_regime import MarketState
from positions.models import Instrument
from positions.rules import ExitSettings, RiskSettings
from positions.store import MemoryStore, Store
from positions.words import Feed
from tradingsite.books import rewritten

LEASE = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """What a replay depends on besides its bars."""

    exits: ExitSettings
    risk: RiskSettings
    strategy: str
    protections: bool = False

    @classmethod
    def in_force(cls, *, protections: bool = False) -> "ReplayOptions":
        """The live settings as they are now."""
        return cls(live_settings.exit_settings(), live_settings.risk_settings(), settings.STRATEGY, protections)

    def book(self, inputs_sha256: str, first: date | None, last: date | None) -> str:
        """The book of these inputs and dates under these options: the same name for the same replay."""
        text = json.dumps([inputs_sha256, str(first), str(last), asdict(self)], sort_keys=True)
        return f"replay:{hashlib.sha256(text.encode()).hexdigest()[:12]}"


@dataclass(frozen=True, slots=True)
class ReplayResult:
    sessions: int
    symbols: int
    bars: int
    signals: int
    seconds: float


def replay(
    feed: ReplayFeed,
    book: str,
    options: ReplayOptions,
    started: float,
    progress: Callable[[int], None] = lambda sessions: None,
) -> ReplayResult:
    """Run a whole feed and put the result in the book's place.

    `started` is the reading of time.perf_counter() when the first bar was read; `progress` hears of each session done.
    Raises LeaseTaken if another process replays into the same book.
    """
    lease = leases.acquire(book, "replay", datetime.now(UTC), LEASE)
    try:
        with rewritten(book) as draft:

            def session_done() -> None:
                leases.renew(lease, datetime.now(UTC), LEASE)
                progress(1)

            sessions, bars, signals = _run(feed, draft, options, session_done)
        seconds = time.perf_counter() - started
    finally:
        leases.release(lease)
    return ReplayResult(sessions, sum(feed.universe.tradable), bars, signals, seconds)


@dataclass(frozen=True, slots=True)
class Wired:
    """The objects of one book, wired together: what a replay drives, and what live trading drives just so."""

    desk: Desk
    system: MLSystem
    history: TradeHistory


def wire(
    book: str, feed: Feed, universe: Universe, options: ReplayOptions, broker: Broker, store: Store, clock: Clock
) -> Wired:
    bank = IndicatorBank(universe)
    market, history = MarketState(bank), TradeHistory()
    system = MLSystem(book, feed, FeatureExtractor(bank, market, history), history)
    execution = Execution(broker, store, clock, "sim", options.exits.cost_per_share)
    execution.closed_listeners.append(system.on_closed)
    desk = Desk(
        book=book,
        feed=feed,
        bank=bank,
        market=market,
        strategy=import_string(options.strategy)(),
        broker=broker,
        store=store,
        execution=execution,
        exits=ExitMonitor(bank, store, execution, lambda: options.exits),
        breakeven=BreakevenStopManager(bank, store, execution, lambda: options.exits),
        adviser=system,
        exit_settings=lambda: options.exits,
        risk_settings=lambda: options.risk,
        protections=options.protections,
    )
    return Wired(desk, system, history)


def _run(feed: ReplayFeed, book: str, options: ReplayOptions, session_done: Callable[[], None]) -> tuple[int, int, int]:
    universe = feed.universe
    Instrument.objects.bulk_create(
        Instrument(book=book, symbol=symbol, sector=sector, sector_etf=etf, tradable=tradable)
        for symbol, sector, etf, tradable in zip(
            universe.symbols, universe.sectors, universe.sector_etfs, universe.tradable, strict=True
        )
    )
    exchange = SimulatedExchange(universe, cost_per_share=options.exits.cost_per_share)
    clock, store = ReplayClock(datetime.min.replace(tzinfo=UTC)), MemoryStore(book)
    wired = wire(book, feed.name, universe, options, exchange, store, clock)
    loop, past = TradingLoop(wired.desk), BarHistory()
    sessions = bars = 0
    for session_bars, trading in feed.sessions():
        if trading:
            wired.system.extractor.vix = feed.vix.before(session_bars.session.day) if feed.vix else None
            replay_session(loop, past, exchange, clock, session_bars)
            sessions, bars = sessions + 1, bars + session_bars.bar_count
            store.flush()
            wired.system.flush()
            session_done()
        past.append(session_bars)
    exchange.settle(clock.now())
    loop.tick(clock.now())
    store.flush()
    return sessions, bars, wired.system.signals


def replay_session(
    loop: TradingLoop, past: BarHistory, exchange: SimulatedExchange, clock: ReplayClock, bars: SessionBars
) -> None:
    """One session bar by bar; `past` holds the sessions before it."""
    loop.open_session(bars.session, bars.length, past)
    for batch in bars.batches():
        replay_bar(loop, exchange, clock, batch)
