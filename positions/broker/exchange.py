"""A simulated exchange, in process: it fills market orders at a bar's open and stops inside the bar, and refuses what
Alpaca refuses. It speaks typed orders; what it knows of the market are the bars it is given."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from itertools import count
from operator import attrgetter

import numpy as np

from positions.broker.port import (
    Account,
    Activity,
    Listing,
    Order,
    OrderKind,
    OrderRequest,
    OrderSide,
    OrderStatus,
    Position,
    PositionIntent,
    Rejected,
)
from positions.market.bars import BarBatch, Floats, Universe
from positions.rules import tick_of

#: Intents that make a position or add to one.
OPENING = frozenset({PositionIntent.BUY_TO_OPEN, PositionIntent.SELL_TO_OPEN})


class SimulatedExchange:
    """One account on a market of bars. Implements the Broker protocol.

    Each bar comes in two calls: `open_bar` fills waiting market orders at the open, `trade_bar` lets the rest of the
    bar touch stops. A stop fills at its price, or at the open where the bar opened beyond it. Costs are charged per
    share and side. A market order in a symbol without a bar waits for its next one.
    """

    def __init__(self, universe: Universe, cash: Decimal = Decimal(100_000), cost_per_share: float = 0.0) -> None:
        self._row = {symbol: row for row, symbol in enumerate(universe.symbols)}
        self._cash = cash
        self._cost = Decimal(repr(cost_per_share))
        self._held: dict[str, int] = {}
        self._price = np.full(len(universe), np.nan)
        self._orders: dict[str, Order] = {}
        self._id_of_client_id: dict[str, str] = {}
        self._intent: dict[str, PositionIntent] = {}
        self._working: dict[str, Order] = {}
        self._changed: list[Order] = []
        self._ids = count(1)

    # -- the market's side

    def open_bar(self, batch: BarBatch) -> None:
        self._mark(batch.open)
        for order in [order for order in self._working.values() if order.kind is OrderKind.MARKET]:
            price = float(batch.open[self._row[order.symbol]])
            if price == price:  # NaN: no trade in this symbol, the order waits
                self._fill(order, price, batch.start)

    def trade_bar(self, batch: BarBatch) -> None:
        for order, stop in self._stops():
            row = self._row[order.symbol]
            opened = float(batch.open[row])
            selling = order.side is OrderSide.SELL
            touched = batch.low[row] <= stop if selling else batch.high[row] >= stop
            if touched:
                beyond = opened <= stop if selling else opened >= stop
                self._fill(order, opened if beyond else stop, batch.start if beyond else batch.end)
        self._mark(batch.close)

    def close_session(self, now: datetime) -> None:
        """The bell: entries that wait expire, exits that wait (no bar came any more) fill at the last known price."""
        for order in [order for order in self._working.values() if order.kind is OrderKind.MARKET]:
            if self._intent[order.id] in OPENING:
                self._change(replace(order, status=OrderStatus.EXPIRED))
            else:
                self._fill(order, self._price_of(order.symbol), now)

    def _stops(self) -> Iterator[tuple[Order, float]]:
        for order in list(self._working.values()):
            if order.kind is OrderKind.STOP and order.stop_price is not None:
                yield order, float(order.stop_price)

    def _mark(self, prices: Floats) -> None:
        np.copyto(self._price, prices, where=np.isfinite(prices))

    def _price_of(self, symbol: str) -> float:
        return float(self._price[self._row[symbol]])

    def _fill(self, order: Order, price: float, at: datetime) -> None:
        paid = Decimal(f"{price:.4f}")
        signed = order.quantity if order.side is OrderSide.BUY else -order.quantity
        held = self._held.pop(order.symbol, 0) + signed
        if held:
            self._held[order.symbol] = held
        self._cash -= signed * paid + order.quantity * self._cost
        self._change(
            replace(
                order,
                status=OrderStatus.FILLED,
                filled_quantity=order.quantity,
                filled_price=paid,
                filled_at=at,
            )
        )

    def _change(self, order: Order) -> None:
        self._orders[order.id] = order
        if order.status.is_final:
            self._working.pop(order.id, None)
        else:
            self._working[order.id] = order
        self._changed.append(order)

    # -- the broker's side

    def account(self) -> Account:
        worth = {symbol: Decimal(f"{self._price_of(symbol):.4f}") * held for symbol, held in self._held.items()}
        equity = self._cash + sum(worth.values(), start=Decimal(0))
        exposure = sum(map(abs, worth.values()), start=Decimal(0)) + self._worth_of_entries()
        return Account(equity=equity, buying_power=max(Decimal(0), equity - exposure))

    def _worth_of_entries(self) -> Decimal:
        entries = [order for order in self._working.values() if self._intent[order.id] in OPENING]
        return sum(
            (Decimal(f"{self._price_of(order.symbol):.4f}") * order.quantity for order in entries), start=Decimal(0)
        )

    def positions(self) -> Listing[Position]:
        reserved: Counter[str] = Counter()
        for order in self._working.values():
            if self._intent[order.id] not in OPENING:
                reserved[order.symbol] += order.quantity
        return Listing(
            {
                symbol: Position(symbol, held, abs(held) - reserved[symbol], self._price_of(symbol))
                for symbol, held in self._held.items()
            }
        )

    def open_orders(self) -> Listing[Order]:
        return Listing({order.client_order_id: order for order in self._working.values()})

    def order_by_client_id(self, client_order_id: str) -> Order | None:
        order_id = self._id_of_client_id.get(client_order_id)
        return self._orders[order_id] if order_id else None

    def submit(self, request: OrderRequest) -> Order:
        if request.client_order_id in self._id_of_client_id:
            raise Rejected(f"client_order_id must be unique: {request.client_order_id}")
        if request.symbol not in self._row:
            raise Rejected(f"asset {request.symbol!r} not found")
        if request.quantity <= 0:
            raise Rejected(f"quantity must be positive: {request.quantity}")
        self._check_intent(request)
        self._check_stop_price(request.symbol, request.side, request.stop_price)
        order_id = f"sim-{next(self._ids)}"
        order = Order(
            id=order_id,
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
            created_at=request.created_at,
        )
        self._register(order, request.intent)
        return order

    def _register(self, order: Order, intent: PositionIntent) -> None:
        self._id_of_client_id[order.client_order_id] = order.id
        self._intent[order.id] = intent
        self._change(order)

    def replace_stop(self, order_id: str, stop_price: Decimal, client_order_id: str) -> Order:
        old = self._orders.get(order_id)
        if old is None or old.status is not OrderStatus.WORKING:
            raise Rejected(f"order {order_id} is not working and cannot be replaced")
        if client_order_id in self._id_of_client_id:
            raise Rejected(f"client_order_id must be unique: {client_order_id}")
        if old.stop_price == stop_price:
            return old
        self._check_stop_price(old.symbol, old.side, stop_price)
        new_id = f"sim-{next(self._ids)}"
        self._change(replace(old, status=OrderStatus.REPLACED, replaced_by=new_id))
        new = replace(old, id=new_id, client_order_id=client_order_id, stop_price=stop_price, replaces=old.id)
        self._register(new, self._intent[old.id])
        return new

    def cancel(self, order_id: str) -> None:
        order = self._orders.get(order_id)
        if order is None:
            raise Rejected(f"order {order_id} not found")
        if order.status is not OrderStatus.WORKING:
            raise Rejected(f'order is already in "{order.status}" state')
        self._change(replace(order, status=OrderStatus.CANCELLED))

    def activities(self, after: datetime, kind: str = "FILL") -> list[Activity]:
        """Fills only; none of the costs."""
        filled = [order for order in self._orders.values() if order.filled_at and order.filled_at > after]
        return [
            Activity(
                id=order.id,
                kind="FILL",
                at=order.filled_at,
                symbol=order.symbol,
                side=order.side,
                quantity=Decimal(order.filled_quantity),
                price=order.filled_price,
                amount=None,
                order_id=order.id,
            )
            for order in sorted(filled, key=attrgetter("filled_at"))
            if kind == "FILL"
        ]

    def changed_orders(self) -> list[Order]:
        changed, self._changed = self._changed, []
        return changed

    def _reserved(self, symbol: str) -> int:
        return sum(
            order.quantity
            for order in self._working.values()
            if order.symbol == symbol and self._intent[order.id] not in OPENING
        )

    def _check_intent(self, request: OrderRequest) -> None:
        held = self._held.get(request.symbol, 0)
        if request.side is not SIDE_OF[request.intent]:
            raise Rejected(f"position intent mismatch: {request.intent} with side {request.side}")
        if request.intent in OPENING:
            if held and (held > 0) is not (request.side is OrderSide.BUY):
                raise Rejected(f"position intent mismatch: {request.intent} while holding {held} {request.symbol}")
            return
        closable = held if request.side is OrderSide.SELL else -held
        available = closable - self._reserved(request.symbol)
        if closable <= 0:
            raise Rejected(f"position intent mismatch: {request.intent} while holding {held} {request.symbol}")
        if request.quantity > available:
            raise Rejected(
                f"insufficient qty available for order (requested: {request.quantity}, available: {available})"
            )

    def _check_stop_price(self, symbol: str, side: OrderSide, stop_price: Decimal | None) -> None:
        if stop_price is None:
            return
        if stop_price <= 0 or stop_price % tick_of(stop_price):
            raise Rejected(f"invalid stop_price {stop_price}. sub-penny increment")
        market = self._price_of(symbol)
        if float(stop_price) >= market if side is OrderSide.SELL else float(stop_price) <= market:
            raise Rejected(f"stop price {stop_price} is on the wrong side of the market at {market}")


SIDE_OF = {
    PositionIntent.BUY_TO_OPEN: OrderSide.BUY,
    PositionIntent.BUY_TO_CLOSE: OrderSide.BUY,
    PositionIntent.SELL_TO_OPEN: OrderSide.SELL,
    PositionIntent.SELL_TO_CLOSE: OrderSide.SELL,
}
