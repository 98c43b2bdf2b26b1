"""The WebSocket streams: trade updates as JSON, bars as msgpack or JSON."""

import asyncio
import contextlib
import json
from datetime import datetime, timedelta
from typing import Any

import msgpack
import orjson
from aiohttp import WSMsgType, web

from positions.broker.standin import wire
from positions.broker.standin.faults import ON_A_STREAM, Fault, FaultPlan
from positions.broker.standin.tape import CORRECTED_AFTER
from positions.broker.standin.venue import Venue

MOST_SYMBOLS = 30  # of trades and of quotes, on the Basic plan
CHANNELS = ("trades", "quotes", "bars", "updatedBars", "dailyBars", "statuses", "lulds", "corrections", "cancelErrors")


class Stream:
    """One connection. What is sent waits in a queue, so that nobody waits for a slow reader."""

    def __init__(self, request: web.Request, socket: web.WebSocketResponse, packed: bool, binary: bool) -> None:
        self.route = f"WS {request.path}"
        self.packed = packed
        self.let_in = False
        self.listens = False
        self.channels: dict[str, set[str]] = {}
        self._request, self._socket, self._binary = request, socket, binary
        self._queue: asyncio.Queue[bytes] = asyncio.Queue()
        self._writer = asyncio.create_task(self._write())

    def send(self, message: object) -> None:
        self._queue.put_nowait(msgpack.packb(message) if self.packed else orjson.dumps(message))

    async def flushed(self) -> None:
        """Wait until everything is sent, or nobody reads any more."""
        sent = asyncio.create_task(self._queue.join())
        await asyncio.wait({sent, self._writer}, return_when=asyncio.FIRST_COMPLETED)
        sent.cancel()

    def drop(self) -> None:
        """Break the connection without a farewell."""
        if self._request.transport is not None:
            self._request.transport.abort()

    def end(self) -> None:
        self._writer.cancel()

    async def _write(self) -> None:
        with contextlib.suppress(ConnectionError):  # the reader has gone, which the loop that hears it notices
            while True:
                message = await self._queue.get()
                if self.packed or self._binary:
                    await self._socket.send_bytes(message)
                else:
                    await self._socket.send_str(message.decode())
                self._queue.task_done()


