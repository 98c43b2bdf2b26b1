"""Wires live trading: an account at Alpaca (or a simulated one), its market data, and the objects that replays use."""

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event, Timer

import django.db
import structlog
from django.conf import settings
from django.core.management.base import CommandError
from rich.console import Console

from ml.feature_writer import FeatureWriter
from ml.serving import Serving
from positions import leases, live_settings
from positions.apps import limited_answers
from positions.broker.alpaca import TradeUpdates, TradingAccess
from positions.broker.server_clock import StandsStill, server_clock
from positions.clock import Clock, SystemClock
from positions.halting import halted
from positions.instruction_taker import InstructionTaker
from positions.isolation import Isolation, TooManyFailures
from positions.journaled_store import JournaledStore, TradeJournal
from positions.leases import LeaseTaken, Tenure
from positions.loop import TradingLoop
from positions.market.bar_files import HISTORY_SESSIONS, StoredBars
from positions.market.bars import BarHistory, Universe
from positions.market.calendar import Session, sessions_between
from positions.market.feeds.alpaca.access import AlpacaAccess
from positions.market.feeds.alpaca.feed import GRACE, AlpacaFeed
from positions.market.feeds.alpaca.history import AlpacaBars
from positions.market.feeds.fetching import fetch
from positions.market.feeds.reading import BadBars
from positions.market.quarantine import PriceMemory
from positions.models import LIVE_STATUSES, Trade
from positions.reconcile import Reconciler
from positions.rules import ExitSettings, RiskSettings
from positions.store import OrmStore
from positions.trader import LeasedBroker, Trader
from positions.words import Feed, TradeStatus
from tradingsite.broker import alpaca_broker, data_access, show_account, trading_access
from tradingsite.fitness import demand_fitness
from tradingsite.kit.json_file import write_json
from tradingsite.kit.options import INTERRUPTED, bad_input
from tradingsite.notifying import notifying
from tradingsite.privacy import without_secrets
from tradingsite.replaying import wire
from tradingsite.watchlist import watchlist

log = structlog.get_logger(__name__)

#: How long the lease TRADING lasts; a standby takes over within LEASE and its own look.
LEASE, STANDBY_LOOK_S = timedelta(seconds=12), 1.0
CALENDAR_DAYS = 2 * timedelta(days=HISTORY_SESSIONS)
#: What a minute of bars may need on the way, in time of the wall.
WIRES = timedelta(seconds=0.2)
FAILED = 1


@dataclass(frozen=True, slots=True)
class Venue:
    """Where a book is traded. `feed` names the bars: those of a simulated Alpaca are never taken for real ones.

    `grace` is how long bars may be under way after their minute; a fast clock leaves the wires less time.
    """

    access: TradingAccess
    data: AlpacaAccess
    clock: Clock
    feed: Feed
    grace: timedelta = GRACE

    @property
    def is_simulated(self) -> bool:
        return self.feed is Feed.SIMULATED


def venue(book: str) -> Venue:
    """Of a `paper:` or `live:` book, by the settings. Raises CommandError (status 2)."""
    access, data = trading_access(book), data_access()
    try:
        clock = server_clock(access.origin) if access.origin else None
    except StandsStill as error:
        raise bad_input(f"{error}.") from error
    if clock is None:
        return Venue(access, data, SystemClock(), data.feed)
    if access.live:
        raise bad_input(f"BOOK={book} is of real money and {access.origin} is simulated; use a book paper:<name>.")
    if data.origin.rstrip("/") != access.origin:
        raise bad_input(f"ALPACA_TRADING_URL={access.origin} is simulated; set ALPACA_DATA_URL to the same.")
    return Venue(access, data, clock, Feed.SIMULATED, max(GRACE, clock.speed * WIRES))


class LiveOptions:
    """The live settings as they are at the moment; while the database is away, as they were last."""

    protections = True

    def __init__(self, strategy: str) -> None:
        self.strategy = strategy
        self._exits = live_settings.last_known(live_settings.exit_settings)
        self._risk = live_settings.last_known(live_settings.risk_settings)
        self.external = live_settings.last_known(live_settings.external_positions)

    @property
    def exits(self) -> ExitSettings:
        return self._exits()

    @property
    def risk(self) -> RiskSettings:
        return self._risk()


