"""The adapter and the real SDK over sockets against a small server that can misbehave."""

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from positions.broker import wire
from positions.broker.alpaca import EXIT_TAKES, OUTAGE_PAUSE, PATIENCE, AlpacaBroker, NoGuard, TradingAccess
from positions.broker.port import (
    BrokerError,
    KeysRefused,
    NotNow,
    Order,
    OrderKind,
    OrderRequest,
    OrderSide,
    OrderStatus,
    OutcomeUnknown,
    PositionIntent,
    Rejected,
    Unavailable,
)
from positions.clock import ReplayClock, SystemClock
from tests.positions.alpaca_trading_server import KEY, SECRET, AlpacaTradingServer, Fault

NOW = datetime(2025, 5, 12, 14, 0, tzinfo=UTC)
BUY = OrderRequest("e1", "KO", OrderSide.BUY, OrderKind.MARKET, 10, PositionIntent.BUY_TO_OPEN, created_at=NOW)
STOP = OrderRequest(
    "s1", "KO", OrderSide.SELL, OrderKind.STOP, 10, PositionIntent.SELL_TO_CLOSE, Decimal("99.10"), created_at=NOW
)


@pytest.fixture
def clock() -> ReplayClock:
    return ReplayClock(NOW)


@pytest.fixture
def server(clock: ReplayClock) -> Iterator[AlpacaTradingServer]:
    with AlpacaTradingServer(clock.now) as server:
        server.hold("KO", 10)
        yield server


@pytest.fixture
def broker(server: AlpacaTradingServer, clock: ReplayClock) -> AlpacaBroker:
    return AlpacaBroker(TradingAccess(KEY, SECRET, origin=server.origin), clock, timeouts=(0.3, 0.3))


def test_an_entry_goes_out_as_one_whole_share_day_order_with_its_intent(
    server: AlpacaTradingServer, broker: AlpacaBroker
) -> None:
    order = broker.submit(BUY)
    assert (order.client_order_id, order.status, order.quantity) == ("e1", OrderStatus.WORKING, 10)
    assert [each.body for each in server.heard("POST")] == [
        {
            "symbol": "KO",
            "qty": 10,
            "side": "buy",
            "type": "market",
            "time_in_force": "day",
            "client_order_id": "e1",
            "position_intent": "buy_to_open",
        }
    ]


def test_a_stop_is_good_till_cancelled_and_its_price_is_written_without_binary_noise(
    server: AlpacaTradingServer, broker: AlpacaBroker
) -> None:
    broker.submit(replace(STOP, stop_price=Decimal("1.10") + Decimal("2.20")))
    (sent,) = server.heard("POST")
    assert (sent.body["time_in_force"], repr(sent.body["stop_price"])) == ("gtc", "3.3")


def test_positions_are_signed_and_carry_what_is_available(server: AlpacaTradingServer, broker: AlpacaBroker) -> None:
    server.hold("F", -7, qty_available="-3")
    positions = broker.positions()
    assert {symbol: (each.quantity, each.available, each.price) for symbol, each in positions.items()} == {
        "KO": (10, 10, 100.5),
        "F": (-7, 3, 100.5),
    }


def test_open_orders_are_found_by_client_id_with_their_legs(server: AlpacaTradingServer, broker: AlpacaBroker) -> None:
    leg = {**server.add_order(client_order_id="leg"), "status": "held"}
    server.orders.clear()
    server.add_order(client_order_id="parent", legs=[leg])
    assert set(broker.open_orders()) == {"parent", "leg"}
    assert server.requests[-1].query == {"status": "open", "nested": "true", "direction": "asc", "limit": "500"}


