"""A world small enough to be run tens of thousands of times: one position at a broker without mercy, a database that is
a few dictionaries, processes that die, and a plan that says which call goes wrong and how.

The execution is the real one: only the stores' rows are kept in tables of our own, which refuse what the database's
constraints and the store's conditions refuse (tests/positions/test_store.py holds both to one contract).
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any

from positions.broker.port import (
    Account,
    Activity,
    BrokerError,
    Listing,
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
from positions.clock import ReplayClock
from positions.execution import (
    Cancel,
    Execution,
    FindOrder,
    Insert,
    ReadChanges,
    ReadFills,
    ReadOrders,
    ReadPositions,
    Replace,
    Send,
    Settle,
    Step,
    Update,
)
from positions.journaled_store import JournaledStore
from positions.models import LIVE_STATUSES, OrderIntent, PositionExit, StopMove, Trade
from positions.rules import ExitDecision
from positions.store import _OF_THE_DECISION, Change, Duplicate, LiveTrade, Row, StoreUnavailable, attach, detach
from positions.words import (
    ExitReason,
    ExitStatus,
    Feed,
    IntentStep,
    Side,
    StopMoveStatus,
    TradeStatus,
)

START = datetime(2025, 5, 12, 14, 0, tzinfo=UTC)
SHARES, STOP, BREAKEVEN, PRICE = 10, Decimal(99), Decimal("100.02"), Decimal("101.50")
LEAVE = ExitDecision(ExitReason.TIME_LIMIT, {"minutes": 15})
OUTAGE = timedelta(seconds=30)
#: Ticks after which a schedule that has not come to rest is stuck.
PATIENCE = 60


class Fault(StrEnum):
    KILL_BEFORE = "killed before the call"
    KILL_AFTER = "killed after the call"
    LOST_REQUEST = "request lost"
    LOST_RESPONSE = "response lost"
    LATE_REQUEST = "request arrives late"
    LATE_VISIBILITY = "order not visible for a while"
    ERROR_500 = "500"
    ERROR_429 = "429"
    PARTIAL = "partial fill"
    STOP_FILLS = "stop fills first"
    STALE_POSITION = "stale position"
    DATABASE_DOWN = "database down"
    DATABASE_OUTAGE = "database down for half a minute"
    KILL_WHILE_STORING = "killed while the journal is stored"
    USER_CLOSES = "user closes"
    USER_HALVES = "user sells half"
    VENUE_CANCELS = "order cancelled by the venue"


BY_OUTSIDERS = frozenset({Fault.USER_CLOSES, Fault.USER_HALVES})

_ANY = (
    Fault.KILL_BEFORE,
    Fault.KILL_AFTER,
    Fault.STOP_FILLS,
    Fault.USER_CLOSES,
    Fault.USER_HALVES,
    Fault.VENUE_CANCELS,
)
_READ = (Fault.ERROR_500, Fault.ERROR_429)
_WRITE = (*_READ, Fault.LOST_REQUEST, Fault.LOST_RESPONSE, Fault.LATE_REQUEST)
#: What can go wrong with a call, beside what can happen at any time.
FAULTS: dict[type, tuple[Fault, ...]] = {
    ReadOrders: _ANY + _READ,
    ReadFills: _ANY + _READ,
    ReadChanges: _ANY + _READ,
    FindOrder: _ANY + _READ,
    ReadPositions: (*_ANY, *_READ, Fault.STALE_POSITION),
    Send: (*_ANY, *_WRITE, Fault.LATE_VISIBILITY, Fault.PARTIAL),
    Replace: (*_ANY, *_WRITE, Fault.LATE_VISIBILITY),
    Cancel: _ANY + _WRITE,
    Insert: (*_ANY, Fault.DATABASE_DOWN, Fault.DATABASE_OUTAGE),
    Update: (*_ANY, Fault.DATABASE_DOWN, Fault.DATABASE_OUTAGE),
    Settle: (Fault.KILL_BEFORE, Fault.KILL_AFTER, Fault.KILL_WHILE_STORING, Fault.DATABASE_DOWN),
}


class Killed(BaseException):
    """The process is gone: nothing after this line of it runs."""


class Tables:
    """What survives a process: rows as plain values, by table and key."""

    def __init__(self) -> None:
        self.rows: dict[type[Row], dict[int, dict[str, Any]]] = {
            Trade: {},
            PositionExit: {},
            StopMove: {},
            OrderIntent: {},
        }
        self.one_exit_a_trade = True
        self.down = False

    def copy(self) -> "Tables":
        other = Tables()
        for model, rows in self.rows.items():
            other.rows[model] = {key: dict(values) for key, values in rows.items()}
        return other

    def of(self, model: type[Row]) -> list[dict[str, Any]]:
        return list(self.rows[model].values())

    def check(self, row: Row) -> None:
        """Raises Duplicate where a unique constraint says no."""
        if isinstance(row, Trade):
            taken = any(
                each["signal_key"] == row.signal_key
                or (each["symbol"] == row.symbol and each["status"] in LIVE_STATUSES)
                for each in self.of(Trade)
            )
        elif isinstance(row, OrderIntent):
            taken = any(each["client_order_id"] == row.client_order_id for each in self.of(OrderIntent))
        elif isinstance(row, PositionExit):
            taken = self.one_exit_a_trade and any(
                each["trade_id"] == row.trade.pk and each["status"] in (ExitStatus.PENDING, ExitStatus.DONE)
                for each in self.of(PositionExit)
            )
        else:
            taken = any(
                each["trade_id"] == row.trade.pk and each["status"] == StopMoveStatus.OWED for each in self.of(StopMove)
            )
        if taken:
            raise Duplicate(str(type(row)))

    def add(self, row: Row) -> None:
        table = self.rows[type(row)]
        row.pk = len(table) + 1
        if not isinstance(row, Trade):
            vars(row)["trade_id"] = row.trade.pk
        table[row.pk] = dict(vars(row))

    def write_over(self, row: Row, stored: dict[str, Any] | None) -> None:
        """Add a row, or write it over what is stored of it unless that is further."""
        if stored is None:
            self.add(row)
            return
        row.pk = stored["id"]
        fields = tuple(name for name in _plain(vars(row)) if name not in (*_OF_THE_DECISION, "trade_id"))
        if not self.is_further(row, fields):
            stored.update({name: getattr(row, name) for name in fields})

    def is_further(self, row: Row, fields: tuple[str, ...]) -> bool:
        stored = self.rows[type(row)][row.pk]
        if isinstance(row, PositionExit):
            return self.rows[Trade][row.trade.pk]["status"] not in LIVE_STATUSES
        if isinstance(row, StopMove):
            return bool(stored["status"] != StopMoveStatus.OWED)
        if isinstance(row, OrderIntent):
            ended = stored["finished_at"] is not None and row.finished_at is None
            return ended or bool(stored["filled_quantity"] > row.filled_quantity)
        if stored["status"] not in LIVE_STATUSES or ("quantity" in fields and stored["quantity"] > row.quantity):
            return True
        if "stop_price" not in fields or stored["stop_price"] is None:
            return False
        if row.stop_price is None:
            return True
        loosened = stored["stop_price"] - row.stop_price
        return bool((loosened if row.side == Side.LONG else -loosened) > 0)


class TableStore:
    """The store of one process, over the tables that all share. Implements the Store protocol."""

    def __init__(self, book: str, tables: Tables | None = None) -> None:
        self.book = book
        self.live: dict[str, LiveTrade] = {}
        self.tables = tables or Tables()
        self._reach()
        for values in self.tables.of(Trade):
            if values["status"] in LIVE_STATUSES:
                self._take(_row(Trade, values))

    def _take(self, trade: Trade) -> None:
        attach(self.live, trade)
        for model in (OrderIntent, StopMove, PositionExit):
            for values in self.tables.of(model):
                if values["trade_id"] == trade.pk:
                    row = _row(model, values, trade)
                    attach(self.live, row)
                    detach(self.live, row)

    def insert(self, *rows: Row, changes: Sequence[Change] = ()) -> None:
        self._reach()
        if not isinstance(rows[0], Trade):
            trade = rows[0].trade
            if self.tables.rows[Trade][trade.pk]["status"] not in LIVE_STATUSES:
                raise Duplicate("the trade is over")
            journaled = sum(each["trade_id"] == trade.pk for each in self.tables.of(OrderIntent))
            if journaled != len(self.live[trade.symbol].intents):
                raise Duplicate("somebody else journaled an order")
        for row in rows:
            self.tables.check(row)
        self._save(changes)
        for row in rows:
            self.tables.add(row)
            attach(self.live, row)

    def update(self, row: Row, *fields: str) -> None:
        self.update_all([(row, fields)])

    def update_all(self, changes: Sequence[Change]) -> None:
        self._reach()
        self._save(changes)
        for row, _ in changes:
            detach(self.live, row)

    def _save(self, changes: Sequence[Change]) -> None:
        if any(self.tables.is_further(row, fields) for row, fields in changes):
            raise Duplicate("a row is stored as further than this")
        for row, fields in changes:
            self.tables.rows[type(row)][row.pk].update({name: getattr(row, name) for name in fields})

    def reload(self, symbol: str) -> Trade | None:
        self._reach()
        mine = self.live.get(symbol)
        if mine is not None:
            vars(mine.trade).update(_plain(self.tables.rows[Trade][mine.trade.pk]))
            if mine.trade.status not in LIVE_STATUSES:
                del self.live[symbol]
                return mine.trade
            self._take(mine.trade)
            self.live[symbol] = mine.take_rows(self.live[symbol])
            return None
        for values in self.tables.of(Trade):
            if values["symbol"] == symbol and values["status"] in LIVE_STATUSES:
                self._take(_row(Trade, values))
        return None

    def settle(self, now: datetime) -> list[Trade]:
        return []

    def open_symbols(self) -> set[str]:
        self._reach()
        return {each["symbol"] for each in self.tables.of(Trade) if each["status"] in LIVE_STATUSES}

    def put(self, mine: LiveTrade) -> None:
        self._reach()
        tables, trade = self.tables, mine.trade

        def stored(model: type[Row], is_it: Callable[[dict[str, Any]], bool]) -> dict[str, Any] | None:
            own = (each for each in tables.of(model) if model is Trade or each["trade_id"] == trade.pk)
            return next(filter(is_it, own), None)

        known = stored(Trade, lambda each: each["signal_key"] == trade.signal_key)
        if known is None:
            tables.check(trade)
            tables.add(trade)
        else:
            trade.pk = known["id"]
        for intent in mine.intents:
            of_it = stored(OrderIntent, lambda each, it=intent: each["client_order_id"] == it.client_order_id)
            tables.write_over(intent, of_it)
        claims: list[tuple[Row, tuple[StrEnum, ...]]] = [(each, (StopMoveStatus.OWED,)) for each in mine.moves]
        claims += [
            (each, (ExitStatus.PENDING, ExitStatus.DONE)) for each in (*mine.past_exits, mine.exit) if each is not None
        ]
        for row, claiming in claims:
            of_it = stored(
                type(row),
                lambda each, it=row, claiming=claiming: (
                    each["decided_at"] == it.decided_at or (it.status in claiming and each["status"] in claiming)
                ),
            )
            tables.write_over(row, of_it)
        if known is not None:
            tables.write_over(trade, known)
        if tables.rows[Trade][trade.pk]["status"] not in LIVE_STATUSES:
            for model, open_, over in (
                (PositionExit, ExitStatus.PENDING, ExitStatus.SUPERSEDED),
                (StopMove, StopMoveStatus.OWED, StopMoveStatus.REFUSED),
            ):
                for each in tables.of(model):
                    if (each["trade_id"], each["status"]) == (trade.pk, open_):
                        each["status"] = over

    def _reach(self) -> None:
        if self.tables.down:
            raise StoreUnavailable("server closed the connection unexpectedly")


class Paper:
    """The disk of one process, for the lines of a JournaledStore."""

    def __init__(self, left: list[bytes], refused: list[bytes], dies_when_cleared: Callable[[], bool]) -> None:
        self._left, self.set_aside, self._dies = left, refused.append, dies_when_cleared
        self._own: list[bytes] = []

    @property
    def lines(self) -> list[bytes]:
        return self._left + self._own

    def left_behind(self) -> list[bytes]:
        return list(self._left)

    def add(self, line: bytes) -> None:
        self._own.append(line)

    def clear(self) -> None:
        if self._dies():
            raise Killed
        self._left, self._own = [], []


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if not name.startswith("_")}


def _row(model: type[Any], values: dict[str, Any], trade: Trade | None = None) -> Any:
    plain = _plain(values)
    if trade is None:
        return model(**plain)
    del plain["trade_id"]
    return model(trade=trade, **plain)


class TinyBroker:
    """One long position in KO. Market orders wait for `trade`; stops fill when they are told to.

    Without `guard` it accepts every sale, whatever is held. It notes at once what must never be: a short or doubled
    position, two exits that work, a stop that is looser than one before it.
    """

    def __init__(self, clock: ReplayClock, *, guard: bool = True) -> None:
        self.clock, self.guard = clock, guard
        self.held = self.held_before = 0
        self.orders: dict[str, Order] = {}
        self.intents: dict[str, PositionIntent] = {}
        self.log: list[Order] = []
        self.fills: list[Activity] = []
        self.hidden: dict[str, int] = {}
        self.partial: set[str] = set()
        self.late: list[Callable[[], object]] = []
        self.problems: list[str] = []
        self.tightest: Decimal | None = None

    # -- the world's side

    def trade(self) -> None:
        """What is under way arrives, and market orders fill."""
        late, self.late = self.late, []
        for request in late:
            with suppress(BrokerError):  # nobody is there any more to hear of it
                request()
        for order in self.working():
            if order.kind is OrderKind.MARKET:
                left = order.quantity - order.filled_quantity
                if order.id in self.partial:
                    self.partial.discard(order.id)
                    left //= 2
                self._fill(order, left)

    def working(self) -> list[Order]:
        return [order for order in self.orders.values() if order.status is OrderStatus.WORKING]

    def stop_fills(self) -> None:
        for order in self.working():
            if order.kind is OrderKind.STOP:
                self._fill(order, order.quantity - order.filled_quantity)

    def venue_cancels(self) -> None:
        for order in self.working():
            self._change(replace(order, status=OrderStatus.CANCELLED))

    def user_sells(self, quantity: int) -> None:
        """By hand; what holds the shares is cancelled first."""
        for order in self.working():
            if order.side is OrderSide.SELL:
                self._change(replace(order, status=OrderStatus.CANCELLED))
        if self.held > 0 and quantity:
            self._hold(-quantity)
            self._note_fill("user", OrderSide.SELL, quantity)

    def _fill(self, order: Order, quantity: int) -> None:
        filled = order.filled_quantity + quantity
        status = OrderStatus.FILLED if filled == order.quantity else OrderStatus.WORKING
        price = order.stop_price or PRICE
        self._hold(quantity if order.side is OrderSide.BUY else -quantity)
        self._note_fill(order.id, order.side, quantity)
        self._change(
            replace(order, status=status, filled_quantity=filled, filled_price=price, filled_at=self.clock.now())
        )

    def _note_fill(self, order_id: str, side: OrderSide, quantity: int) -> None:
        self.fills.append(
            Activity(order_id, "FILL", self.clock.now(), "KO", side, Decimal(quantity), PRICE, None, order_id)
        )

    def _hold(self, change: int) -> None:
        self.held_before, self.held = self.held, self.held + change
        if self.held < 0:
            self.problems.append(f"short {self.held}")
        if self.held > SHARES:
            self.problems.append(f"doubled: {self.held}")

    def _change(self, order: Order) -> None:
        self.orders[order.id] = order
        self.log.append(order)

    def _accept(self, order: Order) -> Order:
        self._change(order)
        if order.kind is OrderKind.STOP and order.stop_price is not None:
            if self.tightest is not None and order.stop_price < self.tightest:
                self.problems.append(f"stop loosened to {order.stop_price} from {self.tightest}")
            self.tightest = order.stop_price
        exits = [each for each in self.working() if each.kind is OrderKind.MARKET and each.side is OrderSide.SELL]
        if len(exits) > 1:
            self.problems.append("two exits work")
        return order

    # -- the broker's side

    def by_client_id(self, client_order_id: str) -> Order | None:
        return next((each for each in self.orders.values() if each.client_order_id == client_order_id), None)

    def submit(self, request: OrderRequest) -> Order:
        known = self.by_client_id(request.client_order_id)
        if known is not None:  # as the adapter answers to "client_order_id must be unique"
            if self._is_hidden(known):
                raise OutcomeUnknown(f"{request.client_order_id} was sent before, and is not shown yet")
            if known.difference_from(request):
                raise Rejected("the id of another order")
            return known
        closes = request.intent.closes
        if closes and self.guard:
            reserved = sum(o.quantity - o.filled_quantity for o in self.working() if o.side is OrderSide.SELL)
            if request.quantity > self.held - reserved:
                raise Rejected("insufficient qty available for order")
        if any(order.side is not request.side for order in self.working() if order.kind is OrderKind.MARKET):
            raise Rejected("potential wash trade detected")
        order = Order(
            id=f"b{len(self.orders) + 1}",
            client_order_id=request.client_order_id,
            symbol=request.symbol,
            side=request.side,
            kind=request.kind,
            quantity=request.quantity,
            status=OrderStatus.WORKING,
            stop_price=request.stop_price,
            filled_quantity=0,
            filled_price=None,
            filled_at=None,
            intent=request.intent,
            created_at=self.clock.now(),
        )
        return self._accept(order)

    def replace_stop(self, order_id: str, stop_price: Decimal, client_order_id: str) -> Order:
        old = self.orders[order_id]
        if old.status is not OrderStatus.WORKING:
            made = self.by_client_id(client_order_id)
            if made is not None and made.replaces == order_id:
                return made
            raise Rejected(f"cannot replace order in {old.status} status")
        new_id = f"b{len(self.orders) + 1}"
        self._change(replace(old, status=OrderStatus.REPLACED, replaced_by=new_id))
        return self._accept(
            replace(
                old,
                id=new_id,
                client_order_id=client_order_id,
                stop_price=stop_price,
                replaces=order_id,
                created_at=self.clock.now(),
            )
        )

    def cancel(self, order_id: str) -> None:
        order = self.orders[order_id]
        if order.status is not OrderStatus.WORKING:
            raise Rejected(f'order is already in "{order.status}" state')
        self._change(replace(order, status=OrderStatus.CANCELLED))

    def positions(self) -> Listing[Position]:
        reserved = sum(o.quantity - o.filled_quantity for o in self.working() if o.side is OrderSide.SELL)
        return self._positions(self.held, self.held - reserved)

    def stale_positions(self) -> Listing[Position]:
        """As it was before the last change, all shares seemingly free."""
        return self._positions(self.held_before, self.held_before)

    def _positions(self, held: int, available: int) -> Listing[Position]:
        return Listing({"KO": Position("KO", held, available, float(PRICE))} if held else {})

    def _is_hidden(self, order: Order) -> bool:
        if self.hidden.get(order.id, 0) <= 0:
            return False
        self.hidden[order.id] -= 1
        return True

    def open_orders(self) -> Listing[Order]:
        return Listing({order.client_order_id: order for order in self.working() if not self._is_hidden(order)})

    def order_by_client_id(self, client_order_id: str) -> Order | None:
        order = self.by_client_id(client_order_id)
        return None if order is None or self._is_hidden(order) else order

    def activities(self, after: datetime, kind: str = "FILL") -> list[Activity]:
        return [each for each in self.fills if each.at and each.at > after]

    def account(self) -> Account:
        return Account(Decimal(100_000), Decimal(100_000))


class Line:
    """One process's connection to the broker: what it has been told of changes is its own."""

    def __init__(self, broker: TinyBroker) -> None:
        self._broker, self._told = broker, len(broker.log)
        for name in ("account", "positions", "open_orders", "order_by_client_id", "submit", "replace_stop", "cancel"):
            setattr(self, name, getattr(broker, name))
        self.activities = broker.activities

    def changed_orders(self) -> list[Order]:
        changed = self._broker.log[self._told :]
        self._told = len(self._broker.log)
        return changed


