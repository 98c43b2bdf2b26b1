"""The database of a trading process is stopped, or stands still, while its positions are to be closed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alpaca.trading.client import TradingClient
from django.conf import settings as site

from positions.halting import Halt, halt
from positions.market.feeds.simulated import SimulatedMarket
from tests.private_postgres import PrivatePostgres, private_postgres
from tests.site.test_alpaca_server_command import serving
from tests.site.test_trade_command import BOOK
from tests.site.test_trade_killed import until

pytestmark = pytest.mark.slow


@contextmanager
def stopped(server: PrivatePostgres):
    server.stop()
    yield
    server.start()


def watch(server: PrivatePostgres) -> None:
    """The tables, and a watchlist."""
    command = [sys.executable, str(site.BASE_DIR / "manage.py"), "migrate", "--verbosity", "0"]
    subprocess.run(command, env={**os.environ, "DATABASE_URL": server.url}, check=True)
    universe = SimulatedMarket(1, 7).universe
    with psycopg.connect(server.url) as connection, connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO instruments (book, symbol, sector, sector_etf, tradable) VALUES (%s, %s, '', '', %s)",
            [(BOOK, symbol, tradable) for symbol, tradable in zip(universe.symbols, universe.tradable, strict=True)],
        )


def rows(server: PrivatePostgres, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(server.url) as connection:
        return connection.execute(query).fetchall()


@pytest.mark.parametrize("away", [stopped, PrivatePostgres.frozen], ids=["stopped", "frozen"])
def test_exits_happen_while_the_database_is_away_and_are_stored_once_it_is_back(
    tmp_path: Path, settings: Any, away: Callable[[PrivatePostgres], AbstractContextManager[None]]
) -> None:
    settings.VAR_DIR = tmp_path / "live"
    settings.VAR_DIR.mkdir()
    with private_postgres() as server, serving(tmp_path, "--speed", "20", "--seed", "7") as (_, origin):
        watch(server)
        environment = {
            **os.environ, "BOOK": BOOK, "ALPACA_API_KEY": "key", "ALPACA_SECRET_KEY": "secret",
            "ALPACA_TRADING_URL": origin, "ALPACA_DATA_URL": origin, "VAR_DIR": str(settings.VAR_DIR),
            "DATABASE_URL": server.url,
        }  # fmt: skip
        client = TradingClient("key", "secret", url_override=origin)
        log = (tmp_path / "log").open("w")
        command = [sys.executable, str(site.BASE_DIR / "manage.py"), "trade"]
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            until(240, lambda: len(client.get_all_positions()) >= 3)
            with away(server):
                began = time.monotonic()
                halt(BOOK, Halt("tests", datetime.now(UTC), flatten=True))
                until(60, lambda: not client.get_all_positions())
                took = time.monotonic() - began
            until(60, lambda: not rows(server, "SELECT 1 FROM trades WHERE status IN ('open', 'exiting')"))
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
        finally:
            process.kill()
            process.wait()
            log.close()
        print(f"closed {took:.1f} s after the database was gone")  # noqa: T201  # the figure
        assert client.get_orders() == []
        assert "database_is_back" in (tmp_path / "log").read_text()
        told = rows(
            server,
            "SELECT t.exit_reason, e.rule, e.status FROM trades t LEFT JOIN position_exits e ON e.trade_id = t.id "
            "WHERE t.status = 'closed' AND t.exited_at >= (SELECT MAX(exited_at) - interval '5 minutes' FROM trades)",
        )
        assert ("manual", "manual", "done") in told
        final = "SELECT COUNT(*) FROM position_exits WHERE status <> 'superseded' GROUP BY trade_id"
        assert {count for (count,) in rows(server, final)} == {1}
