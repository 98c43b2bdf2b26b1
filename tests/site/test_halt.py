"""The kill switch: by command and on the dashboard, over restarts, without a database."""

import json
import os
import pwd
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from django.conf import settings as site
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.test import Client
from rest_framework.test import APIClient
from structlog.testing import capture_logs

from positions.halting import Halt, halt, halted
from positions.models import WorkerLease
from tests.factories import TradeFactory
from tests.site.conftest import make_session, permit
from tradingsite.known_books import NOT_CHECKED

NOW = datetime(2024, 1, 3, 15, tzinfo=UTC)


@pytest.fixture(autouse=True)
def folder(settings: Any, tmp_path: Path) -> Path:
    settings.VAR_DIR, settings.BOOK = tmp_path, "paper:1"
    return tmp_path


@pytest.mark.django_db
def test_a_halt_lasts_until_resume_and_is_one_books_own(capsys: Any) -> None:
    call_command("halt", "--book", "paper:1", "--reason", "news", "--flatten")
    assert "open trades are to be closed by trade" in capsys.readouterr().out
    told = halted("paper:1")
    assert told is not None
    assert (told.reason, told.flatten) == ("news", True)
    assert halted("paper:2") is None
    call_command("resume", "--book", "paper:1")
    assert halted("paper:1") is None
    call_command("resume", "--book", "paper:1")
    assert "were not blocked" in capsys.readouterr().out


@pytest.mark.django_db
def test_closing_goes_on_until_resume_whatever_a_later_halt_says(capsys: Any) -> None:
    call_command("halt", "--book", "paper:1", "--reason", "close all", "--flatten")
    call_command("halt", "--book", "paper:1", "--reason", "and stay out")
    assert "open trades are to be closed by trade" in capsys.readouterr().out.splitlines()[-2]
    told = halted("paper:1")
    assert told is not None
    assert (told.reason, told.flatten) == ("close all", True)
    call_command("resume", "--book", "paper:1")
    call_command("halt", "--book", "paper:1")
    assert "open trades go on" in capsys.readouterr().out


@pytest.mark.django_db
def test_a_user_without_a_name_halts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container."""
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", dict[int, Any]().__getitem__)
    call_command("halt", "--book", "paper:1")
    told = halted("paper:1")
    assert told is not None
    assert told.by == f"uid {os.getuid()}"


@pytest.mark.django_db
@pytest.mark.parametrize(("reason", "kept"), [("x" * 5000, "x" * 200), ("caf\udce9 news", "caf? news")])
def test_a_halt_never_fails_for_its_reason_of_which_as_much_is_kept_as_the_api_takes(reason: str, kept: str) -> None:
    """A byte that is no UTF-8 comes to a command as half a character."""
    call_command("halt", "--book", "paper:1", "--reason", reason)
    told = halted("paper:1")
    assert told is not None
    assert told.reason == kept


def test_where_nothing_can_be_written_the_file_is_named_and_nothing_is_halted(folder: Path) -> None:
    (folder / "halted").mkdir()
    (folder / "halted" / "paper-1.json").mkdir()  # a folder where the file belongs, which nobody may write over
    with pytest.raises(OSError, match=r"halted/paper-1\.json"):
        call_command("halt", "--book", "paper:1")
    assert [path.name for path in (folder / "halted").iterdir()] == ["paper-1.json"]


def test_two_who_halt_in_one_process_at_once_both_succeed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a double click on the dashboard does: both have written before one of them is done."""
    both, replace = Barrier(2, timeout=20), Path.replace

    def together(draft: Path, target: Path) -> Path:
        both.wait()
        return replace(draft, target)

    monkeypatch.setattr(Path, "replace", together)
    with ThreadPoolExecutor(2) as threads:
        halts = [threads.submit(halt, "paper:1", Halt(by, NOW)) for by in ("ada", "bob")]
        assert [each.result().by for each in halts] == ["ada", "bob"]
    told = halted("paper:1")
    assert told is not None
    assert told.by in ("ada", "bob")
    assert [path.name for path in (folder / "halted").iterdir()] == ["paper-1.json"]


@pytest.mark.django_db
@pytest.mark.parametrize("action", ["halt", "resume"])
def test_what_cannot_be_written_is_told_as_not_done(
    folder: Path, owner: User, owner_client: Client, action: str
) -> None:
    TradeFactory(book="paper:1")
    (folder / "halted").write_text("a file where the folder should be")
    page = owner_client.post("/halting/", {"book": "paper:1", "action": action}, follow=True).content.decode()
    assert f"NOT done, {action} paper:1" in page
    client = APIClient()
    client.force_authenticate(owner)
    answer = client.post(f"/api/v1/{action}/", {}, "json")
    assert (answer.status_code, json.loads(answer.content)["code"]) == (503, "not_written")


