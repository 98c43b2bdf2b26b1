"""Alpaca's market data: history over REST, and live minute bars from its stream with REST behind it.

Bars carry their start. They appear about a second after their minute; late prints change them about thirty seconds
later (the stream's `updatedBars`). IEX has no bar for a minute without an eligible trade there: it stays missing.
"""

import json
import logging
import queue
import random
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from positions import alpaca_streams
from positions.clock import Clock
from positions.market.bar_files import MINUTE, BarRows, Mask, Whole, joined, microseconds
from positions.market.bars import FIELDS, BarBatch, Floats, Universe
from positions.market.calendar import Session
from positions.market.quarantine import PriceMemory, is_far, is_sane, quarantine
from positions.words import Feed

if TYPE_CHECKING:
    from alpaca.data.live.stock import StockDataStream
    from alpaca.data.models import Bar

logger = logging.getLogger(__name__)

#: Seconds to connect and to wait for a reply: the SDK itself would wait for ever.
TIMEOUTS = (3.0, 5.0)
#: Attempts at one request, with waits of 0.5, 1, 2, ... seconds between them, or until the rate limit's reset.
ATTEMPTS = 6
FIRST_WAIT = timedelta(seconds=0.5)
LONGEST_WAIT = timedelta(seconds=65)
#: What one request asks for: symbols (the URL must stay short) and bars (the most that Alpaca gives).
SYMBOLS_A_REQUEST, BARS_A_PAGE = 200, 10_000

#: How long after its minute a bar is waited for.
GRACE = timedelta(seconds=2)
#: How long a minute that the stream has bars of waits for a REST service that does not answer.
REST_PATIENCE = timedelta(seconds=10)
REST_PAUSE = timedelta(seconds=5)
#: The stream is connected anew when it has said nothing for so many seconds.
DATA_TIMEOUT = 150.0
#: A symbol without a bar for so long is stale.
STALE_AFTER = timedelta(minutes=5)

_QUANTITIES = ("o", "h", "l", "c", "v", "vw")


class AlpacaError(RuntimeError):
    """The message is one line: what Alpaca was asked, what it said, what to do."""


class AlpacaRefused(AlpacaError):
    """Alpaca understood and said no: keys, subscription, parameters. Asking again will not help."""


class AlpacaUnreachable(AlpacaError):
    """Alpaca did not answer, or not sensibly, in the attempts allowed."""


@dataclass(frozen=True, slots=True)
class AlpacaAccess:
    """Keys, the feed that every request names, and another origin (http://host:port) than Alpaca's own."""

    key: str
    secret: str
    feed: Feed
    origin: str = ""

    def __repr__(self) -> str:
        return f"AlpacaAccess(feed={self.feed}, origin={self.origin!r})"

    @property
    def stream_url(self) -> str | None:
        return f"{self.origin.replace('http', 'ws', 1)}/v2/{self.feed}" if self.origin else None


