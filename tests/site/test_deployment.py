"""The units can be started, the site answers behind them, and what was backed up can be had back."""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from configparser import ConfigParser
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
import requests
from django.conf import settings
from django.db import connection
from psycopg import sql

from tests.site.documents import Example, examples_of, text_of

DEPLOY = Path(settings.BASE_DIR, "docs", "deploy")
UNITS = sorted([*DEPLOY.glob("*.service"), *DEPLOY.glob("*.timer")])
PROGRAMS = Path(sys.executable).parent

SAY_WHAT_IS_THERE = """
import hashlib, json
from django.conf import settings
from ml.models import MLModel
from positions.halting import halted
from positions.models import OrderIntent
from tradingsite.summary import trades_sha256
ids = sorted(OrderIntent.objects.values_list("book", "client_order_id"))
model = MLModel.objects.get()
print(json.dumps({
    "trades": trades_sha256("simulated"), "orders": len(ids),
    "order_ids": hashlib.sha256(repr(ids).encode()).hexdigest(),
    "new_order_ids_begin_with": settings.INSTALLATION, "model": model.version, "artifact": model.artifact_sha256,
    "halted": str(halted("paper:mine")),
}))
"""


def here(text: str) -> str:
    """A unit as it would be had the project been put where it is."""
    return text.replace("/srv/trading/.venv/bin", str(PROGRAMS)).replace("/srv/trading", str(settings.BASE_DIR))


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="there is no systemd-analyze on this machine")
def test_systemd_accepts_every_unit(tmp_path: Path) -> None:
    assert len(UNITS) >= 5
    for unit in UNITS:
        (tmp_path / unit.name).write_text(here(unit.read_text()))
    done = subprocess.run(
        ["systemd-analyze", "verify", *sorted(tmp_path.iterdir())], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_every_unit_is_explained() -> None:
    document = DEPLOY.with_name("deployment.md").read_text()
    assert [unit.name for unit in UNITS if f"[{unit.name}](deploy/{unit.name})" not in document] == []


def environment(var_dir: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in {"DATABASE_URL", "HTTPS", "BOOK"}}
    kept |= {"PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}", "VAR_DIR": str(var_dir), **more}
    return kept


@contextmanager
def served(var_dir: Path, **more: str) -> Iterator[str]:
    """The site as trading-web.service starts it, at the address it gives."""
    unit = ConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment, method-assign]  # as configparser documents it
    unit.read_string(here((DEPLOY / "trading-web.service").read_text()))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = shlex.split(unit["Service"]["ExecStart"].replace("127.0.0.1:8000", address))
    process = subprocess.Popen(command, cwd=settings.BASE_DIR, env=environment(var_dir, **more))
    try:
        for _ in range(120):
            with socket.socket() as attempt:
                if attempt.connect_ex(("127.0.0.1", int(address.partition(":")[2]))) == 0:
                    break
            time.sleep(0.25)
        yield f"http://{address}"
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0


@pytest.mark.slow
def test_gunicorn_serves_pages_and_what_they_load(tmp_path: Path) -> None:
    manage(tmp_path, "migrate", "--verbosity", "0")
    with served(tmp_path) as site:
        assert "Trading site" in requests.get(f"{site}/admin/login/", timeout=60).text
        assert requests.get(f"{site}/static/plotly/plotly.min.js", timeout=60).status_code == 200
        assert requests.get(f"{site}/api/v1/trades/", timeout=60).status_code == 401


@pytest.mark.slow
def test_behind_a_proxy_that_speaks_https_nobody_is_sent_in_a_circle(tmp_path: Path) -> None:
    manage(tmp_path, "migrate", "--verbosity", "0")
    with served(tmp_path, HTTPS="true") as site:
        by_proxy = {"X-Forwarded-Proto": "https"}
        answer = requests.get(f"{site}/admin/login/", headers=by_proxy, allow_redirects=False, timeout=60)
        assert answer.status_code == 200
        assert answer.headers["Strict-Transport-Security"].startswith("max-age=31536000")
        bare = requests.get(f"{site}/admin/login/", allow_redirects=False, timeout=60)
        assert bare.headers["Location"].startswith("https://")


