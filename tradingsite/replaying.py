"""Wires a replay: a feed, the simulated exchange and the very objects that trade live, on one book."""

import hashlib
import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from typing import Protocol

from django.conf import settings
from django.utils.module_loading import import_string

from ml.feature_extractor import FeatureExtractor
from ml.feature_writer import MemoryWriter, Writer
from ml.ml_system import MLSystem
from ml.serving import Serving
from positions import live_settings
from positions.books import is_at_alpaca, is_live
from positions.breakeven_manager import BreakevenStopManager
from positions.broker.exchange import SimulatedExchange
from positions.broker.port import Broker
from positions.clock import Clock, ReplayClock
from positions.execution import Execution
from positions.exit_monitor import ExitMonitor
from positions.fees import RATES
from positions.history import TradeHistory
from positions.isolation import Isolate
from positions.loop import Desk, TradingLoop, replay_bar
from positions.market.bars import BarHistory, SessionBars, Universe
from positions.market.feeds import ReplayFeed
from positions.market.indicators import IndicatorBank
from positions.market.market_regime import MarketState
from positions.models import Instrument, Trade
from positions.rules import ExitSettings, RiskSettings
from positions.store import MemoryStore, Store
from positions.words import Feed, TradeStatus
from tradingsite import book_bars


class Options(Protocol):
    """The live settings: fixed for a replay, read anew whenever they are asked for in live trading."""

    @property
    def exits(self) -> ExitSettings: ...

    @property
    def risk(self) -> RiskSettings: ...

    @property
    def strategy(self) -> str: ...

    @property
    def protections(self) -> bool: ...


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
class Replayed:
    """What a replay took in: `symbols` that could be traded, `bars` of the sessions that were."""

    sessions: int
    symbols: int
    bars: int
    signals: int


@dataclass(frozen=True, slots=True)
class Wired:
    """The objects of one book, wired together: what a replay drives, and what live trading drives just so."""

    desk: Desk
    system: MLSystem


def wire(
    book: str,
    feed: Feed,
    universe: Universe,
    options: Options,
    broker: Broker,
    store: Store,
    clock: Clock,
    writer: Writer | None = None,
    serving: Serving | None = None,
    isolate: Isolate = nullcontext,
) -> Wired:
    """Live trading gives a FeatureWriter, which journals, a Serving that is kept current, and has each position served
    by itself. Without them rows wait in memory for `flush`, the models and the mode are those of the start, and the
    first error ends it all."""
    bank = IndicatorBank(universe)
    market, history = MarketState(bank), TradeHistory()
    for trade in Trade.objects.filter(book=book, status=TradeStatus.CLOSED):
        history.add(trade)
    extractor = FeatureExtractor(bank, market, history)
    if serving is None:
        serving = Serving(book)
        serving.refresh()
    system = MLSystem(book, feed, extractor, history, serving.served, writer or MemoryWriter(serving.explain))
    installation = settings.INSTALLATION if is_at_alpaca(book) else "sim"
    rates = RATES if is_live(book) else ()
    execution = Execution(broker, store, clock, installation, options.exits.cost_per_share, rates)
    execution.isolate = isolate
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
        exits=ExitMonitor(bank, store, execution, lambda: options.exits, isolate),
        breakeven=BreakevenStopManager(bank, store, execution, lambda: options.exits, isolate),
        adviser=system,
        exit_settings=lambda: options.exits,
        risk_settings=lambda: options.risk,
        protections=options.protections,
        isolate=isolate,
    )
    return Wired(desk, system)


def replay(
    feed: ReplayFeed, book: str, options: ReplayOptions, session_done: Callable[[], None] = lambda: None
) -> Replayed:
    """Run a whole feed into an empty book; `session_done` is called after each session, once it is written."""
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
            book_bars.keep(book, feed.name, session_bars)
            session_done()
        past.append(session_bars)
    return Replayed(sessions, sum(universe.tradable), bars, wired.system.signals)


def replay_session(
    loop: TradingLoop, past: BarHistory, exchange: SimulatedExchange, clock: ReplayClock, bars: SessionBars
) -> None:
    """One session bar by bar; `past` holds the sessions before it."""
    loop.open_session(bars.session, bars.length, past)
    for batch in bars.batches():
        replay_bar(loop, exchange, clock, batch)
    exchange.close_session(clock.now())
    loop.close_session(clock.now())
