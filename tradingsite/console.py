"""What the process of a command ends with: one-line errors with a documented exit status.

Exit status: 0 done, 1 the command failed and says why, 2 bad input or configuration, 3 the database cannot be reached,
130 interrupted.
"""

import contextlib
import errno
import sys
from collections.abc import Iterator

from django.core.exceptions import ImproperlyConfigured
from django.db.utils import DatabaseError

from tradingsite.environment import BadEnvironment
from tradingsite.kit.database import is_sqlite_out_of_reach
from tradingsite.kit.options import BAD_CONFIGURATION, INTERRUPTED, NO_DATABASE

#: The disk is full, read-only or somebody else's, or a file is where a folder should be.
UNWRITABLE = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.EISDIR, errno.ENOTDIR, errno.EEXIST),
}

# Classes of SQLSTATE: connection, authorisation, unknown database, resources, server shutting down or starting.
POSTGRESQL_OUT_OF_REACH = ("08", "28", "3D", "53", "57P")


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """End the process with one line on stderr and a status where the cause lies outside the program.

    Programming errors keep their traceback, and `--traceback` shows it for the rest too.
    """
    try:
        yield
    except (KeyboardInterrupt, BadEnvironment, ImproperlyConfigured, DatabaseError, OSError) as error:
        told = _told(error)
        if told is None or "--traceback" in sys.argv:
            raise
        message, status = told
        print(message, file=sys.stderr)  # noqa: T201  # the terminal is this module's job
        sys.exit(status)


def _told(error: BaseException) -> tuple[str, int] | None:
    """The line and the exit status for an error from outside the program; None for a mistake in it."""
    if isinstance(error, KeyboardInterrupt):
        return "Interrupted.", INTERRUPTED
    if isinstance(error, OSError):
        named = f" {error.filename}" if error.filename else ""
        return (f"Cannot write{named}: {error.strerror}.", BAD_CONFIGURATION) if error.errno in UNWRITABLE else None
    if not isinstance(error, DatabaseError):
        return f"Configuration: {error}", BAD_CONFIGURATION
    if _is_out_of_reach(error):
        told = f"The database cannot be used: {_reason(error)}. Check DATABASE_URL, and that its disk has room."
        return told, NO_DATABASE
    if _is_missing_table(error):
        return f"{_first_line(error)}. If the database is new: python manage.py migrate", BAD_CONFIGURATION
    return None


def _is_out_of_reach(error: DatabaseError) -> bool:
    of_sqlite = is_sqlite_out_of_reach(error)
    if of_sqlite is not None:
        return of_sqlite
    state = getattr(error.__cause__, "sqlstate", "not of PostgreSQL")
    return state is None or state.startswith(POSTGRESQL_OUT_OF_REACH)


def _is_missing_table(error: DatabaseError) -> bool:
    return getattr(error.__cause__, "sqlstate", None) == "42P01" or str(error).startswith("no such table")


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].rstrip(". ")


def _reason(error: DatabaseError) -> str:
    """The pool only knows that it waited in vain; one connection of its own says why."""
    from django.db import OperationalError, connection

    if type(error.__cause__).__name__ != "PoolTimeout":
        return _first_line(error)
    alone = connection.copy(alias="diagnosis")
    alone.settings_dict["OPTIONS"].pop("pool")
    try:
        alone.ensure_connection()
    except OperationalError as direct:
        return _first_line(direct)
    alone.close()
    return _first_line(error)
