"""Alpaca's stream of minute bars and of their corrections."""

import threading
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from positions import alpaca_streams
from positions.clock import Clock
from positions.market.feeds.alpaca.access import AlpacaAccess
from positions.market.feeds.alpaca.counts import FeedCounts

if TYPE_CHECKING:
    from alpaca.data.live.stock import StockDataStream
    from alpaca.data.models import Bar

#: The stream is connected anew when it has said nothing for so many seconds.
DATA_TIMEOUT = 150.0


class BarStream:
    """From `start` to `stop` on a thread of its own; it reconnects by itself. `heard` is called there with each bar.

    `connected_since` is None while it is not connected, `problem` is why, "" where that is not known.
    """

    def __init__(
        self,
        access: AlpacaAccess,
        symbols: Sequence[str],
        clock: Clock,
        counts: FeedCounts,
        heard: Callable[[dict[str, Any]], None],
        data_timeout: float = DATA_TIMEOUT,
    ) -> None:
        self.connected_since: datetime | None = None
        self.problem = ""
        self._access, self._symbols, self._clock = access, symbols, clock
        self._counts, self._heard, self._data_timeout = counts, heard, data_timeout
        self._stopping = threading.Event()
        self._stream: StockDataStream | None = None

    def start(self) -> None:
        from alpaca.data.enums import DataFeed
        from alpaca.data.live.stock import StockDataStream

        stream = StockDataStream(
            self._access.key,
            self._access.secret,
            raw_data=True,
            feed=DataFeed(self._access.feed.value),
            url_override=self._access.stream_url,
            data_timeout=self._data_timeout,
        )
        stream.subscribe_bars(self._on_bar, *self._symbols)
        stream.subscribe_updated_bars(self._on_bar, *self._symbols)
        alpaca_streams.watch(stream, self._stopping, self._on_connected, self._on_lost)
        self._stream = stream
        threading.Thread(target=stream.run, name="alpaca-stream", daemon=True).start()

    def stop(self) -> None:
        self._stopping.set()
        if self._stream is not None:
            alpaca_streams.end(self._stream)

    async def _on_bar(self, bar: "Bar | dict[str, Any]") -> None:
        assert isinstance(bar, dict)  # raw_data
        self._heard(bar)

    def _on_connected(self) -> None:
        self.problem = ""
        self._counts.connections += 1
        self.connected_since = self._clock.now()

    def _on_lost(self, problem: str) -> None:
        self.connected_since = None
        self.problem = problem or self.problem
