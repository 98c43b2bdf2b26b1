from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from django.apps import AppConfig
from django.db import connection as this_threads
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

#: Whoever waits longer for a row that somebody holds locked is told so: an exit does not wait for the database.
LOCK_TIMEOUT_MS = 2_000
#: While exits depend on it, the server gives up a statement that takes longer.
STATEMENT_TIMEOUT_MS = 3_000
#: So long is an answer waited for then: a frozen server never gives up anything, and its connection stays open.
LONGEST_SILENCE_S = 4.0


class PositionsConfig(AppConfig):
    name = "positions"

    def ready(self) -> None:
        connection_created.connect(limit_lock_waits)


def limit_lock_waits(connection: BaseDatabaseWrapper, **_: Any) -> None:
    """SQLite has the whole database locked or not: there the store limits its own waits."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(f"SET lock_timeout = {LOCK_TIMEOUT_MS}")


@contextmanager
def limited_answers() -> Iterator[None]:
    """PostgreSQL answers within LONGEST_SILENCE_S or raises OperationalError, on connections opened in the block."""
    connection_created.connect(_limit_answers)
    _open_anew()
    try:
        yield
    finally:
        connection_created.disconnect(_limit_answers)
        _open_anew()


def _open_anew() -> None:
    if this_threads.vendor == "postgresql" and not this_threads.in_atomic_block:
        this_threads.close()


def _limit_answers(connection: BaseDatabaseWrapper, **_: Any) -> None:
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(f"SET statement_timeout = {STATEMENT_TIMEOUT_MS}")
        raw: Any = connection.connection
        raw.wait = partial(type(raw).wait, raw, timeout=LONGEST_SILENCE_S)
