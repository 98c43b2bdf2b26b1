"""Alpaca's rules, in process: orders with all their statuses, held quantity, replace chains, brackets, sessions.

The replay's exchange (exchange.py) knows what a replay needs and answers at once; this one answers as Alpaca does, in
its own time. It speaks typed orders, knows nothing of JSON, and moves only when `advance` is called. Where no source
says what Alpaca does, `Rules` has a setting.
"""

import random
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from decimal import ROUND_DOWN, Decimal

from positions.broker.port import OrderSide, PositionIntent
from positions.broker.standin.account import Fee, day_of
from positions.broker.standin.events import NEVER
from positions.broker.standin.faults import Armed, Fault
from positions.broker.standin.matching import Matching
from positions.broker.standin.orders import (
    ZERO,
    Change,
    NewOrder,
    OrderClass,
    OrderType,
    Status,
    TimeInForce,
    VenueOrder,
)
from positions.broker.standin.refusals import check_change, check_new
from positions.broker.standin.rules import BAD_ORDER, NOT_FOUND, Refused, Rules
from positions.broker.standin.state import EXTENDED_CLOSE, EXTENDED_OPEN, new_york
from positions.broker.standin.tape import Tape

GTC_LASTS = timedelta(days=90)
BILLIONTH = Decimal("1e-9")


