"""The endpoints of the market data API, for stocks."""

import base64
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from positions.broker.standin import wire
from positions.broker.standin.calls import Answer, Body, Call, DataRefused
from positions.broker.standin.rules import Refused
from positions.broker.standin.tape import Bar
from positions.broker.standin.venue import Venue
from positions.market.calendar import NEW_YORK

RECENT = timedelta(minutes=15)
MOST_BARS, BARS_A_PAGE = 10_000, 1000
FEEDS = ("sip", "iex", "delayed_sip", "otc", "boats", "overnight")
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
_SYMBOL = re.compile(r"[A-Z]{1,6}(\.[A-Z]{1,2})?")
_TIMEFRAME = re.compile(r"(\d+)(Min|T|Hour|H|Day|D)")
_UNITS = {"Min": MINUTE, "T": MINUTE, "Hour": 60 * MINUTE, "H": 60 * MINUTE, "Day": DAY, "D": DAY}


class DataApi:
    def __init__(self, venue: Venue) -> None:
        self.venue = venue

    def get_bars(self, call: Call) -> Body:
        symbols, width = self._symbols(call), self._width(call)
        try:
            limit, start, end = call.whole("limit", BARS_A_PAGE), call.moment("start"), call.moment("end")
        except Refused as refused:
            raise DataRefused(400, refused.message) from refused
        if limit > MOST_BARS:
            raise DataRefused(400, f"invalid limit: larger than the allowed maximum of {MOST_BARS}")
        now = self.venue.now
        sip = self._feed_of(call, "sip") == "sip" and not self.venue.rules.recent_sip
        end = end or (now - RECENT if sip else now)
        if sip and end > now - RECENT:
            raise DataRefused(403, "subscription does not permit querying recent SIP data")
        start = start or now.astimezone(NEW_YORK).replace(hour=0, minute=0, second=0, microsecond=0)
        found: list[tuple[str, Bar]] = []
        for symbol in sorted(set(symbols) & set(self.venue.tape.row_of)):
            bars = self.venue.tape.bars(symbol, width, start, end, self._told)
            found += [(symbol, bar) for bar in (bars[::-1] if call.query.get("sort") == "desc" else bars)]
        first = _offset(call.query.get("page_token"))
        page: dict[str, list[Any]] = {}
        for symbol, bar in found[first : first + limit]:
            page.setdefault(symbol, []).append(wire.bar_json(bar))
        more = first + limit < len(found)
        return {"bars": page, "next_page_token": _token(first + limit) if more else None}

    def get_latest_bars(self, call: Call) -> Body:
        known = self._known(call)
        bars = {symbol: self.venue.tape.last_bar(symbol, self._told) for symbol in known}
        return {"bars": {symbol: wire.bar_json(bar) for symbol, bar in bars.items() if bar}}

    def get_latest_trades(self, call: Call) -> Body:
        return {"trades": {symbol: wire.trade_json(self.venue, symbol) for symbol in self._known(call)}}

    def get_latest_quotes(self, call: Call) -> Body:
        return {"quotes": {symbol: wire.quote_json(self.venue, symbol) for symbol in self._known(call)}}

    def get_snapshots(self, call: Call) -> Body:
        known = self._known(call)
        return {symbol: self._snapshot(symbol) if symbol in known else None for symbol in self._symbols(call)}

    def _snapshot(self, symbol: str) -> dict[str, Any]:
        tape, now = self.venue.tape, self.venue.now
        minute = tape.last_bar(symbol, self._told)
        days = tape.bars(symbol, DAY, now - 10 * DAY, now, self._told)
        return {
            "dailyBar": wire.bar_json(days[-1]) if days else None,
            "latestQuote": wire.quote_json(self.venue, symbol),
            "latestTrade": wire.trade_json(self.venue, symbol),
            "minuteBar": wire.bar_json(minute) if minute else None,
            "prevDailyBar": wire.bar_json(days[-2]) if len(days) > 1 else None,
        }

    @property
    def _told(self) -> datetime:
        """Bars that were complete by then are told now."""
        delay = self.venue.rules.bar_delay
        return datetime.min.replace(tzinfo=UTC) if delay is None else self.venue.now - timedelta(seconds=delay)

    def _symbols(self, call: Call) -> list[str]:
        symbols = wire.symbols_of(call.query.get("symbols", ""))
        if not symbols:
            raise DataRefused(400, "symbols is required")
        for symbol in symbols:
            if not _SYMBOL.fullmatch(symbol):
                raise DataRefused(400, f"invalid symbol: {symbol}")
        return symbols

    def _known(self, call: Call) -> list[str]:
        """Those of the symbols asked for that exist, of a feed that may be read."""
        plan = "sip" if self.venue.rules.recent_sip else "iex"
        if self._feed_of(call, plan) == "sip" and plan != "sip":
            raise DataRefused(403, "subscription does not permit querying recent SIP data")
        return [symbol for symbol in self._symbols(call) if symbol in self.venue.tape.row_of]

    def _feed_of(self, call: Call, default: str) -> str:
        feed = call.query.get("feed", default)
        if feed not in FEEDS:
            raise DataRefused(400, f"invalid feed: {feed}")
        return feed

    def _width(self, call: Call) -> timedelta:
        text = call.query.get("timeframe", "")
        parsed = _TIMEFRAME.fullmatch(text)
        width = int(parsed[1]) * _UNITS[parsed[2]] if parsed else timedelta(0)
        if not width or width % self.venue.tape.length:
            raise DataRefused(400, f"invalid timeframe: {text}")
        return width


def _offset(token: str | None) -> int:
    try:
        return int(base64.b64decode(token or "MA==", validate=True))
    except ValueError:
        raise DataRefused(400, "invalid page_token") from None


def _token(offset: int) -> str:
    return base64.b64encode(str(offset).encode()).decode()


ROUTES: list[tuple[str, str, Callable[[DataApi, Call], Body | Answer]]] = [
    ("GET", "/v2/stocks/bars", DataApi.get_bars),
    ("GET", "/v2/stocks/bars/latest", DataApi.get_latest_bars),
    ("GET", "/v2/stocks/trades/latest", DataApi.get_latest_trades),
    ("GET", "/v2/stocks/quotes/latest", DataApi.get_latest_quotes),
    ("GET", "/v2/stocks/snapshots", DataApi.get_snapshots),
]
