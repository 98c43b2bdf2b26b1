from typing import Any

from django.apps import AppConfig
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

#: Whoever waits longer for a row that somebody holds locked is told so: an exit does not wait for the database.
LOCK_TIMEOUT_MS = 2_000


class PositionsConfig(AppConfig):
    name = "positions"

    def ready(self) -> None:
        connection_created.connect(limit_lock_waits)


def limit_lock_waits(connection: BaseDatabaseWrapper, **_: Any) -> None:
    """SQLite has the whole database locked or not: there the store limits its own waits."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(f"SET lock_timeout = {LOCK_TIMEOUT_MS}")