class Venue(Matching):
    """One account on one tape. `mishap` is the fault that an order, a change or a cancellation meets at the venue."""

    def __init__(self, tape: Tape, rules: Rules, now: datetime, seed: int = 0) -> None:
        super().__init__(tape, rules, now)
        self._random = random.Random(seed)
        self._last_taken = datetime.min.replace(tzinfo=UTC)
        self._schedule_session()

    # -- sessions

    def _schedule_session(self) -> None:
        if self.tape.today is None:
            return
        session = self.tape.today.session
        bells = [
            (new_york(session.day, EXTENDED_OPEN), self._wake),
            (session.close, self._close_session),
            (new_york(session.day, EXTENDED_CLOSE), self._end_day),
        ]
        for moment, work in bells:
            if moment >= self.now:
                self.at(moment, work)

    def _wake(self) -> None:
        for order in self.open_orders():
            if order.status is Status.ACCEPTED:
                self._change(order, "new", status=Status.NEW)

    def _close_session(self) -> None:
        self._expire()
        for order in self.open_orders():
            if order.status in {Status.NEW, Status.PARTIALLY_FILLED} and not order.extended_hours:
                self._set(order, status=Status.ACCEPTED)

    def _end_day(self) -> None:
        self._expire()
        if self.rules.fees:
            for kind, amount in self.account.fees_of(day_of(self.now)).items():
                self.account.pay(Fee(self._id("fee"), kind, day_of(self.now), self.now, amount))
        self.tape.next_session()
        self.account.close_day(self.last_close)
        self._schedule_session()

    def _expire(self) -> None:
        for order in self.open_orders():
            if order.expires_at <= self.now:
                self._finish(order, "expired", status=Status.EXPIRED, expired_at=self.now)

    # -- orders in

    def submit(self, new: NewOrder, mishap: Armed | None = None) -> VenueOrder:
        """Take an order in: pending, or waiting for a session. Raises Refused."""
        intent = check_new(self, new)
        order = self._create(new, intent)
        legs = self._legs_of(new, order)
        order = replace(order, leg_ids=tuple(leg.id for leg in legs))
        if mishap and mishap.fault is Fault.LATE_VISIBLE:
            order = replace(order, visible_from=self._in(mishap.seconds))
        if mishap and mishap.fault is Fault.PARTIAL_FILL:
            order = replace(order, splits=True, rest_after=mishap.seconds)
        elif self._random.random() < self.rules.partial_fills:
            order = replace(order, splits=True, rest_after=self.rules.partial_delay)
        for each in (order, *legs):
            self._register(each)
        self._tell(order.status, order)
        if order.status is Status.PENDING_NEW:
            self.after(self.rules.accept_delay, self._accept, order.id, mishap)
        return order

    def _create(self, new: NewOrder, intent: PositionIntent) -> VenueOrder:
        order_id, taken_at = self._id("order"), self._taken_at()
        routed = self._reaches_market or (new.extended_hours and self._is_extended)
        return VenueOrder(
            id=order_id,
            client_order_id=new.client_order_id or self._id("client"),
            symbol=new.symbol,
            side=new.side,
            type=new.type,
            quantity=new.quantity,
            tif=new.tif,
            intent=intent,
            status=Status.PENDING_NEW if routed else Status.ACCEPTED,
            created_at=taken_at,
            updated_at=taken_at,
            expires_at=self._expiry(new.tif, new.extended_hours),
            group=order_id,
            limit_price=new.limit_price,
            stop_price=new.stop_price,
            extended_hours=new.extended_hours,
            order_class=new.order_class,
        )

    def _legs_of(self, new: NewOrder, order: VenueOrder) -> list[VenueOrder]:
        """The stop of an OCO pair, or what is to protect an entry once it is filled."""
        side, intent = order.side, order.intent
        if new.order_class is not OrderClass.OCO:
            side = OrderSide.SELL if side is OrderSide.BUY else OrderSide.BUY
            intent = PositionIntent.SELL_TO_CLOSE if side is OrderSide.SELL else PositionIntent.BUY_TO_CLOSE
        leg = replace(order, side=side, intent=intent, status=Status.HELD, parent_id=order.id)
        legs = []
        if new.take_profit is not None and new.order_class is not OrderClass.OCO:
            legs.append(replace(leg, type=OrderType.LIMIT, limit_price=new.take_profit, stop_price=None))
        if new.stop_loss is not None:
            stop, limit = new.stop_loss
            kind = OrderType.STOP if limit is None else OrderType.STOP_LIMIT
            legs.append(replace(leg, type=kind, limit_price=limit, stop_price=stop))
        return [replace(leg, id=self._id("order"), client_order_id=self._id("client")) for leg in legs]

    def _expiry(self, tif: TimeInForce, extended: bool) -> datetime:
        """The close of the session that is open or comes next, the day's end in extended hours, or 90 days on."""
        if tif is TimeInForce.GTC:
            return new_york(day_of(self.now) + GTC_LASTS, time(16))
        if extended and self._is_extended:
            return new_york(day_of(self.now), EXTENDED_CLOSE)
        if self.session is None:
            return NEVER
        return new_york(self.session.day, EXTENDED_CLOSE) if extended else self.session.close

    def _taken_at(self) -> datetime:
        """Now, and no two orders at once: lists of orders are paged by this time."""
        self._last_taken = max(self.now, self._last_taken + timedelta(microseconds=1))
        return self._last_taken

    def _register(self, order: VenueOrder) -> None:
        self.orders[order.id] = order
        self._open[order.id] = None
        self._id_of_client_id[order.client_order_id] = order.id

    def _accept(self, order_id: str, mishap: Armed | None) -> None:
        order = self.orders[order_id]
        if order.status is not Status.PENDING_NEW:
            return
        if mishap and mishap.fault is Fault.REJECTED_LATER:
            self._finish(order, "rejected", status=Status.REJECTED, failed_at=self.now)
            return
        self._change(order, "new", status=Status.NEW)
        if mishap and mishap.fault is Fault.CANCELED_BY_VENUE:
            self._cancel_group(order, self.rules.release_delay)
        else:
            self._match_now(order_id)

    # -- orders changed and canceled

    def replace(self, order_id: str, change: Change, mishap: Armed | None = None) -> VenueOrder:
        """The replacement, which works once the old order has given way. Raises Refused."""
        old = self.find(order_id)
        check_change(self, old, change)
        taken_at = self._taken_at()
        new = replace(
            old,
            id=self._id("order"),
            client_order_id=change.client_order_id or self._id("client"),
            quantity=change.quantity or old.quantity,
            limit_price=change.limit_price or old.limit_price,
            stop_price=change.stop_price or old.stop_price,
            tif=change.tif or old.tif,
            status=Status.PENDING_NEW,
            created_at=taken_at,
            updated_at=taken_at,
            expires_at=self._expiry(change.tif or old.tif, old.extended_hours),
            replaces=old.id,
            elected=False,
            cap=None,
            matched_from=None,
        )
        self._register(new)
        self._change(old, "pending_replace", status=Status.PENDING_REPLACE)
        if mishap and mishap.fault is Fault.FILLS_FIRST:
            self._fill_at_own_price(old.id)
        self.after(self.rules.replace_delay, self._replaced, old.id, new.id, old.status)
        return new

    def _replaced(self, old_id: str, new_id: str, was: Status) -> None:
        old, new = self.orders[old_id], self.orders[new_id]
        if not new.is_open:  # all were canceled, or its day is over
            if old.is_open:
                self._change(old, "order_replace_rejected", status=was)
            return
        if not old.is_open:
            self._finish(new, "rejected", status=Status.REJECTED, failed_at=self.now)
            return
        new = self._set(
            new,
            status=was if was is Status.HELD else Status.NEW if self._reaches_market else Status.ACCEPTED,
            filled_before=old.filled_before + old.filled_quantity,
            filled_quantity=ZERO,
        )
        if old.closes and new.remaining < old.remaining:
            self._hold_back(old, self.rules.release_delay)
        self._relink(old, new_id)
        self._change(old, "replaced", status=Status.REPLACED, replaced_by=new_id, replaced_at=self.now)
        self._match_now(new_id)

    def _relink(self, old: VenueOrder, new_id: str) -> None:
        """The replacement takes the old order's place among parent and legs."""
        if old.parent_id:
            parent = self.orders[old.parent_id]
            self._set(parent, leg_ids=tuple(new_id if leg == old.id else leg for leg in parent.leg_ids))
        for leg_id in old.leg_ids:
            self._set(self.orders[leg_id], parent_id=new_id)

    def cancel(self, order_id: str, mishap: Armed | None = None) -> None:
        """Ask for an order's end, and its group's. Raises Refused."""
        order = self.find(order_id)
        replaced = self.orders[order.replaces] if order.replaces else order
        if Status.PENDING_REPLACE in {order.status, replaced.status}:
            raise Refused(BAD_ORDER, "order is pending replacement and cannot be canceled")
        repeated = order.status in {Status.CANCELED, Status.PENDING_CANCEL}
        if repeated and self.rules.repeat_cancel == "accept":
            return
        if repeated or not order.is_open:
            raise Refused(BAD_ORDER, f'order is already in "{order.status}" state')
        delay, release = self.rules.cancel_delay, self.rules.release_delay
        if mishap and mishap.fault is Fault.STUCK_CANCEL:
            delay = mishap.seconds
        if mishap and mishap.fault is Fault.SLOW_RELEASE:
            release = mishap.seconds
        if order.status is Status.ACCEPTED and delay is not None:
            self._cancel_group(order, release)
            return
        self._change(order, "pending_cancel", status=Status.PENDING_CANCEL)
        if mishap and mishap.fault is Fault.FILLS_FIRST:
            self._fill_at_own_price(order_id)
        self.after(delay, self._canceled, order_id, release)

    def _canceled(self, order_id: str, release: float | None) -> None:
        order = self.orders[order_id]
        if order.is_open:
            self._cancel_group(order, release)

    def _cancel_group(self, order: VenueOrder, release: float | None) -> None:
        """Cancel an order with its legs, a leg with its rivals; the shares are free `release` seconds later."""
        for member in [order, *self._dependents(order)]:
            if member.is_open:
                self._finish(member, "canceled", release, status=Status.CANCELED, canceled_at=self.now)

    def cancel_all(self) -> list[VenueOrder]:
        """Cancel every open order at once; returns what they were."""
        orders = self.open_orders()
        for order in orders:
            if self.orders[order.id].is_open:
                self._cancel_group(order, self.rules.release_delay)
        return orders

    def close_position(
        self,
        symbol: str,
        quantity: Decimal | None = None,
        percentage: Decimal | None = None,
        mishap: Armed | None = None,
    ) -> VenueOrder:
        """A market order against the position, all of it unless told otherwise. Raises Refused."""
        held = self.account.quantity(symbol)
        if not held:
            raise Refused(NOT_FOUND, "position does not exist")
        if percentage is not None:
            step = Decimal(1) if held % 1 == 0 else BILLIONTH  # whole shares of a position of whole shares
            quantity = (abs(held) * percentage / 100).quantize(step, ROUND_DOWN)
        side = OrderSide.SELL if held > 0 else OrderSide.BUY
        new = NewOrder(symbol, side, OrderType.MARKET, abs(held) if quantity is None else quantity, TimeInForce.DAY)
        return self.submit(new, mishap)

    def close_all(self, cancel_orders: bool) -> dict[str, VenueOrder | Refused]:
        """Close every position, by symbol; with its orders canceled first, or refused what they hold."""
        if cancel_orders:
            self.cancel_all()
            self._releasing.clear()
        results: dict[str, VenueOrder | Refused] = {}
        for symbol in list(self.account.held):
            try:
                results[symbol] = self.close_position(symbol)
            except Refused as refused:
                results[symbol] = refused
        return results