def test_each_change_of_an_order_is_told_once_in_one_call(server: AlpacaTradingServer, broker: AlpacaBroker) -> None:
    def told() -> list[tuple[str, OrderStatus]]:
        before = len(server.requests)
        changed: list[Order] = broker.changed_orders()
        assert len(server.requests) - before <= 1
        return [(order.client_order_id, order.status) for order in changed]

    assert told() == []
    assert server.requests == []
    entry, stop = broker.submit(BUY), broker.submit(STOP)
    assert told() == [("e1", OrderStatus.WORKING), ("s1", OrderStatus.WORKING)]
    assert told() == []
    server.change(entry.id, status="filled", filled_qty="10", filled_avg_price="100.25")
    server.change(stop.id, status="canceled")
    assert told() == [("e1", OrderStatus.FILLED), ("s1", OrderStatus.CANCELLED)]
    assert told() == []


def test_the_account_is_read_in_one_call(server: AlpacaTradingServer, broker: AlpacaBroker) -> None:
    account = broker.account()
    assert (account.equity, account.buying_power, account.number) == (Decimal(100000), Decimal(200000), "PA123")
    assert len(server.requests) == 1


# Sent once


REFUSED_CONNECTION = "http://127.0.0.1:1"
HANG = Fault(200, "{}", after=0.45)
RESET = Fault()
OPEN_OUTCOMES = {
    "hang": HANG,
    "reset": RESET,
    "half an answer": Fault(200, '{"id": ', cut=True),
    "429": Fault(429, '{"code": 42910000, "message": "too many requests."}'),
    "500 with a page": Fault(500, "<html>\n<h1>Sorry</h1></html>"),
    "503 without a body": Fault(503),
    "504": Fault(504, '{"message": "timeout"}'),
    "redirect": Fault(302, "<html>moved</html>", {"Location": "http://127.0.0.1:1/elsewhere"}),
    "redirect without a body": Fault(307, "", {"Location": "http://127.0.0.1:1/elsewhere"}),
    "200 that is no JSON": Fault(200, "<html>welcome</html>"),
}
NO_ANSWERS = {
    **OPEN_OUTCOMES,
    "200 without a body": Fault(200),
    "200 with null": Fault(200, "null"),
    "200 with something else": Fault(200, '{"mood": "good"}'),
}
faults = pytest.mark.parametrize("fault", NO_ANSWERS.values(), ids=NO_ANSWERS.keys())
landing = pytest.mark.parametrize("lands", [True, False], ids=["landed", "lost"])


@faults
@landing
def test_an_order_without_an_answer_is_unknown_was_sent_once_and_can_be_looked_up(
    server: AlpacaTradingServer, broker: AlpacaBroker, clock: ReplayClock, fault: Fault, lands: bool
) -> None:
    server.faults.append(replace(fault, lands=lands))
    with pytest.raises(OutcomeUnknown) as told:
        broker.submit(STOP)
    assert "\n" not in str(told.value)
    assert len(server.heard("POST")) == 1
    clock.sleep_until(NOW + timedelta(seconds=1))
    found = broker.order_by_client_id("s1")
    assert (found is not None) is lands
    assert broker.submit(STOP).client_order_id == "s1"
    assert [order["client_order_id"] for order in server.orders.values()] == ["s1"]
    assert len(server.heard("POST")) == 2


@faults
@landing
def test_a_replacement_without_an_answer_is_unknown_was_sent_once_and_can_be_asked_for_again(
    server: AlpacaTradingServer, broker: AlpacaBroker, clock: ReplayClock, fault: Fault, lands: bool
) -> None:
    stop = broker.submit(STOP)
    server.faults.append(replace(fault, lands=lands))
    with pytest.raises(OutcomeUnknown):
        broker.replace_stop(stop.id, Decimal("99.50"), "m1")
    assert len(server.heard("PATCH")) == 1
    clock.sleep_until(NOW + timedelta(seconds=1))
    assert broker.replace_stop(stop.id, Decimal("99.50"), "m1").client_order_id == "m1"
    assert len(server.orders) == 2


