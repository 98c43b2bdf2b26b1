"""Every fault that the simulated Alpaca can have, met by the whole exit protocol: the end each must come to.

Whatever happens on the way, `DeskOverHttp.wrong` is empty in the end: nothing short, doubled or loosened, one exit that
works, one final row an exit, each order in the journal, and shares without a stop for a bounded time.
"""

import re
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from positions.broker.alpaca import TradeUpdates, TradingAccess
from positions.broker.port import OrderSide
from positions.broker.standin.faults import ON_THE_WAY, Fault
from positions.broker.standin.orders import OrderType
from positions.models import OrderIntent, PositionExit, StopMove, Trade
from positions.words import ExitReason, ExitStatus, StopMoveStatus, TradeStatus
from tests.positions.desk_over_http import RISEN, DeskOverHttp
from tests.positions.world import BREAKEVEN, LEAVE

pytestmark = pytest.mark.django_db

POST, PATCH, DELETE = "POST /v2/orders", "PATCH /v2/orders/*", "DELETE /v2/orders/*"
POSITIONS, ORDERS, BY_ID = "GET /v2/positions", "GET /v2/orders", "GET /v2/orders:by_client_order_id"
ONE_FAULT = timedelta(seconds=10)


@pytest.fixture
def desk(alpaca):
    alpaca.reset(ko=RISEN)
    return DeskOverHttp(alpaca)


# Where a fault strikes: what is there before it, and what is done while it is armed


def entering(desk: DeskOverHttp, arm) -> None:
    arm()
    desk.enter()


def stopping(desk: DeskOverHttp, arm) -> None:
    """The entry has filled, and its stop is due."""
    desk.enter()
    desk.clock.sleep_until(desk.clock.now() + timedelta(seconds=1))
    arm()


def moving(desk: DeskOverHttp, arm) -> None:
    desk.hold()
    desk.rise()
    arm()
    desk.move()


def leaving(desk: DeskOverHttp, arm) -> None:
    desk.hold()
    arm()
    desk.leave()


# The ends


def is_protected(desk: DeskOverHttp) -> bool:
    trade = Trade.objects.get()
    return (trade.status, desk.held, desk.covered, desk.stop_price) == (TradeStatus.OPEN, 10, 10, 99)


def is_half_protected(desk: DeskOverHttp) -> bool:
    """Alpaca refuses a stop against an entry that works: the entry was given up for the rest."""
    trade = Trade.objects.get()
    return (trade.status, trade.quantity, desk.held, desk.covered) == (TradeStatus.OPEN, 5, 5, 5)


def is_moved(desk: DeskOverHttp) -> bool:
    done = StopMove.objects.get().status == StopMoveStatus.CONFIRMED and Trade.objects.get().breakeven_set
    return done and (desk.held, desk.covered, desk.stop_price) == (10, 10, BREAKEVEN)


def has_left(desk: DeskOverHttp) -> bool:
    trade = Trade.objects.get()
    told = [each.signal_key for each in desk.closed] == [trade.signal_key]
    done = PositionExit.objects.get().status == ExitStatus.DONE
    return done and told and (trade.status, trade.exit_reason, desk.held) == (TradeStatus.CLOSED, LEAVE.rule, 0)


def was_stopped(desk: DeskOverHttp) -> bool:
    """The stop filled first: an exit that was claimed is superseded, and nothing was sold again."""
    trade = Trade.objects.get()
    exits = set(PositionExit.objects.values_list("status", flat=True)) <= {ExitStatus.SUPERSEDED}
    sales = [each for each in desk.orders if each.side is OrderSide.SELL and each.filled_quantity]
    return exits and len(sales) == 1 and (trade.exit_reason, desk.held) == (ExitReason.STOP, 0)


def is_no_trade(desk: DeskOverHttp) -> bool:
    return (Trade.objects.get().status, desk.held, desk.working) == (TradeStatus.CANCELLED, 0, [])


END = {entering: is_protected, stopping: is_protected, moving: is_moved, leaving: has_left}


def comes_to(desk, fault, route, at, end, *, count=1, seconds=None, run=90.0, bound=ONE_FAULT) -> None:
    at(desk, lambda: desk.alpaca.arm(fault, route, count, seconds))
    desk.run(run)
    desk.alpaca.control("DELETE", "faults")
    where = f"{fault} at {route} while {at.__name__}"
    assert desk.wrong() == [], where
    assert end(desk), f"{where}: not {end.__name__}"
    assert desk.longest_naked <= bound, f"{where}: {desk.longest_naked} without a stop"


