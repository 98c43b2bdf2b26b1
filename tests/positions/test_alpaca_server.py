"""The real SDK trades at the simulated Alpaca, which answers, waits and refuses as Alpaca does."""

import json
from datetime import date, timedelta

import pytest
from alpaca.common.exceptions import APIError
from alpaca.trading.enums import OrderClass, OrderSide, PositionIntent, QueryOrderStatus, TimeInForce
from alpaca.trading.models import Order
from alpaca.trading.requests import (
    ClosePositionRequest,
    GetCalendarRequest,
    GetOrderByIdRequest,
    GetOrdersRequest,
    LimitOrderRequest,
    ReplaceOrderRequest,
    StopLimitOrderRequest,
    StopLossRequest,
    TakeProfitRequest,
)

from tests.positions.stand_in import CLOSE, MINUTE, OPEN, StandIn, limit, market, stop

NEXT_WAKE = OPEN.replace(day=13, hour=8, minute=0)  # 04:00 in New York
NEXT_OPEN = OPEN.replace(day=13)
DAY = timedelta(days=1)


@pytest.fixture
def client(alpaca):
    return alpaca.client()


@pytest.fixture
def holding(alpaca, client):
    """Ten shares of KO, bought at 100."""
    client.submit_order(market("KO", 10, client_order_id="entry"))
    alpaca.go(1)
    return client


def refusal(call, *arguments, **options) -> tuple[int, int, str]:
    with pytest.raises(APIError) as refused:
        call(*arguments, **options)
    return refused.value.status_code, refused.value.code, refused.value.message


def status_of(client, order: Order) -> str:
    return client.get_order_by_id(order.id).status


def free(client) -> str:
    return client.get_open_position("KO").qty_available


# -- life of an order


def test_a_market_order_is_pending_then_filled_and_becomes_a_position(alpaca, client):
    order = client.submit_order(market("KO", 10, client_order_id="c1"))
    assert order.status == "pending_new"
    alpaca.go(1)
    order = client.get_order_by_client_id("c1")
    assert (order.status, order.filled_avg_price, order.filled_qty) == ("filled", "100", "10")
    [position] = client.get_all_positions()
    assert (position.symbol, position.qty, position.qty_available) == ("KO", "10", "10")
    assert client.get_orders() == []
    assert client.get_account().cash == "99000"


def test_market_orders_pay_half_of_the_spread(alpaca, client):
    alpaca.reset(spread="0.02")
    bought = client.submit_order(market("KO", 10))
    alpaca.go(1)
    sold = client.submit_order(market("KO", 10, OrderSide.SELL))
    alpaca.go(1)
    prices = [client.get_order_by_id(order.id).filled_avg_price for order in (bought, sold)]
    assert prices == ["100.01", "99.99"]


def test_prices_run_through_the_bar_and_a_stop_fills_where_they_touch_it(alpaca, client):
    alpaca.reset(ko=[(100, 100, 100, 100), (100, 101, 98, 100.5)])
    client.submit_order(market("KO", 10))
    alpaca.go(1)
    order = client.submit_order(stop("KO", 10, 99))
    alpaca.go(to=OPEN + MINUTE + timedelta(seconds=9))
    assert status_of(client, order) == "new"
    alpaca.go(2)
    filled = client.get_order_by_id(order.id)
    assert (filled.status, filled.filled_avg_price) == ("filled", "99")
    assert filled.filled_at == OPEN + MINUTE + timedelta(seconds=10)
    assert client.get_all_positions() == []


def test_a_stop_beyond_which_the_market_opens_fills_at_the_open(alpaca, client):
    alpaca.reset(ko=[(100, 100, 100, 100), (97, 98, 96, 97)])
    client.submit_order(market("KO", 10))
    alpaca.go(1)
    order = client.submit_order(stop("KO", 10, 99))
    alpaca.go(to=OPEN + MINUTE)
    assert client.get_order_by_id(order.id).filled_avg_price == "97"


def test_a_limit_order_rests_until_the_price_comes(alpaca, client):
    alpaca.reset(ko=[(100, 100, 100, 100), (100, 100, 98, 99)])
    order = client.submit_order(limit("KO", 10, 98.5))
    alpaca.go(1)
    assert status_of(client, order) == "new"
    alpaca.go(to=OPEN + 2 * MINUTE)
    assert client.get_order_by_id(order.id).filled_avg_price == "98.5"


def test_a_stop_limit_order_turns_into_a_limit_order_where_the_market_jumps_over_it(alpaca, client):
    alpaca.reset(ko=[(100, 100, 100, 100), (97, 97, 96, 96), (98.9, 99, 98, 99)])
    client.submit_order(market("KO", 10))
    alpaca.go(1)
    order = client.submit_order(
        StopLimitOrderRequest(
            symbol="KO", qty=10, side=OrderSide.SELL, time_in_force=TimeInForce.GTC, stop_price=99, limit_price=98.8
        )
    )
    alpaca.go(to=OPEN + 2 * MINUTE - timedelta(seconds=1))
    assert status_of(client, order) == "new"
    alpaca.go(to=OPEN + 2 * MINUTE)
    assert client.get_order_by_id(order.id).filled_avg_price == "98.9"