@pytest.mark.slow
def test_the_probes_answer_in_the_environment_of_the_documents(tmp_path: Path) -> None:
    text = text_of("docs/deployment.md")
    [told] = re.findall(r"^```\n(ALLOWED_HOSTS=.*?)^```$", text, re.MULTILINE | re.DOTALL)
    documented = dict(line.split("=", 1) for line in told.splitlines())
    assert documented["HTTPS"] == "true"
    documented |= {"SECRET_KEY": "0123456789" * 6}
    [probes] = [example for example in examples_of("docs/deployment.md") if "/metrics" in example.script]
    with new_databases(f"probed_{os.getpid()}") as [source]:
        manage(tmp_path, "migrate", "--verbosity", "0", **source)
        manage(tmp_path, "createsuperuser", "--noinput", "--username", "ada", "--email", "",
               DJANGO_SUPERUSER_PASSWORD="a-long-password-of-yours", **source)  # fmt: skip
        token = manage(tmp_path, "create_api_token", "ada", **source).strip()
        with served(tmp_path, **documented, **source) as site:
            script = probes.script.replace("http://127.0.0.1:8000", site).replace("TOKEN", token)
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", script], capture_output=True, text=True, check=False
            )
            by_name = {"Host": "trading.example.com", "X-Forwarded-Proto": "https"}
            assert requests.get(f"{site}/admin/login/", headers=by_name, timeout=60).status_code == 200
    assert done.returncode == 0, done.stderr
    ready, _, figures = done.stdout.partition("}")
    assert '"trading": "ok"' in ready
    assert "trading_watched" in figures


def manage(var_dir: Path, *arguments: str, **more: str) -> str:
    done = subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=settings.BASE_DIR, env=environment(var_dir, **more), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def run(examples: list[Example], var_dir: Path, **more: str) -> None:
    for example in examples:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", example.script],
            cwd=settings.BASE_DIR, env=environment(var_dir, **more), capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{example}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


