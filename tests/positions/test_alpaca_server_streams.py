"""The real SDK's streams at the simulated Alpaca."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import msgpack
import pytest
from alpaca.data.enums import DataFeed
from alpaca.data.live import StockDataStream
from alpaca.trading.requests import ReplaceOrderRequest
from alpaca.trading.stream import TradingStream
from websockets.sync.client import connect

from positions.broker.standin.faults import Fault
from tests.positions.stand_in import MINUTE, OPEN, StandIn, limit, market, stop


def eventually(condition: Callable[[], Any]) -> None:
    """Streams arrive in a thread of the SDK's: wait for what must come."""
    until = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < until, "it did not come"
        time.sleep(0.01)


@contextmanager
def heard(stream: Any, subscribe: Callable[[Any], None]) -> Iterator[list[Any]]:
    """What a stream of the SDK hears, once it listens."""
    messages: list[Any] = []

    async def hear(message: Any) -> None:
        messages.append(message)

    subscribe(hear)
    thread = threading.Thread(target=stream.run, daemon=True)
    thread.start()
    eventually(lambda: stream._running)
    time.sleep(0.1)  # the subscription is on its way
    try:
        yield messages
    finally:
        if stream._ws is not None:  # its own stop() takes five seconds
            asyncio.run_coroutine_threadsafe(stream.stop_ws(), stream._loop).result()
            asyncio.run_coroutine_threadsafe(stream._ws.close(), stream._loop)
        thread.join(10)
        assert not thread.is_alive()


@contextmanager
def trade_updates(alpaca: StandIn, **options: Any) -> Iterator[list[Any]]:
    stream = TradingStream("key", "secret", url_override=alpaca.origin.replace("http", "ws") + "/stream", **options)
    with heard(stream, stream.subscribe_trade_updates) as messages:
        yield messages


@contextmanager
def bars(alpaca: StandIn, *symbols: str, updated: bool = False) -> Iterator[list[Any]]:
    origin = alpaca.origin.replace("http", "ws")
    stream = StockDataStream("key", "secret", feed=DataFeed.IEX, url_override=f"{origin}/v2/iex")
    subscribe = stream.subscribe_updated_bars if updated else stream.subscribe_bars
    with heard(stream, lambda hear: subscribe(hear, *symbols)) as messages:
        yield messages


def test_the_life_of_an_order_is_told(alpaca):
    client = alpaca.client()
    with trade_updates(alpaca) as heard:
        client.submit_order(market("KO", 10, client_order_id="entry"))
        alpaca.go(1)
        old = client.submit_order(stop("KO", 10, 99, client_order_id="stop"))
        alpaca.go(1)
        new = client.replace_order_by_id(old.id, ReplaceOrderRequest(stop_price=98, client_order_id="moved"))
        alpaca.go(1)
        client.cancel_order_by_id(new.id)
        alpaca.go(1)
        eventually(lambda: len(heard) == 9)
    assert [(update.event, update.order.client_order_id) for update in heard] == [
        ("pending_new", "entry"),
        ("new", "entry"),
        ("fill", "entry"),
        ("pending_new", "stop"),
        ("new", "stop"),
        ("pending_replace", "stop"),
        ("replaced", "stop"),
        ("pending_cancel", "moved"),
        ("canceled", "moved"),
    ]
    fill = heard[2]
    assert (fill.price, fill.qty, fill.position_qty, fill.order.status) == (100, 10, 10, "filled")


def test_a_duplicate_of_an_event_has_its_execution_id(alpaca):
    client = alpaca.client()
    with trade_updates(alpaca) as heard:
        alpaca.arm(Fault.DUPLICATE, "WS /stream", count=None)
        client.submit_order(market("KO", 10))
        alpaca.go(1)
        eventually(lambda: len(heard) == 6)
    assert [update.event for update in heard] == ["pending_new"] * 2 + ["new"] * 2 + ["fill"] * 2
    assert heard[4].execution_id == heard[5].execution_id


def test_a_silent_stream_stays_connected(alpaca):
    client = alpaca.client()
    with trade_updates(alpaca) as heard:
        alpaca.arm(Fault.SILENT, "WS /stream", count=3)
        client.submit_order(market("KO", 10))
        alpaca.go(1)
        client.submit_order(limit("F", 1, 9))
        eventually(lambda: heard)
    assert heard[0].order.symbol == "F"