def test_during_a_halt_orders_wait_and_stops_elect_at_the_reopening(alpaca, client):
    alpaca.reset(ko=[(100, 100, 100, 100), None, None, (90, 91, 89, 90)])
    client.submit_order(market("KO", 10))
    alpaca.go(1)
    resting = client.submit_order(stop("KO", 10, 99))
    alpaca.go(to=OPEN + MINUTE)
    waiting = client.submit_order(market("F", 1))
    alpaca.go(to=OPEN + 3 * MINUTE - timedelta(seconds=1))
    assert (status_of(client, resting), status_of(client, waiting)) == ("new", "filled")
    alpaca.go(2)
    assert client.get_order_by_id(resting.id).filled_avg_price == "90"


def test_an_order_may_fill_in_two_parts(alpaca, client):
    alpaca.reset(partial_fills=1.0)
    order = client.submit_order(market("KO", 7))
    alpaca.go(1)
    part = client.get_order_by_id(order.id)
    assert (part.status, part.filled_qty, client.get_open_position("KO").qty) == ("partially_filled", "3", "3")
    alpaca.go(3)
    assert status_of(client, order) == "filled"


def test_a_short_position_is_negative(alpaca, client):
    client.submit_order(market("KO", 10, OrderSide.SELL, position_intent=PositionIntent.SELL_TO_OPEN))
    alpaca.go(1)
    short = client.get_open_position("KO")
    assert (short.qty, short.side, short.qty_available, short.market_value) == ("-10", "short", "-10", "-1000")
    client.submit_order(stop("KO", 10, 101, OrderSide.BUY, position_intent=PositionIntent.BUY_TO_CLOSE))
    assert free(client) == "0"


def test_the_sign_of_a_short_positions_available_shares_is_a_rule(alpaca, client):
    alpaca.reset(short_available="positive")
    client.submit_order(market("KO", 10, OrderSide.SELL))
    alpaca.go(1)
    assert free(client) == "10"


# -- quantity that orders hold


def test_a_resting_stop_holds_its_shares(alpaca, holding):
    order = holding.submit_order(stop("KO", 10, 99))
    alpaca.go(1)
    assert free(holding) == "0"
    with pytest.raises(APIError) as refused:
        holding.close_position("KO")
    assert refused.value.status_code == 403
    assert json.loads(str(refused.value)) == {
        "available": "0",
        "code": 40310000,
        "existing_qty": "10",
        "held_for_orders": "10",
        "message": "insufficient qty available for order (requested: 10, available: 0)",
        "related_orders": [str(order.id)],
        "symbol": "KO",
    }


def test_selling_more_than_is_held_names_no_orders(holding):
    with pytest.raises(APIError, match="insufficient qty") as refused:
        holding.submit_order(market("KO", 11, OrderSide.SELL))
    assert "related_orders" not in refused.value.args[0]


@pytest.mark.parametrize(("delay", "freed_after"), [(0, 0.02), (0.06, 0.08), (3, 3.02)])
def test_shares_are_free_some_time_after_the_stop_is_canceled(alpaca, holding, delay, freed_after):
    alpaca.set(release_delay=delay)
    order = holding.submit_order(stop("KO", 10, 99))
    alpaca.go(1)
    holding.cancel_order_by_id(order.id)
    assert status_of(holding, order) == "pending_cancel"
    alpaca.go(0.016)
    assert status_of(holding, order) == "canceled"
    assert free(holding) == ("10" if delay == 0 else "0")
    alpaca.go(freed_after - 0.016)
    assert free(holding) == "10"
    holding.submit_order(market("KO", 10, OrderSide.SELL))


def test_shares_may_never_be_free_again(alpaca, holding):
    alpaca.set(release_delay=None)
    order = holding.submit_order(stop("KO", 10, 99))
    alpaca.go(1)
    holding.cancel_order_by_id(order.id)
    alpaca.go(3600)
    assert (status_of(holding, order), free(holding)) == ("canceled", "0")
    assert refusal(holding.close_position, "KO")[0] == 403


def test_a_second_stop_is_refused_while_the_first_holds_the_shares(alpaca, holding):
    holding.submit_order(stop("KO", 10, 99))
    assert refusal(holding.submit_order, stop("KO", 1, 98))[:2] == (403, 40310000)


def test_two_stops_may_share_a_position(alpaca, holding):
    holding.submit_order(stop("KO", 6, 99))
    holding.submit_order(stop("KO", 4, 98))
    assert free(holding) == "0"


