import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from positions.broker import wire
from positions.broker.port import OrderKind, OrderSide, OrderStatus, PositionIntent
from tests.positions.alpaca_replies import Recorded, recorded

ORDER = {
    "id": "a1",
    "client_order_id": "s1",
    "symbol": "KO",
    "side": "sell",
    "type": "stop",
    "qty": "10",
    "filled_qty": "4",
    "filled_avg_price": "99.123456",
    "filled_at": "2025-05-12T14:00:24.01080215Z",
    "created_at": "2025-05-12T10:00:00-04:00",
    "stop_price": "99.1",
    "status": "partially_filled",
    "position_intent": "sell_to_close",
    "replaced_by": None,
    "legs": None,
}
POSITION = {"symbol": "KO", "qty": "10", "qty_available": "4", "side": "long", "current_price": "100.5"}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*ORDER, *POSITION, "x"]), inner),
    max_leaves=12,
)

ORDERS = [
    ("GET", "/v2/orders/{order_id}"),
    ("GET", "/v2/orders:by_client_order_id"),
    ("POST", "/v2/orders"),
    ("PATCH", "/v2/orders/{order_id}"),
]


def listed(body: Any) -> list[Any]:
    return body if isinstance(body, list) else [body]


# What the real API said


def is_refusal(reply: Recorded) -> bool:
    """Refusals are read here; some of the examples have no body."""
    if reply.status >= 400:
        assert wire.refusal(json.dumps(reply.body)).message == (reply.body or {}).get("message", "null")
    return reply.status >= 400


@pytest.mark.parametrize("reply", recorded(*ORDERS, ("GET", "/v2/orders"), ("DELETE", "/v2/orders/{order_id}")))
def test_every_recorded_order_is_read(reply: Recorded) -> None:
    if is_refusal(reply):
        return
    if reply.status == 204:
        assert reply.body is None
        return
    found = wire.orders(listed(reply.body))
    assert found.unreadable == {}
    bodies = [leaf for body in listed(reply.body) for leaf in (body, *(body.get("legs") or ()))]
    assert [order.id for order in found.rows] == [body["id"] for body in bodies]
    for order, body in zip(found.rows, bodies, strict=True):
        assert (order.symbol, order.broker_status) == (body["symbol"], body["status"])
        assert order.quantity == int(Decimal(str(body["qty"] or 0)))
        assert order.filled_quantity == int(Decimal(str(body["filled_qty"])))
        assert order.side == body["side"]
        assert order.stop_price == (Decimal(body["stop_price"]) if body["stop_price"] else None)
        assert order.created_at is not None
        assert order.created_at.utcoffset() == timedelta(0)
        assert order.status.is_final is (body["status"] in {"filled", "canceled", "expired", "replaced", "rejected"})


@pytest.mark.parametrize("reply", recorded(("GET", "/v2/positions")))
def test_every_recorded_position_is_read(reply: Recorded) -> None:
    found = wire.positions(reply.body)
    assert found.unreadable == {}
    for position, body in zip(found.rows, reply.body, strict=True):
        assert position.symbol == body["symbol"]
        assert abs(position.quantity) == abs(int(Decimal(str(body["qty"]))))
        assert (position.quantity < 0) is (body["side"] == "short")
        assert position.price == float(body["current_price"])


@pytest.mark.parametrize("reply", recorded(("GET", "/v2/account")))
def test_every_recorded_account_is_read(reply: Recorded) -> None:
    if is_refusal(reply):
        return
    account = wire.account(reply.body)
    assert account.equity == Decimal(str(reply.body["equity"]))
    assert account.buying_power == Decimal(str(reply.body["buying_power"]))
    assert account.status == reply.body["status"]


