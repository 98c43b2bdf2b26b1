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

WEB = """
import tradingsite.wsgi
from django.urls import get_resolver, reverse
reverse("admin:index"), reverse("docs"), get_resolver().reverse_dict
"""


@pytest.mark.parametrize("arguments", [("manage.py", "check"), ("-c", WEB)], ids=["check", "web"])
def test_nothing_heavy_is_imported(arguments: tuple[str, ...], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments],
        cwd=settings.BASE_DIR,
        env={**os.environ, "VAR_DIR": str(tmp_path), "DJANGO_SETTINGS_MODULE": "tradingsite.settings"},
        capture_output=True,
        text=True,
        check=True,
    )
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "django" in imported
    assert not imported & HEAVY