# -- replacing


def test_a_replacement_is_a_new_order_and_the_old_one_points_to_it(alpaca, holding):
    old = holding.submit_order(stop("KO", 10, 99, client_order_id="s1"))
    alpaca.go(1)
    new = holding.replace_order_by_id(old.id, ReplaceOrderRequest(stop_price=99.5, client_order_id="s2"))
    assert new.id != old.id
    assert (new.replaces, new.client_order_id, new.stop_price, new.legs) == (old.id, "s2", "99.5", None)
    assert status_of(holding, old) == "pending_replace"
    alpaca.go(0.1)
    replaced = holding.get_order_by_id(old.id)
    assert (replaced.status, replaced.replaced_by) == ("replaced", new.id)
    assert status_of(holding, new) == "new"
    assert free(holding) == "0"
    assert [order.id for order in holding.get_orders()] == [new.id]


def test_a_plain_stop_may_change_its_quantity_and_frees_the_rest_later(alpaca, holding):
    old = holding.submit_order(stop("KO", 10, 99))
    alpaca.go(1)
    new = holding.replace_order_by_id(old.id, ReplaceOrderRequest(qty=4))
    alpaca.go(0.06)
    assert free(holding) == "0"
    alpaca.go(0.1)
    assert (holding.get_order_by_id(new.id).qty, free(holding)) == ("4", "6")


def test_a_refusal_after_a_replacement_names_the_original_order(alpaca, holding):
    old = holding.submit_order(stop("KO", 10, 99))
    alpaca.go(1)
    new = holding.replace_order_by_id(old.id, ReplaceOrderRequest(stop_price=98))
    alpaca.go(1)
    with pytest.raises(APIError, match=str(old.id)):
        holding.close_position("KO")
    alpaca.set(related_orders="current")
    with pytest.raises(APIError, match=str(new.id)):
        holding.close_position("KO")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stop_price": 99}, "order parameters are not changed"),
        ({"stop_price": 99.123}, "invalid stop_price 99.123. sub-penny increment"),
        ({"qty": 11}, "insufficient qty available for order (requested: 1, available: 0)"),
        ({"stop_price": 98, "client_order_id": "entry"}, "client_order_id must be unique"),
    ],
)
def test_a_replacement_is_refused_and_the_old_stop_stays(alpaca, holding, change, message):
    old = holding.submit_order(stop("KO", 10, 99))
    alpaca.go(1)
    assert message in refusal(holding.replace_order_by_id, old.id, ReplaceOrderRequest(**change))[2]
    assert status_of(holding, old) == "new"


def test_a_replacement_may_not_be_replaced_at_once(alpaca, holding):
    old = holding.submit_order(stop("KO", 10, 99))
    alpaca.go(1)
    new = holding.replace_order_by_id(old.id, ReplaceOrderRequest(stop_price=98))
    alpaca.go(1)
    again = ReplaceOrderRequest(stop_price=97)
    assert refusal(holding.replace_order_by_id, new.id, again)[1:] == (42210000, "order chain not fully replaced")
    assert refusal(holding.replace_order_by_id, old.id, again)[2] == "order already replaced"
    alpaca.go(3)
    assert holding.replace_order_by_id(new.id, again).replaces == new.id


def test_what_is_over_cannot_be_replaced(alpaca, holding):
    entry = holding.get_order_by_client_id("entry")
    assert refusal(holding.replace_order_by_id, entry.id, ReplaceOrderRequest(qty=9))[1:] == (
        42210000,
        "unable to replace order, order is not open",
    )


@pytest.mark.parametrize(("shown", "filled"), [("carried", "5"), ("reset", "0")])
def test_what_a_replacement_shows_of_fills_before_it_is_a_rule(alpaca, holding, shown, filled):
    alpaca.reset(ko=[(100, 100, 100, 100), (100, 100, 98, 99)], partial_fills=1.0, partial_delay="never")
    alpaca.set(replacement_fills=shown)
    old = holding.submit_order(limit("KO", 10, 99))
    alpaca.go(to=OPEN + 2 * MINUTE)
    assert holding.get_order_by_id(old.id).filled_qty == "5"
    new = holding.replace_order_by_id(old.id, ReplaceOrderRequest(limit_price=98))
    assert refusal(holding.replace_order_by_id, new.id, ReplaceOrderRequest(qty=5))[0] == 422
    alpaca.go(1)
    assert holding.get_order_by_id(new.id).filled_qty == filled


def test_a_replacement_fills_what_was_left(alpaca, client):
    alpaca.reset(ko=[(100, 100, 100, 100), (100, 100, 98, 99)], partial_fills=1.0, partial_delay="never")
    old = client.submit_order(limit("KO", 10, 99))
    alpaca.go(to=OPEN + 2 * MINUTE)
    new = client.replace_order_by_id(old.id, ReplaceOrderRequest(limit_price=101))
    alpaca.go(1)
    assert (client.get_order_by_id(new.id).filled_qty, client.get_open_position("KO").qty) == ("10", "10")


