import json
from datetime import datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from positions.market.calendar import NEW_YORK
from tests.factories import FIRST_SIGNAL, TradeFactory

pytestmark = pytest.mark.django_db

NEXT_WEEK = str((datetime.now(NEW_YORK) + timedelta(days=7)).date())


@pytest.fixture(autouse=True)
def var_dir(tmp_path: Path, settings: Any) -> Path:
    settings.VAR_DIR = tmp_path
    return tmp_path


def daily_report(*arguments: str) -> str:
    out = StringIO()
    call_command("daily_report", *arguments, stdout=out, stderr=StringIO())
    return out.getvalue()


def three_sessions(book: str = "simulated") -> None:
    for day in range(3):
        TradeFactory(book=book, signal_at=FIRST_SIGNAL + timedelta(days=day))


def test_the_last_session_is_reported_and_the_path_printed(var_dir: Path) -> None:
    three_sessions()
    path = var_dir / "reports" / "simulated" / "2024-01-05.html"
    assert daily_report() == f"{path}\n"
    assert path.exists()


def test_a_session_and_a_book_can_be_named(var_dir: Path) -> None:
    three_sessions("paper:1")
    daily_report("--book", "paper:1", "--session", "2024-01-03")
    assert (var_dir / "reports" / "paper-1" / "2024-01-03.html").exists()


def test_missing_writes_every_session_that_has_no_page() -> None:
    three_sessions()
    daily_report("--session", "2024-01-04")
    printed = daily_report("--missing").split()
    assert [Path(path).stem for path in printed] == ["2024-01-03", "2024-01-05"]
    assert daily_report("--missing") == ""


def test_markdown_and_json_are_printed_and_nothing_is_written(var_dir: Path) -> None:
    three_sessions()
    assert daily_report("--format", "md").startswith("# simulated, Friday 5 January 2024\n")
    assert json.loads(daily_report("--format", "json"))["book"] == "simulated"
    assert not (var_dir / "reports").exists()


def test_a_book_without_signals_is_one_clear_line_and_status_two() -> None:
    with pytest.raises(CommandError, match="book paper:1 has no signals") as caught:
        daily_report("--book", "paper:1")
    assert caught.value.returncode == 2
    assert "\n" not in str(caught.value)


def test_a_book_without_signals_has_no_report_missing(tmp_path: Path) -> None:
    """As the schedule asks every day, of a new account too."""
    path, told = tmp_path / "out.json", StringIO()
    call_command("daily_report", "--book", "paper:1", "--missing", "--json", str(path), stderr=told)
    assert json.loads(path.read_text())["pages"] == []
    assert told.getvalue() == "book paper:1: no report is missing\n"


@pytest.mark.parametrize("flag", ["--missing", "--open"])
def test_flags_for_pages_are_refused_with_printed_formats(flag: str) -> None:
    three_sessions()
    with pytest.raises(CommandError, match="go with --format html") as caught:
        daily_report(flag, "--format", "json")
    assert caught.value.returncode == 2


@pytest.mark.parametrize("day", ["2024-01-06", "1905-01-03", "2900-01-03", NEXT_WEEK])
def test_a_day_without_a_session_is_refused_and_nothing_is_written(day: str, var_dir: Path) -> None:
    three_sessions()
    for form in ("html", "md", "json"):
        with pytest.raises(CommandError, match="--session") as caught:
            daily_report("--session", day, "--format", form)
        assert caught.value.returncode == 2
    assert not (var_dir / "reports").exists()


def test_a_date_that_is_none_is_refused() -> None:
    with pytest.raises(CommandError, match="'tomorrow' is not a date like 2024-01-31"):
        daily_report("--session", "tomorrow")