def test_a_dropped_stream_is_connected_again_by_the_sdk(alpaca):
    client = alpaca.client()
    stream = TradingStream("key", "secret", url_override=alpaca.origin.replace("http", "ws") + "/stream")
    stream._reconnect_min_backoff = stream._reconnect_max_backoff = 0.05
    with heard(stream, stream.subscribe_trade_updates) as messages:
        alpaca.arm(Fault.DROPPED, "WS /stream")
        first = stream._ws
        client.submit_order(limit("F", 1, 9))
        eventually(lambda: stream._running and stream._ws is not first)
        time.sleep(0.1)
        client.submit_order(limit("F", 1, 8))
        eventually(lambda: messages)
    assert messages[0].order.limit_price == "8"


def test_text_frames_are_heard_as_well_as_binary_ones(alpaca):
    alpaca.set(binary_trade_updates=False)
    with trade_updates(alpaca) as heard:
        alpaca.client().submit_order(limit("F", 1, 9))
        eventually(lambda: heard)
    assert heard[0].order.symbol == "F"


def test_a_bar_is_told_a_second_after_its_end(alpaca):
    with bars(alpaca, "KO", "F") as heard:
        alpaca.go(to=OPEN + MINUTE)
        assert heard == []
        alpaca.go(1)
        eventually(lambda: len(heard) == 2)
    assert [(bar.symbol, bar.timestamp, bar.close, bar.volume) for bar in heard] == [
        ("KO", OPEN, 100, 1000),
        ("F", OPEN, 10, 1000),
    ]


def test_a_minute_without_a_trade_has_no_bar(alpaca):
    alpaca.reset(ko=[None, (100, 101, 99, 100)])
    with bars(alpaca, "KO") as heard:
        alpaca.go(to=OPEN + 3 * MINUTE)
        eventually(lambda: heard)
    assert heard[0].timestamp == OPEN + MINUTE


def test_all_symbols_may_be_had_with_a_star(alpaca):
    with bars(alpaca, "*") as heard:
        alpaca.go(to=OPEN + MINUTE + timedelta(seconds=1))
        eventually(lambda: len(heard) == 3)
    assert {bar.symbol for bar in heard} == {"KO", "F", "SPY"}


def test_late_prints_come_in_an_updated_bar(alpaca):
    alpaca.reset(corrected_bars=1.0)
    with bars(alpaca, "KO", updated=True) as heard:
        alpaca.go(to=OPEN + MINUTE + timedelta(seconds=31))
        eventually(lambda: heard)
    assert (heard[0].timestamp, heard[0].volume) == (OPEN, 1000)


def test_bars_of_the_next_session_follow(alpaca):
    with bars(alpaca, "KO") as heard:
        alpaca.go(to=OPEN + timedelta(days=1, minutes=1, seconds=1))
        eventually(lambda: len(heard) == 391)
    assert heard[-1].timestamp == OPEN + timedelta(days=1)


@pytest.mark.parametrize(
    ("path", "rules", "code"),
    [("iex", {"keys": "other:keys"}, 402), ("sip", {}, 409), ("iex", {"stream_limit": 0}, 406)],
)
def test_a_stream_is_refused_by_keys_plan_and_number(alpaca, path, rules, code):
    alpaca.set(**rules)
    origin = alpaca.origin.replace("http", "ws")
    with connect(f"{origin}/v2/{path}", additional_headers={"Content-Type": "application/msgpack"}) as socket:
        assert msgpack.unpackb(socket.recv()) == [{"T": "success", "msg": "connected"}]
        socket.send(msgpack.packb({"action": "subscribe", "bars": ["KO"]}))
        assert msgpack.unpackb(socket.recv())[0]["code"] == 401
        socket.send(msgpack.packb({"action": "auth", "key": "key", "secret": "secret"}))
        assert msgpack.unpackb(socket.recv())[0]["code"] == code


def test_quotes_of_more_than_thirty_symbols_are_refused(alpaca):
    with connect(alpaca.origin.replace("http", "ws") + "/v2/iex") as socket:
        assert "connected" in socket.recv()
        socket.send('{"action": "auth", "key": "key", "secret": "secret"}')
        assert "authenticated" in socket.recv()
        names = [f"A{number}" for number in range(31)]
        socket.send(str({"action": "subscribe", "quotes": names}).replace("'", '"'))
        assert "symbol limit exceeded" in socket.recv()
