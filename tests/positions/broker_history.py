"""What really happened to a book's trades, told by the broker's own orders and fills, and what must never be in it."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from alpaca.common.enums import Sort
from alpaca.trading.client import TradingClient
from alpaca.trading.enums import OrderStatus, QueryOrderStatus
from alpaca.trading.models import Order
from alpaca.trading.requests import GetOrdersRequest

from positions.models import LIVE_STATUSES, OrderIntent, PositionExit, Trade
from positions.words import ExitReason, ExitStatus, IntentStep, Side, StopMoveStatus, TradeStatus

BY_THE_STOP = (ExitReason.STOP, ExitReason.BREAKEVEN_STOP)


@dataclass(frozen=True, slots=True)
class Fill:
    order_id: str
    quantity: int
    at: datetime


@dataclass(frozen=True, slots=True)
class Gap:
    """Shares of a trade without an order that closes them, on the broker's clock."""

    signal_key: str
    began: datetime
    ended: datetime

    @property
    def seconds(self) -> float:
        return (self.ended - self.began).total_seconds()


@dataclass(frozen=True, slots=True)
class History:
    """Every order and every fill of an account, oldest first."""

    orders: list[Order]
    fills: list[Fill]
    until: datetime

    def of(self, trade: Trade) -> "TradeHistory":
        steps = {intent.client_order_id: intent.step for intent in trade.intents.all()}
        orders = [order for order in self.orders if order.client_order_id in steps]
        ids = {str(order.id) for order in orders}
        return TradeHistory(trade, steps, orders, [fill for fill in self.fills if fill.order_id in ids], self.until)


def read(client: TradingClient) -> History:
    orders: dict[str, Order] = {}
    after: datetime | None = None
    while True:
        page = client.get_orders(
            GetOrdersRequest(status=QueryOrderStatus.ALL, limit=500, direction=Sort.ASC, after=after)
        )
        fresh = {str(order.id): order for order in page if str(order.id) not in orders}
        if not fresh:
            break
        orders |= fresh
        after = page[-1].submitted_at - timedelta(microseconds=1)
    fills: list[Fill] = []
    query: dict[str, str | int] = {"direction": "asc", "page_size": 100}
    while page := client.get("/account/activities/FILL", query):
        fills += [
            Fill(told["order_id"], int(told["qty"]), datetime.fromisoformat(told["transaction_time"])) for told in page
        ]
        query["page_token"] = page[-1]["id"]
    return History(list(orders.values()), fills, client.get_clock().timestamp)


def ended_at(order: Order) -> datetime | None:
    return order.filled_at or order.canceled_at or order.expired_at or order.replaced_at or order.failed_at