@pytest.mark.parametrize("fault", OPEN_OUTCOMES.values(), ids=OPEN_OUTCOMES.keys())
@landing
def test_a_cancellation_without_an_answer_is_unknown_was_sent_once_and_can_be_asked_for_again(
    server: AlpacaTradingServer, broker: AlpacaBroker, clock: ReplayClock, fault: Fault, lands: bool
) -> None:
    stop = broker.submit(STOP)
    server.faults.append(replace(fault, lands=lands))
    with pytest.raises(OutcomeUnknown):
        broker.cancel(stop.id)
    assert len(server.heard("DELETE")) == 1
    clock.sleep_until(NOW + timedelta(seconds=1))
    broker.cancel(stop.id)
    assert server.orders[stop.id]["status"] == "canceled"


@pytest.mark.parametrize("origin", ["refused", "silent"])
def test_without_a_connection_nothing_happened(origin: str, clock: ReplayClock) -> None:
    with unanswered_port() as silent:
        access = TradingAccess(KEY, SECRET, origin=REFUSED_CONNECTION if origin == "refused" else silent)
        broker = AlpacaBroker(access, clock, timeouts=(0.2, 0.2))
        for write in (
            lambda: broker.submit(BUY),
            lambda: broker.cancel("some"),
            lambda: broker.replace_stop("some", Decimal(99), "m1"),
        ):
            with pytest.raises(Unavailable):
                write()


@contextmanager
def unanswered_port() -> Iterator[str]:
    """A port whose queue of connections is full: who connects waits."""
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for waiting in (first, second):
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"qty": "9"}, "its quantity is 9, not 10"),
        ({"side": "buy"}, "its side is buy, not sell"),
        ({"symbol": "F"}, "its symbol is F, not KO"),
        ({"type": "market"}, "its kind is market, not stop"),
        ({"position_intent": "sell_to_open"}, "its intent is sell_to_open, not sell_to_close"),
        ({"created_at": "2025-05-12T13:59:00Z"}, "before this was decided"),
        ({"created_at": None}, "nothing says that it is not an older one"),
    ],
)
def test_another_order_under_our_id_is_not_taken_for_ours(
    server: AlpacaTradingServer, broker: AlpacaBroker, fields: dict[str, Any], why: str
) -> None:
    server.change(broker.submit(STOP).id, **fields)
    with pytest.raises(Rejected, match=why) as told:
        broker.submit(STOP)
    assert (told.value.status, told.value.code) == (422, 40010001)


def test_an_id_that_is_taken_by_an_order_that_cannot_be_read_stays_unknown(
    server: AlpacaTradingServer, broker: AlpacaBroker
) -> None:
    server.add_order(client_order_id="s1")
    server.faulty = lambda heard: heard.method == "GET"
    server.faults.extend([Fault(500)] * 20)
    with pytest.raises(OutcomeUnknown, match="was sent before and cannot be read"):
        broker.submit(STOP)


# Refused


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (403, '{"code": 40310000, "message": "insufficient qty available for order", "available": "0"}', 40310000),
        (403, '{"code": 40310000, "message": "potential wash trade detected", "reject_reason": "x"}', 40310000),
        (403, '{"code": 40310100, "message": "trade denied due to pattern day trading protection"}', 40310100),
        (422, '{"code": 42210000, "message": "position intent mismatch, inferred: x, specified: y"}', 42210000),
        (422, '{"message": "qty must be > 0"}', None),
        (400, "<html>bad request</html>", None),
        (404, "<html>no such page</html>", None),
    ],
)
def test_a_refusal_is_final_and_says_what_alpaca_said(
    server: AlpacaTradingServer, broker: AlpacaBroker, status: int, body: str, code: int | None
) -> None:
    server.faults.append(Fault(status, body))
    with pytest.raises(Rejected) as told:
        broker.submit(STOP)
    assert (told.value.status, told.value.code) == (status, code)
    assert wire.refusal(body).message in str(told.value)
    assert len(server.requests) == 1


