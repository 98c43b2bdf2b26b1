"""A trading process that is killed in the middle of a session: another takes over, every share has its stop, and people
are told once of each."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from alpaca.trading.client import TradingClient
from django.conf import settings as site

from positions.market.feeds.simulated import SimulatedMarket
from positions.models import LIVE_STATUSES, Instrument, Trade, WorkerLease
from positions.words import TradeStatus
from tests.site.test_alpaca_server_command import serving
from tests.site.test_notifications import Service, service  # noqa: F401  # a fixture
from tests.site.test_trade_command import BOOK, environment

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]


def until(seconds: float, so: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := so()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


def protected(client: TradingClient) -> bool:
    """Whether each position has exactly one order, for exactly its shares."""
    held = {position.symbol: abs(int(position.qty)) for position in client.get_all_positions()}
    closing = [(order.symbol, int(order.qty)) for order in client.get_orders() if order.symbol in held]
    return sorted(closing) == sorted(held.items())


def test_a_standby_takes_over_from_one_that_was_killed(tmp_path: Path, service: Service) -> None:  # noqa: F811
    universe = SimulatedMarket(1, 7).universe
    Instrument.objects.bulk_create(
        Instrument(book=BOOK, symbol=symbol, tradable=tradable)
        for symbol, tradable in zip(universe.symbols, universe.tradable, strict=True)
    )
    with serving(tmp_path, "--speed", "20", "--seed", "7") as (_, origin):
        inherited = {**os.environ, **environment(origin, tmp_path / "live"), "NOTIFY_URLS": service.url}
        client = TradingClient("key", "secret", url_override=origin)
        command = [sys.executable, str(site.BASE_DIR / "manage.py"), "trade"]
        first = subprocess.Popen(command, env=inherited, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        standby = None
        try:
            holder = until(60, lambda: WorkerLease.objects.first()).holder
            standby = subprocess.Popen(command, env=inherited, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            until(240, lambda: len(client.get_all_positions()) >= 3)
            first.kill()
            killed = time.monotonic()
            until(15, lambda: WorkerLease.objects.exclude(holder=holder).exists())
            took_over = time.monotonic() - killed
            until(60, lambda: protected(client))
            standby.send_signal(signal.SIGTERM)
            assert standby.wait(15) == 0
        finally:
            for process in filter(None, (first, standby)):
                process.kill()
                process.wait()
        print(f"taken over after {took_over:.1f} s")  # noqa: T201  # the figure
        ours = {trade.symbol: trade.quantity for trade in Trade.objects.filter(book=BOOK, status__in=LIVE_STATUSES)}
        assert {
            position.symbol: abs(int(position.qty)) for position in client.get_all_positions()
        }.items() <= ours.items()
        assert protected(client)
        assert [line.split(" ", 1)[1] for line in service.lines if " trades " in line] == [
            "trades in the place of one that died."
        ]
        closed = Trade.objects.filter(book=BOOK, status=TradeStatus.CLOSED).values_list("symbol", flat=True)
        told = [line.split()[0] for line in service.lines if " closed by " in line]
        assert sorted(told) == sorted(closed)
