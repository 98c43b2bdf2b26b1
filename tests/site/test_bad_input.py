"""Bad input is told in one line with exit status 2, before any work, and nothing is written."""

import json
import os
import subprocess
import sys
from argparse import ArgumentTypeError
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as site
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command, load_command_class
from django.db import models

from ml.models import MLModel, Performance, TradeFeatures
from positions.models import Instrument, Trade, WorkerLease
from tests.factories import MLModelFactory
from tradingsite.kit.json_file import check_json_file, write_json
from tradingsite.kit.options import book_name, new_york_date, seed
from tradingsite.management.commands.quickstart import Command as Quickstart

TABLES: list[type[models.Model]] = [Instrument, Trade, TradeFeatures, MLModel, Performance, WorkerLease]
GOOD = "A,2024-01-03T{minute}Z,10,11,9,10,100"
HEAD = "symbol,timestamp,open,high,low,close,volume"
TEN, ELEVEN, TWELVE = (GOOD.format(minute=f"15:{minute}:00") for minute in (10, 11, 12))

BAD_BARS: dict[str, tuple[str, str, str]] = {  # what is wrong: (file name, content, what the line must say)
    "missing column": ("bars.csv", f"{HEAD.removesuffix(',volume')}\nA,2024-01-03T15:10:00Z,10,11,9,10", "volume"),
    "naive time": ("bars.csv", f"{HEAD}\n{TEN}\n{ELEVEN.replace('Z', '')}", "timestamp"),
    "out of order": ("bars.csv", f"{HEAD}\n{TEN}\n{TWELVE}\n{ELEVEN}", "timestamp"),
    "twice": ("bars.csv", f"{HEAD}\n{TEN}\n{ELEVEN}\n{ELEVEN}", "timestamp"),
    "NaN price": ("bars.csv", f"{HEAD}\n{TEN}\n{ELEVEN.replace(',11,9,', ',NaN,9,')}", "high"),
    "price of zero": ("bars.csv", f"{HEAD}\n{TEN}\n{ELEVEN.replace(',9,', ',0,')}", "low"),
    "high below low": ("bars.csv", f"{HEAD}\n{TEN}\n{ELEVEN.replace(',11,9,', ',8,9,')}", "high"),
    "negative volume": ("bars.csv", f"{HEAD}\n{TEN}\n{ELEVEN.replace(',100', ',-1')}", "volume"),
    "empty": ("bars.csv", "", "bars.csv"),
    "no bars": ("bars.csv", HEAD, "bars.csv"),
    "no parquet": ("bars.parquet", "PAR0", "bars.parquet"),
    "unknown kind": ("bars.xlsx", "", "bars.xlsx"),
    "only one bar": ("bars.csv", f"{HEAD}\n{TEN}", "bars.csv"),
}


def written(kind: str, folder: Path) -> Path:
    name, content, _ = BAD_BARS[kind]
    (folder / name).write_text(content and content + "\n")
    return folder / name