def test_a_price_off_the_tick_is_refused_before_it_is_sent(server: AlpacaTradingServer, broker: AlpacaBroker) -> None:
    with pytest.raises(Rejected, match=r"99\.101 is no price on the tick"):
        broker.submit(replace(STOP, stop_price=Decimal("99.101")))
    with pytest.raises(Rejected, match=r"99\.101 is no price on the tick"):
        broker.replace_stop("some", Decimal("99.101"), "m1")
    assert server.requests == []


@pytest.mark.parametrize(
    "fault",
    [
        Fault(401, '{"message": "unauthorized."}'),
        Fault(401, "<html>nginx</html>"),
        Fault(403, ""),
        Fault(403, '{"message": "forbidden."}'),
    ],
)
def test_refused_keys_are_not_offered_in_a_hot_loop(
    server: AlpacaTradingServer, broker: AlpacaBroker, clock: ReplayClock, fault: Fault
) -> None:
    server.faults.extend([fault] * 100)
    with structlog.testing.capture_logs() as told:
        for _ in range(600):
            with pytest.raises(KeysRefused):
                broker.positions()
            with pytest.raises(KeysRefused):
                broker.submit(STOP)
            clock.sleep_until(clock.now() + timedelta(seconds=0.5))
    assert 6 <= len(server.requests) <= 12
    assert [each["event"] for each in told] == ["keys_refused"]
    server.faults.clear()
    clock.sleep_until(clock.now() + timedelta(minutes=1))
    assert broker.positions()["KO"].quantity == 10


def test_one_wrong_401_costs_a_second(server: AlpacaTradingServer, broker: AlpacaBroker, clock: ReplayClock) -> None:
    for _ in range(3):
        server.faults.append(Fault(401))
        with pytest.raises(KeysRefused):
            broker.positions()
        clock.sleep_until(clock.now() + timedelta(seconds=1))
        assert broker.positions()["KO"].quantity == 10


def test_the_keys_stand_in_no_message_and_no_repr(server: AlpacaTradingServer, clock: ReplayClock) -> None:
    access = TradingAccess("my-key-id", "my-secret", origin=server.origin)
    with pytest.raises(KeysRefused) as told:
        AlpacaBroker(access, clock).account()
    assert "my-" not in f"{told.value!r} {access!r}"


# Read again


READS: dict[str, Callable[[AlpacaBroker], Any]] = {
    "account": AlpacaBroker.account,
    "positions": AlpacaBroker.positions,
    "open_orders": AlpacaBroker.open_orders,
    "order_by_client_id": lambda broker: broker.order_by_client_id("e1"),
    "changed_orders": AlpacaBroker.changed_orders,
    "activities": lambda broker: broker.activities(NOW),
}


@faults
@pytest.mark.parametrize("read", READS.values(), ids=READS.keys())
def test_a_read_that_fails_once_is_asked_again(
    server: AlpacaTradingServer, broker: AlpacaBroker, fault: Fault, read: Callable[[AlpacaBroker], Any]
) -> None:
    broker.submit(BUY)
    expected = read(AlpacaBroker(TradingAccess(KEY, SECRET, origin=server.origin), ReplayClock(NOW)))
    before = len(server.requests)
    server.faults.append(fault)
    found = read(broker)
    assert found == expected or [order.client_order_id for order in found] == ["e1"]
    assert len(server.requests) == before + 2


@pytest.mark.parametrize("fault", [RESET, Fault(500, "<html>"), Fault(200, "[1"), Fault(429)], ids=repr)
def test_a_read_that_fails_for_good_gives_up_within_its_time_and_is_never_an_empty_answer(
    server: AlpacaTradingServer, broker: AlpacaBroker, clock: ReplayClock, fault: Fault
) -> None:
    server.faults.extend([fault] * 100)
    with pytest.raises(Unavailable):
        broker.positions()
    assert 3 <= len(server.requests) <= 7
    assert timedelta(seconds=2) < clock.now() - NOW <= PATIENCE


