import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from io import StringIO
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from django.conf import settings
from django.db import DatabaseError, connection
from rich.console import Console

from ml.tables import figures_table
from tradingsite.console import one_line_errors
from tradingsite.kit.terminal import console, progress

LOCAL_SERVER = f"{connection.settings_dict['HOST'] or '127.0.0.1'}:{connection.settings_dict['PORT'] or 5432}"


def manage(tmp_path: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(settings.BASE_DIR / "manage.py"), *arguments],
        env={**os.environ, "VAR_DIR": str(tmp_path), "DATABASE_URL": f"sqlite:///{tmp_path / 'db.sqlite3'}"}
        | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_server_that_is_not_there_is_told_in_one_line_within_15_seconds(tmp_path: Path) -> None:
    began = time.monotonic()
    done = manage(tmp_path, "migrate", DATABASE_URL="postgres://nobody@127.0.0.1:1/x")
    assert time.monotonic() - began < 15
    assert done.returncode == 3
    assert done.stderr.count("\n") == 1
    assert 'server at "127.0.0.1", port 1 failed: Connection refused' in done.stderr


@pytest.mark.skipif(connection.vendor != "postgresql", reason="needs the PostgreSQL server of DATABASE_URL")
@pytest.mark.parametrize("pool", ["true", "false"])
def test_a_wrong_database_name_or_user_is_told_in_one_line(tmp_path: Path, pool: str) -> None:
    user = urlsplit(os.environ["DATABASE_URL"]).username or "postgres"
    for address, reason in (
        (f"postgres://{user}@{LOCAL_SERVER}/no_such_database", "no_such_database"),
        (f"postgres://no_such_user:secret-word@{LOCAL_SERVER}/postgres", "no_such_user"),
    ):
        done = manage(tmp_path, "migrate", DATABASE_URL=address, DATABASE_POOL=pool)
        assert done.returncode == 3
        assert done.stderr.count("\n") == 1
        assert reason in done.stderr
        assert "secret-word" not in done.stderr


def test_a_folder_that_is_not_there_is_told_in_one_line(tmp_path: Path) -> None:
    done = manage(tmp_path, "migrate", DATABASE_URL=f"sqlite:///{tmp_path}/nowhere/db.sqlite3")
    assert done.returncode == 3
    assert done.stderr == (
        "The database cannot be used: unable to open database file. Check DATABASE_URL, and that its disk has room.\n"
    )


def test_a_database_without_tables_is_told_with_the_command_that_makes_them(tmp_path: Path) -> None:
    done = manage(tmp_path, "setup_schedules")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "python manage.py migrate" in done.stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", "nonsense"),
        ("DATABASE_URL", "postgres://u:secret-word@h:port/x"),
        ("DATABASE_URL", "mysql://u:secret-word@h/x"),
        ("DEBUG", "perhaps"),
        ("LOG_LEVEL", "LOUD"),
        ("VAR_DIR", "/dev/null/here"),
    ],
)
def test_a_malformed_variable_is_named_in_one_line_without_its_secrets(tmp_path: Path, name: str, value: str) -> None:
    done = manage(tmp_path, "check", **{name: value})
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert name in done.stderr
    assert "secret-word" not in done.stderr


def test_traceback_shows_where(tmp_path: Path) -> None:
    done = manage(tmp_path, "check", "--traceback", DEBUG="perhaps")
    assert "Traceback (most recent call last)" in done.stderr


def test_a_command_whose_settings_fail_their_checks_ends_with_2(tmp_path: Path) -> None:
    done = manage(tmp_path, "trade", BOOK="nonsense")
    assert done.returncode == 2
    assert "BOOK=nonsense is not a book" in done.stderr


def test_an_unusable_strategy_is_told_without_a_traceback(tmp_path: Path) -> None:
    done = manage(tmp_path, "migrate", STRATEGY="nowhere.Strategy")
    assert done.returncode != 0
    assert "STRATEGY=nowhere.Strategy cannot be imported" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_interrupted_command_ends_with_130_and_one_line(tmp_path: Path) -> None:
    manage(tmp_path, "migrate", "-v0")
    running = subprocess.Popen(
        [
            sys.executable,
            str(settings.BASE_DIR / "manage.py"),
            "shell",
            "-v0",
            "-c",
            "import time; print(1, flush=True); time.sleep(30)",
        ],
        env={**os.environ, "VAR_DIR": str(tmp_path), "DATABASE_URL": f"sqlite:///{tmp_path / 'db.sqlite3'}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stdout is not None
    running.stdout.readline()
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=20)
    assert running.returncode == 130
    assert errors == "Interrupted.\n"


def test_a_programming_error_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError), one_line_errors():
        1 / 0  # noqa: B018  # the error is the point


@pytest.mark.django_db
def test_a_mistake_in_a_query_keeps_its_traceback() -> None:
    with pytest.raises(DatabaseError), one_line_errors(), connection.cursor() as cursor:
        cursor.execute("SELEC 1")


def test_where_there_is_no_terminal_there_is_no_bar_and_no_colour(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("Working", 3) as advance:
        for _ in range(3):
            advance(1)
    console().print("done", style="bold")
    assert capsys.readouterr().out == "done\n"


@pytest.mark.parametrize("width", [80, 40, 24])
def test_a_narrow_terminal_folds_a_table_and_cuts_nothing(width: int) -> None:
    told = [
        ["", "AUC", "accuracy", "mean R", "without drift below", "taken"],
        ["log-loss saved over geometry", "0.5234±0.0411", "0.6000±0.0310", "-0.1234±0.0411", "1,234.567", "12,345"],
    ]
    table = figures_table("Figures", *told[0])
    table.add_row(*told[1])
    screen = Console(file=StringIO(), width=width)
    screen.print(table)
    lines = screen.file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    letters = [
        Counter(filter(str.isalnum, text)) for text in ("".join(lines), "".join(("Figures", *told[0], *told[1])))
    ]
    assert letters[0] == letters[1]


def test_tables_are_made_in_one_place() -> None:
    sources = (path for app in ("tradingsite", "reports", "ml") for path in (settings.BASE_DIR / app).rglob("*.py"))
    makers = [path.name for path in sources if re.search(r"(?<![A-Za-z])Table\(", path.read_text())]
    assert makers == ["terminal.py"]