@pytest.mark.parametrize(
    "reply",
    recorded(("GET", "/v2/account/activities"), ("GET", "/v2/account/activities/{activity_type}")),
)
def test_every_recorded_activity_is_read(reply: Recorded) -> None:
    if is_refusal(reply):
        return
    found = wire.activities(listed(reply.body))
    assert found.unreadable == {}
    for activity, body in zip(found.rows, listed(reply.body), strict=True):
        assert (activity.id, activity.kind, activity.symbol) == (body["id"], body["activity_type"], body.get("symbol"))
        assert activity.at is not None
        assert activity.price == (Decimal(body["price"]) if "price" in body else None)
        assert activity.order_id == body.get("order_id")


@pytest.mark.parametrize("reply", recorded(("GET", "/v2/account/configurations"), ("GET", "/v2/clock")))
def test_every_recorded_configuration_and_clock_is_read(reply: Recorded) -> None:
    if reply.path.endswith("clock"):
        assert wire.time_of_clock(reply.body) <= datetime.fromisoformat(reply.body["timestamp"])
    else:
        assert wire.forbids_shorting(reply.body) is reply.body["no_shorting"]


# What it might say


def test_an_order_is_typed_exactly() -> None:
    order = wire.order(ORDER)
    assert (order.kind, order.side, order.intent) == (OrderKind.STOP, OrderSide.SELL, PositionIntent.SELL_TO_CLOSE)
    assert (order.quantity, order.filled_quantity, order.filled_price) == (10, 4, Decimal("99.123456"))
    assert order.filled_at == datetime(2025, 5, 12, 14, 0, 24, 10802, tzinfo=UTC)
    assert order.created_at == datetime(2025, 5, 12, 14, 0, tzinfo=UTC)


@pytest.mark.parametrize("word", ["held", "pending_cancel", "done_for_day", "calculated", "gone_fishing", ""])
def test_a_status_that_is_not_known_to_be_the_end_is_working(word: str) -> None:
    order = wire.order({**ORDER, "status": word})
    assert (order.status, order.broker_status) == (OrderStatus.WORKING, word)


def test_a_status_of_tomorrow_is_known_to_be_unknown() -> None:
    assert not wire.is_known_status("gone_fishing")
    assert wire.is_known_status("pending_review")


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"canceled_at": "2025-05-12T14:00:25Z"}, OrderStatus.CANCELLED),
        ({"expired_at": "2025-05-12T14:00:25Z"}, OrderStatus.EXPIRED),
        ({"replaced_at": "2025-05-12T14:00:25Z"}, OrderStatus.REPLACED),
        ({"failed_at": "2025-05-12T14:00:25Z"}, OrderStatus.REJECTED),
        ({"filled_qty": "10"}, OrderStatus.FILLED),
    ],
)
def test_a_status_of_tomorrow_may_be_the_end_by_what_else_is_told(changes: dict[str, str], status: OrderStatus) -> None:
    assert wire.order({**ORDER, "status": "under_moonlight", **changes}).status is status
    assert wire.order({**ORDER, "status": "pending_cancel", **changes}).status is OrderStatus.WORKING


def test_new_fields_types_and_intents_do_no_harm() -> None:
    order = wire.order({**ORDER, "type": "iceberg", "position_intent": "sell_to_wait", "mood": {"good": [1]}})
    assert (order.kind, order.intent) == (OrderKind.OTHER, None)


@pytest.mark.parametrize("missing", ["client_order_id", "type", "qty", "filled_at", "stop_price", "legs", "status"])
def test_what_is_not_needed_may_be_missing(missing: str) -> None:
    assert wire.order({name: value for name, value in ORDER.items() if name != missing}).symbol == "KO"


@pytest.mark.parametrize("time", ["yesterday", "0001-01-01T00:00:00+05:00", 7])
def test_a_time_that_is_none_is_not_known(time: Any) -> None:
    assert wire.order({**ORDER, "created_at": time}).created_at is None


def test_numbers_may_come_as_numbers() -> None:
    order = wire.order({**ORDER, "qty": 10, "filled_qty": 4.0, "stop_price": 99.1, "filled_avg_price": 99.123456})
    assert (order.quantity, order.filled_quantity, order.stop_price) == (10, 4, Decimal("99.1"))
    assert order.filled_price == Decimal("99.123456")


