import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from positions.broker.alpaca import LONGEST_SILENCE, TradeUpdates, TradingAccess
from positions.clock import ReplayClock
from tests.positions.alpaca_trade_stream import AlpacaTradeStream
from tests.positions.alpaca_trading_server import KEY, SECRET

NOW = datetime(2025, 5, 12, 14, 0, tzinfo=UTC)


@pytest.fixture
def server() -> Iterator[AlpacaTradeStream]:
    with AlpacaTradeStream() as server:
        yield server


@pytest.fixture
def clock() -> ReplayClock:
    return ReplayClock(NOW)


@pytest.fixture
def updates(server: AlpacaTradeStream, clock: ReplayClock) -> Iterator[TradeUpdates]:
    updates = TradeUpdates(TradingAccess(KEY, SECRET, origin=server.origin), clock, threading.Event())
    assert updates.trouble(NOW) == "not connected yet"
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


def test_silence_is_noticed_and_ended_by_an_update(
    server: AlpacaTradeStream, updates: TradeUpdates, clock: ReplayClock
) -> None:
    woken(updates)
    assert updates.trouble(NOW + LONGEST_SILENCE) == ""
    clock.sleep_until(NOW + LONGEST_SILENCE + timedelta(seconds=5))
    assert updates.trouble(clock.now()) == "no trade update for 605 s"
    server.update("new")
    assert woken(updates)
    assert updates.trouble(clock.now()) == ""


def test_a_lost_connection_is_told_made_anew_and_wakes(server: AlpacaTradeStream, updates: TradeUpdates) -> None:
    woken(updates)
    server.disconnect()
    wait_for(lambda: updates.trouble(NOW) == "the connection was lost")
    assert woken(updates)
    wait_for(lambda: server.connections == 2)
    assert updates.trouble(NOW) == ""


def test_messages_that_make_no_sense_do_not_end_it(server: AlpacaTradeStream, updates: TradeUpdates) -> None:
    woken(updates)
    server.send('{"stream": "weather", "data": null}')
    server.send("<html>")
    server.update("fill")
    assert woken(updates)


def test_refused_keys_are_told(server: AlpacaTradeStream, clock: ReplayClock) -> None:
    updates = TradeUpdates(TradingAccess(KEY, "wrong", origin=server.origin), clock, threading.Event())
    updates.start()
    try:
        wait_for(lambda: updates.trouble(NOW) == "failed to authenticate")
        assert not updates.wake.is_set()
    finally:
        updates.stop()


def test_it_stops_at_once(server: AlpacaTradeStream, updates: TradeUpdates) -> None:
    woken(updates)
    began = time.monotonic()
    updates.stop()
    wait_for(lambda: all(thread.name != "alpaca-trade-updates" for thread in threading.enumerate()))
    assert time.monotonic() - began < 2
