import os
import signal
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """The suite as a whole is spread over the cores. What is asked for by name or marker runs in this process: figures
    are measured alone, and -s shows them."""
    return None if is_whole_suite(config) else 0


def is_whole_suite(config: pytest.Config) -> bool:
    asked = config.option
    return not asked.file_or_dir and not asked.keyword and asked.markexpr == "not slow"


def pytest_configure(config: pytest.Config) -> None:
    """Ctrl-C is heard by what tests start even where a shell has put them into the background, deaf to it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The whole suite on PostgreSQL leaves out what on any database is the same: tests of the lower floors that touch
    none, and ran on SQLite."""
    if not is_whole_suite(config) or settings.DATABASES["default"]["ENGINE"].endswith("sqlite3"):
        return
    kept = [item for item in items if item.path.parent.name not in {"ml", "positions"} or touches_database(item)]
    config.hook.pytest_deselected(items=[*set(items) - set(kept)])
    items[:] = kept


def touches_database(item: pytest.Item) -> bool:
    fixtures = {"db", "transactional_db", "live_server"}
    return bool(item.get_closest_marker("django_db") or fixtures & set(getattr(item, "fixturenames", ())))


@pytest.fixture(scope="session")
def django_db_modify_db_settings(
    tmp_path_factory: pytest.TempPathFactory,
    django_db_modify_db_settings_parallel_suffix: None,  # on PostgreSQL each process has a database of its own
) -> None:
    """On SQLite the tests' database is a file, as it is for users: in memory, threads share one cache whose locks no
    timeout waits for, and other processes see nothing."""
    database = settings.DATABASES["default"]
    if database["ENGINE"].endswith("sqlite3"):
        database["TEST"]["NAME"] = str(tmp_path_factory.mktemp("database") / "db.sqlite3")


@pytest.fixture(autouse=True)
def _state_of_its_own(settings: Any, tmp_path: Path) -> None:
    """What a test leaves on disk (bars of a book, journals, locks) is seen by no other, whatever runs beside it."""
    settings.VAR_DIR = tmp_path.with_name(f"{tmp_path.name}-var")
    settings.VAR_DIR.mkdir()


@pytest.fixture(autouse=True)
def _passwords_hashed_at_once(settings: Any) -> None:
    """A real hash takes a fifth of a second by design, and nearly every page is asked for by a user made for it."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real bars, kept beside the project and never copied into it."""
    folder = Path(os.environ.get("BARS_DIR") or settings.BASE_DIR.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"needs the real bars, which are not part of the project: not in {folder}; BARS_DIR says where")
    return folder


@pytest.fixture(scope="session")
def alpaca_papers() -> Path:
    """Alpaca's specification and recorded replies, kept beside the project and never copied into it."""
    folder = Path(os.environ.get("ALPACA_DIR") or settings.BASE_DIR.parent / "shared" / "alpaca")
    if not folder.is_dir():
        pytest.skip(f"needs Alpaca's recorded replies, which are not part of the project: not in {folder}")
    return folder