def test_a_file_that_cannot_be_read_blocks(folder: Path) -> None:
    call_command("halt", "--book", "paper:1")
    path = folder / "halted" / "paper-1.json"
    for content in ("{", path.read_text().replace("false", '"false"')):
        path.write_text(content)
        told = halted("paper:1")
        assert told is not None
        assert "cannot be read" in told.reason
        assert not told.flatten


@pytest.mark.django_db
@pytest.mark.parametrize("command", ["halt", "resume"])
def test_a_mistyped_name_is_refused_and_the_books_there_are_named(folder: Path, command: str) -> None:
    TradeFactory(book="paper:2")
    make_session("simulated", date(2024, 1, 3))
    WorkerLease.objects.create(
        book="paper:3", name="trading", holder="host:1", acquired_at=NOW, heartbeat_at=NOW, expires_at=NOW
    )
    with pytest.raises(CommandError, match="There is no book paper:12 here") as refused:
        call_command(command, "--book", "paper:12")
    assert refused.value.returncode == 2
    assert str(refused.value).endswith("there are: paper:1, paper:2, paper:3, simulated.")
    assert not (folder / "halted").exists()
    for book in ("paper:1", "paper:2", "paper:3", "simulated"):
        call_command(command, "--book", book)


@pytest.mark.parametrize("url", ["postgres://nobody@127.0.0.1:9/nothing", "sqlite:///{folder}/empty.sqlite3"])
def test_without_a_database_any_book_is_halted_and_it_says_that_the_name_was_not_checked(
    folder: Path, url: str
) -> None:
    away = {"DATABASE_URL": url.format(folder=folder), "VAR_DIR": str(folder)}
    for command, told in (("halt", "are blocked until `resume`"), ("resume", "are allowed again")):
        done = subprocess.run(
            [sys.executable, str(site.BASE_DIR / "manage.py"), command, "--book", "paper:12", "--json", "out.json"],
            env={**os.environ, **away}, cwd=folder, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert told in done.stdout
        assert (NOT_CHECKED in done.stdout) is (command == "halt")  # what is halted may be resumed
        assert json.loads((folder / "out.json").read_text())["checked"] is (command == "resume")
        assert (halted("paper:12") is not None) is (command == "halt")


@pytest.mark.django_db
def test_on_the_dashboard_a_mistyped_name_is_refused(owner_client: Client) -> None:
    for action in ("halt", "flatten", "resume"):
        page = owner_client.post("/halting/", {"book": "paper:12", "action": action}, follow=True).content.decode()
        assert "There is no book paper:12 here; there are: paper:1." in page
        assert "Entries of paper:1 are" not in page
    assert halted("paper:12") is None


@pytest.mark.django_db
def test_on_the_dashboard_it_is_pressed_and_shown(owner_client: Client) -> None:
    page = owner_client.post("/halting/", {"book": "paper:1", "action": "flatten"}, follow=True).content.decode()
    assert "Halted by" in page
    page = owner_client.post("/halting/", {"book": "paper:1", "action": "halt"}, follow=True).content.decode()
    assert "Entries of paper:1 are halted by ada; open trades are to be closed by trade, in market hours." in page
    assert "open trades are to be closed" in page
    owner_client.post("/halting/", {"book": "paper:1", "action": "resume"})
    assert halted("paper:1") is None
    assert owner_client.post("/halting/", {"book": "x", "action": "halt"}).status_code == 400
    assert owner_client.get("/halting/").status_code == 405


@pytest.mark.django_db
def test_whoever_halts_and_resumes_by_whatever_way_is_told_once_in_the_log(
    owner_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGNAME", "ada")

    def press(action: str) -> None:
        owner_client.post("/halting/", {"book": "paper:1", "action": "flatten" if action == "halt" else action})

    def ask(action: str) -> None:
        owner_client.post(f"/api/v1/{action}/", {"flatten": True} if action == "halt" else {}, "application/json")

    def command(action: str) -> None:
        call_command(action, *(["--flatten"] if action == "halt" else []))

    for way in (press, ask, command):
        with capture_logs() as told:
            way("halt")
            way("resume")
            way("resume")  # there is nothing to resume any more
        about = {"book": "paper:1", "by": "ada", "log_level": "warning"}
        halting, resumed = told
        assert halting.pop("reason") == ("on the dashboard" if way is press else "")
        assert (halting, resumed) == ({"event": "halted", "flatten": True, **about}, {"event": "resumed", **about})


@pytest.mark.django_db
def test_only_who_may_change_trades_may_press_it(newcomer: Any, newcomer_client: Client) -> None:
    permit(newcomer, "positions.view_trade")
    assert newcomer_client.post("/halting/", {"book": "paper:1", "action": "halt"}).status_code == 403
    assert halted("paper:1") is None


@pytest.mark.parametrize("command", ["halt", "resume"])
def test_a_book_setting_that_names_no_book_is_refused(settings: Any, folder: Path, command: str) -> None:
    settings.BOOK = "paper:../../x"
    with pytest.raises(CommandError, match="is not a book"):
        call_command(command)
    assert not (folder / "halted").exists()