@contextmanager
def new_databases(*names: str) -> Iterator[list[dict[str, str]]]:
    """What to put into the environment for each: of SQLite nothing, the file lies in VAR_DIR."""
    if connection.vendor == "sqlite":
        yield [{} for _ in names]
        return
    at = connection.settings_dict
    user = f"{at['USER']}:{at['PASSWORD']}@" if at["PASSWORD"] else f"{at['USER']}@"
    origin = f"postgres://{user}{at['HOST']}:{at['PORT'] or 5432}"
    with psycopg.connect(f"{origin}/postgres", autocommit=True) as server:
        for name in names:
            server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            yield [{"DATABASE_URL": f"{origin}/{name}"} for name in names]
        finally:
            for name in names:
                server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def files(folder: Path) -> dict[str, bytes]:
    """All but the database's own."""
    found = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("db.sqlite3"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


@pytest.mark.slow
def test_what_the_documents_back_up_they_also_bring_back(tmp_path: Path) -> None:
    if connection.vendor == "postgresql" and not (shutil.which("pg_dump") and shutil.which("psql")):
        pytest.skip("there is no pg_dump or no psql on this machine")
    steps = [example for example in examples_of("docs/deployment.md") if example.is_runnable]
    backup = [step for step in steps if "backup" in step.words]
    restore = [step for step in steps if "restore" in step.words]
    engines = {"sqlite", "postgresql"} - {connection.vendor}
    restore = [step for step in restore if not engines & set(step.words)]
    before, after, backups = tmp_path / "before", tmp_path / "after", tmp_path / "backups"
    after.mkdir()
    with new_databases(f"backed_up_{os.getpid()}", f"restored_{os.getpid()}") as (source, target):
        manage(before, "quickstart", "--no-serve", "--sessions", "15", **source)
        manage(before, "halt", "--reason", "lunch", BOOK="paper:mine", **source)
        (before / "trade_journal").mkdir()
        (before / "trade_journal" / "refused.jsonl").write_text("a trade that waits\n")
        there = json.loads(manage(before, "shell", "-v", "0", "-c", SAY_WHAT_IS_THERE, **source))
        assert there["orders"] > 100

        run(backup, before, BACKUPS=str(backups), **source)
        [made] = backups.iterdir()
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d{6}Z", made.name)
        assert not made.stat().st_mode & 0o077
        named = {"MODEL": there["model"], "BOOK": "simulated"}
        restore = [step.with_words(named) for step in restore]
        run(restore, after, BACKUP=str(made), **target)  # ends with show_model --verify: the signature is right

        assert json.loads(manage(after, "shell", "-v", "0", "-c", SAY_WHAT_IS_THERE, **target)) == there
        assert files(after) == files(before)


@pytest.mark.slow
def test_without_its_var_dir_a_model_is_refused_and_order_ids_begin_anew(tmp_path: Path) -> None:
    """Why the documents say that the database alone is no backup."""
    before, alone = tmp_path / "before", tmp_path / "alone"
    alone.mkdir()
    if connection.vendor != "sqlite":
        pytest.skip("the same on every engine: shown on SQLite, where the database is one file to copy")
    manage(before, "quickstart", "--no-serve", "--sessions", "15")
    shutil.copy(before / "db.sqlite3", alone)
    there, left = (json.loads(manage(each, "shell", "-v", "0", "-c", SAY_WHAT_IS_THERE)) for each in (before, alone))
    assert left["new_order_ids_begin_with"] != there["new_order_ids_begin_with"]
    told = subprocess.run(
        [sys.executable, "manage.py", "show_model", there["model"], "--book", "simulated", "--verify"],
        cwd=settings.BASE_DIR, env=environment(alone), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert told.returncode == 1
    assert "was not signed with this site's MODEL_SIGNING_KEY" in told.stdout


@pytest.mark.skipif(not shutil.which("pg_dump"), reason="there is no pg_dump on this machine")
def test_a_backup_that_failed_cannot_be_taken_for_one(tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        nowhere = f"postgres://nobody@127.0.0.1:{silent.getsockname()[1]}/nothing"
        done = subprocess.run(
            [sys.executable, "docs/deploy/backup.py", str(tmp_path / "backups")],
            cwd=settings.BASE_DIR, env=environment(tmp_path / "var", DATABASE_URL=nowhere),
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert "The database was not saved: pg_dump says why above." in done.stderr
    assert [each.suffix for each in (tmp_path / "backups").iterdir()] == [".partial"]


@pytest.mark.parametrize("url", ["postgres://nobody@127.0.0.1:9/trade", "sqlite:///{var}/trade"])
def test_a_backup_has_the_journals_whatever_the_database_is_called(url: str, tmp_path: Path) -> None:
    var = tmp_path / "var"
    (var / "trade_journal").mkdir(parents=True)
    (var / "trade_journal" / "refused.jsonl").write_text("a trade that waits\n")
    for name in ("trade", "trade-wal") if url.startswith("sqlite") else ():
        (var / name).touch()
    subprocess.run(
        [sys.executable, "docs/deploy/backup.py", str(tmp_path / "backups")],
        cwd=settings.BASE_DIR, env=environment(var, DATABASE_URL=url.format(var=var)), capture_output=True, check=False,
    )  # fmt: skip
    [made] = (tmp_path / "backups").iterdir()
    assert [path.name for path in made.glob("var/trade*")] == ["trade_journal"]  # no file of the database
    assert (made / "var" / "trade_journal" / "refused.jsonl").exists()


@pytest.mark.parametrize("arguments", [[], ["one", "two"]])
def test_a_backup_without_a_folder_says_what_to_do(arguments: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "docs/deploy/backup.py", *arguments],
        cwd=settings.BASE_DIR, env=environment(tmp_path), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("Name the folder that backups go to")