def test_a_broken_service_holds_up_a_tick_only_once_and_an_exit_not_at_all(
    server: AlpacaTradingServer, broker: AlpacaBroker, clock: ReplayClock
) -> None:
    stop = broker.submit(STOP)
    clock.sleep_until(NOW + EXIT_TAKES)
    server.faults.extend([RESET] * 100)
    with pytest.raises(Unavailable):
        broker.positions()
    asked, given_up = len(server.requests), clock.now()
    server.faults.clear()
    for call in (broker.positions, broker.open_orders, lambda: broker.submit(BUY)):
        with pytest.raises(Unavailable, match="did not answer just now"):
            call()
    assert (len(server.requests), clock.now()) == (asked, given_up)
    broker.cancel(stop.id)
    assert broker.positions()["KO"].quantity == 10
    clock.sleep_until(given_up + OUTAGE_PAUSE)
    broker.submit(BUY)


def test_a_hanging_read_that_used_up_its_time_is_not_asked_again(
    server: AlpacaTradingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("positions.broker.alpaca.PATIENCE", timedelta(seconds=0.3))
    broker = AlpacaBroker(TradingAccess(KEY, SECRET, origin=server.origin), SystemClock(), timeouts=(0.3, 0.3))
    server.faults.append(HANG)
    with pytest.raises(Unavailable):
        broker.positions()
    assert len(server.requests) == 1


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from([200, 204, 301, 304, 400, 401, 403, 404, 408, 418, 422, 429, 500, 502, 504]),
    st.one_of(
        st.text(max_size=30),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=2)
                | st.dictionaries(st.sampled_from(["code", "message", "id", "symbol", "side", "qty", "legs"]), inner)
            ),
        ).map(json.dumps),
    ),
)
def test_whatever_is_answered_is_an_answer_or_an_error_of_the_broker(
    server: AlpacaTradingServer, status: int, body: str
) -> None:
    for call in (
        lambda broker: broker.positions(),
        lambda broker: broker.order_by_client_id("e1"),
        lambda broker: broker.submit(STOP),
        lambda broker: broker.replace_stop("a1", Decimal("99.5"), "m1"),
        lambda broker: broker.cancel("a1"),
    ):
        server.faults.extend([Fault(status, body)] * 10)
        broker = AlpacaBroker(TradingAccess(KEY, SECRET, origin=server.origin), ReplayClock(NOW))
        with suppress(BrokerError):
            call(broker)
        server.faults.clear()


def test_an_order_that_alpaca_does_not_have_is_none(broker: AlpacaBroker) -> None:
    assert broker.order_by_client_id("never sent") is None


@pytest.mark.parametrize(
    "body", ["", "<html>404</html>", '{"message": "Not Found"}', '{"code": 40410000, "message": "endpoint not found."}']
)
def test_a_404_that_is_not_about_the_order_does_not_say_that_there_is_none(
    server: AlpacaTradingServer, broker: AlpacaBroker, body: str
) -> None:
    server.faults.append(Fault(404, body))
    with pytest.raises(Unavailable):
        broker.order_by_client_id("e1")


def test_one_bad_row_hides_no_other_and_is_not_absent(server: AlpacaTradingServer, broker: AlpacaBroker) -> None:
    server.hold("F", 5, asset_class="ipo", exchange="MARS", mood="good")
    server.hold("GE", 7, qty="seven")
    server.add_order(client_order_id="good", status="gone_fishing", type="iceberg")
    server.replies["/v2/orders"] = [*server.orders.values(), {"client_order_id": "bad", "qty": {}}, None]
    with structlog.testing.capture_logs() as told:
        for _ in range(2):
            positions, orders = broker.positions(), broker.open_orders()
    assert (set(positions), positions.unreadable) == ({"KO", "F"}, {"GE"})
    assert (set(orders), orders.unreadable) == ({"good"}, {"bad", "?"})
    assert orders["good"].status is OrderStatus.WORKING
    assert orders["good"].broker_status == "gone_fishing"
    assert sorted(each["event"] for each in told) == ["order_status_unknown"] + 3 * ["row_unreadable"], "once each"