# -- canceling


def test_a_canceled_order_is_over_and_its_id_stays_taken(alpaca, holding):
    order = holding.submit_order(stop("KO", 10, 99, client_order_id="s1"))
    alpaca.go(1)
    assert holding.cancel_order_by_id(order.id) is None
    alpaca.go(1)
    assert status_of(holding, order) == "canceled"
    assert refusal(holding.submit_order, stop("KO", 10, 99, client_order_id="s1")) == (
        422,
        40010001,
        "client_order_id must be unique",
    )


def test_what_is_over_cannot_be_canceled(holding):
    entry = holding.get_order_by_client_id("entry")
    assert refusal(holding.cancel_order_by_id, entry.id) == (422, 42210000, 'order is already in "filled" state')
    unknown = "5a1f7b5e-0000-4000-8000-000000000000"
    assert refusal(holding.cancel_order_by_id, unknown) == (404, 40410000, f"order not found for {unknown}")


@pytest.mark.parametrize("method", ["get", "patch", "delete"])
def test_an_order_is_named_by_a_uuid(client, method):
    assert refusal(getattr(client, method), "/orders/moon") == (422, 40010001, "order_id is missing")


def test_whether_an_order_may_be_canceled_twice_is_a_rule(alpaca, holding):
    order = holding.submit_order(stop("KO", 10, 99))
    alpaca.go(1)
    holding.cancel_order_by_id(order.id)
    alpaca.go(1)
    assert refusal(holding.cancel_order_by_id, order.id)[2] == 'order is already in "canceled" state'
    alpaca.set(repeat_cancel="accept")
    holding.cancel_order_by_id(order.id)


def test_all_orders_are_canceled_at_once(alpaca, holding):
    order = holding.submit_order(stop("KO", 10, 99))
    alpaca.go(1)
    [canceled] = holding.cancel_orders()
    assert (canceled.id, canceled.status) == (order.id, 200)
    alpaca.go(1)
    assert holding.get_orders() == []


# -- closing positions


@pytest.mark.parametrize(
    ("how", "sold"), [(None, "10"), ({"qty": "3"}, "3"), ({"percentage": "50"}, "5"), ({"percentage": "25"}, "2")]
)
def test_a_position_is_closed_by_a_market_order(alpaca, holding, how, sold):
    order = holding.close_position("KO", ClosePositionRequest(**how) if how else None)
    assert (order.side, order.qty, order.position_intent) == ("sell", sold, "sell_to_close")
    alpaca.go(1)
    assert status_of(holding, order) == "filled"


def test_closing_everything_cancels_orders_only_if_it_is_asked_to(alpaca, holding):
    holding.submit_order(stop("KO", 10, 99))
    alpaca.go(1)
    [failed] = holding.close_all_positions()
    assert (failed.symbol, failed.status, failed.body.code) == ("KO", 403, 40310000)
    [closed] = holding.close_all_positions(cancel_orders=True)
    assert (closed.status, closed.body.qty) == (200, "10")
    alpaca.go(1)
    assert holding.get_all_positions() == []


def test_what_is_not_held_cannot_be_closed(client):
    assert refusal(client.close_position, "KO") == (404, 40410000, "position does not exist")
    assert refusal(client.get_open_position, "KO") == (404, 40410000, "position does not exist")


# -- refusals


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (market("NOPE", 1), (422, 42210000, 'asset "NOPE" not found')),
        (market("KO", 1, client_order_id="x" * 129), (422, 40010001, "client_order_id must be no more than 128")),
        (market("KO", 3000), (403, 40310000, "insufficient buying power")),
        (limit("KO", 1, 99.123), (422, 42210000, "invalid limit_price 99.123. sub-penny increment does not fulfill")),
        (stop("KO", 1, 101.123, OrderSide.BUY), (422, 42210000, "invalid stop_price 101.123. sub-penny increment")),
        (stop("KO", 1, 99, OrderSide.BUY), (422, 42210000, "stop price must be greater than current price")),
        (stop("KO", 1.5, 101, OrderSide.BUY), (422, 42210000, "fractional orders must be DAY orders")),
        (market("KO", 1.5, OrderSide.SELL), (422, 42210000, "fractional orders cannot be sold short")),
        (
            market("KO", 1, position_intent=PositionIntent.BUY_TO_CLOSE),
            (422, 42210000, "position intent mismatch, inferred: buy_to_open, specified: buy_to_close"),
        ),
        (
            market("KO", 1, extended_hours=True),
            (422, 42210000, "extended hours order must be DAY or GTC limit orders"),
        ),
        (
            stop("KO", 1, 101, OrderSide.BUY, extended_hours=True),
            (422, 42210000, "stop orders are not eligible for extended hours trading"),
        ),
        (
            limit("QQQ", 1, 9999, side=OrderSide.SELL, position_intent=PositionIntent.SELL_TO_CLOSE),
            (422, 42210000, "position intent mismatch, inferred: sell_to_open, specified: sell_to_close"),
        ),
        (market("KO", 1, tif=TimeInForce.OPG), (422, 40010001, "invalid time_in_force")),
    ],
)
def test_an_order_is_refused_in_alpacas_words(client, request_, answer):
    status, code, message = refusal(client.submit_order, request_)
    assert (status, code) == answer[:2]
    assert message.startswith(answer[2])
    assert client.get_orders(GetOrdersRequest(status=QueryOrderStatus.ALL)) == []


