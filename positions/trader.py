"""One book traded at a broker by one process: bars and ticks by the clock, until it is told to stop.

REST is the truth. Streams wake: a bar or a trade update that comes is looked at at once, and without them every tick
asks the broker as it would anyway, and the feed asks for the bars.
"""

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from threading import Thread
from typing import Any, Protocol

import structlog
from django.db import DatabaseError, connection

from positions import breakeven_manager, exit_monitor
from positions.broker.alpaca import AlpacaBroker, TradeUpdates
from positions.broker.port import Account, Activity, Listing, Order, OrderRequest, Position
from positions.clock import Clock
from positions.halting import halted
from positions.isolation import Isolation, TooManyFailures, Work
from positions.leases import LeaseTaken, Tenure
from positions.loop import Desk, TradingLoop
from positions.market.bar_files import StoredBars
from positions.market.bars import BarHistory
from positions.market.calendar import NEW_YORK, Session, sessions_between
from positions.market.feeds.alpaca.errors import AlpacaError
from positions.market.feeds.alpaca.feed import AlpacaFeed
from positions.market.feeds.alpaca.minutes import Arrival
from positions.market.feeds.reading import BadBars
from positions.market.quarantine import PriceMemory
from positions.rules import ExitDecision, check_session_close
from positions.store import StoreUnavailable
from positions.words import ExitReason

log = structlog.get_logger(__name__)

MINUTE = timedelta(minutes=1)
#: A session's bars of the days before are read, and its stream is connected, so long before it opens.
LEAD = timedelta(minutes=5)
#: How long after the close the last bars are waited for.
LAST_BARS = timedelta(minutes=1)
#: A bar that ended longer ago is taken in and not acted on: the next one is there, or about to be.
LATEST_BAR = timedelta(minutes=1)
#: Without a bar for so long near the close, the clock decides that it is time to leave.
NO_BARS = timedelta(minutes=2)
#: Without a bar for so long while the market is open, they count as stopped.
BARS_STOPPED = timedelta(minutes=5)
#: How often, while shares stand without a stop.
URGENT = timedelta(seconds=1)
#: How often the account is compared with what is known, and the bars that were seen are stored.
CHORES = timedelta(minutes=1)
#: Of the wall's time: a standby watches it.
HEARTBEAT = timedelta(seconds=3)
#: A feed that Alpaca refused is tried again after it.
FEED_PAUSE = timedelta(minutes=1)


