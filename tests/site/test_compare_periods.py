"""`compare_periods`: a book before and after a date, each change with its interval."""

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.core.management import CommandError, call_command

from positions.words import Outcome
from tests.factories import TradeFactory

pytestmark = pytest.mark.django_db

FIRST = datetime(2024, 1, 2, 15, 0, tzinfo=UTC)
SWITCH = date(2024, 1, 22)


def trades(mean_before: float, mean_after: float, book: str = "simulated") -> None:
    """Four trades in each of twenty weekdays before the switch and twenty from it on."""
    rng = np.random.default_rng(5)
    for day in range(40):
        at = FIRST + timedelta(days=day)
        for minute, noise in enumerate(rng.normal(0, 0.3, 4)):
            r = float(noise) + (mean_before if at.date() < SWITCH else mean_after)
            outcome = Outcome.WIN if r > 0 else Outcome.LOSS
            TradeFactory(book=book, signal_at=at + timedelta(minutes=minute), r_multiple=r, outcome=outcome)


def compared(tmp_path: Path, **options: Any) -> dict[str, Any]:
    call_command("compare_periods", **{"switch": SWITCH, "json": tmp_path / "found.json", **options})
    return json.loads((tmp_path / "found.json").read_text())


def test_a_change_is_told_from_chance_by_its_interval(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trades(mean_before=-0.5, mean_after=0.5)
    trades(mean_before=0.1, mean_after=0.1, book="replay:same")
    changed, same = compared(tmp_path), compared(tmp_path, book="replay:same")
    of = {each["label"]: each for each in changed["changes"]}
    average = of["average R"]
    assert (average["n_before"], average["n_after"]) == (80, 80)
    assert average["change"] == pytest.approx(1.0, abs=0.15)
    assert average["interval"]["low"] < average["change"] < average["interval"]["high"]
    assert average["verdict"] == of["win rate"]["verdict"] == "higher, beyond chance"
    assert same["changes"][1]["verdict"] == "may be chance"
    told = capsys.readouterr().out
    assert "the market differs too" in told
    assert "…" not in told
    assert changed["before"]["trades"]["value"] == changed["after"]["trades"]["value"] == 80


def test_few_sessions_say_nothing_however_clear_they_look(tmp_path: Path) -> None:
    trades(mean_before=-0.5, mean_after=0.5)
    found = compared(tmp_path, switch=SWITCH - timedelta(days=1))
    assert {each["verdict"] for each in found["changes"]} == {"too few sessions"}


@pytest.mark.parametrize(("switch", "words"), [(date(2023, 1, 3), "before it"), (date(2025, 1, 3), "from it on")])
def test_a_date_with_trades_on_one_side_only_is_refused(switch: date, words: str) -> None:
    trades(0.0, 0.0)
    with pytest.raises(CommandError, match=f"no closed trade {words}") as refused:
        call_command("compare_periods", switch=switch)
    assert refused.value.returncode == 2