def manage(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(site.BASE_DIR / "manage.py"), *arguments],
        env={**os.environ, "VAR_DIR": str(tmp_path), "DATABASE_URL": f"sqlite:///{tmp_path / 'db.sqlite3'}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.django_db
@pytest.mark.parametrize("command", ["replay", "check_leakage", "compare_exits"])
@pytest.mark.parametrize("kind", BAD_BARS)
def test_bad_bars_are_refused_by_name_and_nothing_is_written(kind: str, command: str, tmp_path: Path) -> None:
    bars = written(kind, tmp_path)
    with pytest.raises(CommandError) as refused:
        call_command(command, bars=bars, json=tmp_path / "out.json")
    line = str(refused.value)
    assert refused.value.returncode == 2
    assert "\n" not in line
    assert bars.name in line
    assert BAD_BARS[kind][2] in line
    assert not any(table._default_manager.exists() for table in TABLES)
    assert not (tmp_path / "out.json").exists()


def test_bad_bars_end_a_real_process_with_status_2_and_one_line(tmp_path: Path) -> None:
    manage(tmp_path, "migrate", "-v0")
    before = (tmp_path / "db.sqlite3").read_bytes()
    done = manage(tmp_path, "replay", "--bars", str(written("high below low", tmp_path)))
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "bars.csv: line 3, column high: must not be below low" in done.stderr
    assert (tmp_path / "db.sqlite3").read_bytes() == before


@pytest.mark.parametrize("command", ["replay", "check_leakage"])
def test_dates_the_wrong_way_round_are_told_as_such(command: str, tmp_path: Path) -> None:
    bars = str(written("only one bar", tmp_path))
    with pytest.raises(CommandError, match="--from 2024-01-04 comes after --to 2024-01-03") as refused:
        call_command(command, "--bars", bars, "--from", "2024-01-04", "--to", "2024-01-03")
    assert refused.value.returncode == 2


def nowhere(folder: Path) -> Path:
    return folder / "nowhere" / "out.json"


def a_folder(folder: Path) -> Path:
    return folder


def in_a_file(folder: Path) -> Path:
    (folder / "file").touch()
    return folder / "file" / "out.json"


@pytest.mark.django_db
@pytest.mark.parametrize("where", [nowhere, a_folder, in_a_file])
@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("quickstart", {"sessions": 1, "no_serve": True}),
        ("replay", {"bars": Path("bars.csv")}),
        ("check_leakage", {"bars": Path("bars.csv")}),
        ("train_model", {}),
        ("promote_model 20240103-1", {"who": "ada", "why": "x"}),
        ("rollback_model", {"who": "ada", "why": "x"}),
        ("show_model 20240103-1", {}),
        ("evaluate_model 20240103-1", {}),
        ("tune_model", {}),
        ("versions", {}),
    ],
)
def test_a_json_file_that_cannot_be_written_is_refused_before_any_work(
    command: str, options: dict[str, Any], where: Callable[[Path], Path], tmp_path: Path
) -> None:
    path = where(tmp_path)
    with pytest.raises(CommandError, match=f"^--json {path}") as refused:
        call_command(*command.split(), **options, json=path)
    assert refused.value.returncode == 2
    assert "\n" not in str(refused.value)
    assert not User.objects.exists()


def test_a_json_file_that_can_be_written_leaves_no_trace_before_it_is(tmp_path: Path) -> None:
    check_json_file(tmp_path / "out.json")
    assert list(tmp_path.iterdir()) == []


def test_a_json_file_is_replaced_whole_and_never_holds_what_json_has_no_word_for(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    write_json(path, {"auc": 0.5})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"auc": float("nan")})
    assert json.loads(path.read_text()) == {"auc": 0.5}
    assert list(tmp_path.iterdir()) == [path]


def test_where_a_file_cannot_be_written_its_name_is_told_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder") as failed:
        write_json(tmp_path / "folder", {})
    assert failed.value.filename == str(tmp_path / "folder")
    assert list(tmp_path.iterdir()) == [tmp_path / "folder"]


@pytest.mark.parametrize(
    ("option", "good", "bad"),
    [
        (seed, ("0", "7", str(2**31 - 1)), ("-1", str(2**31), "1.5", "", "x", "²", "٣")),
        (new_york_date, ("2024-01-31",), ("2024-02-30", "tomorrow", "", "31.01.2024", "0001-01-01", "9999-12-31")),
        (book_name, ("simulated", "paper:PA1", "replay:0123456789ab"), ("", "paper", "live:../x", "simulated~3")),
    ],
)
def test_options_take_what_they_mean_and_nothing_else(
    option: Callable[[str], object], good: tuple[str, ...], bad: tuple[str, ...]
) -> None:
    for text in good:
        assert str(option(text)) == text
    for text in bad:
        with pytest.raises(ArgumentTypeError):
            option(text)


