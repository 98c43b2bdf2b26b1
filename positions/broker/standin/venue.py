"""Alpaca's rules, in process: orders with all their statuses, held quantity, replace chains, brackets, sessions.

The replay's exchange (exchange.py) knows what a replay needs and answers at once; this one answers as Alpaca does, in
its own time. It speaks typed orders, knows nothing of JSON, and moves only when `advance` is called. Where no source
says what Alpaca does, `Rules` has a setting.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import ROUND_DOWN, Decimal
from functools import partial
from heapq import heappop, heappush
from itertools import count
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from positions.broker.port import OrderSide, PositionIntent
from positions.broker.standin.account import Account, Fee, Fill, Holding, day_of, to_cents
from positions.broker.standin.faults import Armed, Fault
from positions.broker.standin.orders import (
    AT_MARKET,
    PENDING,
    STOPS,
    ZERO,
    Change,
    NewOrder,
    OrderClass,
    OrderType,
    Status,
    TimeInForce,
    VenueOrder,
    is_reached,
)
from positions.broker.standin.refusals import check_change, check_new
from positions.broker.standin.rules import BAD_ORDER, NOT_FOUND, Refused, Rules
from positions.broker.standin.tape import Tape
from positions.market.calendar import NEW_YORK, Session

NEVER = datetime.max.replace(tzinfo=UTC)
EXTENDED_OPEN, EXTENDED_CLOSE = time(4), time(20)
GTC_LASTS = timedelta(days=90)
SHORTING_NEEDS = Decimal(2000)  # dollars of equity
BILLIONTH = Decimal("1e-9")


@dataclass(frozen=True, slots=True)
class TradeUpdate:
    """News of an order; `held` are the shares of its symbol after it."""

    id: str
    event: str
    order: VenueOrder
    at: datetime
    held: Decimal
    fill: Fill | None = None


@dataclass(frozen=True, slots=True)
class View:
    """Orders and shares as a reader is told them."""

    orders: dict[str, VenueOrder]
    held: dict[str, Holding]


@dataclass(order=True, slots=True)
class _Job:
    at: datetime
    number: int
    work: Callable[[], object] = field(compare=False)


class Venue:
    """One account on one tape. `news` are trade updates that nobody has taken yet, oldest first.

    `mishap` is the fault that an order, a change or a cancellation meets at the venue.
    """

    def __init__(self, tape: Tape, rules: Rules, now: datetime, seed: int = 0) -> None:
        self.rules = rules
        self.tape = tape
        self.now = now
        self.account = Account(rules.cash)
        self.orders: dict[str, VenueOrder] = {}
        self.news: list[TradeUpdate] = []
        self._open: dict[str, None] = {}  # ids, oldest first
        self._id_of_client_id: dict[str, str] = {}
        self._releasing: dict[str, tuple[str, Decimal]] = {}  # by group: shares that are not free yet
        self._jobs: list[_Job] = []
        self._numbers = count(1)
        self._random = random.Random(seed)
        self._last_taken = datetime.min.replace(tzinfo=UTC)
        self._schedule_session()

    # -- time

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

    def after(self, seconds: float | None, work: Callable[..., object], *arguments: object) -> None:
        """Do something when so much time has passed; None is never."""
        if seconds is not None:
            self.at(self.now + timedelta(seconds=seconds), work, *arguments)

    def at(self, moment: datetime, work: Callable[..., object], *arguments: object) -> None:
        """Do something at a moment to come."""
        heappush(self._jobs, _Job(moment, next(self._numbers), partial(work, *arguments)))

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

    # -- sessions

    @property
    def session(self) -> Session | None:
        """The session that is open or comes next, None after the last."""
        days = (self.tape.today, self.tape.tomorrow)
        return next((bars.session for bars in days if bars and self.now < bars.session.close), None)

    @property
    def is_open(self) -> bool:
        return self.session is not None and self.session.open <= self.now

    @property
    def _reaches_market(self) -> bool:
        """Whether orders are routed now, or wait as accepted."""
        return self.session is not None and _new_york(self.session.day, EXTENDED_OPEN) <= self.now

    @property
    def _is_extended(self) -> bool:
        if self.tape.today is None:
            return False
        day = self.tape.today.session.day
        return _new_york(day, EXTENDED_OPEN) <= self.now < _new_york(day, EXTENDED_CLOSE)

    def _schedule_session(self) -> None:
        if self.tape.today is None:
            return
        session = self.tape.today.session
        bells = [
            (_new_york(session.day, EXTENDED_OPEN), self._wake),
            (session.close, self._close_session),
            (_new_york(session.day, EXTENDED_CLOSE), self._end_day),
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

    # -- money and shares

    def price(self, symbol: str) -> Decimal:
        """The last price; 0 before the first trade."""
        return _dollars(self.tape.price(symbol, self.now))

    def last_close(self, symbol: str) -> Decimal:
        """The close of the session before, else the last price."""
        return _dollars(self.tape.last_close(symbol)) or self.price(symbol)

    def bid(self, symbol: str) -> Decimal:
        return self.price(symbol) - self.rules.spread / 2

    def ask(self, symbol: str) -> Decimal:
        return self.price(symbol) + self.rules.spread / 2

    @property
    def equity(self) -> Decimal:
        return self.account.equity(self.price)

    @property
    def buying_power(self) -> Decimal:
        entries = [order for order in self.open_orders() if not order.closes]
        waiting = sum((o.remaining * (o.limit or o.stop_price or self.price(o.symbol)) for o in entries), start=ZERO)
        return max(ZERO, self.rules.multiplier * self.equity - self.account.exposure(self.price) - waiting)

    @property
    def can_short(self) -> bool:
        return not self.rules.no_shorting and self.rules.multiplier > 1 and self.equity >= SHORTING_NEEDS

    def reservations(self, symbol: str) -> dict[str, Decimal]:
        """Shares that closing orders hold, and canceled ones until they are released, by group of orders.

        The orders of a group (the legs of a bracket, an order and its replacement) hold the same shares.
        """
        held: dict[str, Decimal] = {}
        wanted = [(order.group, order.remaining) for order in self.open_orders(symbol) if order.closes]
        wanted += [(group, shares) for group, (name, shares) in self._releasing.items() if name == symbol]
        for group, shares in wanted:
            held[group] = max(shares, held.get(group, ZERO))
        return held

    def available(self, symbol: str) -> Decimal:
        """Shares that may still be sold, or bought back where the position is short."""
        held = sum(self.reservations(symbol).values(), start=ZERO)
        return max(ZERO, abs(self.account.quantity(symbol)) - held)

    # -- reading

    def view(self) -> View:
        """Orders and shares as they are now, to be kept."""
        return View(dict(self.orders), dict(self.account.held))

    def is_visible(self, order: VenueOrder) -> bool:
        return order.visible_from is None or order.visible_from <= self.now

    def open_orders(self, symbol: str | None = None) -> list[VenueOrder]:
        """Oldest first."""
        orders = [self.orders[order_id] for order_id in self._open]
        return [order for order in orders if symbol is None or order.symbol == symbol]

    def knows(self, client_order_id: str) -> bool:
        """Whether an order has or had this id."""
        return client_order_id in self._id_of_client_id

    def find(self, order_id: str, view: View | None = None) -> VenueOrder:
        """Raises Refused where there is no such order, or nobody is told of it."""
        order = (view.orders if view else self.orders).get(order_id)
        if order is None or not self.is_visible(order):
            raise Refused(NOT_FOUND, f"order not found for {order_id}")
        return order

    def find_by_client_id(self, client_order_id: str, view: View | None = None) -> VenueOrder:
        """As `find`."""
        try:
            return self.find(self._id_of_client_id.get(client_order_id, ""), view)
        except Refused:
            raise Refused(NOT_FOUND, f"order not found for {client_order_id}") from None

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
        if order.status is Status.PENDING_REPLACE:
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

    # -- matching

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

    # -- bookkeeping

    def _register(self, order: VenueOrder) -> None:
        self.orders[order.id] = order
        self._open[order.id] = None
        self._id_of_client_id[order.client_order_id] = order.id

    def _set(self, order: VenueOrder, **changes: Any) -> VenueOrder:
        changed = replace(self.orders[order.id], updated_at=self.now, **changes)
        self.orders[order.id] = changed
        if not changed.is_open:
            self._open.pop(order.id, None)
        return changed

    def _change(self, order: VenueOrder, event: str, **changes: Any) -> None:
        self._tell(event, self._set(order, **changes))

    def _finish(self, order: VenueOrder, event: str, release: float | None = 0.0, **changes: Any) -> None:
        """End an order that has not filled; the shares it held are free `release` seconds later."""
        self._change(order, event, **changes)
        if order.closes and not any(other.group == order.group for other in self.open_orders(order.symbol)):
            self._hold_back(order, release)

    def _hold_back(self, order: VenueOrder, seconds: float | None) -> None:
        if seconds == 0:
            return
        self._releasing[order.group] = (order.symbol, order.remaining)
        self.after(seconds, self._releasing.pop, order.group, None)

    def _tell(self, event: str, order: VenueOrder, fill: Fill | None = None) -> None:
        held = self.account.quantity(order.symbol)
        self.news.append(TradeUpdate(self._id("update"), event, order, self.now, held, fill))

    def _id(self, kind: str) -> str:
        """The same ids in the same order, so that a session can be repeated."""
        return str(uuid5(NAMESPACE_URL, f"{kind}-{next(self._numbers)}"))

    def _taken_at(self) -> datetime:
        """Now, and no two orders at once: lists of orders are paged by this time."""
        self._last_taken = max(self.now, self._last_taken + timedelta(microseconds=1))
        return self._last_taken

    def _in(self, seconds: float | None) -> datetime:
        return NEVER if seconds is None else self.now + timedelta(seconds=seconds)

    def _expiry(self, tif: TimeInForce, extended: bool) -> datetime:
        """The close of the session that is open or comes next, the day's end in extended hours, or 90 days on."""
        if tif is TimeInForce.GTC:
            return _new_york(day_of(self.now) + GTC_LASTS, time(16))
        if extended and self._is_extended:
            return _new_york(day_of(self.now), EXTENDED_CLOSE)
        if self.session is None:
            return NEVER
        return _new_york(self.session.day, EXTENDED_CLOSE) if extended else self.session.close


def _cap_of(order: VenueOrder) -> Decimal | None:
    """Buy stops become limit orders, 4 % above the stop under 50 dollars, 2.5 % from there."""
    if order.type is not OrderType.STOP or order.side is OrderSide.SELL or order.stop_price is None:
        return None
    return to_cents(order.stop_price * Decimal("1.04" if order.stop_price < 50 else "1.025"))


def _dollars(price: float) -> Decimal:
    return Decimal(f"{price:.4f}") if price == price else ZERO


def _new_york(day: date, at: time) -> datetime:
    return datetime.combine(day, at, NEW_YORK).astimezone(UTC)