@dataclass(frozen=True, slots=True)
class TradeHistory:
    """`steps` says by client order id which order is which."""

    trade: Trade
    steps: dict[str, str]
    orders: list[Order]
    fills: list[Fill]
    until: datetime

    def _of(self, *steps: IntentStep) -> list[Order]:
        return [order for order in self.orders if self.steps[order.client_order_id] in steps]

    @property
    def held(self) -> list[int]:
        """Shares on the trade's side after each fill."""
        entries, shares, held = {str(order.id) for order in self._of(IntentStep.ENTRY)}, 0, []
        for fill in self.fills:
            shares += fill.quantity if fill.order_id in entries else -fill.quantity
            held.append(shares)
        return held

    def gaps(self) -> list[Gap]:
        """When more shares were held than closing orders stood for."""
        entries = {str(order.id) for order in self._of(IntentStep.ENTRY)}
        changes: dict[datetime, int] = {}  # of the shares that no order closes
        left = {str(order.id): int(order.qty) for order in self.orders}
        for fill in self.fills:
            left[fill.order_id] -= fill.quantity
            if fill.order_id in entries:
                changes[fill.at] = changes.get(fill.at, 0) + fill.quantity
        for order in self._of(IntentStep.STOP, IntentStep.MOVE, IntentStep.EXIT):
            if order.status is OrderStatus.REJECTED:
                continue
            changes[order.submitted_at] = changes.get(order.submitted_at, 0) - int(order.qty)
            ended = ended_at(order)
            if ended is not None and left[str(order.id)]:
                changes[ended] = changes.get(ended, 0) + left[str(order.id)]
        naked, since, found = 0, None, []
        for at in sorted(changes):
            naked += changes[at]
            if naked > 0 and since is None:
                since = at
            elif naked <= 0 and since is not None:
                found.append(Gap(self.trade.signal_key, since, at))
                since = None
        return found if since is None else [*found, Gap(self.trade.signal_key, since, self.until)]

    def wrong(self) -> list[str]:
        """In words, what must never be so."""
        return [
            f"{self.trade.signal_key}: {what}"
            for what in (*self._flipped(), *self._doubled(), *self._loosened(), *self._misrecorded())
        ]

    def _flipped(self) -> list[str]:
        most = self.trade.planned_quantity
        return [f"{held} shares were held, {most} planned" for held in self.held if not 0 <= held <= most]

    def _doubled(self) -> list[str]:
        exits = [order for order in self._of(IntentStep.EXIT) if order.status is not OrderStatus.REJECTED]
        return [
            f"exit {second.client_order_id} was sent while {first.client_order_id} worked"
            for first, second in pairwise(exits)
            if (ended_at(first) or self.until) > second.submitted_at
        ]

    def _loosened(self) -> list[str]:
        sign = 1 if self.trade.side == Side.LONG else -1
        stops = [float(order.stop_price) for order in self._of(IntentStep.STOP, IntentStep.MOVE)]
        moves = [(move.old_stop, move.new_stop) for move in self.trade.stop_moves.all()]
        return [
            *(f"the stop went from {old} to {new}" for old, new in pairwise(stops) if sign * (new - old) < 0),
            *(f"the stop was to go from {old} to {new}" for old, new in moves if sign * (new - old) <= 0),
        ]

    def _misrecorded(self) -> list[str]:
        trade, found = self.trade, []
        exits = [each.status for each in trade.exits.all()]
        if trade.status == TradeStatus.CLOSED:
            ours = trade.exit_reason not in BY_THE_STOP
            if exits.count(ExitStatus.DONE) != ours or ExitStatus.PENDING in exits:
                found.append(f"left by {trade.exit_reason}, with the exits {exits}")
            if any(move.status == StopMoveStatus.OWED for move in trade.stop_moves.all()):
                found.append("a stop move is owed after its end")
        if (self.held[-1] if self.held else 0) and trade.status not in LIVE_STATUSES:
            found.append(f"{self.held[-1]} shares are held of a trade that is {trade.status}")
        filled = {intent.client_order_id: intent.filled_quantity for intent in trade.intents.all()}
        found += [
            f"{order.client_order_id} filled {order.filled_qty}, {filled[order.client_order_id]} are recorded"
            for order in self.orders
            if order.status is not OrderStatus.REPLACED and int(order.filled_qty) != filled[order.client_order_id]
        ]
        return found


def untraceable(history: History, book: str) -> list[str]:
    """Orders that no intent explains, and intents whose order the broker does not know."""
    intents = OrderIntent.objects.filter(book=book)
    known = {order.client_order_id: str(order.id) for order in history.orders}
    ours = set(intents.values_list("client_order_id", flat=True))
    found = [f"{client_id} is in no journal" for client_id in known if client_id not in ours]
    sent = intents.exclude(broker_order_id="").values_list("client_order_id", "broker_order_id")
    return found + [f"{client_id} is not known to the broker" for client_id, its in sent if known.get(client_id) != its]


def trades_of(book: str) -> list[Trade]:
    return list(Trade.objects.filter(book=book).prefetch_related("intents", "exits", "stop_moves"))


def exits_of(book: str, before: datetime | None = None, after: datetime | None = None) -> int:
    done = PositionExit.objects.filter(book=book, status=ExitStatus.DONE)
    if before is not None:
        done = done.filter(finished_at__lt=before)
    if after is not None:
        done = done.filter(finished_at__gt=after)
    return done.count()
