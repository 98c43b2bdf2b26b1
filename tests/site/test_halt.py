"""The kill switch: by command and on the dashboard, over restarts, without a database."""

from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client

from positions.halting import halted
from tests.site.conftest import permit


@pytest.fixture(autouse=True)
def folder(settings: Any, tmp_path: Path) -> Path:
    settings.VAR_DIR = tmp_path
    return tmp_path


def test_a_halt_lasts_until_resume_and_is_one_books_own(capsys: Any) -> None:
    call_command("halt", "--book", "paper:1", "--reason", "news", "--flatten")
    assert "its open trades are closed" in capsys.readouterr().out
    told = halted("paper:1")
    assert told is not None
    assert (told.reason, told.flatten) == ("news", True)
    assert halted("paper:2") is None
    call_command("resume", "--book", "paper:1")
    assert halted("paper:1") is None
    call_command("resume", "--book", "paper:1")
    assert "were not blocked" in capsys.readouterr().out


def test_where_nothing_can_be_written_the_file_is_named_and_nothing_is_halted(folder: Path) -> None:
    (folder / "halted").mkdir()
    (folder / "halted" / "paper-1.json").mkdir()  # a folder where the file belongs, which nobody may write over
    with pytest.raises(OSError, match=r"halted/paper-1\.json"):
        call_command("halt", "--book", "paper:1")
    assert [path.name for path in (folder / "halted").iterdir()] == ["paper-1.json"]


def test_a_file_that_cannot_be_read_blocks(folder: Path) -> None:
    call_command("halt", "--book", "paper:1")
    (folder / "halted" / "paper-1.json").write_text("{")
    told = halted("paper:1")
    assert told is not None
    assert "cannot be read" in told.reason


@pytest.mark.django_db
def test_on_the_dashboard_it_is_pressed_and_shown(owner_client: Client) -> None:
    page = owner_client.post("/halting/", {"book": "paper:1", "action": "flatten"}, follow=True).content.decode()
    assert "Halted by" in page
    assert "and open trades are closed" in page
    owner_client.post("/halting/", {"book": "paper:1", "action": "resume"})
    assert halted("paper:1") is None
    assert owner_client.post("/halting/", {"book": "x", "action": "halt"}).status_code == 400
    assert owner_client.get("/halting/").status_code == 405


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