def test_an_exit_that_would_flip_the_position_is_refused_by_its_intent(alpaca, client):
    late_exit = market("KO", 10, OrderSide.SELL, position_intent=PositionIntent.SELL_TO_CLOSE)
    assert refusal(client.submit_order, late_exit)[1:] == (
        42210000,
        "position intent mismatch, inferred: sell_to_open, specified: sell_to_close",
    )
    client.submit_order(market("KO", 10, OrderSide.SELL))
    alpaca.go(1)
    assert client.get_open_position("KO").qty == "-10"


def test_what_cannot_be_sold_short_is_refused(alpaca, client):
    alpaca.reset(not_shortable="F", not_fractionable="F")
    assert refusal(client.submit_order, market("F", 1, OrderSide.SELL))[2] == 'asset "F" cannot be sold short'
    assert refusal(client.submit_order, market("F", 1.5))[2] == 'asset "F" is not fractionable'
    assert not client.get_asset("F").shortable
    client.patch("/account/configurations", {"no_shorting": True})
    assert refusal(client.submit_order, market("KO", 1, OrderSide.SELL))[2] == "account is not allowed to short"


def test_a_suspended_account_takes_no_orders(alpaca, holding):
    assert holding.patch("/account/configurations", {"suspend_trade": True})["suspend_trade"] is True
    assert holding.get_account().trade_suspended_by_user
    assert refusal(holding.close_position, "KO")[1:] == (40310000, "new orders are rejected by user request")


@pytest.mark.parametrize("body", [b"{", b"[]", b"moon"])
def test_a_body_that_is_no_object_is_refused(alpaca, client, body):
    reply = client._session.post(f"{alpaca.origin}/v2/orders", data=body, headers=client._get_auth_headers())
    assert (reply.status_code, reply.json()["code"]) == (400, 40010001)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "qty or notional is required"),
        ({"qty": "1", "notional": "5"}, "only one of qty or notional is accepted"),
        ({"qty": "moon"}, "invalid qty: moon"),
        ({"qty": "-1"}, "qty must be > 0"),
        ({"qty": "NaN"}, "invalid qty: NaN"),
        ({"qty": "1", "side": "up"}, "invalid side"),
        ({"qty": "1", "type": "trailing_stop"}, "invalid order type"),
        ({"qty": "1", "type": "limit"}, "limit orders require a limit price"),
        ({"qty": "1", "type": "stop"}, "stop orders require a stop price"),
        ({"qty": "1", "type": "stop_limit", "stop_price": "99"}, "stop limit orders require both stop and limit price"),
        ({"qty": "1", "limit_price": "99"}, "market orders require no stop or limit price"),
        ({"qty": "1", "order_class": "bracket"}, "bracket orders require take_profit.limit_price"),
        ({"qty": "1", "order_class": "moon"}, "invalid order_class"),
    ],
)
def test_a_malformed_order_is_refused_by_what_is_wrong_with_it(client, body, message):
    whole = {"symbol": "KO", "side": "buy", "type": "market", "time_in_force": "day", **body}
    assert refusal(client.post, "/orders", whole) == (422, 40010001, message)


def test_a_fractional_position_is_sold_to_the_last_billionth(alpaca, client):
    client.submit_order(market("KO", 1.123456789))
    alpaca.go(1)
    assert client.get_open_position("KO").qty == "1.123456789"
    assert client.close_position("KO").qty == "1.123456789"


def test_an_order_against_a_resting_one_is_a_wash_trade(alpaca, holding):
    resting = holding.submit_order(stop("KO", 5, 99))
    with pytest.raises(APIError, match="potential wash trade detected") as refused:
        holding.submit_order(market("KO", 1))
    assert f'"existing_order_id":"{resting.id}"' in refused.value.args[0]
    assert "opposite side market/stop order exists" in refused.value.args[0]
    alpaca.set(wash_trade_check=False)
    holding.submit_order(market("KO", 1))


