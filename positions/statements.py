"""The statements an order waits for. To build them anew each time, as the ORM does, takes longer than to run them, and
to ask the server for each takes longer than both."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any

from django.db import DataError, connection, models, transaction

_Fields = tuple["models.Field[Any, Any]", ...]


class Untouched(Exception):
    """A statement has neither found nor changed a row."""


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL that returns a row where it found or changed one."""

    sql: str
    values: tuple[Any, ...]
    inserts: bool = False


def insertion(row: models.Model, parent: str = "") -> Statement:
    """Inserts a row as it is; `parent` is its field that refers to the row inserted just before."""
    sql, fields = _insertion_of(type(row), parent, connection.vendor)
    return Statement(sql, _prepared(row, fields), inserts=True)


def change(row: models.Model, names: tuple[str, ...], condition: str, values: Sequence[object]) -> Statement:
    """Saves fields of a row where an SQL condition holds of what is stored of it."""
    sql, fields = _change_of(type(row), names)
    return Statement(f'{sql} AND {condition} RETURNING "id"', (*_prepared(row, fields), row.pk, *values))


def run(*statements: Statement, durable: bool = False) -> list[int]:
    """All of them or none, in one exchange with a server; returns the primary keys of inserted rows.

    `durable`: it outlives a loss of power from its return on. Else it outlives the loss of this process, and that of
    PostgreSQL's server, or of power, once the server has written it out, within a second. Raises Untouched for a
    statement that returns no row, and Django's database errors.
    """
    if connection.vendor == "postgresql":
        return _run_as_one(statements, durable=durable)
    keys = []
    with connection.cursor() as cursor:
        if not connection.in_atomic_block:
            cursor.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
    with transaction.atomic(), connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement.sql, statement.values)
            found = cursor.fetchone()
            if found is None:
                raise Untouched(statement.sql)
            if statement.inserts:
                keys.append(found[0])
    return keys


def _run_as_one(statements: Sequence[Statement], *, durable: bool) -> list[int]:
    """The server takes several statements in one message for one transaction. What touches nothing divides by zero,
    which ends it there: to look at the counts here, and commit then, would cost two more exchanges."""
    sql = ";".join(
        each.sql if each.inserts else f"WITH touched AS ({each.sql}) SELECT 1 / COUNT(*) FROM touched"
        for each in statements
    )
    if not durable:
        sql = f"SELECT set_config('synchronous_commit', 'off', true);{sql}"  # for this transaction alone
    nested = transaction.atomic() if connection.in_atomic_block else nullcontext()
    try:
        with nested, connection.cursor() as cursor:
            cursor.execute(sql, [value for each in statements for value in each.values])
            results = [cursor.fetchone()[0]]
            while cursor.nextset():
                results.append(cursor.fetchone()[0])
    except DataError as error:
        if getattr(error.__cause__, "sqlstate", "") == "22012":
            raise Untouched(sql) from error
        raise
    found = results if durable else results[1:]
    return [key for key, each in zip(found, statements, strict=True) if each.inserts]


def _prepared(row: models.Model, fields: _Fields) -> tuple[Any, ...]:
    return tuple(field.get_db_prep_save(getattr(row, field.attname), connection) for field in fields)


@cache
def _insertion_of(model: type[models.Model], parent: str, vendor: str) -> tuple[str, _Fields]:
    fields = tuple(each for each in model._meta.concrete_fields if not each.primary_key and each.name != parent)
    columns, values = [f'"{field.column}"' for field in fields], ["%s"] * len(fields)
    for field in model._meta.concrete_fields:
        if field.name == parent and field.related_model is not None:
            columns.append(f'"{field.column}"')
            last = f"currval(pg_get_serial_sequence('{field.related_model._meta.db_table}', 'id'))"
            values.append(last if vendor == "postgresql" else "last_insert_rowid()")
    table = model._meta.db_table
    return f'INSERT INTO "{table}" ({", ".join(columns)}) VALUES ({", ".join(values)}) RETURNING "id"', fields


@cache
def _change_of(model: type[models.Model], names: tuple[str, ...]) -> tuple[str, _Fields]:
    fields = tuple(field for field in model._meta.concrete_fields if field.name in names)
    columns = ", ".join(f'"{field.column}" = %s' for field in fields)
    return f'UPDATE "{model._meta.db_table}" SET {columns} WHERE "id" = %s', fields
