"""The real SDK trades at the simulated Alpaca."""

from collections.abc import Iterator

import pytest

from tests.positions.stand_in import StandIn, market


@pytest.fixture(scope="module")
def running() -> Iterator[StandIn]:
    with StandIn() as running:
        yield running


@pytest.fixture
def alpaca(running: StandIn) -> StandIn:
    running.reset()
    return running


def test_a_market_order_is_pending_then_filled_and_becomes_a_position(alpaca):
    client = alpaca.client()
    order = client.submit_order(market("KO", 10, client_order_id="c1"))
    assert order.status == "pending_new"
    alpaca.go(1)
    order = client.get_order_by_client_id("c1")
    assert (order.status, order.filled_avg_price, order.filled_qty) == ("filled", "100", "10")
    [position] = client.get_all_positions()
    assert (position.symbol, position.qty, position.qty_available) == ("KO", "10", "10")
    assert client.get_orders() == []
    assert client.get_account().cash == "99000"
    assert client.get_clock().is_open