def test_an_entry_that_still_works_forbids_the_stop_of_its_filled_part(alpaca, client):
    alpaca.reset(partial_fills=1.0, partial_delay="never")
    client.submit_order(limit("KO", 10, 100))
    alpaca.go(1)
    assert client.get_open_position("KO").qty == "5"
    assert "potential wash trade" in refusal(client.submit_order, stop("KO", 5, 99))[2]


def test_a_stop_beyond_the_market_may_trigger_at_once_instead(alpaca, holding):
    alpaca.set(stop_through_market="trigger")
    order = holding.submit_order(stop("KO", 10, 101))
    alpaca.go(1)
    assert holding.get_order_by_id(order.id).filled_avg_price == "100"


# -- sessions


def test_the_clock_and_the_calendar_are_new_yorks(alpaca, client):
    clock = client.get_clock()
    assert clock.is_open
    assert (clock.next_close, clock.next_open) == (CLOSE, NEXT_OPEN)
    alpaca.go(to=CLOSE)
    clock = client.get_clock()
    assert (clock.is_open, clock.next_open, clock.next_close) == (False, NEXT_OPEN, CLOSE + DAY)
    assert clock.timestamp.isoformat() == "2025-05-12T16:00:00-04:00"
    alpaca.set(clock_ahead=90)
    assert client.get_clock().timestamp == CLOSE + timedelta(seconds=90)
    calendar = client.get_calendar()
    assert calendar[0].close.isoformat() == "2025-05-12T16:00:00"
    assert len(calendar) > 200
    alpaca.go(to=CLOSE + 3 * DAY)
    assert not client.get_clock().is_open


def test_the_calendar_begins_in_1990_knows_half_days_and_ends_within_a_year(client):
    def days(first: date, last: date) -> list[tuple[date, int]]:
        found = client.get_calendar(GetCalendarRequest(start=first, end=last))
        return [(day.date, day.close.hour) for day in found]

    assert days(date(1970, 1, 1), date(1990, 1, 3)) == [(date(1990, 1, 2), 16), (date(1990, 1, 3), 16)]
    assert days(date(2024, 11, 29), date(2024, 11, 29)) == [(date(2024, 11, 29), 13)]
    assert days(date(2026, 4, 27), date(2029, 12, 31)) == [(date(2026, 4, 27), 16)]


def test_at_the_close_day_orders_expire_and_stops_wait_as_accepted_until_four(alpaca, holding):
    resting, day = holding.submit_order(stop("KO", 10, 99)), holding.submit_order(limit("F", 1, 9))
    assert (day.expires_at, resting.expires_at) == (CLOSE, CLOSE + 90 * DAY)
    alpaca.go(to=CLOSE)
    assert (status_of(holding, resting), status_of(holding, day)) == ("accepted", "expired")
    assert refusal(holding.replace_order_by_id, resting.id, ReplaceOrderRequest(stop_price=98))[2] == (
        "cannot replace order in accepted status"
    )
    alpaca.go(to=NEXT_WAKE)
    assert status_of(holding, resting) == "new"
    assert holding.replace_order_by_id(resting.id, ReplaceOrderRequest(stop_price=98))


def test_a_market_order_after_the_close_waits_for_the_next_open(alpaca, holding):
    alpaca.go(to=CLOSE + timedelta(hours=1))
    order = holding.close_position("KO")
    assert (order.status, order.expires_at) == ("accepted", CLOSE + DAY)
    alpaca.go(to=NEXT_OPEN - timedelta(seconds=1))
    assert status_of(holding, order) == "new"
    alpaca.go(1)
    assert holding.get_order_by_id(order.id).filled_at == NEXT_OPEN


def test_extended_hours_take_limit_orders_to_the_end_of_the_day(alpaca, client):
    alpaca.go(to=CLOSE + timedelta(hours=1))
    order = client.submit_order(limit("KO", 1, 99, extended_hours=True))
    assert (order.status, order.expires_at) == ("pending_new", CLOSE + timedelta(hours=4))
    alpaca.go(to=CLOSE + timedelta(hours=4))
    assert status_of(client, order) == "expired"


def test_a_good_till_canceled_order_lives_through_the_night(alpaca, holding):
    resting = holding.submit_order(stop("KO", 10, 99))
    alpaca.go(to=NEXT_OPEN + MINUTE)
    assert status_of(holding, resting) == "new"
    position = holding.get_open_position("KO")
    assert (position.lastday_price, position.unrealized_intraday_pl) == ("100", "0")


# -- brackets


def bracket(quantity: float = 10, **more: object) -> object:
    return market(
        "KO",
        quantity,
        order_class=OrderClass.BRACKET,
        take_profit=TakeProfitRequest(limit_price=102),
        stop_loss=StopLossRequest(stop_price=99),
        **more,
    )


