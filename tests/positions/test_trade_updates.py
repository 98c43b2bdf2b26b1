import threading
import time
from collections.abc import Callable, Iterator

import pytest

from positions.broker.alpaca import TradeUpdates, TradingAccess
from tests.positions.alpaca_trade_stream import AlpacaTradeStream
from tests.positions.alpaca_trading_server import KEY, SECRET


@pytest.fixture
def server() -> Iterator[AlpacaTradeStream]:
    with AlpacaTradeStream() as server:
        yield server


@pytest.fixture
def updates(server: AlpacaTradeStream) -> Iterator[TradeUpdates]:
    updates = TradeUpdates(TradingAccess(KEY, SECRET, origin=server.origin), threading.Event())
    assert updates.trouble == "not connected yet"
    updates.start()
    wait_for(lambda: server.listeners == 1)
    yield updates
    updates.stop()


def wait_for(done: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 5
    while not done():
        assert time.monotonic() < give_up
        time.sleep(0.01)


def woken(updates: TradeUpdates) -> bool:
    was = updates.wake.wait(2)
    updates.wake.clear()
    return was


@pytest.mark.parametrize("event", ["fill", "order_replace_rejected", "gone_fishing"])
def test_an_update_of_whatever_kind_wakes_and_so_does_its_repetition(
    server: AlpacaTradeStream, updates: TradeUpdates, event: str
) -> None:
    assert woken(updates), "a new connection wakes too"
    assert not updates.wake.is_set()
    for _ in range(2):
        server.update(event)
        assert woken(updates)


def test_a_quiet_stream_is_no_trouble_while_its_pings_are_answered_and_is_lost_when_they_are_not(
    server: AlpacaTradeStream, updates: TradeUpdates
) -> None:
    woken(updates)
    assert updates._stream is not None
    assert updates._stream._websocket_params["ping_interval"], "the SDK asks whether the other end lives"
    updates._stream._websocket_params = {"ping_interval": 0.05, "ping_timeout": 0.2, "close_timeout": 0.1}
    server.disconnect()
    wait_for(lambda: server.connections == 2 and server.listeners == 1)
    time.sleep(0.5)
    assert (updates.trouble, server.connections) == ("", 2)
    server.fall_silent()
    wait_for(lambda: updates.trouble == "the connection was lost")
    server.disconnect()


def test_a_lost_connection_is_told_made_anew_and_wakes(server: AlpacaTradeStream, updates: TradeUpdates) -> None:
    woken(updates)
    server.disconnect()
    wait_for(lambda: updates.trouble == "the connection was lost")
    assert woken(updates)
    wait_for(lambda: server.connections == 2)
    assert updates.trouble == ""


def test_messages_that_make_no_sense_do_not_end_it(server: AlpacaTradeStream, updates: TradeUpdates) -> None:
    woken(updates)
    server.send('{"stream": "weather", "data": null}')
    server.send("<html>")
    server.update("fill")
    assert woken(updates)


def test_refused_keys_are_told(server: AlpacaTradeStream) -> None:
    updates = TradeUpdates(TradingAccess(KEY, "wrong", origin=server.origin), threading.Event())
    updates.start()
    try:
        wait_for(lambda: updates.trouble == "failed to authenticate")
        assert not updates.wake.is_set()
    finally:
        updates.stop()


def test_it_stops_at_once(server: AlpacaTradeStream, updates: TradeUpdates) -> None:
    woken(updates)
    began = time.monotonic()
    updates.stop()
    wait_for(lambda: all(thread.name != "alpaca-trade-updates" for thread in threading.enumerate()))
    assert time.monotonic() - began < 2
