"""What the SDK's streams, of bars and of trade updates, tell nobody by themselves; and their end without a wait."""

import asyncio
from collections.abc import Callable
from threading import Event
from typing import Any

import structlog

log = structlog.get_logger(__name__)

#: Wall seconds that a farewell may take.
LEAVE_S = 2.0


def watch(stream: Any, stopping: Event, connected: Callable[[], None], lost: Callable[[str], None]) -> None:
    """Call `connected` whenever the stream has logged in, and `lost` when it could not (with why) or is closed ("").

    Once `stopping` is set it connects no more. Everything is called on the stream's thread.
    """
    from websockets.exceptions import WebSocketException

    begin, close = stream._start_ws, stream.close  # the SDK has no hooks for these

    async def begin_and_tell() -> None:
        try:
            if stopping.is_set():
                await stream.stop_ws()
                raise ConnectionAbortedError("the stream was stopped")
            await begin()
        except (OSError, ValueError, WebSocketException) as error:
            lost(" ".join(str(error).split())[:200] or type(error).__name__)
            raise
        connected()

    async def tell_and_close() -> None:
        lost("")
        await close()

    stream._start_ws, stream.close = begin_and_tell, tell_and_close


def end(stream: Any) -> None:
    """End the stream at once: the SDK's own stop waits for up to five seconds for a message."""
    loop = stream._loop
    if loop is None or not loop.is_running():
        return

    async def leave() -> None:
        await stream.stop_ws()
        await stream.close()

    try:
        asyncio.run_coroutine_threadsafe(leave(), loop).result(timeout=LEAVE_S)
    except TimeoutError:  # whoever is at the other end hangs: the thread dies with the process
        log.warning("stream_not_left", seconds=LEAVE_S)
