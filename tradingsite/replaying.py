"""Wires a replay: a feed, the simulated exchange and the very objects that trade live, on one book."""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

from django.conf import settings
from django.utils.module_loading import import_string

from ml.feature_extractor import FeatureExtractor
from ml.ml_system import MLSystem
from positions import leases, live_settings
from positions.breakeven_manager import BreakevenStopManager
from positions.broker.exchange import SimulatedExchange
from positions.clock import ReplayClock
from positions.execution import Execution
from positions.exit_monitor import ExitMonitor
from positions.history import TradeHistory
from positions.loop import Desk, TradingLoop, replay_bar
from positions.market.bars import BarHistory
from positions.market.feeds import ReplayFeed
from positions.market.indicators import IndicatorBank
from positions.market.market_regime import MarketState
from positions.models import Instrument
from positions.rules import ExitSettings, RiskSettings
from positions.store import MemoryStore
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

    def book(self, inputs_sha256: str) -> str:
        """The book of these inputs under these options: the same name for the same replay."""
        text = json.dumps([inputs_sha256, asdict(self)], sort_keys=True)
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

    `started` is the reading of time.perf_counter() when the first bar was read. Raises LeaseTaken if another process
    replays into the same book.
    """
    lease = leases.acquire(book, "replay", datetime.now(UTC), LEASE)
    try:
        with rewritten(book) as draft:
            sessions, bars, signals = _run(
                feed, draft, options, lambda done: (leases.renew(lease, datetime.now(UTC), LEASE), progress(done))
            )
        seconds = time.perf_counter() - started
    finally:
        leases.release(lease)
    return ReplayResult(sessions, sum(feed.universe.tradable), bars, signals, seconds)


def _run(
    feed: ReplayFeed, book: str, options: ReplayOptions, progress: Callable[[int], object]
) -> tuple[int, int, int]:
    universe = feed.universe
    Instrument.objects.bulk_create(
        Instrument(book=book, symbol=symbol, sector=sector, sector_etf=etf, tradable=tradable)
        for symbol, sector, etf, tradable in zip(
            universe.symbols, universe.sectors, universe.sector_etfs, universe.tradable, strict=True
        )
    )
    bank = IndicatorBank(universe)
    market, history, past = MarketState(bank), TradeHistory(), BarHistory()
    system = MLSystem(book, feed.name, FeatureExtractor(bank, market, history), history)
    store = MemoryStore(book)
    exchange = SimulatedExchange(universe, cost_per_share=options.exits.cost_per_share)
    clock = ReplayClock(datetime.min.replace(tzinfo=UTC))
    execution = Execution(exchange, store, clock, "sim", options.exits.cost_per_share)
    execution.closed_listeners.append(system.on_closed)
    desk = Desk(
        book=book,
        feed=feed.name,
        bank=bank,
        market=market,
        strategy=import_string(options.strategy)(),
        broker=exchange,
        store=store,
        execution=execution,
        exits=ExitMonitor(bank, store, execution, lambda: options.exits),
        breakeven=BreakevenStopManager(bank, store, execution, lambda: options.exits),
        adviser=system,
        exit_settings=lambda: options.exits,
        risk_settings=lambda: options.risk,
        protections=options.protections,
    )
    loop = TradingLoop(desk)
    sessions = bars = 0
    for session_bars, trading in feed.sessions():
        bars += session_bars.bar_count
        if trading:
            system.extractor.vix = feed.vix_before(session_bars.session.day)
            loop.open_session(session_bars.session, session_bars.length, past)
            for batch in session_bars.batches():
                replay_bar(loop, exchange, clock, batch)
            sessions += 1
            store.flush()
            system.flush()
            progress(sessions)
        past.append(session_bars)
    exchange.settle(clock.now())
    loop.tick(clock.now())
    store.flush()
    return sessions, bars, system.signals
