"""What holds for every command of ours, whichever they are."""

import inspect
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as site
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command, get_commands, load_command_class
from django.core.management.base import CommandParser
from django.db.models import Model
from django.db.models.signals import post_save
from django_q.models import Schedule
from knox.models import AuthToken

from ml.models import MLModel
from ml.registry import promote
from ml.words import Gate
from positions.market.feeds.simulated import SimulatedMarket
from tests.bars_file import write_csv
from tests.factories import MLModelFactory, TradeFactory
from tests.site.test_console import manage
from tradingsite.kit.command import INTERRUPTED, SiteCommand

OURS = {name: app for name, app in get_commands().items() if app in {"positions", "ml", "reports", "tradingsite"}}
COMMANDS = sorted(OURS)


def command(name: str) -> SiteCommand:
    made = load_command_class(OURS[name], name)
    assert isinstance(made, SiteCommand), f"{name} is no SiteCommand"
    return made


def parser(name: str) -> CommandParser:
    return command(name).create_parser("manage.py", name)


def example(name: str) -> list[str]:
    return shlex.split(command(name).example)


def help_of(name: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", "80")
    return parser(name).format_help()


def test_there_are_commands() -> None:
    assert len(COMMANDS) > 20


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_an_example_and_says_what_each_status_means(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told = help_of(name, monkeypatch)
    call = " ".join(["python manage.py", name, command(name).example]).strip()
    assert f"Example: {call} Exit status: 0 " in re.sub(r"\s+", " ", told)
    statuses = dict(re.findall(r"^ +(\d+) (\S.*)$", told.partition("Exit status:\n")[2], re.MULTILINE))
    assert {"0", "2", str(INTERRUPTED)} <= statuses.keys() <= {"0", "1", "2", "3", str(INTERRUPTED)}
    assert len(parser(name).description or "") > 20


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_a_terminal_of_eighty_columns(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [line for line in help_of(name, monkeypatch).splitlines() if len(line) > 80] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_explained(name: str) -> None:
    assert [action.dest for action in parser(name)._actions if not action.help] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_the_example_is_one_that_the_command_takes(name: str) -> None:
    assert parser(name).parse_args([*example(name), "--json", "out.json"]).json == Path("out.json")


@pytest.mark.django_db
@pytest.mark.parametrize("name", COMMANDS)
def test_a_result_that_could_not_be_written_is_refused_before_any_work(name: str, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere" / "out.json"
    with pytest.raises(CommandError, match=r"--json .* nothing can be written to") as refused:
        call_command(name, *example(name), "--json", str(nowhere))
    assert refused.value.returncode == 2
    assert list(tmp_path.iterdir()) == []


#: In this process, by helpers of that name, or as a process of its own.
CALL = re.compile(r'\b(?:call_command|manage|run)\(\s*(?:\w+,\s*)?"(\w+)"|"manage\.py"\)?,\s*"(\w+)"')


def test_every_command_has_a_test_that_calls_it() -> None:
    tests = (path for path in Path(site.BASE_DIR, "tests").rglob("test_*.py") if path != Path(__file__))
    called = {name for path in tests for found in CALL.findall(path.read_text()) for name in found}
    assert set(COMMANDS) - called == set()


#: Commands without a bar, and why.
WITHOUT_BAR = {
    **dict.fromkeys(("alpaca_server", "trade", "run_monitors"), "they serve until they are ended"),
    **dict.fromkeys(("halt", "resume", "create_api_token", "setup_schedules"), "done at once"),
    **dict.fromkeys(("promote_model", "rollback_model", "export_model"), "about one stored model"),
}


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - set(WITHOUT_BAR)))
def test_a_command_that_may_last_says_how_far_it_is(name: str) -> None:
    source = inspect.getsource(inspect.getmodule(command(name)))  # type: ignore[arg-type]  # a command has a module
    assert re.search(r"\bprogress\(|\brun_whole\(", source)


#: Those that need no market, network or model, with what their result says.
QUICK: dict[str, tuple[list[str], dict[str, Any]]] = {
    "halt": (["--reason", "news"], {"book": "simulated", "checked": True, "reason": "news", "flatten": False}),
    "resume": ([], {"book": "simulated", "checked": True, "was_halted": False}),
    "create_api_token": (["ada"], {"user": "ada"}),
    "setup_schedules": ([], {}),
    "daily_report": (["--format", "md"], {"book": "simulated", "pages": []}),
    "check_drift": ([], {"book": "simulated", "version": None}),
    "promote_model": (["20240103-900", "--who", "ada", "--why", "tests"], {"version": "20240103-900"}),
}


@pytest.mark.django_db
@pytest.mark.parametrize("name", QUICK)
def test_where_there_is_no_terminal_output_is_plain_and_the_result_is_json(
    name: str, tmp_path: Path, settings: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    settings.VAR_DIR = tmp_path
    User.objects.create_superuser("ada", password="lovelace-1843")
    TradeFactory()
    MLModelFactory(version="20240103-900", gate=Gate.PASS, may_filter=True)
    arguments, expected = QUICK[name]
    call_command(name, *arguments, "--json", str(tmp_path / "out.json"))
    told = capsys.readouterr()
    assert "\x1b" not in told.out + told.err
    written = json.loads((tmp_path / "out.json").read_text())
    assert expected.items() <= written.items()
    assert [path.name for path in tmp_path.glob("out*")] == ["out.json"]


@pytest.mark.django_db
def test_a_token_is_not_in_the_file_of_its_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    User.objects.create_superuser("ada", password="lovelace-1843")
    call_command("create_api_token", "ada", "--json", str(tmp_path / "out.json"))
    token = capsys.readouterr().out.strip()
    assert len(token) > 40
    assert token not in (tmp_path / "out.json").read_text()


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("arguments", "saved", "at"),
    [
        (["setup_schedules"], Schedule, 3),
        (["create_api_token", "ada", "--group", "viewer"], AuthToken, 1),
        (["promote_model", "20240103-901", "--who", "ada", "--why", "tests"], MLModel, 2),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_what_is_interrupted_between_two_rows_leaves_none_of_them(
    arguments: list[str], saved: type[Model], at: int
) -> None:
    ada = User.objects.create_superuser("ada", password="lovelace-1843")
    promote(MLModelFactory(version="20240103-900", gate=Gate.PASS, may_filter=True), "simulated", "ada", "first")
    MLModelFactory(version="20240103-901", gate=Gate.PASS, may_filter=True)
    before = state_of(saved)
    seen = count(1)

    def interrupt(**signalled: Any) -> None:
        if next(seen) == at:
            signal.raise_signal(signal.SIGINT)

    post_save.connect(interrupt, sender=saved)
    try:
        with pytest.raises(KeyboardInterrupt):
            call_command(*arguments)
    finally:
        post_save.disconnect(interrupt, sender=saved)
    assert state_of(saved) == before
    assert not ada.groups.exists()


def state_of(model: type[Model]) -> list[dict[str, Any]]:
    return list(model._default_manager.order_by("pk").values())


def test_a_replay_that_is_interrupted_leaves_neither_a_book_nor_half_a_file(tmp_path: Path) -> None:
    bars = write_csv(tmp_path / "bars.csv", SimulatedMarket(20, 3))
    manage(tmp_path, "migrate", "-v0")
    running = subprocess.Popen(
        [sys.executable, "-u", str(site.BASE_DIR / "manage.py"), "replay", "--bars", str(bars),
         "--json", str(tmp_path / "out.json")],
        env={**os.environ, "VAR_DIR": str(tmp_path), "DATABASE_URL": f"sqlite:///{tmp_path / 'db.sqlite3'}"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert running.stdout is not None
    assert running.stdout.readline().startswith("Replaying ")
    time.sleep(1)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=30)
    assert (running.returncode, errors) == (INTERRUPTED, "Interrupted.\n")
    assert list(tmp_path.glob("out.json*")) == []
    assert not list((tmp_path / "reports").rglob("*.html"))
    count = "from positions.models import Trade; print(Trade.objects.count())"
    assert manage(tmp_path, "shell", "-v0", "-c", count).stdout.split()[-1] == "0"
