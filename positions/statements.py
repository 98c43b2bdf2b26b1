"""The statements an order waits for, several in one exchange with the server: to build them anew, as the ORM does,
takes longer than to run them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from django.db import connection, models


@dataclass(frozen=True, slots=True)
class Statement:
    sql: str
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Done:
    """`rows` are those that were touched or found; `first` is what the first of them returned."""

    rows: int
    first: tuple[Any, ...] | None


def insertion(row: models.Model) -> Statement:
    """Inserts a row as it is, and returns its primary key."""
    sql, fields = _insertion_of(type(row))
    return Statement(sql, _prepared(row, fields))


def change(row: models.Model, names: tuple[str, ...], condition: str, values: Sequence[object]) -> Statement:
    """Saves fields of a row where an SQL condition holds of what is stored of it."""
    sql, fields = _change_of(type(row), names)
    return Statement(f"{sql} AND {condition}", (*_prepared(row, fields), row.pk, *values))


def run(*statements: Statement) -> list[Done]:
    """One after the other, on PostgreSQL in one exchange. Raises Django's database errors."""
    if not statements:
        return []
    with connection.cursor() as cursor:
        if connection.vendor != "postgresql":
            done = []
            for statement in statements:
                cursor.execute(statement.sql, statement.values)
                first = cursor.fetchone() if cursor.description else None
                done.append(Done(max(cursor.rowcount, first is not None), first))
            return done
        cursor.execute(
            ";".join(statement.sql for statement in statements),
            [value for statement in statements for value in statement.values],
        )
        done = [_heard(cursor)]
        while cursor.nextset():
            done.append(_heard(cursor))
        return done


def _heard(cursor: Any) -> Done:
    return Done(cursor.rowcount, cursor.fetchone() if cursor.description else None)


def _prepared(row: models.Model, fields: Sequence["models.Field[Any, Any]"]) -> tuple[Any, ...]:
    return tuple(field.get_db_prep_save(getattr(row, field.attname), connection) for field in fields)


@cache
def _insertion_of(model: type[models.Model]) -> tuple[str, tuple["models.Field[Any, Any]", ...]]:
    fields = tuple(field for field in model._meta.concrete_fields if not field.primary_key)
    columns, places = ", ".join(f'"{field.column}"' for field in fields), ", ".join(["%s"] * len(fields))
    return f'INSERT INTO "{model._meta.db_table}" ({columns}) VALUES ({places}) RETURNING "id"', fields


@cache
def _change_of(model: type[models.Model], names: tuple[str, ...]) -> tuple[str, tuple["models.Field[Any, Any]", ...]]:
    fields = tuple(field for field in model._meta.concrete_fields if field.name in names)
    columns = ", ".join(f'"{field.column}" = %s' for field in fields)
    return f'UPDATE "{model._meta.db_table}" SET {columns} WHERE "id" = %s', fields