def test_more_orders_than_a_page_has_are_all_found(
    server: AlpacaTradingServer, broker: AlpacaBroker, clock: ReplayClock
) -> None:
    for number in range(1203):
        server.add_order(client_order_id=f"o{number}")
        clock.sleep_until(clock.now() + timedelta(milliseconds=50))
    assert len(broker.open_orders()) == 1203
    assert len(server.requests) == 3
    assert len(broker.changed_orders()) == 1203


def test_all_activities_of_a_kind_are_found_page_by_page(server: AlpacaTradingServer, broker: AlpacaBroker) -> None:
    for number in range(205):
        kind = "FEE" if number == 7 else "FILL"
        fill = {"id": f"2025{number:04}", "activity_type": kind, "qty": "3", "price": "99.5", "side": "sell_short"}
        server.activities.append({**fill, "symbol": "KO", "order_id": "a1", "transaction_time": "2025-05-12T14:00:00Z"})
    found = broker.activities(NOW)
    assert len(found) == 204
    assert (found[0].side, found[0].quantity, found[0].price, found[0].at) == (OrderSide.SELL, 3, Decimal("99.5"), NOW)
    assert len(server.requests) == 3


# Moving a stop


def moved(server: AlpacaTradingServer, broker: AlpacaBroker) -> tuple[Order, Order]:
    stop = broker.submit(STOP)
    return stop, broker.replace_stop(stop.id, Decimal("99.50"), "m1")


def test_a_moved_stop_is_a_new_order_and_the_end_of_the_old_one(
    server: AlpacaTradingServer, broker: AlpacaBroker
) -> None:
    _, new = moved(server, broker)
    assert [each.body for each in server.heard("PATCH")] == [{"stop_price": 99.5, "client_order_id": "m1"}]
    assert (new.client_order_id, new.stop_price, new.quantity) == ("m1", Decimal("99.5"), 10)
    changed = {order.client_order_id: order for order in broker.changed_orders()}
    assert (changed["s1"].status, changed["s1"].replaced_by) == (OrderStatus.REPLACED, new.id)
    assert changed["m1"].status is OrderStatus.WORKING


def test_a_stop_that_was_replaced_is_moved_where_the_chain_ends(
    server: AlpacaTradingServer, broker: AlpacaBroker
) -> None:
    old, new = moved(server, broker)
    last = broker.replace_stop(old.id, Decimal("99.70"), "m2")
    assert server.orders[new.id]["replaced_by"] == last.id
    assert last.stop_price == Decimal("99.7")


def test_a_tighter_stop_at_the_end_of_the_chain_is_not_loosened(
    server: AlpacaTradingServer, broker: AlpacaBroker
) -> None:
    old, new = moved(server, broker)
    with pytest.raises(Rejected, match=r"99\.5 stands in its place"):
        broker.replace_stop(old.id, Decimal("99.30"), "m2")
    assert server.orders[new.id]["status"] == "new"


def test_a_stop_that_has_the_price_already_is_done(server: AlpacaTradingServer, broker: AlpacaBroker) -> None:
    stop = broker.submit(STOP)
    assert broker.replace_stop(stop.id, Decimal("99.10"), "m1").id == stop.id


@pytest.mark.parametrize("status", ["accepted", "pending_new", "pending_cancel", "pending_replace"])
def test_a_stop_that_rests_after_hours_cannot_be_moved_now(
    server: AlpacaTradingServer, broker: AlpacaBroker, status: str
) -> None:
    stop = broker.submit(STOP)
    server.change(stop.id, status=status)
    with pytest.raises(NotNow, match=f"cannot replace order in {status} status"):
        broker.replace_stop(stop.id, Decimal("99.50"), "m1")
    assert [order["status"] for order in server.orders.values()] == [status]