class AlpacaBars:
    """Historical bars over REST, unadjusted, with limits of our own on time and attempts. Use one a thread.

    `bad_symbols` are those that Alpaca refuses as malformed; they are left out from then on.
    """

    def __init__(
        self,
        access: AlpacaAccess,
        clock: Clock,
        length: timedelta = MINUTE,
        *,
        attempts: int = ATTEMPTS,
        timeouts: tuple[float, float] = TIMEOUTS,
    ) -> None:
        from alpaca.data.historical.stock import StockHistoricalDataClient

        self.length = length
        self.bad_symbols: set[str] = set()
        self._access, self._clock, self._attempts = access, clock, attempts
        self._client = StockHistoricalDataClient(
            access.key, access.secret, raw_data=True, url_override=access.origin or None
        )
        self._client._retry = 0  # the SDK's own retries are blind: three seconds each, whatever the reply says
        session = self._client._session
        session.request = partial(session.request, timeout=timeouts)  # type: ignore[method-assign]  # it has no setting

    def bars(self, symbols: Sequence[str], start: datetime, end: datetime) -> BarRows:
        """All completed bars that start in [start, end), on its grid. Symbols without one, or unknown, have no rows.

        Raises AlpacaRefused and AlpacaUnreachable.
        """
        parts = []
        wanted = [symbol for symbol in symbols if symbol not in self.bad_symbols]
        for first in range(0, len(wanted), SYMBOLS_A_REQUEST):
            parts += self._pages(wanted[first : first + SYMBOLS_A_REQUEST], start, end)
        rows = joined(parts)
        offset = rows.starts - microseconds(start)
        asked = (offset >= 0) & (offset % (self.length // timedelta(microseconds=1)) == 0)
        return rows.take(asked & (rows.starts < microseconds(end)))

    def _pages(self, symbols: list[str], start: datetime, end: datetime) -> list[BarRows]:
        query = {
            "timeframe": f"{self.length // MINUTE}Min",
            "start": start.isoformat(),
            "end": (end - timedelta(microseconds=1)).isoformat(),  # theirs includes its end
            "feed": self._access.feed.value,
            "adjustment": "raw",
            "limit": BARS_A_PAGE,
        }
        pages: list[BarRows] = []
        token = None
        while symbols:
            try:
                page = self._get("/stocks/bars", {**query, "symbols": ",".join(symbols), "page_token": token})
            except _BadSymbol as error:
                self.bad_symbols.add(error.symbol)
                symbols = [symbol for symbol in symbols if symbol != error.symbol]
                pages, token = [], None
                continue
            pages.append(self._parsed(page))
            token = page.get("next_page_token")
            if not token:
                break
        return pages

    def _parsed(self, page: dict[str, Any]) -> BarRows:
        now = microseconds(self._clock.now())
        found = page.get("bars") or {}
        rows = _rows((symbol, bar, now) for symbol, bars in found.items() for bar in bars or ())
        return rows.take(rows.starts + self.length // timedelta(microseconds=1) <= now)

    def _get(self, path: str, query: dict[str, Any]) -> dict[str, Any]:
        """One page. Waits and asks again where that may help."""
        from alpaca.common.exceptions import APIError
        from requests.exceptions import RequestException

        problem = ""
        for attempt in range(self._attempts):
            earliest = self._clock.now()
            try:
                page = self._client.get(path, query)
                if isinstance(page, dict):
                    return page
                problem = "answered with something else than bars"
            except APIError as error:
                problem = f"answered {error.status_code}: {_said(error)}"
                if error.status_code != 429 and error.status_code < 500:
                    _refuse(error, query["symbols"])
                earliest = _reset(error) or earliest
            except RequestException as error:
                problem = f"did not answer ({type(error).__name__})"
            if attempt + 1 < self._attempts:
                self._clock.sleep_until(self._next_attempt(attempt, earliest))
        raise AlpacaUnreachable(
            f"Alpaca {problem}, {self._attempts} times for {path}; check the connection and status.alpaca.markets, "
            "then try again"
        )

    def _next_attempt(self, attempt: int, earliest: datetime) -> datetime:
        """Doubling waits of which a random half is left out, so that clients do not return together."""
        now = self._clock.now()
        pause: timedelta = FIRST_WAIT * 2**attempt * random.uniform(0.5, 1)
        return min(max(now, earliest) + pause, now + LONGEST_WAIT)


class _BadSymbol(Exception):
    def __init__(self, symbol: str) -> None:
        self.symbol = symbol


def _refuse(error: Any, symbols: str) -> None:
    """Raises what a reply below 500 means, of which asking again makes nothing else."""
    said = _said(error)
    _, marker, symbol = said.partition("invalid symbol: ")
    if marker and symbol in symbols.split(","):
        raise _BadSymbol(symbol) from error
    advice = "check the request"
    if error.status_code == 401 or (error.status_code == 403 and "subscription" not in said):
        advice = "check ALPACA_API_KEY and ALPACA_SECRET_KEY"
    elif error.status_code == 403:
        advice = "use the iex feed, or end 15 minutes before now"
    raise AlpacaRefused(f"Alpaca refused ({error.status_code}): {said}; {advice}") from error


def _said(error: Any) -> str:
    """The message in an error's body, which may be JSON or a proxy's page, in one short line."""
    body = str(error)
    try:
        message = json.loads(body)["message"]
    except (ValueError, KeyError, TypeError):
        message = body
    return " ".join(str(message).split())[:200] or "nothing"


def _reset(error: Any) -> datetime | None:
    """When the rate limit is lifted, where the reply says so."""
    raw = error.response.headers.get("X-RateLimit-Reset", "")
    return datetime.fromtimestamp(int(raw), UTC) if raw.isdecimal() else None


def _rows(bars: Iterable[tuple[str, Any, int]]) -> BarRows:
    """Alpaca's bars, of REST or stream, as rows: symbol, bar and the microsecond it was seen.

    Unknown fields are ignored, absent ones are NaN; what has no time is left out.
    """
    names: list[str] = []
    starts: list[int] = []
    values: list[list[float]] = []
    trades: list[float] = []
    seen_at: list[int] = []
    for symbol, bar, seen in bars:
        start = _time(bar.get("t")) if isinstance(bar, dict) else None
        if start is None:
            logger.warning("a bar of %s without a time was left out: %.200r", symbol, bar)
            continue
        names.append(symbol)
        starts.append(start)
        values.append([_number(bar.get(quantity)) for quantity in _QUANTITIES])
        trades.append(_number(bar.get("n")))
        seen_at.append(seen)
    return BarRows.of(
        names,
        np.array(starts, dtype=np.int64),
        np.array(values, dtype=np.float64).reshape(len(names), len(FIELDS)).T,
        np.array(trades, dtype=np.float64),
        np.array(seen_at, dtype=np.int64),
    )


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")


def _time(value: Any) -> int | None:
    """Microseconds since 1970 of RFC 3339 text (REST) or a msgpack timestamp (stream)."""
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            return None
        return microseconds(moment) if moment.tzinfo else None
    to_unix_nano = getattr(value, "to_unix_nano", None)
    return None if to_unix_nano is None else int(to_unix_nano()) // 1000


@dataclass(frozen=True, slots=True)
class Arrival:
    """A minute of the universe, or later news of the last one: `revises` batches have only the symbols that changed."""

    batch: BarBatch
    revises: bool


@dataclass(slots=True)
class FeedCounts:
    """What became of the bars of a session.

    `late`: came after their minute was released, of those `too_late`: and after the next one too, so that nothing but
    the stored bars learns of them. `from_rest`: bars the stream did not bring. `gaps`: minutes released without an
    answer from REST although the stream had been away.
    """

    late: int = 0
    too_late: int = 0
    repeated: int = 0
    revised: int = 0
    quarantined: int = 0
    foreign: int = 0
    from_rest: int = 0
    rest_failures: int = 0
    gaps: int = 0
    connections: int = 0


class AlpacaFeed:
    """The live minute bars of one session, from `first` (the session's open unless told otherwise) to its close.

    `start` connects; `take` then gives one `BarBatch` for every minute, in order, as soon as all symbols have a bar or
    `grace` after the minute. REST is asked for every minute that the stream cannot answer for: it was not connected the
    whole time, or has said nothing of that minute or a later one. That one rule is the catch-up after a start in
    mid-session, the backfill after a lost connection and the polling while the stream is silent. Bad prints are
    quarantined first. `take_seen` hands out all that was seen, for StoredBars. `arrived` is set when `take` has news.

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
        self.stream_problem = ""
        self.rest_problem = ""
        self._access, self._clock, self._rest, self._data_timeout = access, clock, rest, data_timeout
        self._symbols = tuple(symbol for symbol in universe.symbols if not symbol.startswith("^"))
        self._row_of = {symbol: universe.symbols.index(symbol) for symbol in self._symbols}

        self._minutes = (session.close - session.open) // MINUTE
        self._next = 0 if first is None else (first - session.open) // MINUTE
        self._got = np.zeros((self._minutes, len(universe)), dtype=bool)
        self._last_bar_end = np.full(len(universe), self._microsecond(self._next))
        self._memory = memory or PriceMemory.empty(len(universe))
        self._pending: dict[int, _Minute] = {}
        self._newest_of_stream = -1
        self._rest_until = self._next
        self._ask_rest_at = session.open

        self._messages: queue.SimpleQueue[tuple[int, dict[str, Any]]] = queue.SimpleQueue()
        self._arrivals: queue.SimpleQueue[Arrival | AlpacaError] = queue.SimpleQueue()
        self._seen: queue.SimpleQueue[BarRows] = queue.SimpleQueue()
        self._connected_since: datetime | None = None
        self._stream: StockDataStream | None = None
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._arrived, self._grace = arrived or threading.Event(), grace

    # For the thread that trades

    def start(self) -> None:
        """Connect, and put minutes together from now on."""
        self.connect()
        threading.Thread(target=self._work, name="alpaca-minutes", daemon=True).start()

    def stop(self) -> None:
        self._stopping.set()
        self._wake.set()
        if self._stream is not None:
            alpaca_streams.end(self._stream)

    def take(self, seconds: float) -> Arrival | None:
        """The next arrival, waiting so long for it. Raises AlpacaRefused once Alpaca has said no for good."""
        try:
            arrival = self._arrivals.get(timeout=seconds)
        except queue.Empty:
            return None
        if isinstance(arrival, AlpacaError):
            raise arrival
        return arrival

    def take_seen(self) -> BarRows:
        """Every good bar and correction seen since the last call, with the moment of it."""
        parts = []
        while not self._seen.empty():
            parts.append(self._seen.get())
        return joined(parts)

    def stale_symbols(self, now: datetime, after: timedelta = STALE_AFTER) -> tuple[str, ...]:
        """Symbols whose last bar ended more than `after` ago; from the feed's first minute for those without one."""
        limit = microseconds(now - after)
        return tuple(symbol for symbol in self._symbols if self._last_bar_end[self._row_of[symbol]] < limit)

    @property
    def is_connected(self) -> bool:
        return self._connected_since is not None

    @property
    def is_done(self) -> bool:
        """Whether the session's last minute has been released."""
        return self._next >= self._minutes

    # On the stream's thread

    def connect(self) -> None:
        """Start the stream on a thread of its own; it reconnects by itself until `stop`."""
        from alpaca.data.enums import DataFeed
        from alpaca.data.live.stock import StockDataStream

        stream = StockDataStream(
            self._access.key,
            self._access.secret,
            raw_data=True,
            feed=DataFeed(self._access.feed.value),
            url_override=self._access.stream_url,
            data_timeout=self._data_timeout,
        )
        stream.subscribe_bars(self._on_bar, *self._symbols)
        stream.subscribe_updated_bars(self._on_bar, *self._symbols)
        alpaca_streams.watch(stream, self._stopping, self._on_connected, self._on_lost)
        self._stream = stream
        threading.Thread(target=stream.run, name="alpaca-stream", daemon=True).start()

    async def _on_bar(self, bar: "Bar | dict[str, Any]") -> None:
        assert isinstance(bar, dict)  # raw_data
        self._messages.put((microseconds(self._clock.now()), bar))
        self._wake.set()

    def _on_connected(self) -> None:
        self.stream_problem = ""
        self.counts.connections += 1
        self._connected_since = self._clock.now()

    def _on_lost(self, problem: str) -> None:
        self._connected_since = None
        self.stream_problem = problem or self.stream_problem

    # On the thread that puts minutes together

    def _work(self) -> None:
        while not self._stopping.is_set() and not self.is_done:
            try:
                self.step()
            except AlpacaRefused as error:
                self._hand_over(error)
                return
            self._wake.wait(0.05)
            self._wake.clear()

    def step(self) -> None:
        """Take in what has come and release the minutes that are due. Raises AlpacaRefused."""
        self._take_messages()
        while not self.is_done and self._is_due():
            self._release()

    def _microsecond(self, minute: int) -> int:
        return microseconds(self._start(minute))

    def _start(self, minute: int) -> datetime:
        return self.session.open + minute * MINUTE

    def _take_messages(self) -> None:
        bars: list[tuple[str, dict[str, Any], int]] = []
        corrected: list[tuple[str, dict[str, Any], int]] = []
        while not self._messages.empty():
            seen_at, bar = self._messages.get()
            (corrected if bar.get("T") == "u" else bars).append((bar["S"], bar, seen_at))
        if bars:
            placed = self._place(_rows(bars))
            self._newest_of_stream = max(self._newest_of_stream, int(placed.minutes.max(initial=-1)))
            self._add(placed)
        if corrected:
            self._add(self._place(_rows(corrected)), corrects=True)

    def _place(self, rows: BarRows) -> "_Placed":
        """Where bars belong; those of other symbols, outside the session or off its grid are counted and left out."""
        columns = np.array([self._row_of.get(symbol, -1) for symbol in rows.symbols], dtype=np.int64)[rows.codes]
        minutes, beside = np.divmod(rows.starts - self._microsecond(0), MINUTE // timedelta(microseconds=1))
        ours = (columns >= 0) & (minutes >= 0) & (minutes < self._minutes) & (beside == 0)
        self.counts.foreign += int((~ours).sum())
        return _Placed(minutes[ours], columns[ours], rows.take(ours))

    def _add(self, placed: "_Placed", *, corrects: bool = False) -> None:
        ahead = placed.minutes >= self._next
        for minute in np.unique(placed.minutes[ahead]).tolist():
            self._add_ahead(minute, placed.take(placed.minutes == minute), corrects)
        if not ahead.all():
            self._add_behind(placed.take(~ahead), corrects)

    def _add_ahead(self, minute: int, placed: "_Placed", corrects: bool) -> None:
        """Bars of a minute that is not released yet: the first wins unless a correction comes."""
        pending = self._pending.setdefault(minute, _Minute.empty(len(self.universe)))
        known = pending.has[placed.columns]
        if corrects:
            self._keep(minute, pending, placed.columns[known])
            self.counts.revised += int(known.sum())
        else:
            first = np.zeros(len(known), dtype=bool)
            first[np.unique(placed.columns, return_index=True)[1]] = True
            self.counts.repeated += int((known | ~first).sum())
            placed = placed.take(first & ~known)
        pending.put(placed)

    def _add_behind(self, placed: "_Placed", corrects: bool) -> None:
        """Bars of released minutes: what is new is kept, and handed on where the last minute changes by it."""
        known = self._got[placed.minutes, placed.columns]
        if not corrects:
            self.counts.repeated += int(known.sum())
            placed, known = placed.take(~known), known[~known]
        values = placed.rows.values
        good = is_sane(values) & ~is_far(values, self._memory.last_good[placed.columns])
        self.counts.quarantined += int((~good).sum())
        placed, known = placed.take(good), known[good]
        last = placed.minutes == self._next - 1
        self.counts.revised += int(known.sum())
        self.counts.late += int((~known).sum())
        self.counts.too_late += int((~last).sum())
        self._mark(placed.minutes, placed.columns)
        if len(placed.rows):
            self._seen.put(placed.rows)
        if last.any():
            changed = _Minute.empty(len(self.universe))
            changed.put(placed.take(last))
            self._hand_over(Arrival(changed.batch(self._start(self._next - 1)), revises=True))

    def _is_due(self) -> bool:
        now, end = self._clock.now(), self._start(self._next + 1)
        if now < end:
            return False
        pending = self._pending.get(self._next)
        if pending is not None and pending.has.sum() == len(self._symbols):
            return True
        return now >= end + self._grace and (self._stream_answers(end) or self._rest_answers(now))

    def _stream_answers(self, end: datetime) -> bool:
        """Whether the stream was there from the minute's end on and has spoken of that minute or a later one."""
        since = self._connected_since
        return since is not None and since <= end and self._newest_of_stream >= self._next

    def _rest_answers(self, now: datetime) -> bool:
        """Whether REST was asked for the next minute, now or before; True too when waiting for it is over."""
        if self._next < self._rest_until:
            return True
        until = min((now - self._grace - self.session.open) // MINUTE, self._minutes)
        if now >= self._ask_rest_at and self._ask_rest(until):
            return True
        over = now >= self._start(self._next + 1) + self._grace + REST_PATIENCE
        if over and self.is_connected and self._newest_of_stream >= self._next:
            self.counts.gaps += 1
            return True
        return False

    def _ask_rest(self, until: int) -> bool:
        try:
            rows = self._rest.bars(self._symbols, self._start(self._next), self._start(until))
        except AlpacaUnreachable as error:
            self.rest_problem = str(error)
            self.counts.rest_failures += 1
            self._ask_rest_at = self._clock.now() + REST_PAUSE
            logger.warning("%s", error)
            return False
        self.rest_problem = ""
        self._take_messages()
        before = sum(int(pending.has.sum()) for pending in self._pending.values())
        repeated = self.counts.repeated
        self._add(self._place(rows))
        self.counts.repeated = repeated  # REST repeats what the stream brought: no news
        self.counts.from_rest += sum(int(pending.has.sum()) for pending in self._pending.values()) - before
        self._rest_until = until
        return True

    def _release(self) -> None:
        start = self._start(self._next)
        pending = self._pending.pop(self._next, None) or _Minute.empty(len(self.universe))
        batch, self._memory, _ = quarantine(pending.batch(start), self._memory)
        refused = pending.has & np.isnan(batch.close)  # a bar without a single number too
        if refused.any():
            self.counts.quarantined += int(refused.sum())
            names = [self.universe.symbols[row] for row in np.flatnonzero(refused)[:10]]
            logger.warning("%d bad prints of %s were kept out: %s", refused.sum(), start, ", ".join(names))
        accepted = np.flatnonzero(np.isfinite(batch.close))
        self._keep(self._next, pending, accepted)
        self._mark(np.full(len(accepted), self._next), accepted)
        self._hand_over(Arrival(batch, revises=False))
        self._next += 1

    def _hand_over(self, news: "Arrival | AlpacaError") -> None:
        self._arrivals.put(news)
        self._arrived.set()

    def _mark(self, minutes: Whole, columns: Whole) -> None:
        self._got[minutes, columns] = True
        ends = self._microsecond(1) + minutes * (MINUTE // timedelta(microseconds=1))
        np.maximum.at(self._last_bar_end, columns, ends)

    def _keep(self, minute: int, pending: "_Minute", columns: Whole) -> None:
        """For take_seen: the bars of these symbols as they came."""
        columns = columns[is_sane(pending.values[:, columns])]
        if len(columns):
            self._seen.put(
                BarRows.of(
                    [self.universe.symbols[column] for column in columns],
                    np.full(len(columns), self._microsecond(minute)),
                    pending.values[:, columns],
                    pending.trade_count[columns],
                    pending.seen_at[columns],
                )
            )


@dataclass(frozen=True, slots=True)
class _Placed:
    """Bars with the minute of the session and the column of the universe that each belongs to."""

    minutes: Whole
    columns: Whole
    rows: BarRows

    def take(self, wanted: Mask) -> "_Placed":
        return _Placed(self.minutes[wanted], self.columns[wanted], self.rows.take(wanted))


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

    def put(self, placed: _Placed) -> None:
        self.has[placed.columns] = True
        self.values[:, placed.columns] = placed.rows.values
        self.trade_count[placed.columns] = placed.rows.trade_count
        self.seen_at[placed.columns] = placed.rows.seen_at

    def batch(self, start: datetime) -> BarBatch:
        return BarBatch(start, MINUTE, *self.values)
