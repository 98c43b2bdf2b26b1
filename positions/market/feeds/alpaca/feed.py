"""The live minute bars of a session: the stream, with REST behind it."""

import logging
import queue
import threading
from datetime import datetime, timedelta
from typing import Any

from positions.clock import Clock
from positions.market.bar_files import MINUTE, BarRows, microseconds
from positions.market.bars import Universe
from positions.market.calendar import Session
from positions.market.feeds.alpaca.access import AlpacaAccess
from positions.market.feeds.alpaca.counts import FeedCounts
from positions.market.feeds.alpaca.errors import AlpacaError, AlpacaRefused, AlpacaUnreachable
from positions.market.feeds.alpaca.history import AlpacaBars
from positions.market.feeds.alpaca.minutes import Arrival, SessionMinutes
from positions.market.feeds.alpaca.stream import DATA_TIMEOUT, BarStream
from positions.market.feeds.alpaca.wire import bar_rows
from positions.market.quarantine import PriceMemory

logger = logging.getLogger(__name__)

#: How long after its minute a bar is waited for.
GRACE = timedelta(seconds=2)
#: How long a minute that the stream has bars of waits for a REST service that does not answer.
REST_PATIENCE = timedelta(seconds=10)
REST_PAUSE = timedelta(seconds=5)
#: A symbol without a bar for so long is stale.
STALE_AFTER = timedelta(minutes=5)