@pytest.mark.parametrize(
    ("app", "arguments"),
    [
        ("tradingsite", ("quickstart", "--seed", "-1")),
        ("tradingsite", ("quickstart", "--sessions", "0")),
        ("tradingsite", ("replay", "--bars", "bars.csv", "--seed", "2147483648")),
        ("tradingsite", ("check_leakage", "--bars", "bars.csv", "--seed", "-1")),
        ("ml", ("train_model", "--seed", "-1")),
        ("ml", ("train_model", "--book", "somebody")),
        ("ml", ("tune_model", "--trials", "0")),
        ("ml", ("tune_model", "--workers", "6")),
        ("ml", ("promote_model", "1", "--to", "my book", "--who", "ada", "--why", "x")),
        ("ml", ("promote_model", "1", "--who", "ada", "--why", "x", "--override", "--until", "tomorrow")),
        ("ml", ("promote_model", "1", "--who", "ada", "--why", "x", "--override", "--until", "9999-12-31")),
        ("ml", ("evaluate_model", "1", "--from", "tomorrow")),
        ("reports", ("daily_report", "--session", "tomorrow")),
        ("reports", ("daily_report", "--book", "paper:")),
        ("tradingsite", ("create_api_token", "ada", "--days", "many")),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else value,
)
def test_an_option_out_of_range_ends_with_status_2_and_names_it(
    app: str, arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        load_command_class(app, arguments[0]).run_from_argv(["manage.py", *arguments])
    assert ended.value.code == 2
    assert "error: argument --" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.django_db
@pytest.mark.parametrize(
    "arguments",
    [
        ("promote_model", "no-such", "--book", "simulated", "--who", "ada", "--why", "x"),
        ("promote_model", "20240103-1", "--book", "paper:1", "--who", "ada", "--why", "x"),
        ("promote_model", "20240103-1", "--to", "paper:1", "--who", "ada", "--why", "x"),
        ("promote_model", "20240103-1", "--who", "", "--why", "x"),
        ("rollback_model", "--who", "ada", "--why", "x"),
        ("show_model", "no-such"),
        ("evaluate_model", "no-such"),
        ("export_model", "no-such", "--to", "no-such-model.json"),
        ("daily_report", "--book", "paper:1"),
        ("create_api_token", "nobody"),
    ],
    ids=" ".join,
)
def test_what_does_not_exist_or_is_refused_ends_with_status_2_and_one_line(arguments: tuple[str, ...]) -> None:
    MLModelFactory(version="20240103-1")
    with pytest.raises(CommandError) as refused:
        call_command(*arguments)
    assert refused.value.returncode == 2
    assert "\n" not in str(refused.value)
    assert MLModel.objects.get().status == "candidate"


class Screen:
    """Remembers what was said."""

    def __init__(self) -> None:
        self.said = ""

    def print(self, text: str, **style: object) -> None:
        self.said += text


@pytest.mark.django_db
def test_quickstart_makes_an_admin_user_whatever_users_there_are() -> None:
    User.objects.create_user("admin", password="someone-else")
    User.objects.create_superuser("admin2", password="gone-since-2024", is_active=False)
    screen = Screen()
    Quickstart._admin_user(screen)
    made = User.objects.get(username="admin3")
    assert made.is_superuser
    assert made.check_password(screen.said.split("password: ")[1].split()[0])
    assert User.objects.get(username="admin").check_password("someone-else")


@pytest.mark.django_db
def test_quickstart_leaves_an_admin_user_that_can_sign_in_alone(owner: User) -> None:
    screen = Screen()
    Quickstart._admin_user(screen)
    assert screen.said == "Admin user: ada (exists already, password unchanged)"
    assert User.objects.count() == 1


@pytest.mark.django_db
@pytest.mark.parametrize("option", ["bars", "symbols"])
def test_a_result_is_never_written_over_an_input(option: str, tmp_path: Path) -> None:
    inputs = {"bars": tmp_path / "bars.csv", "symbols": tmp_path / "symbols.csv"}
    for path in inputs.values():
        path.write_text("precious")
    with pytest.raises(CommandError, match="would be written over") as refused:
        call_command("replay", **inputs, json=inputs[option])
    assert refused.value.returncode == 2
    assert inputs[option].read_text() == "precious"


def test_a_result_is_never_written_over_a_device() -> None:
    with pytest.raises(CommandError, match="not a regular file"):
        check_json_file(Path("/dev/null"))
