"""The simulated Alpaca in a thread, on a market drawn by hand, and the real SDK that talks to it."""

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import requests
from alpaca.trading.client import TradingClient
from alpaca.trading.enums import OrderSide, TimeInForce
from alpaca.trading.requests import LimitOrderRequest, MarketOrderRequest, StopOrderRequest

from positions.broker.server import AlpacaServer
from positions.broker.standin.faults import Fault
from positions.broker.standin.rules import Rules, changed
from positions.market.bars import SessionBars, Universe
from positions.market.calendar import sessions_between
from positions.market.feeds import VixHistory
from positions.words import Feed
from tests.positions.server_thread import ServerThread

DAYS = (date(2025, 5, 9), date(2025, 5, 14))  # Friday warms up, Monday is traded, Tuesday and Wednesday follow
OPEN = datetime(2025, 5, 12, 13, 30, tzinfo=UTC)
CLOSE = datetime(2025, 5, 12, 20, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
SYMBOLS = ("KO", "F", "SPY")
PRICES = (100.0, 10.0, 500.0)
RULES = changed(Rules(), {"spread": 0, "rate_limit": 0})

#: Open, high, low and close, and the volume where it is not 1,000.
Prices = tuple[float, ...]


class DrawnMarket:
    """Flat at 100 (KO, and `others` named T0, T1...), 10 (F) and 500 (SPY), KO's first bars on the second day
    as drawn; the first day warms up (a `ReplayFeed`)."""

    name = Feed.SIMULATED
    length = MINUTE
    vix: VixHistory | None = None

    def __init__(self, ko: Sequence[Prices | None] = (), others: int = 0, days: tuple[date, date] = DAYS) -> None:
        self._ko, self._others, self._days = ko, others, days
        names, blank = (*SYMBOLS, *(f"T{number}" for number in range(others))), ("",) * (3 + others)
        self.universe = Universe(names, blank, blank, (True, True, False) + (True,) * others, 2)

    def sessions(self) -> Iterator[tuple[SessionBars, bool]]:
        for number, session in enumerate(sessions_between(*self._days)):
            values = np.empty((6, (session.close - session.open) // MINUTE, len(self.universe)))
            values[:4] = PRICES + (100.0,) * self._others
            values[4], values[5] = 1000.0, np.nan
            if number == 1:
                for minute, bar in enumerate(self._ko):
                    if bar is None:
                        values[:5, minute, 0] = np.nan
                    else:
                        values[: len(bar), minute, 0] = bar
            yield SessionBars(session, MINUTE, self.universe, values), number >= 1


class StandIn(ServerThread):
    """A server on a free port; use as a context manager. `reset` gives each test a market and rules of its own."""

    def __init__(self) -> None:
        super().__init__()
        self._ko: Sequence[Prices | None] = ()
        self._others, self._days = 0, DAYS
        self.server = AlpacaServer(lambda: DrawnMarket(self._ko, self._others, self._days), RULES)

    async def _start(self) -> int:
        return await self.server.start("127.0.0.1", 0)

    async def _stop(self) -> None:
        await self.server.stop()

    # What a test does to it

    def reset(
        self,
        ko: Sequence[Prices | None] = (),
        at: datetime = OPEN,
        others: int = 0,
        days: tuple[date, date] = DAYS,
        **rules: object,
    ) -> None:
        self._ko, self._others, self._days = ko, others, days
        self.control("POST", "reset", rules)
        self.go(to=at)

    def go(self, seconds: float | None = None, to: datetime | None = None) -> None:
        """Move the clock."""
        self.control("POST", "clock", {"seconds": seconds} if to is None else {"to": to.isoformat()})

    def arm(self, fault: Fault, route: str, count: int | None = 1, seconds: float | None = None) -> None:
        self.control("POST", "faults", {"fault": fault, "route": route, "count": count, "seconds": seconds})

    def set(self, **rules: object) -> None:
        self.control("PATCH", "rules", rules)

    def control(self, method: str, path: str, body: object = None) -> requests.Response:
        response = requests.request(method, f"{self.origin}/control{path and f'/{path}'}", json=body, timeout=5)
        response.raise_for_status()
        return response

    def client(self, **options: Any) -> TradingClient:
        client = TradingClient("key", "secret", paper=True, url_override=self.origin, **options)
        client._retry = 0
        return client


def market(symbol: str, quantity: float, side: OrderSide = OrderSide.BUY, **more: Any) -> MarketOrderRequest:
    tif = more.pop("tif", TimeInForce.DAY)
    return MarketOrderRequest(symbol=symbol, qty=quantity, side=side, time_in_force=tif, **more)


def limit(
    symbol: str, quantity: float, price: float, side: OrderSide = OrderSide.BUY, **more: Any
) -> LimitOrderRequest:
    return LimitOrderRequest(
        symbol=symbol, qty=quantity, side=side, time_in_force=TimeInForce.DAY, limit_price=price, **more
    )


def stop(symbol: str, quantity: float, price: float, side: OrderSide = OrderSide.SELL, **more: Any) -> StopOrderRequest:
    return StopOrderRequest(
        symbol=symbol, qty=quantity, side=side, time_in_force=TimeInForce.GTC, stop_price=price, **more
    )
