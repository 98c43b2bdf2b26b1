"""The simulated Alpaca's market and account: the fills of a replay, and shares that are never sold twice."""

from contextlib import suppress
from datetime import timedelta
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from positions.broker.exchange import SimulatedExchange
from positions.broker.port import OrderKind, OrderRequest, OrderSide, PositionIntent
from positions.broker.standin.faults import Armed, Fault
from positions.broker.standin.orders import Change, NewOrder, OrderType, Status, TimeInForce
from positions.broker.standin.rules import Refused, Rules, changed
from positions.broker.standin.tape import Tape
from positions.broker.standin.venue import Venue
from tests.positions.stand_in import MINUTE, OPEN, DrawnMarket

FREE = changed(Rules(), {"spread": 0})
CENTS = st.integers(9000, 11000).map(lambda cents: cents / 100)
BARS = st.lists(
    st.none() | st.tuples(CENTS, CENTS, CENTS, CENTS).map(lambda p: (p[0], max(p), min(p), p[3])),
    min_size=1,
    max_size=6,
)


def venue_on(bars, rules=FREE) -> Venue:
    venue = Venue(Tape(DrawnMarket([(100, 100, 100, 100), *bars])), rules, OPEN)
    venue.submit(NewOrder("KO", OrderSide.BUY, OrderType.MARKET, Decimal(10), TimeInForce.DAY, "entry"))
    venue.advance(OPEN + MINUTE / 2)
    return venue


@given(BARS, st.integers(9000, 9999))
@settings(max_examples=200, deadline=None)
def test_a_stop_fills_at_the_price_at_which_a_replay_fills_it(bars, cents):
    stop = Decimal(cents) / 100
    venue = venue_on(bars)
    order = venue.submit(
        NewOrder("KO", OrderSide.SELL, OrderType.STOP, Decimal(10), TimeInForce.GTC, "stop", stop_price=stop)
    )
    market = DrawnMarket([(100, 100, 100, 100), *bars])
    exchange = SimulatedExchange(market.universe)
    exchange.submit(OrderRequest("entry", "KO", OrderSide.BUY, OrderKind.MARKET, 10, PositionIntent.BUY_TO_OPEN))
    [_, (monday, _), *_] = market.sessions()
    for number, batch in enumerate(list(monday.batches())[: len(bars) + 1]):
        exchange.open_bar(batch)
        if number == 0:
            intent = PositionIntent.SELL_TO_CLOSE
            exchange.submit(OrderRequest("stop", "KO", OrderSide.SELL, OrderKind.STOP, 10, intent, stop))
        exchange.trade_bar(batch)
        venue.advance(batch.end - timedelta(microseconds=1))
    replayed = exchange.order_by_client_id("stop")
    assert venue.orders[order.id].filled_price == replayed.filled_price
    assert venue.account.quantity("KO") == sum(each.quantity for each in exchange.positions().values())


@given(BARS)
def test_prices_stay_inside_their_bar_and_touch_its_ends(bars):
    tape = Tape(DrawnMarket(bars))
    last = 100.0
    for number, bar in enumerate(bars):
        start = OPEN + number * MINUTE
        path = [tape.price("KO", start + MINUTE * third / 3) for third in (0, 1, 2)]
        end = tape.price("KO", start + MINUTE - timedelta(microseconds=1))
        if bar is None:
            assert [*path, end] == [last] * 4
        else:
            assert (path[0], max(path[1:]), min(path[1:])) == (bar[0], bar[1], bar[2])
            assert np.isclose(end, bar[3], atol=1e-4)
            last = bar[3]


def venue_replacing_a_stop() -> tuple[Venue, str, str]:
    """With the ids of the old order and of the new."""
    venue = venue_on([])
    old = venue.submit(
        NewOrder("KO", OrderSide.SELL, OrderType.STOP, Decimal(10), TimeInForce.GTC, "stop", stop_price=Decimal(95))
    )
    venue.advance(venue.now + MINUTE / 60)
    return venue, old.id, venue.replace(old.id, Change(stop_price=Decimal(96))).id


def test_a_replacement_is_cancelled_once_it_has_taken_the_place_of_the_old_order():
    venue, old, new = venue_replacing_a_stop()
    with pytest.raises(Refused, match="pending replacement"):
        venue.cancel(new)
    venue.advance(venue.now + MINUTE / 60)
    venue.cancel(new)
    venue.advance(venue.now + MINUTE / 60)
    assert (venue.orders[old].status, venue.orders[new].status) == (Status.REPLACED, Status.CANCELED)


