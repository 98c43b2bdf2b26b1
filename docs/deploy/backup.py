"""Puts what a restore needs into a new folder below FOLDER: the database, VAR_DIR and .env.

    python docs/deploy/backup.py FOLDER

The site may run meanwhile. docs/deployment.md has the way back.
"""

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(PROJECT))

from tradingsite.settings import DATABASES, VAR_DIR  # noqa: E402  # the project is found above


def back_up(folder: Path, now: datetime) -> Path:
    """Complete or absent: what was broken off has another name. Ends the process with one line if pg_dump fails."""
    done = folder / f"{now:%Y-%m-%dT%H%M%SZ}"
    draft = done.with_suffix(".partial")
    draft.mkdir(parents=True)
    # The journals first: what leaves them meanwhile is in the database by then, and what is in both is stored once.
    _copy_var_dir(draft / "var")
    _save_database(DATABASES["default"], draft)
    with suppress(FileNotFoundError):
        shutil.copy2(PROJECT / ".env", draft / "env")
    return draft.rename(done)


def _copy_var_dir(target: Path) -> None:
    def copy(source: str, destination: str) -> None:
        with suppress(FileNotFoundError):  # a journal that was stored and removed meanwhile
            shutil.copy2(source, destination)

    database = DATABASES["default"]
    name = Path(database["NAME"]).name
    files = [name, f"{name}-*"] if database["ENGINE"].endswith("sqlite3") else []
    shutil.copytree(VAR_DIR, target, ignore=shutil.ignore_patterns(*files), copy_function=copy)


def _save_database(database: dict[str, Any], folder: Path) -> None:
    if database["ENGINE"].endswith("sqlite3"):
        source = f"{Path(database['NAME']).resolve().as_uri()}?mode=rw"  # never a new, empty one
        with closing(sqlite3.connect(source, uri=True, timeout=20)) as connection:
            connection.execute("VACUUM INTO ?", [str(folder / "db.sqlite3")])
        return
    from django.db.backends.postgresql.client import DatabaseClient

    options = ["--no-owner", "--no-privileges", "--file", str(folder / "database.sql")]
    arguments, password = DatabaseClient.settings_to_cmd_args_env(database, options)
    done = subprocess.run(["pg_dump", *arguments[1:]], env={**os.environ, **(password or {})}, check=False)
    if done.returncode:
        sys.exit("The database was not saved: pg_dump says why above.")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("Name the folder that backups go to: python docs/deploy/backup.py FOLDER")
    os.umask(0o077)
    print(back_up(Path(sys.argv[1]), datetime.now(UTC)))  # noqa: T201
