"""Orders meet the price: time goes on, and what it reaches fills."""

from datetime import datetime
from decimal import Decimal
from heapq import heappop

from positions.broker.port import OrderSide
from positions.broker.standin.account import Fill, to_cents
from positions.broker.standin.events import NEVER, Events
from positions.broker.standin.orders import (
    AT_MARKET,
    PENDING,
    STOPS,
    ZERO,
    OrderClass,
    OrderType,
    Status,
    VenueOrder,
    is_reached,
)


class Matching(Events):
    def advance(self, to: datetime) -> None:
        """Let everything happen that happens by then."""
        while True:
            while self._jobs and self._jobs[0].at <= self.now:
                heappop(self._jobs).work()
            if self.now >= to:
                return
            turn = self.tape.next_turn(self.now)
            until = min(to, turn, self._jobs[0].at if self._jobs else NEVER)
            touch = self._first_touch(until)
            if touch is not None:
                self.now, order_id, price = touch
                self._match(order_id, price)
                continue
            self.now = until
            if until == turn and self.tape.starts_bar(until):
                for order_id in list(self._open):
                    self._match_now(order_id)

    def _first_touch(self, until: datetime) -> tuple[datetime, str, Decimal] | None:
        """When the price next comes to where an order waits for it."""
        touches = []
        for order_id in self._open:
            order = self.orders[order_id]
            level = self._awaited(order)
            if level is None:
                continue
            at = self.tape.crossing(order.symbol, self.now, until, float(level))
            if at is not None:
                touches.append((at, order_id, level))
        return min(touches, default=None)

    def _awaited(self, order: VenueOrder) -> Decimal | None:
        """The price at which something would happen to the order, None where none is waited for."""
        if not self._is_live(order):
            return None
        if order.type in STOPS and not order.elected:
            return order.stop_price
        if order.limit is None:
            return None
        half = self.rules.spread / 2
        return order.limit - half if order.side is OrderSide.BUY else order.limit + half

    def _is_live(self, order: VenueOrder) -> bool:
        """At the market, or the held stop of a pair that is at work."""
        if order.matched_from is not None and self.now < order.matched_from:
            return False
        if order.parent_id is None:
            return order.status in AT_MARKET
        at_work = AT_MARKET if order.order_class is OrderClass.OCO else {Status.FILLED}
        return order.status in AT_MARKET | {Status.HELD} and self.orders[order.parent_id].status in at_work

    def _match_now(self, order_id: str) -> None:
        symbol = self.orders[order_id].symbol
        if self.tape.trades(symbol, self.now):
            self._match(order_id, self.price(symbol))

    def _match(self, order_id: str, price: Decimal) -> None:
        """Fill the order if it trades at this price."""
        order = self.orders[order_id]
        if not self._is_live(order):
            return
        if order.type in STOPS and not order.elected:
            if order.stop_price is None or not is_reached(order.side, order.stop_price, price):
                return
            order = self._set(order, elected=True, cap=_cap_of(order))
        buying = order.side is OrderSide.BUY
        paid = price + self.rules.spread / 2 if buying else price - self.rules.spread / 2
        if order.limit is not None and not (paid <= order.limit if buying else paid >= order.limit):
            return
        if order.splits and order.remaining > 1:
            order = self._set(order, splits=False, matched_from=self._in(order.rest_after))
            self._fill(order, paid, order.remaining // 2)
            self.after(order.rest_after, self._match_now, order_id)
        else:
            self._fill(order, paid, order.remaining)

    def _fill_at_own_price(self, order_id: str) -> None:
        order = self.orders[order_id]
        self._fill(order, order.stop_price or order.limit_price or self.price(order.symbol), order.remaining)

    def _fill(self, order: VenueOrder, price: Decimal, quantity: Decimal) -> None:
        worth = (order.filled_price or ZERO) * order.filled_quantity + price * quantity
        filled = order.filled_quantity + quantity
        partly = order.status if order.status in PENDING else Status.PARTIALLY_FILLED
        order = self._set(
            order,
            status=Status.FILLED if quantity == order.remaining else partly,
            filled_quantity=filled,
            filled_price=worth / filled,
            filled_at=self.now,
        )
        fill = Fill(self._id("execution"), order, self.now, price, quantity)
        self.account.take(fill)
        self._tell("partial_fill" if order.is_open else "fill", order, fill)
        if order.order_class is not OrderClass.SIMPLE:
            self._group_filled(order, quantity)

    def _group_filled(self, order: VenueOrder, quantity: Decimal) -> None:
        """What a fill does to the rest of its group: legs go to work, rivals shrink or end."""
        if order.leg_ids and order.order_class is not OrderClass.OCO:
            if not order.is_open:
                self._put_to_work(order.leg_ids)
            return
        for rival in self._dependents(order):
            if order.is_open and rival.is_open:
                self._set(rival, quantity=rival.quantity - quantity)
            elif rival.is_open:
                self._finish(rival, "canceled", status=Status.CANCELED, canceled_at=self.now)

    def _put_to_work(self, leg_ids: tuple[str, ...]) -> None:
        """The entry is filled: the first leg is at the market, the stop of a pair stays held and is watched."""
        first = self.orders[leg_ids[0]]
        if first.is_open:
            self._change(first, "new", status=Status.NEW)
        for leg_id in leg_ids:
            self._match_now(leg_id)

    def _dependents(self, order: VenueOrder) -> list[VenueOrder]:
        """The legs of a parent, the rivals of a leg."""
        if order.leg_ids:
            return [self.orders[leg_id] for leg_id in order.leg_ids]
        if order.parent_id is None:
            return []
        parent = self.orders[order.parent_id]
        rivals = [self.orders[leg_id] for leg_id in parent.leg_ids if leg_id != order.id]
        return [parent, *rivals] if order.order_class is OrderClass.OCO else rivals


def _cap_of(order: VenueOrder) -> Decimal | None:
    """Buy stops become limit orders, 4 % above the stop under 50 dollars, 2.5 % from there."""
    if order.type is not OrderType.STOP or order.side is OrderSide.SELL or order.stop_price is None:
        return None
    return to_cents(order.stop_price * Decimal("1.04" if order.stop_price < 50 else "1.025"))
