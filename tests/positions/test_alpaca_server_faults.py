"""What the real SDK sees of each fault that the simulated Alpaca can be told to have, and what is true afterwards."""

import re
from json import JSONDecodeError
from pathlib import Path

import pytest
import requests
from alpaca.common.exceptions import APIError
from alpaca.trading.enums import OrderSide, QueryOrderStatus
from alpaca.trading.requests import GetOrdersRequest, ReplaceOrderRequest
from pydantic import ValidationError

from positions.broker.standin.faults import Armed, Fault
from tests.positions.stand_in import market, stop

POST, ORDERS, ANY_ORDER = "POST /v2/orders", "GET /v2/orders*", "* /v2/orders/*"


@pytest.fixture
def client(alpaca):
    return alpaca.client()


@pytest.fixture
def protected(alpaca, client):
    """Ten shares of KO at 100 with a stop at 99, which is `order`."""
    client.submit_order(market("KO", 10, client_order_id="entry"))
    alpaca.go(1)
    order = client.submit_order(stop("KO", 10, 99, client_order_id="stop"))
    alpaca.go(1)
    return order


def orders(client) -> list[tuple[str | None, str]]:
    """(client order id, status) of all orders, oldest first."""
    found = client.get_orders(GetOrdersRequest(status=QueryOrderStatus.ALL, direction="asc"))
    return [(order.client_order_id, order.status.value) for order in found]


def status_of(client, client_order_id: str) -> str:
    return client.get_order_by_client_id(client_order_id).status.value


def held(client) -> list[tuple[str, str, str]]:
    return [(each.symbol, each.qty, each.qty_available) for each in client.get_all_positions()]


# -- on the way


@pytest.mark.parametrize(
    ("fault", "seen", "landed"),
    [
        (Fault.HANG, requests.exceptions.ReadTimeout, False),
        (Fault.HANG_AFTER, requests.exceptions.ReadTimeout, True),
        (Fault.RESET_BEFORE, requests.exceptions.ConnectionError, False),
        (Fault.RESET_AFTER, requests.exceptions.ConnectionError, True),
        (Fault.TIMEOUT_BEFORE, 504, False),
        (Fault.TIMEOUT_AFTER, 504, True),
        (Fault.TOO_MANY, 429, False),
        (Fault.SERVER_ERROR, 500, False),
        (Fault.UNAUTHORIZED, 401, False),
        (Fault.NOT_JSON, JSONDecodeError, True),
        (Fault.EMPTY, TypeError, True),
    ],
)
def test_a_lost_order_has_landed_or_it_has_not(alpaca, client, fault, seen, landed):
    send, client._session.request = client._session.request, None
    client._session.request = lambda *arguments, **options: send(*arguments, timeout=0.3, **options)
    alpaca.arm(fault, POST)
    with pytest.raises(APIError if isinstance(seen, int) else seen) as failed:
        client.submit_order(market("KO", 10, client_order_id="c1"))
    if isinstance(seen, int):
        assert failed.value.status_code == seen
    alpaca.go(1)
    assert orders(client) == ([("c1", "filled")] if landed else [])


def test_a_late_order_lands_after_another_was_sent_and_is_refused_by_its_id(alpaca, client):
    alpaca.arm(Fault.LATE, POST, seconds=5)
    order = market("KO", 10, client_order_id="c1")
    with pytest.raises(requests.exceptions.ConnectionError):
        client.submit_order(order)
    with pytest.raises(APIError, match="order not found"):
        client.get_order_by_client_id("c1")
    client.submit_order(order)
    alpaca.go(6)
    assert orders(client) == [("c1", "filled")]
    assert held(client) == [("KO", "10", "10")]


def test_a_late_order_lands_by_itself(alpaca, client):
    alpaca.arm(Fault.LATE, POST, seconds=5)
    with pytest.raises(requests.exceptions.ConnectionError):
        client.submit_order(market("KO", 10, client_order_id="c1"))
    alpaca.go(4)
    assert orders(client) == []
    alpaca.go(2)
    assert orders(client) == [("c1", "filled")]


def test_the_sdk_alone_sends_an_order_again_after_a_504_and_only_its_id_saves_it(alpaca, client):
    client._retry, client._retry_wait = 3, 0
    alpaca.arm(Fault.TIMEOUT_AFTER, POST)
    with pytest.raises(APIError, match="client_order_id must be unique"):
        client.submit_order(market("KO", 10, client_order_id="c1"))
    alpaca.arm(Fault.TIMEOUT_AFTER, POST, count=3)
    client.submit_order(market("F", 10))
    alpaca.go(1)
    assert held(client) == [("KO", "10", "10"), ("F", "40", "40")]


