"""`trade` and `run_monitors` as commands: what they refuse, who holds the lease, how they end, what they watch."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from alpaca.trading.client import TradingClient
from django.conf import settings as site
from django.core.management import CommandError, call_command
from django.db import InterfaceError, OperationalError, connection

from positions import leases
from positions.models import ExternalPosition, Instrument, Trade, WorkerLease
from tests.positions.stand_in import market
from tests.site.test_alpaca_server_command import serving
from tradingsite import schedules
from tradingsite.trading import result_written

pytestmark = pytest.mark.django_db(transaction=True)

BOOK = "paper:tests"
HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("server"), "--speed", "30", "--sessions", "1") as (_, origin):
        yield origin


@pytest.fixture
def origin(server: str, settings: Any, tmp_path: Path) -> str:
    """A simulated Alpaca ten minutes before the open, in its own time."""
    requests.post(f"{server}/control/reset", timeout=5).raise_for_status()
    settings.BOOK, settings.ALPACA_API_KEY, settings.ALPACA_SECRET_KEY = BOOK, "key", "secret"
    settings.ALPACA_TRADING_URL = settings.ALPACA_DATA_URL = server
    settings.VAR_DIR = tmp_path
    Instrument.objects.bulk_create(Instrument(book=BOOK, symbol=symbol) for symbol in ("XTA", "XFA", "XX"))
    return server


def refusal(command: str = "trade", **options: Any) -> CommandError:
    with pytest.raises(CommandError) as refused:
        call_command(command, **options)
    assert "\n" not in str(refused.value)
    return refused.value


@pytest.mark.parametrize("command", ["trade", "run_monitors"])
def test_a_book_that_is_no_account_is_refused(settings: Any, command: str) -> None:
    settings.BOOK = "simulated"
    assert (refusal(command).returncode, "set BOOK=paper:<account>" in str(refusal(command))) == (2, True)


def test_without_a_guard_nothing_is_traded(origin: str) -> None:
    fault = {"fault": "500", "route": "POST /v2/orders", "count": None, "seconds": None}
    requests.post(f"{origin}/control/faults", json=fault, timeout=5).raise_for_status()
    refused = refusal(sessions=1)
    assert (refused.returncode, str(refused)) == (1, "Not fit to trade: guard; see above.")
    assert not WorkerLease.objects.exists()


def test_an_empty_watchlist_is_told(origin: str) -> None:
    Instrument.objects.all().delete()
    assert "The watchlist of book paper:tests is empty" in str(refusal())


def test_bars_of_another_place_than_the_simulated_account_are_refused(origin: str, settings: Any) -> None:
    settings.ALPACA_DATA_URL = ""
    assert "is simulated; set ALPACA_DATA_URL to the same" in str(refusal())


def test_real_money_is_never_traded_at_a_simulated_alpaca(origin: str, settings: Any) -> None:
    settings.BOOK, settings.ALPACA_LIVE = "live:tests", "I_ACCEPT_REAL_ORDERS"
    assert "is of real money" in str(refusal())


def test_monitors_end_at_once_where_another_process_watches(origin: str, capsys: Any) -> None:
    lease = leases.acquire(BOOK, "trade", datetime.now(UTC), HOUR)
    WorkerLease.objects.filter(pk=lease.pk).update(holder="elsewhere:7")
    call_command("run_monitors", once=True)
    assert "Nothing to do: trade of paper:tests is being done already: elsewhere:7 holds it" in capsys.readouterr().out


def test_a_scheduled_run_does_not_wait_for_a_process_that_has_been_at_it_for_longer(origin: str, capsys: Any) -> None:
    lease = leases.acquire(BOOK, "trade", datetime.now(UTC), HOUR)
    since = datetime.now(UTC) - timedelta(seconds=86)
    WorkerLease.objects.filter(pk=lease.pk).update(holder="elsewhere:7", acquired_at=since)
    call_command("run_monitors", seconds=85)
    assert "Nothing to do: trade of paper:tests is being done already" in capsys.readouterr().out


def test_a_scheduled_run_takes_over_from_the_one_before_and_ends_in_its_time(origin: str, capsys: Any) -> None:
    lease = leases.acquire(BOOK, "trade", datetime.now(UTC), timedelta(seconds=3))
    WorkerLease.objects.filter(pk=lease.pk).update(holder="elsewhere:7")
    began = time.monotonic()
    call_command("run_monitors", seconds=7)
    assert 7 <= time.monotonic() - began < 12
    told = capsys.readouterr().out
    assert "Standing by: trade of paper:tests is being done already: elsewhere:7 holds it" in told
    assert "Trading paper:tests: 3 symbols, 0 open trades." in told
    assert not WorkerLease.objects.exists()


def test_a_standby_takes_over_once_the_lease_has_run_out(origin: str, capsys: Any) -> None:
    lease = leases.acquire(BOOK, "trade", datetime.now(UTC), timedelta(seconds=3))
    WorkerLease.objects.filter(pk=lease.pk).update(holder="elsewhere:7")
    began = time.monotonic()
    with ended_after(8):
        assert refusal().returncode == 130
    assert 2 < time.monotonic() - began < 15
    told = capsys.readouterr().out
    assert "Standing by: trade of paper:tests is being done already: elsewhere:7 holds it" in told
    assert "Trading paper:tests: 3 symbols, 0 open trades." in told


@contextmanager
def ended_after(seconds: float) -> Iterator[None]:
    """Ctrl-C after so long."""
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@pytest.mark.slow
def test_monitors_list_what_is_not_ours_and_protect_it_if_told_to(origin: str) -> None:
    from constance import config

    config.EXTERNAL_POSITIONS = "protect"
    client = TradingClient("key", "secret", url_override=origin)
    hold(client, "XTA", 5)
    call_command("run_monitors", max_ticks=2)
    assert ExternalPosition.objects.get().trade == Trade.objects.get()
    (stop,) = client.get_orders()
    assert (stop.symbol, stop.qty, stop.order_type.value) == ("XTA", "5", "stop")


@pytest.mark.slow
def test_the_schedule_alone_protects_a_position_and_leaves_it_by_a_rule(
    origin: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As qcluster runs it each minute where no `trade` and no `run_monitors` is at work."""
    from constance import config

    config.EXTERNAL_POSITIONS, config.TIME_LIMIT_MINUTES, config.COST_PER_SHARE = "manage", 1.0, 5.0
    for name, value in environment(origin, tmp_path).items():
        monkeypatch.setenv(name, value)
    client = TradingClient("key", "secret", url_override=origin)
    hold(client, "XTA", 5)
    for _ in range(3):
        assert "Trading paper:tests" in schedules.monitors()
        if not client.get_all_positions():
            break
    trade = Trade.objects.get()
    assert (trade.status, trade.exit_reason) == ("closed", "time_limit")
    assert list(trade.intents.order_by("id").values_list("step", flat=True)) == ["entry", "stop", "exit"]
    assert (client.get_all_positions(), client.get_orders()) == ([], [])
    assert not WorkerLease.objects.exists()