def test_without_a_fault_shares_stand_without_a_stop_for_less_than_a_second(desk):
    desk.hold()
    desk.rise()
    desk.move()
    desk.run(20)
    assert is_moved(desk)
    desk.leave()
    desk.run(20)
    assert has_left(desk)
    assert desk.wrong() == []
    assert desk.longest_naked <= timedelta(seconds=1)


ON_THE_ROUTES = [
    (entering, POST),
    (stopping, POST),
    (moving, PATCH),
    (leaving, DELETE),
    (leaving, POST),
    (leaving, POSITIONS),
    (leaving, ORDERS),
    (leaving, BY_ID),
]


@pytest.mark.parametrize("fault", sorted(ON_THE_WAY))
@pytest.mark.parametrize(("at", "route"), ON_THE_ROUTES, ids=[f"{at.__name__} {r}" for at, r in ON_THE_ROUTES])
def test_a_call_that_is_lost_or_refused_on_the_way_delays_and_changes_nothing(desk, fault, at, route):
    comes_to(desk, fault, route, at, END[at], seconds=5 if fault is Fault.LATE else None)
    sent = [intent.step for intent in OrderIntent.objects.order_by("id")]
    assert len(sent) == len(set(sent)), "no order was sent under a second id"


@pytest.mark.parametrize("fault", [Fault.UNKNOWN_ENUM, Fault.EXTRA_FIELDS])
@pytest.mark.parametrize("at", END, ids=[at.__name__ for at in END])
def test_words_and_fields_of_tomorrow_do_no_harm(desk, fault, at):
    comes_to(desk, fault, "* /v2/*", at, END[at], count=None, run=60)


@pytest.mark.parametrize(("route", "seconds"), [(POSITIONS, 10), ("GET /v2/orders*", 10)])
@pytest.mark.parametrize("at", END, ids=[at.__name__ for at in END])
def test_a_view_that_is_behind_delays_and_changes_nothing(desk, at, route, seconds):
    comes_to(desk, Fault.STALE, route, at, END[at], count=None, seconds=seconds)


def test_an_exit_that_does_not_see_its_stop_end_goes_by_the_shares_that_are_free(desk):
    desk.hold()
    desk.alpaca.arm(Fault.STALE, "GET /v2/orders*", count=None, seconds=60)
    with capture_logs() as logs:
        desk.leave()
        desk.run(120)
    assert alarms(logs) == []
    assert desk.wrong() == []
    assert has_left(desk)
    assert desk.longest_naked <= ONE_FAULT


def test_an_exit_that_sees_neither_orders_nor_positions_in_time_is_an_alarm(desk):
    desk.hold()
    desk.alpaca.arm(Fault.STALE, "GET /v2/orders*", count=None, seconds=15)
    desk.alpaca.arm(Fault.SERVER_ERROR, POSITIONS, count=None)
    with capture_logs() as logs:
        desk.leave()
        desk.run(10)
    assert alarms(logs) == ["exit_held_up"]
    desk.alpaca.control("DELETE", "faults")
    desk.run(40)
    assert desk.wrong() == []
    assert has_left(desk)


VENUE = [
    (Fault.REJECTED_LATER, POST, entering, None, is_no_trade),
    (Fault.REJECTED_LATER, POST, stopping, None, is_protected),
    (Fault.REJECTED_LATER, POST, leaving, None, has_left),
    (Fault.CANCELED_BY_VENUE, POST, entering, None, is_no_trade),
    (Fault.CANCELED_BY_VENUE, POST, stopping, None, is_protected),
    (Fault.CANCELED_BY_VENUE, POST, leaving, None, has_left),
    (Fault.PARTIAL_FILL, POST, entering, 20, is_half_protected),
    (Fault.PARTIAL_FILL, POST, entering, None, is_half_protected),
    (Fault.PARTIAL_FILL, POST, leaving, 20, has_left),
    (Fault.LATE_VISIBLE, POST, entering, 5, is_protected),
    (Fault.LATE_VISIBLE, POST, stopping, 5, is_protected),
    (Fault.LATE_VISIBLE, PATCH, moving, 5, is_moved),
    (Fault.LATE_VISIBLE, POST, leaving, 5, has_left),
    (Fault.FILLS_FIRST, PATCH, moving, None, was_stopped),
    (Fault.FILLS_FIRST, DELETE, leaving, None, was_stopped),
    (Fault.STUCK_CANCEL, DELETE, leaving, 30, has_left),
    (Fault.SLOW_RELEASE, DELETE, leaving, 3, has_left),
]