class AlpacaMarket:
    """Implements positions.trader.Market."""

    def __init__(self, at: Venue, universe: Universe, arrived: Event, screen: Console) -> None:
        self.stored = StoredBars(settings.VAR_DIR / "bars", at.feed)
        self._venue, self._universe, self._arrived, self._screen = at, universe, arrived, screen

    def _rest(self) -> AlpacaBars:
        timeouts = (settings.ALPACA_CONNECT_TIMEOUT, settings.ALPACA_READ_TIMEOUT)
        return AlpacaBars(self._venue.data, self._venue.clock, timeouts=timeouts)

    def history(self, session: Session) -> BarHistory:
        symbols = [symbol for symbol in self._universe.symbols if not symbol.startswith("^")]
        before = sessions_between(session.day - CALENDAR_DAYS, session.day - timedelta(days=1))[-HISTORY_SESSIONS:]
        done = fetch(self.stored, self._rest(), symbols, before, self._venue.clock, lambda done: None)
        barless = sorted(done.bad_symbols + done.empty)
        if barless:
            log.warning("symbols_without_bars", symbols=barless, todo="check the watchlist")
            told = f"No bars in the last {len(before)} sessions of {', '.join(barless)}: check the watchlist."
            self._screen.print(told, soft_wrap=True)
        return self.stored.history(session.day, self._universe)

    def feed(self, session: Session, memory: PriceMemory) -> AlpacaFeed:
        at = self._venue
        return AlpacaFeed(
            at.data,
            self._universe,
            session,
            at.clock,
            self._rest(),
            memory=memory,
            arrived=self._arrived,
            grace=at.grace,
        )


@contextmanager
def tenure(book: str, screen: Console, stopping: Event, patience: timedelta) -> Iterator[Tenure | None]:
    """The right to trade a book, for a block; waits for it as a standby, or says who has it and gives None. `patience`
    is waited with for who has had it for less long."""
    told = False
    while not stopping.is_set():
        try:
            lease = leases.acquire(book, leases.TRADING, datetime.now(UTC), LEASE)
            break
        except LeaseTaken as taken:
            now = datetime.now(UTC)
            waits = now - (taken.since or now) < patience
            if not told:
                screen.print(f"Standing by: {taken}." if waits else f"Nothing to do: {taken}.", soft_wrap=True)
            told = True
            if not waits:
                stopping.set()
        stopping.wait(STANDBY_LOOK_S)
    else:
        yield None
        return
    try:
        yield Tenure(lease, LEASE)
    finally:
        leases.release(lease)


class Signals:
    """SIGINT and SIGTERM end the work after the step that is under way; `interrupted` after the first of them."""

    def __init__(self) -> None:
        self.stopping, self.interrupted = Event(), False
        self._listeners: list[Callable[[], None]] = []

    def __enter__(self) -> "Signals":
        self._before = {each: signal.signal(each, self._on_signal) for each in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *about: object) -> None:
        for each, handler in self._before.items():
            signal.signal(each, handler)

    def tell(self, listener: Callable[[], None]) -> None:
        self._listeners.append(listener)
        if self.stopping.is_set():
            listener()

    def _on_signal(self, number: int, frame: object) -> None:
        self.interrupted = number == signal.SIGINT
        self.stop()

    def stop(self) -> None:
        self.stopping.set()
        for listener in self._listeners:
            listener()


