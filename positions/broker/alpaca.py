"""An Alpaca account as a Broker, over the SDK's client and our own parser.

Every request has timeouts. Reads are asked again while PATIENCE lasts; writes are sent once, and whatever leaves it
open whether one took effect raises OutcomeUnknown. The stream of trade updates only wakes: what is so, REST tells.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar
from uuid import uuid4

import structlog
from requests import Response
from requests.exceptions import ConnectionError, ConnectTimeout, RequestException

from positions import alpaca_streams
from positions.broker import wire
from positions.broker.port import (
    Account,
    Activity,
    BrokerError,
    KeysRefused,
    Listing,
    NotNow,
    Order,
    OrderKind,
    OrderRequest,
    OrderSide,
    OrderStatus,
    OutcomeUnknown,
    Position,
    PositionIntent,
    Rejected,
    Unavailable,
)
from positions.broker.rate_budget import RateBudget
from positions.clock import Clock

if TYPE_CHECKING:
    from alpaca.trading.stream import TradingStream

log = structlog.get_logger(__name__)

#: Seconds to connect and to wait for a reply: the SDK itself would wait for ever.
TIMEOUTS = (3.0, 5.0)
REQUESTS_A_MINUTE = 200
#: How long one read is asked again, and how long a call waits for its turn in the rate budget.
PATIENCE = timedelta(seconds=5)
FIRST_WAIT = timedelta(seconds=0.2)
#: After a read was given up, only what is urgent is sent for so long: a broken service holds up a tick but once.
OUTAGE_PAUSE = timedelta(seconds=5)
#: Reads so soon after a cancellation or a closing order are part of an exit, and as urgent.
EXIT_TAKES = timedelta(seconds=10)
#: Pauses after the keys were refused, doubling.
KEYS_PAUSE, LONGEST_KEYS_PAUSE = timedelta(seconds=1), timedelta(minutes=1)
#: The most orders and activities that a page has.
ORDERS_A_PAGE, ACTIVITIES_A_PAGE = 500, 100
#: Beyond it, orders are asked for without naming symbols: the URL must stay short.
SYMBOLS_A_REQUEST = 100
#: Orders are listed by the time of their submission, which may lie a little before their creation.
SUBMITTED_BEFORE = timedelta(seconds=1)
#: Replacements that are followed from one order; more are a circle.
LONGEST_CHAIN = 100

#: Order of the guard's test: nobody pays this price, and one of these is not held. The refusals that prove it.
PROBE_PRICE, PROBE_SYMBOLS = Decimal(9999), ("SPY", "QQQ", "IWM", "DIA", "XLU")
GUARDED = ("position intent mismatch", "not allowed to short", "insufficient qty")

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class TradingAccess:
    """Keys, whether they are of a live account, and another origin (http://host:port) than Alpaca's own."""

    key: str
    secret: str
    live: bool = False
    origin: str = ""

    def __repr__(self) -> str:
        return f"TradingAccess(live={self.live}, origin={self.origin!r})"


@dataclass(frozen=True, slots=True)
class _Watched:
    """An order whose end has not been handed over: `told` is what was, None for nothing yet."""

    symbol: str
    since: datetime
    told: Order | None


class NoGuard(BrokerError):
    """Nothing at the broker keeps an exit that comes too late from opening a position of the other side."""


class _NoSuchOrder(Rejected):
    pass


class AlpacaBroker:
    """One account at Alpaca. Implements the Broker protocol; use one a thread."""

    def __init__(
        self,
        access: TradingAccess,
        clock: Clock,
        *,
        timeouts: tuple[float, float] = TIMEOUTS,
        requests_a_minute: int = REQUESTS_A_MINUTE,
    ) -> None:
        from alpaca.trading.client import TradingClient

        self._clock = clock
        self._budget = RateBudget(clock, requests_a_minute)
        self._watched: dict[str, _Watched] = {}
        self.requests_sent = 0
        self._reported: set[str] = set()
        self._urgent_until = self._keys_refused_until = self._out_until = clock.now()
        self._keys_pause = KEYS_PAUSE
        self._client = TradingClient(
            access.key, access.secret, paper=not access.live, raw_data=True, url_override=access.origin or None
        )
        self._client._retry = 0  # the SDK's own retries are blind and would repeat an order
        session = self._client._session
        send = session.request

        def request(method: str, url: str, **options: Any) -> Response:
            response = send(method, url, timeout=timeouts, **options)
            self._budget.heard(response.status_code, response.headers)
            if 300 <= response.status_code < 400:
                raise RequestException(f"a redirect to {response.headers.get('Location')}", response=response)
            return response

        session.request = request  # type: ignore[method-assign, assignment]  # no setting for a timeout

    # -- reads

    def account(self) -> Account:
        return self._read("/account", {}, wire.account)

    def positions(self) -> Listing[Position]:
        found = self._read("/positions", {}, wire.positions)
        self._report("position", found.unreadable)
        return Listing({row.symbol: row for row in found.rows}, frozenset(found.unreadable))

    def open_orders(self) -> Listing[Order]:
        found = self._orders({"status": "open"})
        working = [order for order in found.rows if not order.status.is_final]
        for order in working:
            self._watch(order)
        return Listing({order.client_order_id: order for order in working}, frozenset(found.unreadable))

    def order_by_client_id(self, client_order_id: str) -> Order | None:
        return self._find("/orders:by_client_order_id", {"client_order_id": client_order_id})

    def changed_orders(self) -> list[Order]:
        """None while no order of ours works, else one call for every 500 orders since the oldest that is watched: all
        of them, compared with what was told before."""
        if not self._watched:
            return []
        query = {"status": "all", "after": min(watched.since for watched in self._watched.values()).isoformat()}
        symbols = sorted({watched.symbol for watched in self._watched.values()})
        if len(symbols) <= SYMBOLS_A_REQUEST:
            query["symbols"] = ",".join(symbols)
        changed = []
        for order in self._orders(query).rows:
            watched = self._watched.get(order.id)
            if watched is None or order == watched.told:
                continue
            changed.append(order)
            if order.status.is_final:
                del self._watched[order.id]
            else:
                self._watched[order.id] = _Watched(watched.symbol, watched.since, order)
        return changed

    def activities(self, after: datetime, kind: str = "FILL") -> list[Activity]:
        """What happened to the account after a moment, oldest first. Raises Unavailable."""
        query = {"activity_types": kind, "after": after.isoformat(), "direction": "asc", "page_size": ACTIVITIES_A_PAGE}
        done: list[Activity] = []
        while True:
            page = self._read("/account/activities", query, wire.activities)
            self._report("activity", page.unreadable)
            done += page.rows
            if page.size < ACTIVITIES_A_PAGE or not page.rows:
                return done
            query["page_token"] = page.rows[-1].id

    def clock_skew(self) -> timedelta:
        """How far the broker's clock is ahead of ours, to half the time that the question took."""
        asked = self._clock.now()
        there = self._read("/clock", {}, wire.time_of_clock)
        return there - asked - (self._clock.now() - asked) / 2

    def verify_guard(self) -> str:
        """What keeps an exit that comes too late from opening a position of the other side, in one sentence.

        That is the account's no_shorting, or the position_intent of every order: tried with an order to close what is
        not held, at a price that nobody pays. Raises NoGuard, Unavailable and OutcomeUnknown.
        """
        if self._read("/account/configurations", {}, wire.forbids_shorting):
            return "the account's no_shorting keeps an exit from opening a short position"
        held = self.positions()
        symbol = next((each for each in PROBE_SYMBOLS if each not in held and each not in held.unreadable), "")
        if not symbol:
            raise NoGuard(f"position_intent cannot be tried while all of {', '.join(PROBE_SYMBOLS)} are held")
        probe = OrderRequest(
            client_order_id=f"guard-{uuid4()}",
            symbol=symbol,
            side=OrderSide.SELL,
            kind=OrderKind.LIMIT,
            quantity=1,
            intent=PositionIntent.SELL_TO_CLOSE,
            limit_price=PROBE_PRICE,
        )
        try:
            self.cancel(self.submit(probe).id)
        except Rejected as refusal:
            if any(hint in str(refusal) for hint in GUARDED):
                return f"an order to close what is not held was refused: {refusal}"
            raise NoGuard(f"an order to close what is not held was refused for another reason: {refusal}") from refusal
        except OutcomeUnknown:
            order = self.order_by_client_id(probe.client_order_id)
            if order is not None:
                self.cancel(order.id)
            raise
        raise NoGuard("an order to close what is not held was accepted (and cancelled); set no_shorting at Alpaca")

    # -- writes

    def submit(self, request: OrderRequest) -> Order:
        try:
            body = _body(request)
        except ValueError as error:
            raise Rejected(f"{request.client_order_id} was not sent: {error}") from error
        if request.intent.closes:
            self._exit_begins()
        try:
            order = self._write("post", "/orders", body, urgent=request.intent.closes)
        except Rejected as error:
            if "client_order_id must be unique" not in str(error):
                raise
            order = self._sent_before(request, error)
        self._watch(order)
        return order

    def replace_stop(self, order_id: str, stop_price: Decimal, client_order_id: str) -> Order:
        try:
            body = {"stop_price": wire.price(stop_price), "client_order_id": client_order_id}
        except ValueError as error:
            raise Rejected(f"{order_id} was not replaced: {error}") from error
        try:
            order = self._write("patch", f"/orders/{order_id}", body, urgent=True)
        except _NoSuchOrder:
            raise
        except Rejected as refusal:
            order = self._stop_after(refusal, order_id, stop_price, client_order_id)
        self._watch(order)
        return order

    def cancel(self, order_id: str) -> None:
        self._exit_begins()
        try:
            self._ask("delete", f"/orders/{order_id}", urgent=True)
        except _NoSuchOrder:
            raise
        except Rejected as refusal:
            if self._reread(order_id, refusal).status is not OrderStatus.CANCELLED:
                raise

    def _sent_before(self, request: OrderRequest, refusal: Rejected) -> Order:
        """The id is taken: by this very order, whose answer was lost, or by another one."""
        try:
            order = self.order_by_client_id(request.client_order_id)
        except Unavailable as error:
            raise OutcomeUnknown(f"{request.client_order_id} was sent before and cannot be read: {error}") from error
        if order is None:
            raise OutcomeUnknown(f"{request.client_order_id} was sent before, and is not shown yet") from refusal
        difference = order.difference_from(request)
        if difference:
            raise Rejected(
                f"{request.client_order_id} is the id of another order: {difference}", refusal.status, refusal.code
            ) from refusal
        return order

    def _stop_after(self, refusal: Rejected, order_id: str, stop_price: Decimal, client_order_id: str) -> Order:
        """What a refused replacement leaves: perhaps the stop that was asked for, perhaps a successor to replace."""
        order = self._reread(order_id, refusal)
        if order.stop_price == stop_price and (order.client_order_id == client_order_id or not order.status.is_final):
            return order
        if order.status.is_final:
            raise refusal
        if order.id != order_id:
            if order.stop_price is None or _is_tighter(order, stop_price):
                raise Rejected(f"{refusal}; {order.stop_price} stands in its place", refusal.status, refusal.code)
            return self.replace_stop(order.id, stop_price, client_order_id)
        if order.broker_status in wire.SETTLING or "not fully replaced" in str(refusal):
            raise NotNow(str(refusal), refusal.status, refusal.code) from refusal
        raise refusal

    def _reread(self, order_id: str, refusal: Rejected) -> Order:
        """The order that stands in this one's place after a refusal, which may be itself."""
        try:
            for _ in range(LONGEST_CHAIN):
                order = self._find(f"/orders/{order_id}", {})
                if order is None:
                    raise refusal
                if order.replaced_by is None:
                    return order
                order_id = order.replaced_by
        except Unavailable as error:
            raise OutcomeUnknown(f"{refusal}; what became of the order cannot be read: {error}") from error
        raise OutcomeUnknown(f"{refusal}; its replacements go in a circle")

    # -- lists of orders, and what of them was told

    def _orders(self, query: dict[str, str]) -> wire.Rows[Order]:
        """All orders of a listing, legs too, oldest first."""
        rows: dict[str, Order] = {}
        unreadable: dict[str, str] = {}
        wanted: dict[str, Any] = {**query, "nested": "true", "direction": "asc", "limit": ORDERS_A_PAGE}
        while True:
            page = self._read("/orders", wanted, wire.orders)
            self._report("order", page.unreadable)
            unreadable |= page.unreadable
            news = [order for order in page.rows if order.id not in rows]
            rows |= {order.id: order for order in page.rows}
            last = max((order.created_at for order in page.rows if order.created_at), default=None)
            if page.size < ORDERS_A_PAGE or not news or last is None:
                return wire.Rows(list(rows.values()), unreadable, len(rows))
            wanted["after"] = (last - SUBMITTED_BEFORE).isoformat()

    def _find(self, path: str, query: dict[str, str]) -> Order | None:
        try:
            order = self._read(path, query, wire.order)
        except _NoSuchOrder:
            return None
        if not order.status.is_final:
            self._watch(order)
        return order

    def _watch(self, order: Order) -> None:
        if order.broker_status not in self._reported and not wire.is_known_status(order.broker_status):
            self._reported.add(order.broker_status)
            log.warning("order_status_unknown", status=order.broker_status, order=order.client_order_id)
        since = (order.created_at or self._clock.now()) - SUBMITTED_BEFORE
        self._watched.setdefault(order.id, _Watched(order.symbol, since, None))

    def _report(self, what: str, unreadable: dict[str, str]) -> None:
        for key, why in unreadable.items():
            if f"{what} {key} {why}" not in self._reported:
                self._reported.add(f"{what} {key} {why}")
                log.error("row_unreadable", row=what, key=key, why=why, todo="look at it at Alpaca")

    # -- requests

    def _read(self, path: str, query: dict[str, Any], parse: Callable[[Any], Answer]) -> Answer:
        """Raises Unavailable, and _NoSuchOrder."""
        self._check_outage(self._clock.now() < self._urgent_until)
        give_up = self._clock.now() + PATIENCE
        pause = FIRST_WAIT
        while True:
            urgent = self._clock.now() < self._urgent_until
            try:
                return parse(self._ask("get", path, query, urgent=urgent))
            except (_NoSuchOrder, KeysRefused):
                raise
            except Rejected as error:
                raise Unavailable(str(error)) from error
            except (BrokerError, wire.BadReply) as error:
                again = max(self._clock.now(), self._budget.earliest(urgent)) + pause * random.uniform(0.5, 1)
                if again >= give_up:
                    self._out_until = self._clock.now() + OUTAGE_PAUSE
                    raise Unavailable(f"{path}: {error}") from error
            self._clock.sleep_until(again)
            pause *= 2

    def _write(self, method: str, path: str, body: dict[str, Any], *, urgent: bool) -> Order:
        self._check_outage(urgent)
        answer = self._ask(method, path, body, urgent=urgent)
        try:
            return wire.order(answer)
        except wire.BadReply as error:
            raise OutcomeUnknown(f"Alpaca answered {method.upper()} {path} with no order: {error}") from error

    def _ask(self, method: str, path: str, data: dict[str, Any] | None = None, *, urgent: bool = False) -> Any:
        """One request and the body of its answer.

        Raises Rejected (Alpaca said no), KeysRefused and Unavailable (it was not heard), OutcomeUnknown (it may have
        been).
        """
        from alpaca.common.exceptions import APIError

        self._take_turn(urgent)
        what = f"{method.upper()} {path}"
        try:
            answer = getattr(self._client, method)(path, data)
        except APIError as error:
            self._raise_meaning(what, int(error.status_code or 0), str(error), error)
        except RequestException as error:
            if _never_left(error):
                why = "Alpaca could not be reached; check the connection and status.alpaca.markets"
                raise Unavailable(f"{what}: {why} ({type(error).__name__})") from error
            told = f"{what}: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
            raise OutcomeUnknown(told) from error
        self._keys_pause = KEYS_PAUSE
        return answer

    def _check_outage(self, urgent: bool) -> None:
        if not urgent and self._clock.now() < self._out_until:
            raise Unavailable(f"Alpaca did not answer just now; it is asked again at {self._out_until:%H:%M:%S} UTC")

    def _take_turn(self, urgent: bool) -> None:
        now = self._clock.now()
        if now < self._keys_refused_until:
            raise KeysRefused(f"Alpaca refused the keys; it is asked again at {self._keys_refused_until:%H:%M:%S} UTC")
        turn = self._budget.earliest(urgent)
        if turn > now + PATIENCE:
            raise Unavailable(f"the rate limit is reached until {turn:%H:%M:%S} UTC; nothing was sent")
        if turn > now:
            self._clock.sleep_until(turn)
        self._budget.spend()
        self.requests_sent += 1

    def _raise_meaning(self, what: str, status: int, text: str, cause: Exception) -> NoReturn:
        refusal = wire.refusal(text)
        told = f"Alpaca answered {what} with {status}: {refusal.message}"
        if status in (408, 429) or status >= 500:
            raise OutcomeUnknown(told) from cause
        if status == 401 or (status == 403 and refusal.code is None):
            if self._keys_pause == KEYS_PAUSE:
                log.error("keys_refused", said=refusal.message, todo="check the keys; manage.py check_broker")
            self._keys_refused_until = self._clock.now() + self._keys_pause
            self._keys_pause = min(2 * self._keys_pause, LONGEST_KEYS_PAUSE)
            raise KeysRefused(f"{told}; check ALPACA_API_KEY and ALPACA_SECRET_KEY") from cause
        if status == 404 and refusal.code is not None and "endpoint" not in refusal.message:
            raise _NoSuchOrder(told, status, refusal.code) from cause
        raise Rejected(told, status, refusal.code) from cause

    def _exit_begins(self) -> None:
        self._urgent_until = self._clock.now() + EXIT_TAKES


class TradeUpdates:
    """Sets `wake` whenever Alpaca's stream says that something happened to an order, and after every connection: what
    happened before it is not told. It reconnects by itself until `stop`; its thread dies with the process.

    `trouble`: why it is not connected, "" while it is. Silence is no trouble: orders may rest for hours, and a
    connection whose pings are not answered is lost (the SDK pings every 10 s and waits for 180).
    """

    def __init__(self, access: TradingAccess, wake: Event) -> None:
        self.wake = wake
        self.trouble = "not connected yet"
        self._access = access
        self._stopping = Event()
        self._stream: TradingStream | None = None

    def start(self) -> None:
        from alpaca.trading.stream import TradingStream

        origin = self._access.origin
        self._stream = stream = TradingStream(
            self._access.key,
            self._access.secret,
            paper=not self._access.live,
            raw_data=True,
            url_override=f"{origin.replace('http', 'ws', 1)}/stream" if origin else "",
        )
        alpaca_streams.watch(stream, self._stopping, self._on_connected, self._on_lost)
        stream.subscribe_trade_updates(self._on_update)
        Thread(target=stream.run, name="alpaca-trade-updates", daemon=True).start()

    def stop(self) -> None:
        self._stopping.set()
        if self._stream is not None:
            alpaca_streams.end(self._stream)

    async def _on_update(self, update: Any) -> None:
        self.wake.set()

    def _on_connected(self) -> None:
        self.trouble = ""
        self.wake.set()

    def _on_lost(self, problem: str) -> None:
        self.trouble = problem or self.trouble or "the connection was lost"


def _body(request: OrderRequest) -> dict[str, Any]:
    """Raises ValueError for a price off the tick."""
    body: dict[str, Any] = {
        "symbol": request.symbol,
        "qty": request.quantity,
        "side": request.side.value,
        "type": request.kind.value,
        "time_in_force": "gtc" if request.kind is OrderKind.STOP else "day",
        "client_order_id": request.client_order_id,
        "position_intent": request.intent.value,
    }
    for name, price in (("stop_price", request.stop_price), ("limit_price", request.limit_price)):
        if price is not None:
            body[name] = wire.price(price)
    return body


def _is_tighter(stop: Order, price: Decimal) -> bool:
    assert stop.stop_price is not None
    return stop.stop_price > price if stop.side is OrderSide.SELL else stop.stop_price < price


def _never_left(error: RequestException) -> bool:
    """Whether no connection came about: then nothing can have happened at the other end."""
    from urllib3.exceptions import NewConnectionError

    reason = getattr(error.args[0], "reason", None) if error.args else None
    return isinstance(error, ConnectTimeout) or (
        isinstance(error, ConnectionError) and isinstance(reason, NewConnectionError)
    )