@pytest.mark.parametrize("number", ["ten", "NaN", "Infinity", [], True, {}])
def test_a_malformed_number_costs_its_own_row_only_and_is_named(number: Any) -> None:
    found = wire.orders([ORDER, {**ORDER, "client_order_id": "bad", "filled_qty": number}, {**ORDER, "id": "a2"}])
    assert [order.id for order in found.rows] == ["a1", "a2"]
    assert list(found.unreadable) == ["bad"]
    assert "filled_qty" in found.unreadable["bad"]


def test_a_position_that_cannot_be_read_is_named_not_absent() -> None:
    found = wire.positions(
        [POSITION, {**POSITION, "symbol": "F", "qty": "many"}, {**POSITION, "symbol": "GE", "qty": None}]
    )
    assert [position.symbol for position in found.rows] == ["KO"]
    assert set(found.unreadable) == {"F", "GE"}


@pytest.mark.parametrize(("quantity", "side"), [("-10", "short"), ("10", "short"), (-10, "long"), ("-10.5", "short")])
def test_a_short_position_is_negative_however_it_is_spelled(quantity: Any, side: str) -> None:
    position = wire.position({**POSITION, "qty": quantity, "qty_available": "-4", "side": side})
    assert (position.quantity, position.available) == (-10, 4)


def test_without_an_available_quantity_all_shares_are_and_without_a_price_it_is_not_a_number() -> None:
    position = wire.position({"symbol": "KO", "qty": "10.9", "side": "long", "current_price": None})
    assert (position.quantity, position.available) == (10, 10)
    assert position.price != position.price


def test_legs_of_legs_are_orders_too() -> None:
    inner = {**ORDER, "id": "a3", "status": "held"}
    found = wire.orders([{**ORDER, "legs": [{**ORDER, "id": "a2", "legs": [inner]}]}])
    assert [order.id for order in found.rows] == ["a1", "a2", "a3"]


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        (
            '{"code": 40310000, "message": "insufficient qty\\n available", "available": "0"}',
            40310000,
            "insufficient qty available",
        ),
        ('{"code": "42210000", "message": "no"}', 42210000, "no"),
        ('{"message": "unauthorized."}', None, "unauthorized."),
        ('{"code": null}', None, '{"code": null}'),
        ("<html>\n<h1>502 Bad Gateway</h1></html>", None, "<html> <h1>502 Bad Gateway</h1></html>"),
        ('["odd"]', None, '["odd"]'),
        ("", None, "nothing"),
    ],
)
def test_a_refusal_is_one_line_whatever_its_body(text: str, code: int | None, message: str) -> None:
    assert wire.refusal(text) == wire.Refusal(code, message)


@pytest.mark.parametrize(
    ("price", "number"), [("99.10", "99.1"), ("3.30", "3.3"), ("0.1234", "0.1234"), ("100000.01", "100000.01")]
)
def test_a_price_is_a_json_number_that_reads_the_same(price: str, number: str) -> None:
    assert json.dumps(wire.price(Decimal(price))) == number


@pytest.mark.parametrize("price", ["99.101", "0.12345", "0", "-1", "NaN"])
def test_a_price_off_the_tick_is_none(price: str) -> None:
    with pytest.raises(ValueError, match="is no price"):
        wire.price(Decimal(price))


@given(JSON)
def test_whatever_stands_beside_it_a_good_row_is_read(strange: Any) -> None:
    assert ORDER["id"] in [order.id for order in wire.orders([strange, ORDER]).rows]
    assert POSITION["symbol"] in [position.symbol for position in wire.positions([strange, POSITION]).rows]


@given(JSON)
def test_a_body_is_read_or_told_to_be_bad(strange: Any) -> None:
    for parse in (
        wire.order,
        wire.orders,
        wire.position,
        wire.positions,
        wire.account,
        wire.activity,
        wire.time_of_clock,
    ):
        with suppress(wire.BadReply):
            parse(strange)