@pytest.mark.parametrize(
    ("fault", "route", "at", "seconds", "end"),
    VENUE,
    ids=[f"{fault} {route}, {at.__name__}, {end.__name__}" for fault, route, at, _, end in VENUE],
)
def test_what_the_venue_does_with_an_order_is_taken_as_it_is(desk, fault, route, at, seconds, end):
    comes_to(desk, fault, route, at, end, seconds=seconds)


def test_half_an_exit_that_never_fills_further_is_waited_for_and_never_sold_over(desk):
    desk.hold()
    desk.alpaca.arm(Fault.PARTIAL_FILL, POST)
    desk.leave()
    desk.run(60)
    assert desk.wrong() == []
    assert [(each.type, each.filled_quantity) for each in desk.working] == [(OrderType.MARKET, 5)]
    desk.alpaca.client().cancel_order_by_id(desk.working[0].id)
    desk.run(30)
    assert desk.wrong() == []
    assert has_left(desk)
    assert [each.filled_quantity for each in OrderIntent.objects.filter(step="exit").order_by("id")] == [5, 5]


def alarms(logs) -> list[str]:
    return [each["event"] for each in logs if each["log_level"] == "error"]


@pytest.mark.parametrize("seconds", [30, None], ids=["late", "never"])
def test_shares_that_are_not_released_are_an_alarm_within_ten_seconds_raised_once(desk, seconds):
    desk.hold()
    desk.alpaca.arm(Fault.SLOW_RELEASE, DELETE, seconds=seconds)
    desk.leave()
    with capture_logs() as logs:
        desk.run(10)
        assert alarms(logs) == ["position_unprotected"]
        desk.run(60)
    assert alarms(logs) == ["position_unprotected"]
    assert desk.problems == []
    if seconds is None:
        assert (desk.held, OrderIntent.objects.filter(step="exit").count()) == (10, 0)
    else:
        assert desk.wrong() == []
        assert has_left(desk)


def test_a_cancellation_that_stays_pending_is_an_alarm_and_the_stop_is_never_sold_over(desk):
    desk.hold()
    desk.alpaca.arm(Fault.STUCK_CANCEL, DELETE, count=None)
    desk.leave()
    with capture_logs() as logs:
        desk.run(60)
    assert alarms(logs) == ["exit_held_up"]
    assert desk.wrong() == []
    assert (desk.held, desk.covered, OrderIntent.objects.filter(step="exit").count()) == (10, 10, 0)


@pytest.mark.parametrize("fault", [Fault.SERVER_ERROR, Fault.TOO_MANY, Fault.UNAUTHORIZED, Fault.HANG])
def test_a_broker_that_refuses_everything_leaves_the_stop_where_it_is_and_the_exit_happens_afterwards(desk, fault):
    desk.hold()
    desk.alpaca.arm(fault, "* /v2/*", count=None)
    desk.leave()
    with capture_logs() as logs:
        desk.run(40)
    assert (desk.held, desk.covered) == (10, 10)
    assert "exit_held_up" in alarms(logs)
    desk.alpaca.control("DELETE", "faults")
    desk.run(120)
    assert desk.wrong() == []
    assert has_left(desk)


@pytest.mark.parametrize(("fault", "count"), [(Fault.SILENT, None), (Fault.DUPLICATE, None), (Fault.DROPPED, 2)])
def test_a_stream_that_is_silent_double_or_broken_changes_nothing(desk, fault, count):
    access = TradingAccess("key", "secret", origin=desk.alpaca.origin)
    updates = TradeUpdates(access, threading.Event())
    updates.start()
    try:
        assert updates.wake.wait(5), "it connects"
        desk.alpaca.arm(fault, "WS /stream", count)
        desk.hold()
        desk.leave()
        desk.run(30)
    finally:
        updates.stop()
    assert desk.wrong() == []
    assert has_left(desk)


def test_somebody_who_closes_the_position_by_hand_ends_the_trade(desk):
    desk.hold()
    desk.alpaca.client().close_all_positions(cancel_orders=True)
    desk.run(40)
    assert desk.wrong() == []
    trade = Trade.objects.get()
    assert (trade.status, trade.exit_reason, desk.held) == (TradeStatus.CLOSED, ExitReason.MANUAL, 0)


def test_every_fault_of_the_stand_in_is_met():
    faults = set(re.findall(r"Fault\.([A-Z_]+)", Path(__file__).read_text())) | {fault.name for fault in ON_THE_WAY}
    assert {fault.name for fault in Fault} - faults == set()
