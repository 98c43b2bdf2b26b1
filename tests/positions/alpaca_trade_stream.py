"""A stand-in of Alpaca's stream of trade updates at /stream on loopback; `connections` counts those that logged in."""

import asyncio
import json
import threading
from types import TracebackType
from typing import Any, Self

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from tests.positions.alpaca_trading_server import KEY, SECRET


class AlpacaTradeStream:
    """Use as a context manager; every method may be called from the test's thread."""

    def __init__(self) -> None:
        self.connections = 0
        self._listening: list[ServerConnection] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = self._run(self._serve())
        self.origin = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def listeners(self) -> int:
        return len(self._listening)

    def send(self, message: str) -> None:
        self._run(self._send(message))

    def update(self, event: str) -> None:
        self.send(json.dumps({"stream": "trade_updates", "data": {"event": event, "order": {"id": "a1"}}}))

    def disconnect(self) -> None:
        """Drop every listener without a closing handshake."""
        self._run(self._drop())

    async def _stream(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        assert connection.request.path == "/stream"
        try:
            login = json.loads(await connection.recv())["data"]
            known = (login["key_id"], login["secret_key"]) == (KEY, SECRET)
            await connection.send(_answer("authorization", {"status": "authorized" if known else "unauthorized"}))
            if not known:
                return
            self.connections += 1
            wanted = json.loads(await connection.recv())["data"]
            await connection.send(_answer("listening", wanted))
            self._listening.append(connection)
            await connection.wait_closed()
        except ConnectionClosed:
            return
        finally:
            if connection in self._listening:
                self._listening.remove(connection)

    async def _send(self, message: str) -> None:
        for connection in self._listening:
            await connection.send(message)

    async def _drop(self) -> None:
        for connection in list(self._listening):
            connection.transport.abort()
            await connection.wait_closed()

    async def _serve(self) -> Server:
        return await serve(self._stream, "127.0.0.1", 0)

    async def _close(self) -> None:
        self._server.close()
        await self._server.wait_closed()

    def _run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=5)


def _answer(stream: str, data: dict[str, Any]) -> str:
    return json.dumps({"stream": stream, "data": data})