def hold(client: TradingClient, symbol: str, shares: int) -> None:
    """Buy by hand once the market is open."""
    until = time.monotonic() + 60
    while not client.get_clock().is_open:
        assert time.monotonic() < until
        time.sleep(0.1)
    client.submit_order(market(symbol, shares))
    while not client.get_all_positions():
        assert time.monotonic() < until
        time.sleep(0.1)


def test_a_process_that_is_told_to_end_does_so_within_five_seconds(origin: str, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-u", str(site.BASE_DIR / "manage.py"), "trade"],
        env={**os.environ, **environment(origin, tmp_path / "other")},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        while "Trading paper:tests" not in process.stdout.readline():
            assert process.poll() is None
        told = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert time.monotonic() - told < 5
    finally:
        process.kill()
        process.communicate()
    assert not WorkerLease.objects.exists()


@pytest.mark.parametrize("lost", [OperationalError, InterfaceError])
def test_where_the_database_is_away_at_the_end_the_end_is_told_and_counts_are_null(
    lost: type[Exception], tmp_path: Path
) -> None:
    def is_away(*_: Any) -> None:
        raise lost("away")

    def interrupted(path: Path) -> None:
        with ExitStack() as away, result_written(path, BOOK):
            away.enter_context(connection.execute_wrapper(is_away))
            raise CommandError("Interrupted", returncode=130)

    path = tmp_path / "out.json"
    with pytest.raises(CommandError, match="Interrupted"):
        interrupted(path)
    told = json.loads(path.read_text())
    assert told["began_at"] <= told["ended_at"]
    assert [told[name] for name in ("book", "entered", "closed", "open")] == [BOOK, None, None, None]


def environment(origin: str, folder: Path) -> dict[str, str]:
    """Of another process that trades at this simulated Alpaca, on the tests' database."""
    return {
        "BOOK": BOOK, "ALPACA_API_KEY": "key", "ALPACA_SECRET_KEY": "secret", "ALPACA_TRADING_URL": origin,
        "ALPACA_DATA_URL": origin, "VAR_DIR": str(folder), "DATABASE_URL": _database(),
    }  # fmt: skip


def _database() -> str:
    about = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"sqlite:///{about['NAME']}"
    return f"postgres://{about['USER']}@{about['HOST']}:{about['PORT'] or 5432}/{about['NAME']}"
