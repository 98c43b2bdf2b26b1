"""A signal and a close asked of the site, carried out by the trading process at a simulated Alpaca."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from alpaca.trading.client import TradingClient
from django.conf import settings as site
from django.contrib.auth.models import User
from rest_framework.test import APIClient

from ml.models import TradeFeatures
from positions.models import Trade
from positions.words import ExitReason, TradeStatus
from tests.site.test_acting import post
from tests.site.test_trade_command import BOOK, _database, origin, server  # noqa: F401  # fixtures

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]


def until(holds: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.2)


def test_a_signal_and_a_close(origin: str, tmp_path: Path) -> None:  # noqa: F811
    client = APIClient()
    client.force_authenticate(User.objects.create_superuser("ada"))
    account = TradingClient("key", "secret", url_override=origin)

    def answer_to(address: str, body: dict[str, object], key: str) -> dict[str, object]:
        url = post(client, address, body, key=key).json()["url"]
        until(lambda: client.get(url).json()["state"] not in ("waiting", "taken"))
        return client.get(url).json()

    environment = {
        "BOOK": BOOK, "ALPACA_API_KEY": "key", "ALPACA_SECRET_KEY": "secret", "ALPACA_TRADING_URL": origin,
        "ALPACA_DATA_URL": origin, "VAR_DIR": str(tmp_path / "other"), "DATABASE_URL": _database(),
    }  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-u", str(site.BASE_DIR / "manage.py"), "trade"], env={**os.environ, **environment}
    )
    plan = {"symbol": "XTA", "side": "long", "stop": 0.01, "target": 1_000_000}
    try:
        until(lambda: client.get("/readyz").status_code == 200)
        assert answer_to("/api/v1/signals/", plan, "early")["answer"] == "market_closed"
        until(lambda: account.get_clock().is_open)
        told: dict[str, object] = {}
        for attempt in range(20):  # until the first bars are in
            told = answer_to("/api/v1/signals/", plan, f"k{attempt}")
            if told["answer"] != "no_bar":
                break
            time.sleep(1)
        assert (told["state"], told["answer"]) == ("accepted", "")
        trade = Trade.objects.get(signal_key=told["signal_key"])
        until(lambda: account.get_all_positions())
        until(lambda: Trade.objects.get(pk=trade.pk).status == TradeStatus.OPEN)
        assert answer_to("/api/v1/positions/XTA/close/", {"reason": "news"}, "close")["state"] == "accepted"
        until(lambda: Trade.objects.get(pk=trade.pk).status == TradeStatus.CLOSED)
    finally:
        process.terminate()
        process.wait(20)
    trade.refresh_from_db()
    assert (trade.strategy, trade.exit_reason) == ("api:ada", ExitReason.MANUAL)
    assert account.get_all_positions() == []
    assert account.get_orders() == []
    assert TradeFeatures.objects.get(signal_key=trade.signal_key).taken
    assert client.get(f"/api/v1/features/?signal_key={trade.signal_key}").json()["results"]