class AlpacaFeed:
    """The live minute bars of one session, from `first` (the session's open unless told otherwise) to its close.

    `start` connects; `take` then gives one `BarBatch` for every minute, in order, as soon as all symbols have a bar or
    `grace` after the minute. REST is asked for every minute that the stream cannot answer for: it was not connected the
    whole time, or has said nothing of that minute or a later one. That one rule is the catch-up after a start in
    mid-session, the backfill after a lost connection and the polling while the stream is silent. Bad prints are
    quarantined first, by `memory` from the first minute on. `take_seen` hands out all that was seen, for StoredBars.
    `arrived` is set when `take` has news.

    Bars come in on the stream's thread and are put together on another (`step` is one round of it); the rest is for the
    thread that trades. `rest` is used by the second only.
    """

    length = MINUTE

    def __init__(
        self,
        access: AlpacaAccess,
        universe: Universe,
        session: Session,
        clock: Clock,
        rest: AlpacaBars,
        *,
        first: datetime | None = None,
        memory: PriceMemory | None = None,
        data_timeout: float = DATA_TIMEOUT,
        arrived: threading.Event | None = None,
        grace: timedelta = GRACE,
    ) -> None:
        self.name, self.universe, self.session = access.feed, universe, session
        self.counts = FeedCounts()
        self.rest_problem = ""
        self._clock, self._rest = clock, rest
        self._minutes = SessionMinutes(
            universe,
            session,
            first or session.open,
            memory or PriceMemory.empty(len(universe)),
            self.counts,
            self._hand_over,
        )
        self._stream = BarStream(access, self._minutes.symbols, clock, self.counts, self._hear, data_timeout)
        self._newest_of_stream = -1
        self._rest_until = self._minutes.next
        self._ask_rest_at = session.open

        self._messages: queue.SimpleQueue[tuple[int, dict[str, Any]]] = queue.SimpleQueue()
        self._arrivals: queue.SimpleQueue[Arrival | AlpacaError] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._arrived, self._grace = arrived or threading.Event(), grace

    def start(self) -> None:
        """Connect, and put minutes together from now on."""
        self.connect()
        threading.Thread(target=self._work, name="alpaca-minutes", daemon=True).start()

    def connect(self) -> None:
        self._stream.start()

    def stop(self) -> None:
        self._stopping.set()
        self._wake.set()
        self._stream.stop()

    def take(self, seconds: float) -> Arrival | None:
        """The next arrival, waiting so long for it. Raises AlpacaError once no other will come: Alpaca has said no for
        good, or what it sent could not be dealt with."""
        try:
            arrival = self._arrivals.get(timeout=seconds)
        except queue.Empty:
            return None
        if isinstance(arrival, AlpacaError):
            raise arrival
        return arrival

    def take_seen(self) -> BarRows:
        """Every good bar and correction seen since the last call, with the moment of it."""
        return self._minutes.take_seen()

    def stale_symbols(self, now: datetime) -> tuple[str, ...]:
        return self._minutes.stale_symbols(now, STALE_AFTER)

    @property
    def is_connected(self) -> bool:
        return self._stream.connected_since is not None

    @property
    def stream_problem(self) -> str:
        return self._stream.problem

    @property
    def is_done(self) -> bool:
        """Whether the session's last minute has been released."""
        return self._minutes.is_done

    def _hear(self, bar: dict[str, Any]) -> None:
        self._messages.put((microseconds(self._clock.now()), bar))
        self._wake.set()

    def _hand_over(self, news: Arrival | AlpacaError) -> None:
        self._arrivals.put(news)
        self._arrived.set()

    def _work(self) -> None:
        while not self._stopping.is_set() and not self.is_done:
            try:
                self.step()
            except AlpacaRefused as error:
                self._hand_over(error)
                return
            except Exception as error:  # a mistake: who trades must hear that no bar will come any more
                logger.exception("minutes are put together no more")
                self._hand_over(AlpacaError(f"Minutes could not be put together: {error!r}"[:300]))
                return
            self._wake.wait(0.05)
            self._wake.clear()

    def step(self) -> None:
        """Take in what has come and release the minutes that are due. Raises AlpacaRefused."""
        self._take_messages()
        while not self.is_done and self._is_due():
            self._minutes.release()

    def _take_messages(self) -> None:
        bars: list[tuple[str, dict[str, Any], int]] = []
        corrected: list[tuple[str, dict[str, Any], int]] = []
        while not self._messages.empty():
            seen_at, bar = self._messages.get()
            (corrected if bar.get("T") == "u" else bars).append((bar["S"], bar, seen_at))
        if bars:
            placed = self._minutes.place(bar_rows(bars))
            self._newest_of_stream = max(self._newest_of_stream, int(placed.minutes.max(initial=-1)))
            self._minutes.add(placed)
        if corrected:
            self._minutes.add(self._minutes.place(bar_rows(corrected)), corrects=True)

    def _is_due(self) -> bool:
        now, end = self._clock.now(), self._minutes.start(self._minutes.next + 1)
        if now < end:
            return False
        if self._minutes.is_complete:
            return True
        return now >= end + self._grace and (self._stream_answers(end) or self._rest_answers(now))

    def _stream_answers(self, end: datetime) -> bool:
        """Whether the stream was there from the minute's end on and has spoken of that minute or a later one."""
        since = self._stream.connected_since
        return since is not None and since <= end and self._newest_of_stream >= self._minutes.next

    def _rest_answers(self, now: datetime) -> bool:
        """Whether REST was asked for the next minute, now or before; True too when waiting for it is over."""
        minutes = self._minutes
        if minutes.next < self._rest_until:
            return True
        until = min((now - self._grace - self.session.open) // MINUTE, minutes.count)
        if now >= self._ask_rest_at and self._ask_rest(until):
            return True
        over = now >= minutes.start(minutes.next + 1) + self._grace + REST_PATIENCE
        if over and self.is_connected and self._newest_of_stream >= minutes.next:
            self.counts.gaps += 1
            return True
        return False

    def _ask_rest(self, until: int) -> bool:
        minutes = self._minutes
        try:
            rows = self._rest.bars(minutes.symbols, minutes.start(minutes.next), minutes.start(until))
        except AlpacaUnreachable as error:
            self.rest_problem = str(error)
            self.counts.rest_failures += 1
            self._ask_rest_at = self._clock.now() + REST_PAUSE
            logger.warning("%s", error)
            return False
        self.rest_problem = ""
        self._take_messages()
        before, repeated = minutes.waiting, self.counts.repeated
        minutes.add(minutes.place(rows))
        self.counts.repeated = repeated  # REST repeats what the stream brought: no news
        self.counts.from_rest += minutes.waiting - before
        self._rest_until = until
        return True