class Beat:
    """Something done at a fixed rate; what is missed is not made up for."""

    def __init__(self, every: timedelta) -> None:
        self._every = every
        self._due: datetime | None = None

    def is_due(self, now: datetime) -> bool:
        if self._due is not None and now < self._due:
            return False
        due = self._due or now
        self._due = due + self._every * ((now - due) // self._every + 1)
        return True

    def next(self, now: datetime) -> datetime:
        return self._due or now


class LeasedBroker:
    """A Broker whose writes raise LeaseTaken once another process has taken over."""

    def __init__(self, broker: AlpacaBroker, tenure: Tenure) -> None:
        self._broker, self._tenure = broker, tenure

    def account(self) -> Account:
        return self._broker.account()

    def positions(self) -> Listing[Position]:
        return self._broker.positions()

    def open_orders(self) -> Listing[Order]:
        return self._broker.open_orders()

    def order_by_client_id(self, client_order_id: str) -> Order | None:
        return self._broker.order_by_client_id(client_order_id)

    def submit(self, request: OrderRequest) -> Order:
        self._tenure.check()
        return self._broker.submit(request)

    def replace_stop(self, order_id: str, stop_price: Decimal, client_order_id: str) -> Order:
        self._tenure.check()
        return self._broker.replace_stop(order_id, stop_price, client_order_id)

    def cancel(self, order_id: str) -> None:
        self._tenure.check()
        self._broker.cancel(order_id)

    def activities(self, after: datetime, kind: str = "FILL") -> list[Activity]:
        return self._broker.activities(after, kind)

    def changed_orders(self) -> list[Order]:
        return self._broker.changed_orders()


class Market(Protocol):
    """Where the bars come from."""

    stored: StoredBars

    def history(self, session: Session) -> BarHistory:
        """The sessions before this one, downloaded where they are not stored. Raises AlpacaError."""
        ...

    def feed(self, session: Session, memory: PriceMemory) -> AlpacaFeed:
        """Its bars from the open on, judged by what is known of prices so far, not connected yet."""
        ...


@dataclass(slots=True)
class Pulse:
    """What became of the ticks since the last heartbeat."""

    ticks: int = 0
    calls: int = 0
    longest: float = 0.0


class Trader:
    """`run` trades so many sessions or ticks, without end where both are None; a signal handler may call `stop`.

    Start-up is recovery: the account is compared and what was broken off is taken up before anything else.
    """

    def __init__(
        self,
        desk: Desk,
        loop: TradingLoop,
        broker: AlpacaBroker,
        clock: Clock,
        tenure: Tenure,
        market: Market,
        updates: TradeUpdates,
        isolation: Isolation,
        reconcile: Callable[[datetime], None],
        carry_out: Callable[[datetime, Session], None],
        *,
        sessions: int | None = None,
        ticks: int | None = None,
    ) -> None:
        self._desk, self._loop, self._broker, self._clock = desk, loop, broker, clock
        self._tenure, self._market, self._updates, self._isolation = tenure, market, updates, isolation
        self._reconcile, self._sessions_left, self._ticks_left = reconcile, sessions, ticks
        self._carry_out = carry_out
        self._wake, self._stopping = updates.wake, False
        self._exit_beat = Beat(timedelta(seconds=exit_monitor.INTERVAL_SECONDS))
        self._breakeven_beat = Beat(timedelta(seconds=breakeven_manager.INTERVAL_SECONDS))
        self._chore_beat, self._heart_beat = Beat(CHORES), Beat(HEARTBEAT)
        self._session: Session | None = None
        self._feed: AlpacaFeed | None = None
        self._feed_again_at: datetime | None = None
        self._last_tick = clock.now()
        self._joined_at = self._last_bar_at = clock.now()
        self._pulse = Pulse()
        self._troubles: dict[str, str] = {}

    def stop(self) -> None:
        """End after the step that is under way."""
        self._stopping = True
        self._wake.set()

    def run(self) -> None:
        """Raises LeaseTaken, TooManyFailures, and BadBars for stored bars that cannot be read."""
        try:
            self._do_chores(self._clock.now())
            self._tick(self._clock.now())
            self._updates.start()
            while not self._is_over:
                session = next_session(self._clock.now())
                self._rounds_until(session.open - LEAD)
                if not self._is_over:
                    self._trade(session)
                if self._sessions_left is not None:
                    self._sessions_left -= 1
        except (LeaseTaken, TooManyFailures, BadBars):
            raise
        except Exception as error:
            self._isolation.count(Work("process"), error)
            raise
        finally:
            self._updates.stop()
            self._desk.execution.save()
            self._store_errors()
            if self._isolation.errors:
                log.error("errors_not_counted", errors=len(self._isolation.errors), reason="the database is away")

    @property
    def _is_over(self) -> bool:
        return self._stopping or self._sessions_left == 0 or self._ticks_left == 0

    def _trade(self, session: Session) -> None:
        """One session, from before its open until its last bar is in."""
        history = self._history(session)
        if history is None or not self._open(session, history):
            return
        self._session = session
        self._joined_at = self._clock.now()
        self._last_bar_at = max(session.open, self._joined_at)
        self._connect(session)
        try:
            while not self._is_over and self._clock.now() < session.close + LAST_BARS:
                if self._feed is not None and self._feed.is_done and self._clock.now() >= session.close:
                    break
                self._round()
            if not self._stopping and self._clock.now() >= session.close:
                self._take_bars()
                with self._isolation.of(Work("close of the session")):
                    self._loop.close_session(self._clock.now())
        finally:
            self._store_bars()
            self._leave_feed()
            self._session = None

    def _open(self, session: Session, history: BarHistory) -> bool:
        """Wait for a database that is away; False where it is over before."""
        while not self._stopping:
            try:
                self._loop.open_session(session, MINUTE, history)
            except StoreUnavailable as error:
                log.warning("session_not_opened", error=str(error), so="positions are protected meanwhile")
                self._round()
            else:
                return True
        return False

    def _history(self, session: Session) -> BarHistory | None:
        """Read while the rounds go on, because it may take minutes; None where it is over before."""
        found: Future[BarHistory] = Future()

        def read() -> None:
            try:
                found.set_result(self._market.history(session))
            except Exception as error:  # noqa: BLE001  # told to whom asked
                found.set_exception(error)
            self._wake.set()

        Thread(target=read, name="history", daemon=True).start()
        while not found.done() and not self._stopping:
            self._round()
        if not found.done():
            return None
        try:
            return found.result()
        except AlpacaError as error:
            log.error("history_not_downloaded", error=str(error), todo="indicators open on what is stored")
            return self._market.stored.history(session.day, self._desk.bank.universe)

    def _connect(self, session: Session) -> None:
        self._feed = self._market.feed(session, PriceMemory.of(self._desk.bank.close))
        self._feed.start()

    def _rounds_until(self, moment: datetime) -> None:
        while not self._is_over and self._clock.now() < moment:
            self._round()

    def _round(self) -> None:
        """Wait for something to do, and do it."""
        self._clock.wait(self._wake, self._next())
        woken = self._wake.is_set()
        self._wake.clear()
        if connection.errors_occurred:
            connection.close()  # the next query opens another one
        self._take_bars()
        now = self._clock.now()
        if self._exit_beat.is_due(now) or woken or (self._desk.execution.urgent and now - self._last_tick >= URGENT):
            self._tick(now)
        if self._session and self._breakeven_beat.is_due(now):
            with self._isolation.of(Work("breakeven")):
                self._loop.tick_breakeven()
        if self._chore_beat.is_due(now):
            self._do_chores(now)
        if self._heart_beat.is_due(datetime.now(UTC)):
            self._tell_state(now)

    def _next(self) -> datetime:
        now = self._clock.now()
        first = min(self._exit_beat.next(now), self._chore_beat.next(now), now + HEARTBEAT)
        return min(first, self._last_tick + URGENT) if self._desk.execution.urgent else first

    def _tick(self, now: datetime) -> None:
        before, self._last_tick = self._broker.requests_sent, now
        session = self._session or next_session(now)
        with self._isolation.of(Work("tick")):
            if self._session is None:
                self._loop.settle()
            else:
                self._loop.tick(now)
            self._leave_by_the_clock(now, session)
            self._leave_if_told(now, session)
        with self._isolation.of(Work("instructions")):
            self._carry_out(now, session)
        if self._ticks_left and self._has_caught_up(now):
            self._ticks_left -= 1
        pulse = self._pulse
        pulse.ticks, pulse.calls = pulse.ticks + 1, pulse.calls + self._broker.requests_sent - before
        pulse.longest = max(pulse.longest, (self._clock.now() - now).total_seconds())

    def _has_caught_up(self, now: datetime) -> bool:
        """Whether the bars until now are in, as far as there are any."""
        upcoming = next_session(now)
        if now < upcoming.open:
            return True
        return self._session is not None and now - self._desk.bank.now < NO_BARS

    def _leave_by_the_clock(self, now: datetime, session: Session) -> None:
        """No bar says that the close is near, and it is: nothing is held overnight for want of bars, or of history."""
        bars_come = self._session is not None and now - self._last_bar_at < NO_BARS
        if bars_come or not self._desk.exits.active or not session.open <= now < session.close:
            return
        decision = check_session_close((session.close - now) / MINUTE, self._desk.exit_settings())
        if decision is not None:
            self._desk.exits.leave_all(decision)

    def _leave_if_told(self, now: datetime, session: Session) -> None:
        told = halted(self._desk.book)
        if told is None or not told.flatten or not session.open <= now < session.close:
            return
        self._desk.exits.leave_all(ExitDecision(ExitReason.MANUAL, {"halted_by": told.by, "reason": told.reason}))

    # -- bars

    def _take_bars(self) -> None:
        if self._feed is None:
            if self._session and self._feed_again_at and self._clock.now() >= self._feed_again_at:
                self._connect(self._session)
            return
        try:
            while (arrival := self._feed.take(0)) is not None:
                self._take_bar(arrival)
        except AlpacaError as error:
            log.error("feed_refused", error=str(error), todo="stops stay; bars are asked for again in a minute")
            self._leave_feed()
            self._feed_again_at = self._clock.now() + FEED_PAUSE

    def _leave_feed(self) -> None:
        if self._feed is not None:
            self._feed.stop()
            log.info("bars_counted", session=self._feed.session.day, **asdict(self._feed.counts))
            self._feed = None

    def _take_bar(self, arrival: Arrival) -> None:
        batch, bank = arrival.batch, self._desk.bank
        with self._isolation.of(Work("bars", subject=f"{batch.start:%H:%M} UTC")):
            if arrival.revises:
                self._loop.revise_bar(batch)
                return
            if batch.start < bank.now:
                return  # a feed that began anew tells it again
            self._loop.remember()
            self._last_bar_at = self._clock.now()
            if self._clock.now() - batch.end > LATEST_BAR:
                if batch.end > self._joined_at:
                    late = (self._clock.now() - batch.end).total_seconds()
                    log.warning("bar_too_late", bar=batch.start, late_seconds=late, so="nothing is entered on it")
                self._loop.catch_up(batch)
            else:
                self._loop.on_bar(batch)

    def _store_bars(self) -> None:
        if self._feed is None or self._session is None:
            return
        seen = self._feed.take_seen()
        if len(seen):
            with self._isolation.of(Work("storing bars")):
                self._market.stored.merge(self._session, seen)

    # -- what is done beside

    def _do_chores(self, now: datetime) -> None:
        with self._isolation.of(Work("reconcile")):
            self._reconcile(now)
        self._store_bars()

    def _tell_state(self, now: datetime) -> None:
        feed = self._feed
        is_open = self._session is not None and self._session.open <= now < self._session.close
        silent = is_open and now - self._last_bar_at >= BARS_STOPPED
        self._tell("bars", f"none since {self._last_bar_at:%H:%M} UTC" if silent else "", "bars_stopped", "bars_again")
        self._tell("trade updates", self._updates.trouble if is_open and self._desk.store.live else "")
        self._tell("bar stream", feed.stream_problem if feed else "")
        self._tell("bars over REST", feed.rest_problem if feed else "")
        pulse, self._pulse = self._pulse, Pulse()
        trouble = next(
            filter(None, [self._desk.execution.alarms, *self._troubles.values(), self._isolation.last_error]), ""
        )
        state: dict[str, Any] = {"last_error": trouble[:300], "watched": [], "last_bar_at": None}
        state["stale_symbols"] = len(feed.stale_symbols(now)) if feed and is_open else None
        state["quarantined_bars"] = feed.counts.quarantined if feed else None
        if pulse.ticks:
            state |= {"tick_seconds": pulse.longest, "calls_a_tick": pulse.calls / pulse.ticks}
        if self._session is not None:
            with self._isolation.of(Work("telling of open trades")):
                state |= {"watched": self._desk.exits.watched(now), "last_bar_at": self._desk.bank.now}
        self._tenure.renew(**state)
        self._store_errors()

    def _store_errors(self) -> None:
        errors = self._isolation.errors
        if not errors:
            return
        try:
            stored = self._desk.store.note_errors(list(errors.values()))
        except DatabaseError:
            log.exception("errors_not_counted", errors=len(errors))
            stored = True
        if stored:
            errors.clear()

    def _tell(self, what: str, trouble: str, begins: str = "stream_trouble", ends: str = "stream_well_again") -> None:
        """Log a trouble when it begins and when it ends."""
        if bool(trouble) is not bool(self._troubles.get(what)):
            log.warning(begins if trouble else ends, what=what, trouble=trouble or None)
        self._troubles[what] = trouble


def next_session(now: datetime) -> Session:
    """The session that is open or comes next."""
    day = now.astimezone(NEW_YORK).date()
    return next(each for each in sessions_between(day, day + timedelta(days=14)) if each.close > now)
