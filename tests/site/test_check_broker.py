import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from tests.positions import alpaca_data_server
from tests.positions.alpaca_data_server import AlpacaDataServer, Reply
from tests.positions.alpaca_trading_server import KEY, SECRET, AlpacaTradingServer, Fault

assert (KEY, SECRET) == (alpaca_data_server.KEY, alpaca_data_server.SECRET)


def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def data() -> Iterator[AlpacaDataServer]:
    with AlpacaDataServer(now) as data:
        yield data


@pytest.fixture
def account(settings: Any, data: AlpacaDataServer) -> Iterator[AlpacaTradingServer]:
    with AlpacaTradingServer(now) as account:
        settings.BOOK, settings.ALPACA_API_KEY, settings.ALPACA_SECRET_KEY = "paper:1", KEY, SECRET
        settings.ALPACA_TRADING_URL, settings.ALPACA_DATA_URL = account.origin, data.origin
        settings.ALPACA_FEED = "iex"
        yield account


def told(tmp_path: Path, status: int = 0) -> dict[str, str]:
    """State and text of each check, after the command ended with this status."""
    path = tmp_path / "broker.json"
    if status == 0:
        call_command("check_broker", "--json", str(path))
    else:
        with pytest.raises(CommandError) as caught:
            call_command("check_broker", "--json", str(path))
        assert caught.value.returncode == status
    result = json.loads(path.read_text())
    assert result["status"] == status
    return {check["name"]: f"{check['state']}: {check['text']}" for check in result["checks"]}


def refusal() -> str:
    with pytest.raises(CommandError) as caught:
        call_command("check_broker")
    assert caught.value.returncode == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_fit_account_is_told_in_plain_words(account: AlpacaTradingServer, tmp_path: Path, capsys: Any) -> None:
    checks = told(tmp_path)
    assert list(checks) == ["keys", "account", "clock", "guard", "feed iex (ALPACA_FEED)", "feed sip"]
    assert checks["account"] == "ok: PA123 is ACTIVE, equity $100,000.00, buying power $200,000.00"
    assert checks["guard"].startswith(
        "ok: an order to close what is not held was refused: Alpaca answered POST /orders"
    )
    assert checks["feed sip"].startswith("ok: Alpaca refused (403): subscription does not permit")
    assert {text.partition(":")[0] for text in checks.values()} == {"ok"}
    screen = capsys.readouterr().out
    assert screen.startswith("Paper account: orders are not real.\n")
    assert "     ok  keys: accepted\n" in screen
    assert account.orders == {}


def test_keys_that_are_refused_are_status_2(account: AlpacaTradingServer, settings: Any, tmp_path: Path) -> None:
    settings.ALPACA_SECRET_KEY = "wrong"
    checks = told(tmp_path, status=2)
    assert checks["keys"].startswith("failed: Alpaca answered GET /account with 401: unauthorized.")
    assert "guard" not in checks
    assert len(account.requests) == 1


def test_an_account_that_is_blocked_is_status_1(account: AlpacaTradingServer, tmp_path: Path) -> None:
    account.account |= {"trading_blocked": True, "status": "ACCOUNT_UPDATED"}
    assert told(tmp_path, status=1)["account"] == "failed: PA123 is ACCOUNT_UPDATED trading_blocked; ask Alpaca why"


def test_a_missing_guard_is_status_1(account: AlpacaTradingServer, tmp_path: Path) -> None:
    account.checks_intent = False
    assert told(tmp_path, status=1)["guard"].startswith("failed: an order to close what is not held was accepted")
    assert [order["status"] for order in account.orders.values()] == ["canceled"]


@pytest.mark.parametrize(("ahead", "where"), [(3, "behind"), (-3, "ahead of")])
def test_a_clock_that_is_off_is_a_warning(account: AlpacaTradingServer, tmp_path: Path, ahead: int, where: str) -> None:
    account.clock_ahead = timedelta(seconds=ahead)
    assert told(tmp_path)["clock"].startswith(
        f"warning: this machine's clock is 3.0 s {where} Alpaca's; synchronise it"
    )


def test_a_feed_outside_the_subscription_is_status_2_where_it_is_wanted(
    account: AlpacaTradingServer, data: AlpacaDataServer, settings: Any, tmp_path: Path
) -> None:
    settings.ALPACA_FEED = "sip"
    assert told(tmp_path, status=2)["feed sip (ALPACA_FEED)"].startswith("failed: Alpaca refused (403)")
    data.recent_sip = True
    assert told(tmp_path)["feed sip (ALPACA_FEED)"] == "ok: allowed"


def test_an_alpaca_that_cannot_be_reached_is_status_1(
    account: AlpacaTradingServer, data: AlpacaDataServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("positions.broker.alpaca.PATIENCE", timedelta(seconds=0.5))
    account.faults.extend([Fault(500, "<html>[sorry]</html>")] * 10)
    data.replies.extend([Reply(503)] * 2)
    checks = told(tmp_path, status=1)
    assert checks["keys"].startswith("failed: cannot be tried")
    assert checks["feed iex (ALPACA_FEED)"].startswith("failed: Alpaca answered 503")


def test_a_live_book_needs_to_be_accepted_and_says_so_in_red(
    account: AlpacaTradingServer, settings: Any, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.BOOK = "live:1"
    assert refusal().startswith("BOOK=live:1 trades real money; set ALPACA_LIVE=I_ACCEPT_REAL_ORDERS too")
    settings.ALPACA_LIVE = "yes"
    assert "I_ACCEPT_REAL_ORDERS" in refusal()
    assert account.requests == []
    settings.ALPACA_LIVE = "I_ACCEPT_REAL_ORDERS"
    monkeypatch.setenv("FORCE_COLOR", "1")
    told(tmp_path)
    assert "\x1b[1;31mLIVE ACCOUNT: orders are real" in capsys.readouterr().out


def test_missing_keys_and_malformed_addresses_are_told_before_anything_is_asked(
    account: AlpacaTradingServer, settings: Any
) -> None:
    settings.ALPACA_TRADING_URL = "127.0.0.1:9000"
    assert "ALPACA_TRADING_URL=127.0.0.1:9000 is not an origin" in refusal()
    settings.ALPACA_API_KEY = ""
    assert "ALPACA_API_KEY and ALPACA_SECRET_KEY are not both set" in refusal()