class Job(StrEnum):
    EXIT = "exit"
    MOVE = "stop move"
    ENTRY = "entry"


@dataclass
class World:
    """One schedule: a job, and the faults at its numbered calls."""

    job: Job
    plan: dict[int, Fault]
    guard: bool = True
    preempt_at: int | None = None
    executor: type[Execution] = Execution
    one_exit_a_trade: bool = True
    journaled: bool = True
    calls: list[type] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.clock = ReplayClock(START)
        self.broker = TinyBroker(self.clock, guard=self.guard)
        self.tables = _beginning(self.job, self.broker)
        self.tables.one_exit_a_trade = self.one_exit_a_trade
        self.refused: list[bytes] = []
        self._left_behind: list[bytes] = []
        self._down_until: datetime | None = None
        self.entered = self.stuck = self._killed = self._dies_storing = False
        self.processes: list[Execution | None] = [self._process()]
        self._naked_since: datetime | None = None
        self.longest_naked = timedelta(0)

    def _process(self) -> Execution | None:
        """None while the database is down: then nothing can start."""
        try:
            store: TableStore | JournaledStore = TableStore("simulated", self.tables)
        except StoreUnavailable:
            return None
        if self.journaled:
            left, self._left_behind = self._left_behind, []
            store = JournaledStore(store, Paper(left, self.refused, lambda: self._dies_storing))
        execution = self.executor(Line(self.broker), store, self.clock, "test", 0.01)  # type: ignore[arg-type]
        honest = execution._perform

        def perform(step: Step) -> Any:
            return self._perform(step, honest, store)

        execution._perform = perform  # type: ignore[method-assign]
        return execution

    # -- calls, and what goes wrong with them

    def _perform(self, step: Step, honest: Callable[[Step], Any], store: TableStore | JournaledStore) -> Any:
        if isinstance(step, Settle) and not (isinstance(store, JournaledStore) and store.down):
            return honest(step)  # nothing waits, so nothing can go wrong
        number = len(self.calls)
        self.calls.append(type(step))
        if number == self.preempt_at:
            second = self._process()
            self.processes.append(second)
            if second is not None:
                self._tick(second)
        fault = self.plan.get(number)
        if fault not in FAULTS.get(type(step), ()):
            return honest(step)
        assert fault is not None
        return self._break(fault, step, honest)

    def _break(self, fault: Fault, step: Step, honest: Callable[[Step], Any]) -> Any:
        match fault:
            case Fault.KILL_BEFORE:
                raise Killed
            case Fault.KILL_AFTER:
                honest(step)
                raise Killed
            case Fault.DATABASE_DOWN:
                self.tables.down = True
                try:
                    return honest(step)
                finally:
                    self.tables.down = self._down_until is not None
            case Fault.DATABASE_OUTAGE:
                self.tables.down, self._down_until = True, self.clock.now() + OUTAGE
                return honest(step)
            case Fault.KILL_WHILE_STORING:
                self._dies_storing = True
                try:
                    return honest(step)
                finally:
                    self._dies_storing = False
            case Fault.STOP_FILLS | Fault.VENUE_CANCELS | Fault.USER_CLOSES | Fault.USER_HALVES:
                self._happens(fault)
                return honest(step)
        return self._misanswer(fault, step, honest)

    def _misanswer(self, fault: Fault, step: Step, honest: Callable[[Step], Any]) -> Any:
        broker = self.broker
        match fault:
            case Fault.STALE_POSITION:
                return broker.stale_positions()
            case Fault.PARTIAL:
                made = honest(step)
                broker.partial.add(made.id)
                return made
            case Fault.LATE_REQUEST:
                broker.late.append(lambda: honest(step))
            case Fault.LOST_RESPONSE | Fault.LATE_VISIBILITY:
                with suppress(BrokerError):  # the answer is lost, whatever it was
                    made = honest(step)
                    if fault is Fault.LATE_VISIBILITY:
                        broker.hidden[made.id] = 3
        if isinstance(step, Send | Replace | Cancel):
            raise OutcomeUnknown(fault.value)
        raise Unavailable(fault.value)

    def _happens(self, fault: Fault) -> None:
        match fault:
            case Fault.STOP_FILLS:
                self.broker.stop_fills()
            case Fault.VENUE_CANCELS:
                self.broker.venue_cancels()
            case Fault.USER_CLOSES:
                self.broker.user_sells(self.broker.held)
            case Fault.USER_HALVES:
                self.broker.user_sells(self.broker.held // 2)

    # -- time

    def run(self) -> None:
        """Play until all is quiet; `stuck` where that never comes."""
        for _ in range(PATIENCE):
            urgent = self._killed or any(process is None or process.urgent for process in self.processes)
            self.turn(seconds=1 if urgent else 10)
            if self._is_quiet():
                return
        self.stuck = True

    def turn(self, seconds: int) -> None:
        """Every process ticks, what is under way arrives, and time passes."""
        self._killed = False
        if self._down_until is not None and self.clock.now() >= self._down_until:
            self.tables.down, self._down_until = False, None
        for number in range(len(self.processes)):
            self._live(number)
        self._watch_protection()
        self.broker.trade()
        self.clock.sleep_until(self.clock.now() + timedelta(seconds=seconds))

    def _watch_protection(self) -> None:
        sales = [order for order in self.broker.working() if order.side is OrderSide.SELL]
        if self.broker.held <= sum(order.quantity - order.filled_quantity for order in sales):
            self._naked_since = None
        elif self._naked_since is None:
            self._naked_since = self.clock.now()
        if self._naked_since is not None:
            self.longest_naked = max(self.longest_naked, self.clock.now() - self._naked_since)

    def start_another(self) -> None:
        self.processes.append(self._process())

    def _live(self, number: int) -> None:
        process = self.processes[number]
        try:
            if process is None:
                process = self.processes[number] = self._process()
            if process is not None:
                self._tick(process)
        except Killed:
            if process is not None and isinstance(process._store, JournaledStore):
                self._left_behind += process._store._lines.lines  # type: ignore[attr-defined]  # a Paper
            self.processes[number] = self._process()
            self._killed = True

    def _tick(self, process: Execution) -> None:
        """What a monitor does in a tick: hear the news, take up what is owed, ask for what its rules say."""
        process.take_events()
        process.resume()
        mine = process._store.live.get("KO")
        if mine is None:
            if self.job is Job.ENTRY and not self.entered:
                self.entered = True
                process.enter(a_plan())
        elif self.job is Job.EXIT and mine.trade.status == TradeStatus.OPEN:
            process.exit(mine, LEAVE, float(PRICE))
        elif self.job is Job.MOVE and mine.trade.status == TradeStatus.OPEN and not mine.trade.breakeven_set:
            process.move_to_breakeven(mine, BREAKEVEN, {})

    def _is_at_ease(self, process: Execution | None) -> bool:
        if process is None or process.owed or (isinstance(process._store, JournaledStore) and process._store.down):
            return False
        return process._broker._told == len(self.broker.log)  # type: ignore[attr-defined]  # a Line

    def _is_quiet(self) -> bool:
        if self.broker.late or not all(self._is_at_ease(process) for process in self.processes):
            return False
        if any(order.kind is OrderKind.MARKET for order in self.broker.working()):
            return False
        live = [each for each in self.tables.of(Trade) if each["status"] in LIVE_STATUSES]
        if not live:
            return self.entered or self.job is not Job.ENTRY
        moved = (
            self.job is not Job.MOVE
            or live[0]["breakeven_set"]
            or any(each["status"] == StopMoveStatus.REFUSED for each in self.tables.of(StopMove))
        )
        return self.job is not Job.EXIT and moved

    # -- what must hold

    def problems(self) -> list[str]:
        """What is wrong, or was on the way. Never a short or doubled position, two exits, a looser stop; in the end no
        shares and no orders without a trade, the trade closed or its shares protected, one final row an exit."""
        found = [*self.broker.problems, *self._at_rest(), *(["never came to rest"] if self.stuck else [])]
        return [*found, "a line of the journal was refused"] if self.refused else found

    def _at_rest(self) -> list[str]:
        broker = self.broker
        found = []
        working, trades = broker.working(), self.tables.of(Trade)
        live = [each for each in trades if each["status"] in LIVE_STATUSES]
        if not live:
            if broker.held:
                found.append(f"{broker.held} shares are left, and no trade is open")
            if working:
                found.append("orders are left")
        elif self.job is Job.EXIT:
            found.append(f"the trade is {live[0]['status']}")
        elif [order.quantity - order.filled_quantity for order in working] != [broker.held]:
            found.append(f"{broker.held} shares, protected by {working}")
        elif working[0].stop_price != live[0]["stop_price"]:
            found.append(f"the stop is {working[0].stop_price}, {live[0]['stop_price']} in the database")
        return found + self._in_the_tables(trades)

    def _in_the_tables(self, trades: list[dict[str, Any]]) -> list[str]:
        found = []
        exits = [each["status"] for each in self.tables.of(PositionExit)]
        done = exits.count(ExitStatus.DONE)
        if done > 1 or ExitStatus.PENDING in exits:
            found.append(f"exits are {exits}")
        if any(each["exit_reason"] == LEAVE.rule for each in trades) and done != 1:
            found.append(f"{done} exits recorded")
        moves = [each["status"] for each in self.tables.of(StopMove)]
        if StopMoveStatus.OWED in moves and not any(each["status"] in LIVE_STATUSES for each in trades):
            found.append("a stop move of a trade that is over is owed")
        return found

    def untraceable(self) -> list[str]:
        """Orders of ours at the broker that the journal does not know, or not as they are."""
        found = []
        journal = {each["client_order_id"]: each for each in self.tables.of(OrderIntent)}
        for order in self.broker.orders.values():
            intent = journal.get(order.client_order_id)
            if intent is None:
                found.append(f"{order.client_order_id} is in no journal")
            elif intent["filled_quantity"] != order.filled_quantity:
                found.append(f"{order.client_order_id} filled {order.filled_quantity}, not {intent['filled_quantity']}")
        return found


def a_plan() -> Trade:
    return Trade(
        book="simulated",
        signal_key="KO-20250512T140000Z-long",
        symbol="KO",
        side=Side.LONG,
        strategy="tests",
        feed=Feed.SIMULATED,
        session=START.date(),
        exit_settings_hash="test",
        signal_at=START,
        planned_entry=Decimal(100),
        initial_stop=STOP,
        target=Decimal(102),
        planned_quantity=SHARES,
        entry_volume=1000.0,
    )


def _beginning(job: Job, broker: TinyBroker) -> Tables:
    """Nothing for an entry; for the rest an open trade whose stop works at the broker."""
    if job is Job.ENTRY:
        return Tables()
    for step, order in _OPENED[1]:
        broker.orders[order.id] = order
        if step is IntentStep.STOP:
            broker.tightest = order.stop_price
    broker.held = broker.held_before = SHARES
    return _OPENED[0].copy()


def _an_open_trade() -> tuple[Tables, list[tuple[IntentStep, Order]]]:
    clock = ReplayClock(START - timedelta(minutes=5))
    broker, tables = TinyBroker(clock), Tables()
    execution = Execution(Line(broker), TableStore("simulated", tables), clock, "test", 0.01)  # type: ignore[arg-type]
    execution.enter(a_plan())
    for _ in range(3):
        broker.trade()
        execution.take_events()
        execution.resume()
    entry, stop = broker.orders.values()
    assert (entry.status, stop.status) == (OrderStatus.FILLED, OrderStatus.WORKING)
    return tables, [(IntentStep.ENTRY, entry), (IntentStep.STOP, stop)]


_OPENED = _an_open_trade()
