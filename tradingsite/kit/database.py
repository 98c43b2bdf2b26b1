"""What the errors of a database say of it."""

from django.db import InterfaceError, OperationalError

# SQLite's own names of what keeps a program from its file; the rest (SQLITE_ERROR: bad SQL) is a mistake in a program.
SQLITE_OUT_OF_REACH = {
    "SQLITE_CANTOPEN",
    "SQLITE_BUSY",
    "SQLITE_READONLY",
    "SQLITE_IOERR",
    "SQLITE_FULL",
    "SQLITE_NOTADB",
    "SQLITE_CORRUPT",
    "SQLITE_PERM",
}


def is_sqlite_out_of_reach(error: BaseException) -> bool | None:
    """Whether SQLite cannot get at its file; None where the error is not one of SQLite's."""
    name = getattr(error.__cause__, "sqlite_errorname", None)
    return name and "_".join(name.split("_")[:2]) in SQLITE_OUT_OF_REACH  # SQLITE_BUSY_SNAPSHOT is a SQLITE_BUSY


def is_database_away(error: BaseException) -> bool:
    """Whether a request failed for the database's sake and not its own: no answer, a spoilt file, a lock."""
    of_sqlite = is_sqlite_out_of_reach(error)
    return isinstance(error, InterfaceError | OperationalError) if of_sqlite is None else of_sqlite
