"""Historical bars of Alpaca over REST: pages, waits and attempts."""

import json
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from positions.clock import Clock
from positions.market.bar_files import MINUTE, BarRows, joined, microseconds
from positions.market.feeds.alpaca.access import AlpacaAccess
from positions.market.feeds.alpaca.errors import AlpacaRefused, AlpacaUnreachable
from positions.market.feeds.alpaca.wire import bar_rows

#: Seconds to connect and to wait for a reply: the SDK itself would wait for ever.
TIMEOUTS = (3.0, 5.0)
#: Attempts at one request, with waits of 0.5, 1, 2, ... seconds between them, or until the rate limit's reset.
ATTEMPTS = 6
FIRST_WAIT = timedelta(seconds=0.5)
LONGEST_WAIT = timedelta(seconds=65)
#: What one request asks for: symbols (the URL must stay short) and bars (the most that Alpaca gives).
SYMBOLS_A_REQUEST, BARS_A_PAGE = 200, 10_000


class AlpacaBars:
    """Historical bars over REST, unadjusted, with limits of our own on time and attempts. Use one a thread.

    `bad_symbols` are those that Alpaca refuses as malformed; they are left out from then on.
    """

    def __init__(
        self,
        access: AlpacaAccess,
        clock: Clock,
        length: timedelta = MINUTE,
        *,
        attempts: int = ATTEMPTS,
        timeouts: tuple[float, float] = TIMEOUTS,
    ) -> None:
        from alpaca.data.historical.stock import StockHistoricalDataClient

        self.length = length
        self.bad_symbols: set[str] = set()
        self._access, self._clock, self._attempts = access, clock, attempts
        self._client = StockHistoricalDataClient(
            access.key, access.secret, raw_data=True, url_override=access.origin or None
        )
        self._client._retry = 0  # the SDK's own retries are blind: three seconds each, whatever the reply says
        session = self._client._session
        session.request = partial(session.request, timeout=timeouts)  # type: ignore[method-assign]  # it has no setting

    def bars(self, symbols: Sequence[str], start: datetime, end: datetime) -> BarRows:
        """All completed bars that start in [start, end), on its grid. Symbols without one, or unknown, have no rows.

        Raises AlpacaRefused and AlpacaUnreachable.
        """
        parts = []
        wanted = [symbol for symbol in symbols if symbol not in self.bad_symbols]
        for first in range(0, len(wanted), SYMBOLS_A_REQUEST):
            parts += self._pages(wanted[first : first + SYMBOLS_A_REQUEST], start, end)
        rows = joined(parts)
        offset = rows.starts - microseconds(start)
        asked = (offset >= 0) & (offset % (self.length // timedelta(microseconds=1)) == 0)
        return rows.take(asked & (rows.starts < microseconds(end)))

    def _pages(self, symbols: list[str], start: datetime, end: datetime) -> list[BarRows]:
        query = {
            "timeframe": f"{self.length // MINUTE}Min",
            "start": start.isoformat(),
            "end": (end - timedelta(microseconds=1)).isoformat(),  # theirs includes its end
            "feed": self._access.feed.value,
            "adjustment": "raw",
            "limit": BARS_A_PAGE,
        }
        pages: list[BarRows] = []
        token = None
        while symbols:
            try:
                page = self._get("/stocks/bars", {**query, "symbols": ",".join(symbols), "page_token": token})
            except _BadSymbol as error:
                self.bad_symbols.add(error.symbol)
                symbols = [symbol for symbol in symbols if symbol != error.symbol]
                pages, token = [], None
                continue
            pages.append(self._parsed(page))
            token = page.get("next_page_token")
            if not token:
                break
        return pages

    def _parsed(self, page: dict[str, Any]) -> BarRows:
        now = microseconds(self._clock.now())
        found = page.get("bars") or {}
        rows = bar_rows((symbol, bar, now) for symbol, bars in found.items() for bar in bars or ())
        return rows.take(rows.starts + self.length // timedelta(microseconds=1) <= now)

    def _get(self, path: str, query: dict[str, Any]) -> dict[str, Any]:
        """One page. Waits and asks again where that may help."""
        from alpaca.common.exceptions import APIError
        from requests.exceptions import RequestException

        problem = ""
        for attempt in range(self._attempts):
            earliest = self._clock.now()
            try:
                page = self._client.get(path, query)
                if isinstance(page, dict):
                    return page
                problem = "answered with something else than bars"
            except APIError as error:
                problem = f"answered {error.status_code}: {_said(error)}"
                if error.status_code != 429 and error.status_code < 500:
                    _refuse(error, query["symbols"])
                earliest = _reset(error) or earliest
            except RequestException as error:
                problem = f"did not answer ({type(error).__name__})"
            if attempt + 1 < self._attempts:
                self._clock.sleep_until(self._next_attempt(attempt, earliest))
        raise AlpacaUnreachable(
            f"Alpaca {problem}, {self._attempts} times for {path}; check the connection and status.alpaca.markets, "
            "then try again"
        )

    def _next_attempt(self, attempt: int, earliest: datetime) -> datetime:
        """Doubling waits of which a random half is left out, so that clients do not return together."""
        now = self._clock.now()
        pause: timedelta = FIRST_WAIT * 2**attempt * random.uniform(0.5, 1)
        return min(max(now, earliest) + pause, now + LONGEST_WAIT)


class _BadSymbol(Exception):
    def __init__(self, symbol: str) -> None:
        self.symbol = symbol


def _refuse(error: Any, symbols: str) -> None:
    """Raises what a reply below 500 means, of which asking again makes nothing else."""
    said = _said(error)
    _, marker, symbol = said.partition("invalid symbol: ")
    if marker and symbol in symbols.split(","):
        raise _BadSymbol(symbol) from error
    advice = "check the request"
    if error.status_code == 401 or (error.status_code == 403 and "subscription" not in said):
        advice = "check ALPACA_API_KEY and ALPACA_SECRET_KEY"
    elif error.status_code == 403:
        advice = "use the iex feed, or end 15 minutes before now"
    raise AlpacaRefused(f"Alpaca refused ({error.status_code}): {said}; {advice}") from error


def _said(error: Any) -> str:
    """The message in an error's body, which may be JSON or a proxy's page, in one short line."""
    body = str(error)
    try:
        message = json.loads(body)["message"]
    except (ValueError, KeyError, TypeError):
        message = body
    return " ".join(str(message).split())[:200] or "nothing"


def _reset(error: Any) -> datetime | None:
    """When the rate limit is lifted, where the reply says so."""
    raw = error.response.headers.get("X-RateLimit-Reset", "")
    return datetime.fromtimestamp(int(raw), UTC) if raw.isdecimal() else None
