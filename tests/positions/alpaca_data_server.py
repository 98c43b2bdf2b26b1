"""A small stand-in of Alpaca's market data on loopback: GET /v2/stocks/bars and /bars/latest, and the msgpack stream of
bars at /v2/<feed>, so that the real SDK talks to it over the wire.

What it does on its own is what Alpaca does: keys are checked, pages are sorted by symbol then time, `limit` counts bars
of all symbols, a malformed symbol refuses the whole request, recent SIP bars need a subscription, a second stream of
an account is refused with 406. What should go wrong is told to it: `replies` are served first, `mute`, `disconnect`.
"""

import asyncio
import json
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgpack
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from tests.positions.server_thread import ServerThread

KEY, SECRET = "key", "secret"
RECENT = timedelta(minutes=15)
LONGEST_PAGE = 10_000


@dataclass(frozen=True)
class Reply:
    """A reply out of the ordinary; `after` seconds, on top of the bars where there is no body."""

    status: int = 200
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    after: float = 0.0


def bar(start: datetime, close: float, volume: int = 100, **more: Any) -> dict[str, Any]:
    """A bar as REST spells it."""
    return {
        "t": start.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "o": close,
        "h": close + 0.5,
        "l": close - 0.5,
        "c": close,
        "v": volume,
        "n": 7,
        "vw": close + 0.123456,
        **more,
    }


class AlpacaDataServer(ServerThread):
    """Use as a context manager; every method may be called from the test's thread.

    `bars` is what REST knows, `now` what time it is there, `requests` the path and query of each call, `subscribed`
    what each stream connection asked for.
    """

    def __init__(self, now: Callable[[], datetime]) -> None:
        super().__init__()
        self.now = now
        self.bars: dict[str, list[dict[str, Any]]] = {}
        self.replies: deque[Reply] = deque()
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.subscribed: list[dict[str, Any]] = []
        self.refused_connections = 0
        self.connection_limit = 1
        self.accepts_streams = True
        self.recent_sip = False
        self.page_limit = LONGEST_PAGE
        self._streams: list[ServerConnection] = []

    # What a test does to it

    def add(self, symbol: str, *bars: dict[str, Any]) -> None:
        self.bars.setdefault(symbol, []).extend(bars)

    def send(self, symbol: str, bar: dict[str, Any], kind: str = "b") -> None:
        """A bar (`b`) or corrected bar (`u`) over every stream."""
        start = msgpack.Timestamp.from_datetime(datetime.fromisoformat(bar["t"]))
        self.send_raw([{"T": kind, "S": symbol, **bar, "t": start}])

    def send_raw(self, messages: list[dict[str, Any]]) -> None:
        self._run(self._send_all(messages))

    def disconnect(self) -> None:
        """Drop every stream without a closing handshake."""
        self._run(self._drop())

    @property
    def streams(self) -> int:
        return len(self._streams)

    # REST

    async def _rest(self, connection: ServerConnection, request: Request) -> Response | None:
        """Answers plain requests; None lets the handshake of a stream go on."""
        if "Upgrade" in request.headers:
            return None if self.accepts_streams else _response(503, "no stream today")
        address = urlsplit(request.path)
        query = {name: values[0] for name, values in parse_qs(address.query).items()}
        self.requests.append((address.path, query))
        if self.replies:
            reply = self.replies.popleft()
            await asyncio.sleep(reply.after)
            if reply.status != HTTPStatus.OK or reply.body:
                return _response(reply.status, reply.body, reply.headers)
        if (request.headers.get("APCA-API-KEY-ID"), request.headers.get("APCA-API-SECRET-KEY")) != (KEY, SECRET):
            return _message(401, "unauthorized.")
        symbols = query["symbols"].split(",")
        for symbol in symbols:
            if not re.fullmatch(r"[A-Z]{1,5}(\.[A-Z]{1,2})?", symbol):
                return _message(400, f"invalid symbol: {symbol}")
        if address.path == "/v2/stocks/bars/latest":
            latest = {symbol: self.bars[symbol][-1] for symbol in symbols if self.bars.get(symbol)}
            return _response(200, json.dumps({"bars": latest}))
        if address.path != "/v2/stocks/bars":
            return _message(404, "endpoint not found.")
        return self._page(symbols, query)

    def _page(self, symbols: list[str], query: dict[str, str]) -> Response:
        limit = int(query.get("limit", 1000))
        if limit > LONGEST_PAGE:
            return _message(400, f"invalid limit: larger than the allowed maximum of {LONGEST_PAGE}")
        start, end = (datetime.fromisoformat(query[name]) for name in ("start", "end"))
        if query.get("feed", "sip") == "sip" and end > self.now() - RECENT and not self.recent_sip:
            return _message(403, "subscription does not permit querying recent SIP data")
        found = [
            (symbol, each)
            for symbol in sorted(symbols)
            for each in sorted(self.bars.get(symbol, ()), key=lambda each: str(each["t"]))
            if start <= datetime.fromisoformat(each["t"]) <= end
        ]
        first = int(query.get("page_token", 0))
        last = first + min(limit, self.page_limit)
        page: dict[str, list[dict[str, Any]]] = {}
        for symbol, each in found[first:last]:
            page.setdefault(symbol, []).append(each)
        token = str(last) if last < len(found) else None
        return _response(200, json.dumps({"bars": page, "next_page_token": token}))

    # The stream

    async def _stream(self, stream: ServerConnection) -> None:
        await stream.send(msgpack.packb([{"T": "success", "msg": "connected"}]))
        try:
            login = msgpack.unpackb(await stream.recv())
            if (login.get("key"), login.get("secret")) != (KEY, SECRET):
                await stream.send(msgpack.packb([{"T": "error", "code": 402, "msg": "auth failed"}]))
                return
            if len(self._streams) >= self.connection_limit:
                self.refused_connections += 1
                await stream.send(msgpack.packb([{"T": "error", "code": 406, "msg": "connection limit exceeded"}]))
                return
            self._streams.append(stream)
            await stream.send(msgpack.packb([{"T": "success", "msg": "authenticated"}]))
            async for message in stream:
                wanted = msgpack.unpackb(message)
                channels = {name: wanted.get(name, []) for name in ("trades", "quotes", "bars", "updatedBars")}
                await stream.send(msgpack.packb([{"T": "subscription", **channels}]))
                self.subscribed.append(channels)
        except ConnectionClosed:
            return
        finally:
            if stream in self._streams:
                self._streams.remove(stream)

    async def _send_all(self, messages: list[dict[str, Any]]) -> None:
        for stream in self._streams:
            await stream.send(msgpack.packb(messages))

    async def _drop(self) -> None:
        for stream in list(self._streams):
            stream.transport.abort()
            await stream.wait_closed()

    async def _start(self) -> int:
        self._server = await serve(self._stream, "127.0.0.1", 0, process_request=self._rest)
        return self._server.sockets[0].getsockname()[1]

    async def _stop(self) -> None:
        self._server.close()
        await self._server.wait_closed()


def _message(status: int, message: str) -> Response:
    return _response(status, json.dumps({"message": message}))


def _response(status: int, body: str, headers: dict[str, str] | None = None) -> Response:
    content = body.encode()
    kind = "application/json" if body.startswith("{") else "text/html"
    fields = {"Content-Type": kind, "Content-Length": str(len(content)), "Connection": "close", **(headers or {})}
    return Response(status, HTTPStatus(status).phrase, Headers(fields), content)
