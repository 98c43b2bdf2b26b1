"""A stand-in of Alpaca's stream of trade updates at /stream on loopback; `connections` counts those that logged in."""

import json
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from tests.positions.alpaca_trading_server import KEY, SECRET
from tests.positions.server_thread import ServerThread


class AlpacaTradeStream(ServerThread):
    """Use as a context manager; every method may be called from the test's thread."""

    def __init__(self) -> None:
        super().__init__()
        self.connections = 0
        self._listening: list[ServerConnection] = []

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

    def fall_silent(self) -> None:
        """Read no more from any listener, so that not even a ping is answered."""
        self._run(self._stop_reading())

    async def _stop_reading(self) -> None:
        for connection in self._listening:
            connection.transport.pause_reading()

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

    async def _start(self) -> int:
        self._server = await serve(self._stream, "127.0.0.1", 0)
        return self._server.sockets[0].getsockname()[1]

    async def _stop(self) -> None:
        self._server.close()
        await self._server.wait_closed()


def _answer(stream: str, data: dict[str, Any]) -> str:
    return json.dumps({"stream": stream, "data": data})