@contextmanager
def _after(seconds: float | None, stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` so many seconds from now, if the block lasts so long."""
    if seconds is None:
        yield
        return
    timer = Timer(seconds, stop)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be done with a book, until the end of `sessions`, `ticks` or `seconds` (of the wall), where given.
    `patience`: how long another process may have had the book whose end is waited for."""

    strategy: str
    patience: timedelta = timedelta.max
    exits: bool = True
    breakeven: bool = True
    sessions: int | None = None
    ticks: int | None = None
    seconds: float | None = None


def run(screen: Console, book: str, work: Work) -> None:
    """Trade a book, or watch it where the strategy gives no signals, until a signal or the end of the work.

    Raises CommandError: status 1 where the account is not fit or the process cannot go on, 2 for keys and settings,
    130 for SIGINT.
    """
    at = venue(book)
    show_account(screen, at.access)
    if at.is_simulated:
        now = at.clock.now()
        screen.print(
            f"This Alpaca is simulated: {at.access.origin}, market time {now:%Y-%m-%d %H:%M} UTC.", soft_wrap=True
        )
    with Signals() as signals, notifying(book, at.clock), _after(work.seconds, signals.stop):
        with tenure(book, screen, signals.stopping, work.patience) as held:
            if held is not None:
                try:
                    _trade(screen, book, at, held, signals, work)
                except (LeaseTaken, TooManyFailures) as error:
                    raise CommandError(f"{error}. Stops stay at the broker.", returncode=FAILED) from error
                except BadBars as error:
                    raise bad_input(str(error)) from error
        if signals.interrupted:
            raise CommandError("Interrupted: nothing was closed, stops stay at the broker.", returncode=INTERRUPTED)


@contextmanager
def result_written(path: Path | None, book: str) -> Iterator[None]:
    """Write to a file, however the block ends, what became of a book's trades in it: None where the database does not
    say, so that the block's own end is what is told."""
    if path is None:
        yield
        return
    trades, began = Trade.objects.filter(book=book), datetime.now(UTC)
    entered, closed = trades.exclude(entered_at=None), trades.filter(status=TradeStatus.CLOSED)
    before = entered.count(), closed.count()
    counts: dict[str, int | None] = dict.fromkeys(("entered", "closed", "open"))
    try:
        yield
    finally:
        with suppress(django.db.Error):
            counts = {
                "entered": entered.count() - before[0],
                "closed": closed.count() - before[1],
                "open": trades.filter(status__in=LIVE_STATUSES).count(),
            }
        times = {"began_at": began.isoformat(), "ended_at": datetime.now(UTC).isoformat()}
        write_json(path, {"book": book, **times, **counts})


def _trade(screen: Console, book: str, at: Venue, held: Tenure, signals: Signals, work: Work) -> None:
    broker = alpaca_broker(at.access, at.clock)
    demand_fitness(screen, broker, at.data, at.clock)
    held.renew()
    universe = watchlist(book)
    options, isolation = LiveOptions(work.strategy), Isolation(book, at.clock, without_secrets)
    leased = LeasedBroker(broker, held)
    with ExitStack() as stack:
        lines = TradeJournal(settings.VAR_DIR / "trade_journal")
        stack.callback(lines.close)
        store = JournaledStore(OrmStore(book), lines)
        serving = Serving(book)
        serving.start()
        stack.callback(serving.close)
        writer = FeatureWriter(settings.VAR_DIR / "journal", serving.explain)
        stack.callback(writer.close)
        wired = wire(book, at.feed, universe, options, leased, store, at.clock, writer, serving, isolation.of)
        updates = TradeUpdates(at.access, Event())
        desk = replace(wired.desk, is_halted=lambda: halted(book) is not None)
        desk.exits.active, desk.breakeven.active = work.exits, work.breakeven
        reconciler = Reconciler(
            at.feed, leased, store, desk.execution, desk.bank, options.external, lambda: options.exits
        )
        market = AlpacaMarket(at, universe, updates.wake, screen)
        loop = TradingLoop(desk)
        trader = Trader(
            desk,
            loop,
            broker,
            at.clock,
            held,
            market,
            updates,
            isolation,
            reconciler.reconcile,
            InstructionTaker(desk, loop).carry_out,
            sessions=work.sessions,
            ticks=work.ticks,
        )
        signals.tell(trader.stop)
        screen.print(
            f"Trading {book}: {sum(universe.tradable)} symbols, {len(store.live)} open trades.", soft_wrap=True
        )
        log.info("trading_began", book=book)
        with limited_answers():
            trader.run()
