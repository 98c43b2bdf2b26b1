from decimal import Decimal

import pytest

from positions.broker.exchange import SimulatedExchange
from positions.broker.port import OrderKind, OrderRequest, OrderSide, OrderStatus, PositionIntent, Rejected
from tests.positions.world import MINUTE, START, UNIVERSE, batch


def order(
    number: int,
    side: OrderSide = OrderSide.BUY,
    quantity: int = 10,
    stop: str | None = None,
    intent: PositionIntent | None = None,
) -> OrderRequest:
    natural = PositionIntent.BUY_TO_OPEN if side is OrderSide.BUY else PositionIntent.SELL_TO_CLOSE
    kind = OrderKind.MARKET if stop is None else OrderKind.STOP
    price = None if stop is None else Decimal(stop)
    return OrderRequest(f"id{number}", "KO", side, kind, quantity, intent or natural, price)


@pytest.fixture
def holding_ten() -> SimulatedExchange:
    exchange = SimulatedExchange(UNIVERSE, cost_per_share=0.01)
    exchange.submit(order(1))
    exchange.open_bar(batch(START, (100, 101, 99.5, 100.5)))
    exchange.trade_bar(batch(START, (100, 101, 99.5, 100.5)))
    exchange.changed_orders()
    return exchange


def test_a_market_order_fills_at_the_next_open_and_costs_a_share(holding_ten):
    bought = holding_ten.order_by_client_id("id1")
    assert (bought.status, bought.filled_price, bought.filled_at) == (OrderStatus.FILLED, Decimal(100), START)
    assert holding_ten.positions()["KO"].quantity == 10
    assert holding_ten.account().equity == Decimal("100000") + 10 * Decimal("0.5") - Decimal("0.10")


def test_a_market_order_waits_while_the_symbol_has_no_bar():
    exchange = SimulatedExchange(UNIVERSE)
    exchange.submit(order(1))
    exchange.open_bar(batch(START, f=(10, 10, 10, 10)))
    assert "id1" in exchange.open_orders()


@pytest.mark.parametrize(
    ("bar", "price", "at"),
    [
        ((99.8, 99.9, 98.9, 99.2), Decimal(99), START + 2 * MINUTE),
        ((98.5, 99.9, 98.4, 99.2), Decimal("98.5"), START + MINUTE),
        ((99.8, 99.9, 99.01, 99.2), None, None),
    ],
    ids=["touched inside the bar", "opened beyond it", "not touched"],
)
def test_a_stop_fills_at_its_price_or_at_the_open_beyond_it(holding_ten, bar, price, at):
    holding_ten.submit(order(2, OrderSide.SELL, stop="99"))
    holding_ten.open_bar(batch(START + MINUTE, bar))
    holding_ten.trade_bar(batch(START + MINUTE, bar))
    stop = holding_ten.order_by_client_id("id2")
    assert (stop.filled_price, stop.filled_at) == (price, at)


def test_a_resting_stop_reserves_its_shares(holding_ten):
    holding_ten.submit(order(2, OrderSide.SELL, stop="99"))
    assert holding_ten.positions()["KO"].available == 0
    with pytest.raises(Rejected, match="insufficient qty available"):
        holding_ten.submit(order(3, OrderSide.SELL))
    holding_ten.cancel(holding_ten.order_by_client_id("id2").id)
    holding_ten.submit(order(3, OrderSide.SELL))


def test_a_replaced_stop_gets_a_new_id_and_the_old_one_is_over(holding_ten):
    old = holding_ten.submit(order(2, OrderSide.SELL, stop="99"))
    new = holding_ten.replace_stop(old.id, Decimal("99.50"), "id2b")
    assert holding_ten.order_by_client_id("id2").replaced_by == new.id
    assert list(holding_ten.open_orders()) == ["id2b"]
    assert holding_ten.replace_stop(new.id, Decimal("99.50"), "id2c") == new


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        (order(1), "must be unique"),
        (order(2, quantity=0), "quantity must be positive"),
        (order(2, OrderSide.SELL, quantity=11), "insufficient qty"),
        (order(2, OrderSide.SELL, intent=PositionIntent.SELL_TO_OPEN), "intent mismatch"),
        (order(2, OrderSide.BUY, intent=PositionIntent.BUY_TO_CLOSE), "intent mismatch"),
        (order(2, OrderSide.SELL, intent=PositionIntent.BUY_TO_CLOSE), "intent mismatch"),
        (order(2, OrderSide.SELL, stop="99.001"), "sub-penny"),
        (order(2, OrderSide.SELL, stop="100.50"), "wrong side of the market"),
    ],
)
def test_the_exchange_refuses_what_alpaca_refuses(holding_ten, request_, why):
    with pytest.raises(Rejected, match=why):
        holding_ten.submit(request_)
    assert holding_ten.positions()["KO"].quantity == 10


def test_each_change_of_an_order_is_handed_over_once(holding_ten):
    stop = holding_ten.submit(order(2, OrderSide.SELL, stop="99"))
    holding_ten.cancel(stop.id)
    assert [o.status for o in holding_ten.changed_orders()] == [OrderStatus.WORKING, OrderStatus.CANCELLED]
    assert holding_ten.changed_orders() == []