class Streams:
    """Who listens, and what they are sent. Connections outlive a reset of the market."""

    def __init__(self) -> None:
        self._trade_streams: set[Stream] = set()
        self._bar_streams: set[Stream] = set()

    def attach(self, venue: Venue, faults: FaultPlan) -> None:
        """The market to tell of from now on."""
        self._venue, self._faults = venue, faults
        self._schedule_bars()

    async def flushed(self) -> None:
        for stream in [*self._trade_streams, *self._bar_streams]:
            await stream.flushed()

    def drop_all(self) -> None:
        for stream in [*self._trade_streams, *self._bar_streams]:
            stream.drop()

    def _send(self, stream: Stream, message: object) -> None:
        fault = self._faults.take(ON_A_STREAM, stream.route)
        kind = fault.fault if fault else None
        if kind is Fault.DROPPED:
            stream.drop()
        elif kind is not Fault.SILENT:
            stream.send(message)
            if kind is Fault.DUPLICATE:
                stream.send(message)

    # -- trade updates

    async def serve_trade_updates(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        stream = Stream(request, socket, packed=False, binary=self._venue.rules.binary_trade_updates)
        self._trade_streams.add(stream)
        try:
            async for message in socket:
                if message.type in {WSMsgType.TEXT, WSMsgType.BINARY}:
                    self._hear_trader(stream, json.loads(message.data))
        finally:
            self._trade_streams.discard(stream)
            stream.end()
        return socket

    def _hear_trader(self, stream: Stream, message: dict[str, Any]) -> None:
        data = message.get("data") or {}
        if message.get("action") == "authenticate":
            stream.let_in = self._venue.rules.let_in(data.get("key_id", ""), data.get("secret_key", ""))
            status = "authorized" if stream.let_in else "unauthorized"
            stream.send({"stream": "authorization", "data": {"status": status, "action": "authenticate"}})
        elif message.get("action") == "listen" and stream.let_in:
            stream.listens = "trade_updates" in data.get("streams", [])
            heard = ["trade_updates"] if stream.listens else []
            stream.send({"stream": "listening", "data": {"streams": heard}})

    def send_news(self) -> None:
        """Tell what has become of orders since the last call."""
        news, self._venue.news = self._venue.news, []
        for update in news:
            message = wire.trade_update_json(self._venue, update)
            for stream in list(self._trade_streams):
                if stream.listens:
                    self._send(stream, message)

    # -- bars

    async def serve_bars(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        packed = request.headers.get("Content-Type") == "application/msgpack"
        stream = Stream(request, socket, packed, binary=False)
        stream.send([{"T": "success", "msg": "connected"}])
        try:
            async for message in socket:
                if message.type in {WSMsgType.TEXT, WSMsgType.BINARY}:
                    heard = msgpack.unpackb(message.data) if packed else json.loads(message.data)
                    stream.send([self._reply(stream, request.match_info["feed"], heard)])
        finally:
            self._bar_streams.discard(stream)
            stream.end()
        return socket

    def _reply(self, stream: Stream, feed: str, message: dict[str, Any]) -> dict[str, Any]:
        action = message.get("action")
        if action == "auth":
            return self._authenticate(stream, feed, message.get("key", ""), message.get("secret", ""))
        if not stream.let_in:
            return _error(401, "not authenticated")
        if action not in {"subscribe", "unsubscribe"}:
            return _error(400, "invalid syntax")
        wanted = {channel: set(message.get(channel, ())) for channel in CHANNELS}
        if action == "subscribe":
            channels = {channel: stream.channels.get(channel, set()) | wanted[channel] for channel in CHANNELS}
        else:
            channels = {channel: stream.channels.get(channel, set()) - wanted[channel] for channel in CHANNELS}
        if max(len(channels["trades"]), len(channels["quotes"])) > MOST_SYMBOLS:
            return _error(405, "symbol limit exceeded")
        stream.channels = channels
        return {"T": "subscription", **{channel: sorted(symbols) for channel, symbols in channels.items()}}

    def _authenticate(self, stream: Stream, feed: str, key: str, secret: str) -> dict[str, Any]:
        rules = self._venue.rules
        if stream.let_in:
            return _error(403, "already authenticated")
        if not rules.let_in(key, secret):
            return _error(402, "auth failed")
        if feed == "sip" and not rules.recent_sip:
            return _error(409, "insufficient subscription")
        if len(self._bar_streams) >= rules.stream_limit:
            return _error(406, "connection limit exceeded")
        stream.let_in = True
        self._bar_streams.add(stream)
        return {"T": "success", "msg": "authenticated"}

    def _schedule_bars(self) -> None:
        """Send each of today's bars when it is told, then those of the next session."""
        tape, delay = self._venue.tape, self._venue.rules.bar_delay
        if tape.today is None or delay is None:
            return
        for end in tape.bar_ends():
            told = end + timedelta(seconds=delay)
            self._venue.at(told, self._send_bars, "b", end, told)
            self._venue.at(told + CORRECTED_AFTER, self._send_bars, "u", end, told + CORRECTED_AFTER)
        self._venue.at(tape.today.session.close + timedelta(hours=8), self._schedule_bars)

    def _send_bars(self, kind: str, end: datetime, now: datetime) -> None:
        """A minute of bars (`b`), or of late prints (`u`), to every stream that wants them."""
        tape = self._venue.tape
        for stream in list(self._bar_streams):
            wanted = stream.channels.get("bars" if kind == "b" else "updatedBars", set())
            for symbol in tape.row_of if "*" in wanted else [each for each in tape.row_of if each in wanted]:
                bar = tape.bar_ending(symbol, end, now)
                if bar is not None and (kind == "b" or tape.is_corrected(symbol, end)):
                    start = msgpack.Timestamp.from_datetime(bar.start) if stream.packed else wire.stamp(bar.start)
                    self._send(stream, [{"T": kind, "S": symbol, **wire.bar_json(bar), "t": start}])


def _error(code: int, message: str) -> dict[str, Any]:
    return {"T": "error", "code": code, "msg": message}