def legs_of(client, order: Order) -> dict[str, str]:
    found = client.get_order_by_id(order.id, GetOrderByIdRequest(nested=True))
    return {leg.type.value: leg.status.value for leg in found.legs}


def test_the_legs_of_a_bracket_are_held_until_the_entry_is_filled_whole(alpaca, client):
    alpaca.reset(partial_fills=1.0)
    entry = client.submit_order(bracket())
    assert {leg.status for leg in entry.legs} == {"held"}
    alpaca.go(1)
    assert (status_of(client, entry), legs_of(client, entry)) == (
        "partially_filled",
        {"limit": "held", "stop": "held"},
    )
    alpaca.go(3)
    assert legs_of(client, entry) == {"limit": "new", "stop": "held"}
    assert free(client) == "0"


def test_a_held_stop_is_seen_only_under_its_parent(alpaca, client):
    entry = client.submit_order(bracket())
    alpaca.go(1)
    flat = client.get_orders(GetOrdersRequest(status=QueryOrderStatus.OPEN))
    assert [order.type for order in flat] == ["limit"]
    [parent] = client.get_orders(GetOrdersRequest(status=QueryOrderStatus.OPEN, nested=True))
    assert parent.id == entry.id
    assert {leg.type for leg in parent.legs} == {"limit", "stop"}


@pytest.mark.parametrize(
    ("bar", "legs"),
    [
        ((100, 103, 100, 101), {"limit": "filled", "stop": "canceled"}),
        ((100, 100, 98, 99), {"limit": "canceled", "stop": "filled"}),
    ],
)
def test_one_leg_fills_and_the_other_is_canceled(alpaca, client, bar, legs):
    alpaca.reset(ko=[(100, 100, 100, 100), bar])
    entry = client.submit_order(bracket())
    alpaca.go(to=OPEN + 2 * MINUTE)
    assert legs_of(client, entry) == legs
    assert client.get_all_positions() == []


def test_a_leg_is_replaced_in_price_alone_and_its_replacement_takes_its_place(alpaca, client):
    alpaca.reset(ko=[(100, 100, 100, 100), (100, 100, 98, 99)])
    entry = client.submit_order(bracket())
    alpaca.go(1)
    [leg] = [leg for leg in entry.legs if leg.type == "stop"]
    assert refusal(client.replace_order_by_id, leg.id, ReplaceOrderRequest(qty=5))[2] == (
        "qty cannot be changed for advanced orders"
    )
    new = client.replace_order_by_id(leg.id, ReplaceOrderRequest(stop_price=99.5))
    alpaca.go(1)
    assert legs_of(client, entry) == {"limit": "new", "stop": "held"}
    alpaca.go(to=OPEN + 2 * MINUTE)
    assert client.get_order_by_id(new.id).filled_avg_price == "99.5"
    assert legs_of(client, entry) == {"limit": "canceled", "stop": "filled"}


def test_canceling_one_leg_cancels_the_other(alpaca, client):
    entry = client.submit_order(bracket())
    alpaca.go(1)
    client.cancel_order_by_id(entry.legs[0].id)
    alpaca.go(1)
    assert set(legs_of(client, entry).values()) == {"canceled"}
    assert free(client) == "10"


def test_an_oco_pair_protects_a_position(alpaca, holding):
    alpaca.reset(ko=[(100, 100, 100, 100), (100, 100, 98, 99)])
    holding.submit_order(market("KO", 10))
    alpaca.go(1)
    pair = LimitOrderRequest(
        symbol="KO",
        qty=10,
        side=OrderSide.SELL,
        time_in_force=TimeInForce.GTC,
        order_class=OrderClass.OCO,
        limit_price=102,
        take_profit=TakeProfitRequest(limit_price=102),
        stop_loss=StopLossRequest(stop_price=99),
    )
    profit = holding.submit_order(pair)
    assert [leg.type for leg in profit.legs] == ["stop"]
    assert free(holding) == "0"
    alpaca.go(to=OPEN + 2 * MINUTE)
    assert (status_of(holding, profit), legs_of(holding, profit)) == ("canceled", {"stop": "filled"})


def test_the_stop_of_an_oto_works_once_the_entry_is_filled(alpaca, client):
    entry = client.submit_order(market("KO", 10, order_class=OrderClass.OTO, stop_loss=StopLossRequest(stop_price=99)))
    alpaca.go(1)
    assert legs_of(client, entry) == {"stop": "new"}


