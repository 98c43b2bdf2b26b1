"""The adapter and the real SDK over sockets against a small server that can misbehave."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from positions.broker.alpaca import AlpacaBroker, TradingAccess
from positions.broker.port import Order, OrderKind, OrderRequest, OrderSide, OrderStatus, PositionIntent
from positions.clock import ReplayClock
from tests.positions.alpaca_trading_server import KEY, SECRET, AlpacaTradingServer

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
