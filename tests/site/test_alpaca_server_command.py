"""The simulated Alpaca as a process of its own: it announces itself, trades in its own time, and ends when told."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from alpaca.trading.client import TradingClient
from django.conf import settings as site
from django.core.management import CommandError, call_command

from tests.positions.stand_in import market


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process and its origin."""
    process = subprocess.Popen(
        [sys.executable, str(site.BASE_DIR / "manage.py"), "alpaca_server", "--port", "0", *options],
        env={**os.environ, "VAR_DIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        first = process.stdout.readline()
        yield process, re.search(r"http://\S+", first).group()
    finally:
        process.kill()
        process.communicate()


def control(origin: str) -> dict:
    return requests.get(f"{origin}/control", timeout=5).json()


def test_a_running_clock_trades_by_itself_and_sigterm_ends_it(tmp_path: Path) -> None:
    with serving(tmp_path, "--sessions", "1", "--speed", "600", "--rule", "cash=5000") as (process, origin):
        client = TradingClient("key", "secret", url_override=origin)
        until = time.monotonic() + 20
        while not client.get_clock().is_open:
            assert time.monotonic() < until
            time.sleep(0.05)
        assert client.get_account().cash == "5000"
        order = client.submit_order(market("XTA", 1))
        while client.get_order_by_id(order.id).status != "filled":
            assert time.monotonic() < until
            time.sleep(0.05)
        assert client.get_open_position("XTA").qty == "1"
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert process.stderr.read() == ""


def test_faults_and_bars_may_be_given_at_the_start(tmp_path: Path) -> None:
    bars = tmp_path / "bars.csv"
    rows = [f"KO,2024-01-03T14:{30 + minute}:00Z,60,61,59,60,1000" for minute in range(5)]
    bars.write_text("\n".join(["symbol,timestamp,open,high,low,close,volume", *rows]) + "\n")
    options = ("--bars", str(bars), "--lockstep", "--fault", "500:2@GET /v2/clock")
    with serving(tmp_path, *options) as (process, origin):
        told = control(origin)
        assert (told["now"], told["lockstep"]) == ("2024-01-03T14:20:00Z", True)
        assert told["faults"] == [{"fault": "500", "route": "GET /v2/clock", "count": 2, "seconds": None}]
        headers = {"APCA-API-KEY-ID": "key", "APCA-API-SECRET-KEY": "secret"}
        statuses = [requests.get(f"{origin}/v2/clock", headers=headers, timeout=5).status_code for _ in range(3)]
        assert statuses == [500, 500, 200]
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        assert process.stderr.read() == "Interrupted.\n"


def test_a_running_clock_skips_the_night(tmp_path: Path) -> None:
    with serving(tmp_path, "--sessions", "2", "--speed", "36000") as (_, origin):
        seen = [control(origin)["now"]]
        until = time.monotonic() + 20
        while seen[-1][:10] == seen[0][:10]:
            assert time.monotonic() < until
            time.sleep(0.02)
            seen.append(control(origin)["now"])
    assert [moment for moment in seen if not "14:00" < moment[11:16] < "22:00"] == []


@pytest.mark.parametrize(
    ("option", "value", "named"),
    [
        ("--rule", "moon=1", "moon"),
        ("--rule", "release_delay=soon", "release_delay"),
        ("--rule", "repeat_cancel=maybe", "repeat_cancel"),
        ("--rule", "release_delay", "NAME=VALUE"),
        ("--fault", "moon@GET /v2/clock", "moon"),
        ("--port", "99999", "99999"),
        ("--speed", "0", "speed"),
    ],
)
def test_bad_options_are_refused_by_name(option: str, value: str, named: str) -> None:
    with pytest.raises(CommandError) as refused:
        call_command("alpaca_server", option, value)
    assert named in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_port_that_is_taken_is_told_in_one_line() -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(CommandError, match="give another --port") as refused:
            call_command("alpaca_server", "--lockstep", "--port", str(taken.getsockname()[1]))
    assert refused.value.returncode == 2


def test_the_server_is_not_loaded_before_it_serves() -> None:
    code = "import sys, tradingsite.management.commands.alpaca_server; print('aiohttp' in sys.modules)"
    setup = "import django; django.setup(); "
    done = subprocess.run(
        [sys.executable, "-c", setup + code],
        cwd=site.BASE_DIR,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "tradingsite.settings"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout.lower()) is False