def test_brackets_are_refused_where_they_make_no_sense(alpaca, holding):
    closing = bracket(5, side=OrderSide.SELL)
    assert refusal(holding.submit_order, closing)[2] == "bracket orders must be entry orders"
    wrong = market(
        "F",
        10,
        order_class=OrderClass.BRACKET,
        take_profit=TakeProfitRequest(limit_price=9),
        stop_loss=StopLossRequest(stop_price=9.5),
    )
    assert refusal(holding.submit_order, wrong)[2] == "take_profit.limit_price must be > stop_loss.stop_price"
    near = market(
        "F",
        10,
        order_class=OrderClass.BRACKET,
        take_profit=TakeProfitRequest(limit_price=11),
        stop_loss=StopLossRequest(stop_price=10),
    )
    assert refusal(holding.submit_order, near)[2] == "stop_loss.stop_price must be <= base_price - 0.01"


# -- lists


def test_orders_are_listed_newest_first_and_paged_by_time(alpaca, client):
    ids = [client.submit_order(limit("KO", 1, 90 + number)).id for number in range(5)]
    page = client.get_orders(GetOrdersRequest(limit=2))
    assert [order.id for order in page] == [ids[4], ids[3]]
    page = client.get_orders(GetOrdersRequest(limit=2, until=page[-1].submitted_at))
    assert [order.id for order in page] == [ids[2], ids[1]]
    client.submit_order(limit("F", 1, 9))
    found = client.get_orders(GetOrdersRequest(symbols=["F"], side=OrderSide.BUY, after=OPEN, direction="asc"))
    assert [order.symbol for order in found] == ["F"]


def test_activities_are_paged_by_their_ids(alpaca, holding):
    holding.submit_order(market("F", 1))
    alpaca.go(1)
    newest, oldest = holding.get("/account/activities", {"activity_types": "FILL"})
    assert (newest["symbol"], oldest["symbol"], oldest["qty"], oldest["price"]) == ("F", "KO", "10", "100")
    assert oldest["id"].startswith("20250512093000020::")
    assert holding.get("/account/activities", {"page_size": 1, "page_token": newest["id"]}) == [oldest]
    assert holding.get("/account/activities/FILL", {"direction": "asc"})[0] == oldest
    assert refusal(holding.get, "/account/activities/NONE")[2] == "invalid activity type: NONE"


def test_fees_are_booked_at_the_end_of_the_day_where_the_account_pays_them(alpaca, client):
    alpaca.reset(fees=True)
    client.submit_order(market("KO", 10))
    alpaca.go(1)
    client.close_position("KO")
    alpaca.go(to=CLOSE + timedelta(hours=5))
    fees = client.get("/account/activities/FEE")
    assert sorted((fee["activity_sub_type"], fee["net_amount"]) for fee in fees) == [("CAT", "-0.01"), ("TAF", "-0.01")]
    assert client.get_account().cash == "99999.98"


# -- keys and rates


def test_wrong_keys_are_refused_without_a_code(alpaca, client):
    alpaca.set(keys="key:other")
    with pytest.raises(APIError) as refused:
        client.get_account()
    assert (refused.value.status_code, refused.value.args[0]) == (401, '{"message":"unauthorized."}')


def test_every_reply_says_what_is_left_of_the_rate_and_too_many_are_refused(alpaca, client):
    alpaca.set(rate_limit=3)
    seen = []
    client._session.hooks["response"].append(lambda reply, **_: seen.append((reply.status_code, reply.headers)))
    client.get_clock()
    client.get_clock()
    client.get_clock()
    with pytest.raises(APIError, match="too many requests"):
        client.get_clock()
    assert [(status, headers["X-RateLimit-Remaining"]) for status, headers in seen] == [
        (200, "2"),
        (200, "1"),
        (200, "0"),
        (429, "0"),
    ]
    assert float(seen[0][1]["X-RateLimit-Reset"]) == (OPEN + MINUTE).timestamp()
    alpaca.go(60)
    assert client.get_clock()


def test_what_a_refusal_by_rate_carries_is_a_rule(alpaca, client):
    alpaca.set(rate_limit=1, rate_headers_on_429=False, rate_code_on_429=False)
    client.get_clock()
    reply = client._session.get(f"{alpaca.origin}/v2/clock", headers=client._get_auth_headers())
    assert (reply.status_code, reply.json()) == (429, {"message": "too many requests."})
    assert "X-RateLimit-Reset" not in reply.headers


def test_what_does_not_exist_is_not_found(client):
    assert refusal(client.get, "/nothing") == (404, 40410000, "endpoint not found")
    assert refusal(client.get_asset, "NOPE") == (404, 40410000, "asset not found for NOPE")


def test_the_same_market_and_orders_give_the_same_replies(alpaca: StandIn):
    def day() -> list[object]:
        alpaca.reset()
        client = alpaca.client(raw_data=True)
        client.submit_order(market("KO", 10, client_order_id="a"))
        alpaca.go(1)
        client.submit_order(stop("KO", 10, 99, client_order_id="b"))
        return [client.get_orders(GetOrdersRequest(status=QueryOrderStatus.ALL)), client.get_all_positions()]

    assert day() == day()