def test_a_fault_happens_as_often_as_it_was_armed_for_and_on_its_route_alone(alpaca, client):
    alpaca.arm(Fault.SERVER_ERROR, "GET /v2/positions", count=2)
    client.get_account()
    for _ in range(2):
        with pytest.raises(APIError):
            client.get_all_positions()
    assert client.get_all_positions() == []
    alpaca.arm(Fault.SERVER_ERROR, "* /v2/*", count=None)
    for _ in range(3):
        with pytest.raises(APIError):
            client.get_account()
    alpaca.control("DELETE", "faults")
    assert client.get_account()


# -- in the reply


def test_one_unknown_value_hides_a_whole_list_from_the_typed_sdk(alpaca, client, protected):
    for route, read in (("GET /v2/positions", client.get_all_positions), ("GET /v2/orders", client.get_orders)):
        alpaca.arm(Fault.UNKNOWN_ENUM, route)
        with pytest.raises(ValidationError):
            read()
    alpaca.arm(Fault.UNKNOWN_ENUM, "GET /v2/orders")
    [order] = alpaca.client(raw_data=True).get_orders()
    assert (order["status"], order["stop_price"]) == ("under_moonlight", "99")


def test_extra_fields_harm_nobody(alpaca, client, protected):
    alpaca.arm(Fault.EXTRA_FIELDS, "GET /v2/*", count=3)
    assert client.get_orders()[0].id == protected.id
    assert client.get_all_positions()[0].qty == "10"
    assert "moon_phase" in alpaca.client(raw_data=True).get_account()


def test_positions_may_lag_behind_orders(alpaca, client):
    alpaca.arm(Fault.STALE, "GET /v2/positions*", count=None, seconds=10)
    client.submit_order(market("KO", 10, client_order_id="entry"))
    alpaca.go(1)
    assert (status_of(client, "entry"), held(client)) == ("filled", [])
    with pytest.raises(APIError, match="position does not exist"):
        client.get_open_position("KO")
    alpaca.go(9)
    assert held(client) == [("KO", "10", "10")]


def test_orders_may_lag_behind_positions(alpaca, client, protected):
    alpaca.arm(Fault.STALE, "GET /v2/orders*", count=None, seconds=10)
    client.cancel_order_by_id(protected.id)
    alpaca.go(1)
    assert (status_of(client, "stop"), held(client)) == ("new", [("KO", "10", "10")])
    alpaca.go(9)
    assert status_of(client, "stop") == "canceled"


# -- at the venue


def test_an_order_that_was_taken_may_still_be_rejected(alpaca, client, protected):
    alpaca.arm(Fault.REJECTED_LATER, POST)
    assert client.submit_order(market("F", 1, client_order_id="c1")).status == "pending_new"
    alpaca.go(1)
    assert client.get_order_by_client_id("c1").failed_at is not None
    assert status_of(client, "c1") == "rejected"


def test_the_venue_may_cancel_an_order(alpaca, client):
    alpaca.arm(Fault.CANCELED_BY_VENUE, POST)
    client.submit_order(market("F", 1, client_order_id="c1"))
    alpaca.go(1)
    assert (status_of(client, "c1"), held(client)) == ("canceled", [])


def test_half_of_an_order_may_fill_and_the_rest_later_or_never(alpaca, client):
    alpaca.arm(Fault.PARTIAL_FILL, POST, seconds=20)
    client.submit_order(market("F", 5, client_order_id="c1"))
    alpaca.arm(Fault.PARTIAL_FILL, POST)
    client.submit_order(market("KO", 5, client_order_id="c2"))
    alpaca.go(1)
    assert held(client) == [("F", "2", "2"), ("KO", "2", "2")]
    alpaca.go(20)
    assert (status_of(client, "c1"), status_of(client, "c2")) == ("filled", "partially_filled")
    client.cancel_order_by_id(client.get_order_by_client_id("c2").id)
    alpaca.go(1)
    canceled = client.get_order_by_client_id("c2")
    assert (canceled.status, canceled.filled_qty) == ("canceled", "2")


def test_an_order_may_work_before_anybody_is_told_of_it(alpaca, client):
    alpaca.arm(Fault.LATE_VISIBLE, POST, seconds=5)
    order = client.submit_order(market("KO", 10, client_order_id="c1"))
    alpaca.go(1)
    assert (orders(client), held(client)) == ([], [("KO", "10", "10")])
    for read in (lambda: client.get_order_by_client_id("c1"), lambda: client.get_order_by_id(order.id)):
        with pytest.raises(APIError, match="order not found"):
            read()
    with pytest.raises(APIError, match="must be unique"):
        client.submit_order(market("KO", 10, client_order_id="c1"))
    alpaca.go(5)
    assert orders(client) == [("c1", "filled")]