def test_an_order_and_its_replacement_to_come_end_with_all_others():
    venue, old, new = venue_replacing_a_stop()
    venue.cancel_all()
    venue.advance(venue.now + MINUTE / 60)
    assert (venue.orders[old].status, venue.orders[new].status) == (Status.CANCELED, Status.CANCELED)


class Trading(RuleBasedStateMachine):
    """Anybody does anything at any time, and faults happen."""

    def __init__(self) -> None:
        super().__init__()
        bars = [(100 + d, 101 + d, 99 + d, 100 - d) for d in (0, 0.5, -0.5, 1, -1)] * 6
        self.venue = Venue(Tape(DrawnMarket(bars)), changed(FREE, {"wash_trade_check": False}), OPEN)
        self.sent = 0

    def try_to(self, work, *arguments):
        with suppress(Refused):
            work(*arguments)

    def mishap(self, number: int) -> Armed | None:
        faults = [
            *[None] * 4,
            *[Fault.PARTIAL_FILL] * 3,
            Fault.REJECTED_LATER,
            Fault.CANCELED_BY_VENUE,
            Fault.FILLS_FIRST,
        ]
        fault = faults[number % len(faults)]
        return fault and Armed(fault, "*", seconds=100.0)

    def send(self, side, quantity, fault, stop=None):
        self.sent += 1
        kind = OrderType.MARKET if stop is None else OrderType.STOP
        new = NewOrder("KO", side, kind, Decimal(quantity), TimeInForce.GTC, str(self.sent), stop_price=stop)
        self.try_to(self.venue.submit, new, self.mishap(fault))

    def any_order(self, which):
        orders = self.venue.open_orders() or list(self.venue.orders.values())
        return orders[which % len(orders)].id if orders else "none"

    @rule(side=st.sampled_from(OrderSide), quantity=st.integers(1, 20), fault=st.integers(0, 9))
    def trade(self, side, quantity, fault):
        self.send(side, quantity, fault)

    @rule(quantity=st.integers(1, 20), away=st.integers(1, 100), fault=st.integers(0, 9))
    def protect(self, quantity, away, fault):
        long = self.venue.account.quantity("KO") > 0
        stop = round(self.venue.price("KO"), 2) - Decimal(away) / 100 * (1 if long else -1)
        self.send(OrderSide.SELL if long else OrderSide.BUY, quantity, fault, stop)

    @rule(which=st.integers(0, 9), fault=st.integers(0, 9))
    def cancel(self, which, fault):
        self.try_to(self.venue.cancel, self.any_order(which), self.mishap(fault))

    @rule(
        which=st.integers(0, 9),
        stop=st.integers(9800, 10200).map(lambda cents: Decimal(cents) / 100),
        quantity=st.none() | st.integers(1, 20).map(Decimal),
        fault=st.integers(0, 9),
    )
    def move(self, which, stop, quantity, fault):
        self.try_to(self.venue.replace, self.any_order(which), Change(quantity, stop_price=stop), self.mishap(fault))

    @rule()
    def close(self):
        self.try_to(self.venue.close_position, "KO")

    @rule()
    def close_all(self):
        self.venue.close_all(cancel_orders=True)

    @rule(seconds=st.sampled_from([0.01, 1, 10, 60]))
    def wait(self, seconds):
        self.venue.advance(self.venue.now + timedelta(seconds=seconds))

    @invariant()
    def shares_are_those_of_the_fills(self):
        signs = {OrderSide.BUY: 1, OrderSide.SELL: -1}
        bought = sum(signs[fill.order.side] * fill.quantity for fill in self.venue.account.activities)
        spent = sum(signs[f.order.side] * f.quantity * f.price for f in self.venue.account.activities)
        assert self.venue.account.quantity("KO") == bought
        assert self.venue.account.cash == FREE.cash - spent

    @invariant()
    def no_order_turns_a_position_around(self):
        held = Decimal(0)
        for fill in self.venue.account.activities:
            before, held = held, held + (fill.quantity if fill.order.side is OrderSide.BUY else -fill.quantity)
            assert before * held >= 0

    @invariant()
    def no_order_fills_beyond_its_quantity(self):
        for order in self.venue.orders.values():
            assert 0 <= order.filled_before + order.filled_quantity <= order.quantity

    @invariant()
    def every_order_is_open_or_over(self):
        assert {order.id for order in self.venue.orders.values() if order.is_open} == set(self.venue._open)


TestTrading = Trading.TestCase
TestTrading.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)


@pytest.mark.parametrize(("rule", "value"), [("cash", "nan"), ("spread", "Infinity"), ("bar_delay", "inf")])
def test_a_rule_takes_no_number_that_is_not_finite(rule: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"{value!r} is no value for {rule}"):
        changed(Rules(), {rule: value})