def test_the_end_of_a_chain_that_cannot_be_moved_now_is_told_so(
    server: AlpacaTradingServer, broker: AlpacaBroker
) -> None:
    old, new = moved(server, broker)
    server.change(new.id, status="accepted")
    with pytest.raises(NotNow):
        broker.replace_stop(old.id, Decimal("99.70"), "m2")


def test_a_chain_that_still_settles_is_not_now(server: AlpacaTradingServer, broker: AlpacaBroker) -> None:
    stop = broker.submit(STOP)
    server.faults.append(Fault(422, '{"code": 42210000, "message": "order chain not fully replaced"}'))
    with pytest.raises(NotNow):
        broker.replace_stop(stop.id, Decimal("99.50"), "m1")


@pytest.mark.parametrize("status", ["filled", "canceled", "expired", "rejected"])
def test_a_stop_that_is_over_is_not_moved(server: AlpacaTradingServer, broker: AlpacaBroker, status: str) -> None:
    stop = broker.submit(STOP)
    server.change(stop.id, status=status)
    with pytest.raises(Rejected) as told:
        broker.replace_stop(stop.id, Decimal("99.50"), "m1")
    assert not isinstance(told.value, NotNow)
    with pytest.raises(Rejected):
        broker.replace_stop("00000000-0000-0000-0000-000000000000", Decimal("99.50"), "m1")


def test_a_refused_move_of_an_order_that_cannot_be_read_is_unknown(
    server: AlpacaTradingServer, broker: AlpacaBroker
) -> None:
    old, _ = moved(server, broker)
    server.faulty = lambda heard: heard.method == "GET"
    server.faults.extend([RESET] * 20)
    with pytest.raises(OutcomeUnknown, match="order already replaced"):
        broker.replace_stop(old.id, Decimal("99.70"), "m2")


@pytest.mark.parametrize("status", ["filled", "expired", "replaced"])
def test_cancelling_what_is_over_is_refused_and_what_is_cancelled_is_done(
    server: AlpacaTradingServer, broker: AlpacaBroker, status: str
) -> None:
    stop = broker.submit(STOP)
    broker.cancel(stop.id)
    broker.cancel(stop.id)
    server.change(stop.id, status=status)
    with pytest.raises(Rejected, match=f'already in "{status}" state'):
        broker.cancel(stop.id)


# Four calls a tick


@pytest.mark.parametrize("positions", [1, 60])
def test_a_tick_costs_four_calls_whatever_the_number_of_positions(
    server: AlpacaTradingServer, broker: AlpacaBroker, clock: ReplayClock, positions: int
) -> None:
    for number in range(positions):
        server.hold(f"S{number}", 10)
        broker.submit(replace(STOP, client_order_id=f"s{number}", symbol=f"S{number}"))
        clock.sleep_until(clock.now() + timedelta(seconds=1))
    for order in server.orders.values():
        order["status"] = "filled"
    before = len(server.requests)
    assert len(broker.changed_orders()) == positions
    broker.open_orders(), broker.positions(), broker.account()
    assert len(server.requests) - before == 4


# The rate


def test_entries_and_reads_leave_room_for_exits(server: AlpacaTradingServer, clock: ReplayClock) -> None:
    broker = AlpacaBroker(TradingAccess(KEY, SECRET, origin=server.origin), clock, requests_a_minute=20)
    for number in range(16):
        broker.submit(replace(BUY, client_order_id=f"e{number}"))
    with pytest.raises(Unavailable, match="rate limit"):
        broker.submit(BUY)
    with pytest.raises(Unavailable, match="rate limit"):
        broker.account()
    stop = broker.submit(STOP)
    broker.cancel(stop.id)
    assert broker.positions()["KO"].quantity == 10, "reads that belong to the exit may use the reserve"
    broker.submit(replace(STOP, client_order_id="s2"))
    with pytest.raises(Unavailable, match="rate limit"):
        broker.submit(replace(STOP, client_order_id="s3"))
    assert len(server.requests) == 20
    assert clock.now() == NOW


