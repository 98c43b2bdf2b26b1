"""What takes seconds to import must not stand in the way of a command's start or of the web process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings

HEAVY = {
    "xgboost", "lightgbm", "shap", "river", "optuna", "sklearn", "alpaca", "plotly",
    "pandas", "pyarrow", "scipy", "talib", "exchange_calendars",
}  # fmt: skip

LEARNING = {"xgboost", "lightgbm", "shap", "river", "optuna", "sklearn", "scipy", "plotly"}

WEB = """
import tradingsite.wsgi
from django.urls import get_resolver, reverse
reverse("admin:index"), reverse("docs"), get_resolver().reverse_dict
"""


BROKER = """
from positions.broker.alpaca import AlpacaBroker, TradingAccess
from positions.clock import SystemClock
AlpacaBroker(TradingAccess("key", "secret"), SystemClock())
"""


@pytest.mark.parametrize("arguments", [("manage.py", "check"), ("-c", WEB)], ids=["check", "web"])
def test_nothing_heavy_is_imported(arguments: tuple[str, ...], tmp_path: Path) -> None:
    imported = imported_by(arguments, tmp_path)
    assert "django" in imported
    assert not imported & HEAVY


def test_who_trades_imports_neither_learning_nor_charts(tmp_path: Path) -> None:
    imported = imported_by(("-c", BROKER), tmp_path)
    assert "alpaca" in imported
    assert not imported & LEARNING


def test_the_broker_imports_the_sdk_where_it_connects_only(tmp_path: Path) -> None:
    imported = imported_by(("-c", "import positions.broker.alpaca"), tmp_path)
    assert "requests" in imported
    assert not imported & HEAVY


def imported_by(arguments: tuple[str, ...], tmp_path: Path) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments],
        cwd=settings.BASE_DIR,
        env={**os.environ, "VAR_DIR": str(tmp_path), "DJANGO_SETTINGS_MODULE": "tradingsite.settings"},
        capture_output=True,
        text=True,
        check=True,
    )
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
