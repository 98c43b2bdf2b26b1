"""A server on loopback whose event loop runs in a thread, so that what it serves may be blocking code."""

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self


class ServerThread(ABC):
    """Use as a context manager. `origin` is where it serves, http://127.0.0.1:PORT."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    @abstractmethod
    async def _start(self) -> int:
        """Returns the port."""

    @abstractmethod
    async def _stop(self) -> None: ...

    def __enter__(self) -> Self:
        self._thread.start()
        self.origin = f"http://127.0.0.1:{self._run(self._start())}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Do something in the loop, from the test's thread."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=10)
