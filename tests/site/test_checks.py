from pathlib import Path
from typing import Any

import pytest
from django.core.checks import run_checks


def found() -> set[str]:
    return {str(message.id) for message in run_checks() if str(message.id).startswith("tradingsite.")}


def test_the_defaults_pass() -> None:
    assert found() == set()


def test_a_retry_before_the_timeout_is_an_error(settings: Any) -> None:
    settings.Q_CLUSTER = {**settings.Q_CLUSTER, "timeout": 100, "retry": 100}
    assert found() == {"tradingsite.E001"}


@pytest.mark.parametrize(
    "strategy",
    ["", "nowhere", "nowhere.Strategy", "positions.strategy.NoSuch", "positions.strategy.Signal", "math.sqrt"],
)
def test_a_strategy_that_cannot_be_used_is_an_error(settings: Any, strategy: str) -> None:
    settings.STRATEGY = strategy
    assert found() == {"tradingsite.E002"}


def test_real_money_needs_secrets_of_its_own(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SECRET_KEY", raising=False)
    monkeypatch.setenv("MODEL_SIGNING_KEY", "set")
    settings.BOOK = "live:1"
    messages = [message for message in run_checks() if message.id == "tradingsite.E003"]
    assert [message.msg.split()[0] for message in messages] == ["SECRET_KEY"]
    monkeypatch.setenv("SECRET_KEY", "set")
    assert found() == set()


@pytest.mark.parametrize("book", ["", "live", "live:", "paper:../x", "replay:XYZ", "Simulated"])
def test_a_book_that_is_none_is_an_error(settings: Any, book: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", "set")
    monkeypatch.setenv("MODEL_SIGNING_KEY", "set")
    settings.BOOK = book
    assert found() == {"tradingsite.E004"}


def test_a_folder_that_cannot_be_written_to_is_an_error(settings: Any, tmp_path: Path) -> None:
    settings.VAR_DIR = tmp_path / "nowhere"
    assert found() == {"tradingsite.E005"}


def test_every_error_says_what_to_do(settings: Any) -> None:
    settings.BOOK, settings.STRATEGY, settings.VAR_DIR = "live:", "", Path("/nowhere")
    settings.Q_CLUSTER = {**settings.Q_CLUSTER, "retry": 0}
    messages = [message for message in run_checks() if str(message.id).startswith("tradingsite.")]
    assert len({message.id for message in messages}) == 5
    assert all(message.hint for message in messages)
