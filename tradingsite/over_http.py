"""One short session traded over HTTP and WebSocket: `trade` in one process, a simulated Alpaca in another."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import requests
from django.conf import settings
from django.core.management.base import CommandError
from django.db.models import Count, Sum
from rich.console import Console

from positions.market.feeds.simulated import SimulatedMarket
from positions.models import Instrument, Trade
from positions.words import TradeStatus
from tradingsite import books

BOOK = "paper:over-http"
#: The first session of the simulated Alpaca closes early: 210 minutes and ten before them.
SPEED = 60
START_CASH = Decimal(100_000)
KEYS = {"APCA-API-KEY-ID": "any", "APCA-API-SECRET-KEY": "any"}


def trade_over_http(screen: Console, seed: int) -> dict[str, Any]:
    """Replace the book paper:over-http by such a session; returns what it came to. Raises CommandError."""
    books.clear(BOOK)
    universe = SimulatedMarket(1, seed).universe
    rows = zip(universe.symbols, universe.sectors, universe.sector_etfs, universe.tradable, strict=True)
    Instrument.objects.bulk_create(
        Instrument(book=BOOK, symbol=symbol, sector=sector, sector_etf=etf, tradable=tradable)
        for symbol, sector, etf, tradable in rows
    )
    with _simulated_alpaca(seed) as origin:
        screen.print(f"A session of 210 minutes at {SPEED} times the wall's speed, over {origin}.", soft_wrap=True)
        environment = {
            "BOOK": BOOK,
            "ALPACA_API_KEY": "any",
            "ALPACA_SECRET_KEY": "any",
            "ALPACA_TRADING_URL": origin,
            "ALPACA_DATA_URL": origin,
        }
        done = subprocess.run(
            [sys.executable, str(settings.BASE_DIR / "manage.py"), "trade", "--sessions", "1"],
            env={**os.environ, **environment},
            check=False,
        )
        if done.returncode:
            raise CommandError(f"trade ended with status {done.returncode}; see above.", returncode=done.returncode)
        account = requests.get(f"{origin}/v2/account", headers=KEYS, timeout=5).json()
    return _summary(screen, Decimal(account["equity"]) - START_CASH)


@contextmanager
def _simulated_alpaca(seed: int) -> Iterator[str]:
    command = ["alpaca_server", "--port", "0", "--speed", str(SPEED), "--seed", str(seed)]
    server = subprocess.Popen(
        [sys.executable, "-u", str(settings.BASE_DIR / "manage.py"), *command], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        told = re.search(r"http://\S+", server.stdout.readline())
        if told is None:
            raise CommandError("The simulated Alpaca did not start; see above.")
        yield told.group()
    finally:
        server.terminate()
        server.communicate()


def _summary(screen: Console, made: Decimal) -> dict[str, Any]:
    closed = Trade.objects.filter(book=BOOK, status=TradeStatus.CLOSED)
    total = closed.aggregate(n=Count("pk"), pnl=Sum("pnl"), fees=Sum("fees"))
    exits = dict(closed.order_by().values_list("exit_reason").annotate(n=Count("pk")))
    before_costs = (total["pnl"] or Decimal(0)) + (total["fees"] or Decimal(0))
    screen.print(
        f"{total['n']} trades closed, {before_costs:+.2f} dollars before costs by our tables, {made:+.2f} by the "
        f"broker's account. Exits: {', '.join(f'{reason} {n}' for reason, n in sorted(exits.items())) or 'none'}.",
        soft_wrap=True,
    )
    return {
        "book": BOOK,
        "trades": total["n"],
        "pnl_before_costs": float(before_costs),
        "account_made": float(made),
        "exits": exits,
    }