def test_after_a_429_the_others_wait_for_the_reset_and_an_exit_tries_after_a_second(
    server: AlpacaTradingServer, broker: AlpacaBroker, clock: ReplayClock
) -> None:
    stop = broker.submit(STOP)
    clock.sleep_until(NOW + EXIT_TAKES)
    reset = str(int(clock.now().timestamp()) + 37)
    server.faults.append(Fault(429, "", {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": reset}))
    with pytest.raises(Unavailable):
        broker.positions()
    with pytest.raises(Unavailable):
        broker.submit(BUY)
    assert len(server.requests) == 2
    broker.cancel(stop.id)
    assert clock.now() == NOW + EXIT_TAKES + timedelta(seconds=1)
    clock.sleep_until(NOW + EXIT_TAKES + timedelta(seconds=37))
    broker.submit(BUY)


def test_a_429_that_names_a_pause_is_obeyed_by_all(
    server: AlpacaTradingServer, broker: AlpacaBroker, clock: ReplayClock
) -> None:
    stop = broker.submit(STOP)
    server.faults.append(Fault(429, "", {"Retry-After": "3"}))
    assert broker.positions()["KO"].quantity == 10
    assert timedelta(seconds=3) < clock.now() - NOW < timedelta(seconds=4)
    server.faults.append(Fault(429, "", {"Retry-After": "30"}))
    with pytest.raises(OutcomeUnknown):
        broker.cancel(stop.id)
    with pytest.raises(Unavailable, match="rate limit"):
        broker.cancel(stop.id)
    assert len(server.heard("DELETE")) == 1


# The guard and the clock


def test_no_shorting_is_a_guard(server: AlpacaTradingServer, broker: AlpacaBroker) -> None:
    server.configuration["no_shorting"] = True
    assert "no_shorting" in broker.verify_guard()
    assert server.heard("POST") == []


def test_a_wrong_intent_that_is_refused_is_a_guard(server: AlpacaTradingServer, broker: AlpacaBroker) -> None:
    server.hold("SPY", 5)
    assert "position intent mismatch" in broker.verify_guard()
    (probe,) = server.heard("POST")
    assert (probe.body["symbol"], probe.body["limit_price"], probe.body["qty"]) == ("QQQ", 9999.0, 1)


def test_a_broker_that_takes_a_wrong_intent_has_no_guard_and_keeps_no_order(
    server: AlpacaTradingServer, broker: AlpacaBroker
) -> None:
    server.checks_intent = False
    with pytest.raises(NoGuard, match="was accepted"):
        broker.verify_guard()
    assert [order["status"] for order in server.orders.values()] == ["canceled"]


def test_a_test_of_the_guard_without_an_answer_is_looked_up_and_cancelled(
    server: AlpacaTradingServer, broker: AlpacaBroker
) -> None:
    server.checks_intent = False
    server.faulty = lambda heard: heard.method == "POST"
    server.faults.append(Fault(504, lands=True))
    with pytest.raises(OutcomeUnknown):
        broker.verify_guard()
    assert [order["status"] for order in server.orders.values()] == ["canceled"]


def test_a_refusal_for_another_reason_proves_nothing(server: AlpacaTradingServer, broker: AlpacaBroker) -> None:
    server.faulty = lambda heard: heard.method == "POST"
    server.faults.append(Fault(403, '{"code": 40310000, "message": "account is not allowed to trade"}'))
    with pytest.raises(NoGuard, match="account is not allowed to trade"):
        broker.verify_guard()


def test_the_skew_of_the_clock_is_measured(server: AlpacaTradingServer, broker: AlpacaBroker) -> None:
    server.clock_ahead = timedelta(seconds=-3)
    assert broker.clock_skew() == timedelta(seconds=-3)