def test_a_stop_may_fill_while_it_is_canceled(alpaca, client, protected):
    alpaca.arm(Fault.FILLS_FIRST, "DELETE /v2/orders/*")
    client.cancel_order_by_id(protected.id)
    alpaca.go(1)
    stopped = client.get_order_by_client_id("stop")
    assert (stopped.status, stopped.filled_avg_price, held(client)) == ("filled", "99", [])


def test_a_stop_may_fill_before_it_is_replaced_and_the_replacement_is_rejected(alpaca, client, protected):
    alpaca.arm(Fault.FILLS_FIRST, "PATCH /v2/orders/*")
    client.replace_order_by_id(protected.id, ReplaceOrderRequest(stop_price=99.5, client_order_id="moved"))
    alpaca.go(1)
    assert orders(client) == [("entry", "filled"), ("stop", "filled"), ("moved", "rejected")]
    assert held(client) == []


@pytest.mark.parametrize(("seconds", "later"), [(None, "pending_cancel"), (30, "canceled")])
def test_a_cancellation_may_stay_pending(alpaca, client, protected, seconds, later):
    alpaca.arm(Fault.STUCK_CANCEL, "DELETE /v2/orders/*", seconds=seconds)
    client.cancel_order_by_id(protected.id)
    alpaca.go(29)
    assert (status_of(client, "stop"), held(client)) == ("pending_cancel", [("KO", "10", "0")])
    with pytest.raises(APIError, match="insufficient qty"):
        client.close_position("KO")
    alpaca.go(2)
    assert status_of(client, "stop") == later


def test_a_stop_whose_cancellation_is_stuck_still_works(alpaca, client):
    alpaca.reset(ko=[(100, 100, 100, 100), (100, 100, 98, 99)])
    client.submit_order(market("KO", 10))
    alpaca.go(1)
    order = client.submit_order(stop("KO", 10, 99, client_order_id="stop"))
    alpaca.go(1)
    alpaca.arm(Fault.STUCK_CANCEL, "DELETE /v2/orders/*")
    client.cancel_order_by_id(order.id)
    alpaca.go(100)
    assert (status_of(client, "stop"), held(client)) == ("filled", [])


@pytest.mark.parametrize(("seconds", "free"), [(None, "0"), (30, "10")])
def test_the_shares_of_a_canceled_stop_may_be_held_back(alpaca, client, protected, seconds, free):
    alpaca.arm(Fault.SLOW_RELEASE, "DELETE /v2/orders/*", seconds=seconds)
    client.cancel_order_by_id(protected.id)
    alpaca.go(29)
    assert (status_of(client, "stop"), held(client)) == ("canceled", [("KO", "10", "0")])
    alpaca.go(2)
    assert held(client) == [("KO", "10", free)]


def test_somebody_else_may_close_the_position(alpaca, client, protected):
    hand = alpaca.client()
    hand.close_all_positions(cancel_orders=True)
    alpaca.go(1)
    assert (status_of(client, "stop"), held(client)) == ("canceled", [])
    sell = market("KO", 10, OrderSide.SELL, position_intent="sell_to_close")
    with pytest.raises(APIError, match="position intent mismatch"):
        client.submit_order(sell)


# -- how they are armed


def test_the_server_tells_which_faults_wait_and_how_often_it_was_called(alpaca, client):
    alpaca.arm(Fault.HANG, POST, count=2, seconds=3)
    client.get_clock()
    told = alpaca.control("GET", "").json()
    assert told["faults"] == [{"fault": "hang", "route": POST, "count": 2, "seconds": 3}]
    assert told["requests"] == {"GET /v2/clock": 1}


def test_a_fault_that_does_not_exist_is_refused(alpaca):
    reply = requests.post(f"{alpaca.origin}/control/faults", json={"fault": "moon", "route": POST}, timeout=5)
    assert reply.status_code == 422
    assert "moon" in reply.json()["message"]


@pytest.mark.parametrize(
    ("text", "armed"),
    [
        ("hang@POST /v2/orders", Armed(Fault.HANG, POST)),
        ("504_after:3@* /v2/*", Armed(Fault.TIMEOUT_AFTER, "* /v2/*", 3)),
        ("silent:*@WS /stream", Armed(Fault.SILENT, "WS /stream", None)),
        ("late:1:2.5@POST /v2/orders", Armed(Fault.LATE, POST, 1, 2.5)),
    ],
)
def test_a_fault_may_be_written_in_one_word(text, armed):
    assert Armed.parse(text) == armed


@pytest.mark.parametrize("text", ["hang", "moon@GET /", "hang:x@GET /", "hang:1:2:3@GET /", "hang@"])
def test_bad_words_for_faults_are_refused(text):
    with pytest.raises(ValueError, match=re.escape(text)):
        Armed.parse(text)


def test_every_fault_has_a_test():
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_alpaca_server*.py"))
    assert {fault.name for fault in Fault} - set(re.findall(r"Fault\.([A-Z_]+)", tests)) == set()
