"""Many new rows of one table at once: COPY on PostgreSQL, one prepared statement on SQLite.

Three to eight times as fast as `bulk_create`, which prepares each value by itself; in return nothing is filled in: no
defaults, no primary keys, no signals.
"""

from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections, models, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

#: What both drivers store as it is.
_PLAIN = (models.CharField, models.TextField, models.FloatField, models.IntegerField, models.BooleanField)


def insert(model: type[models.Model], rows: Iterable[Mapping[str, Any]]) -> None:
    """Insert all rows or none. A row has a value for every column but the primary key, by the field's `attname`:
    `vars(instance)` is one. Raises KeyError for a row without one, and Django's database errors.
    """
    rows = list(rows)
    if not rows:
        return
    connection = connections[DEFAULT_DB_ALIAS]
    fields = [field for field in model._meta.concrete_fields if not field.primary_key]
    columns = zip(*map(itemgetter(*(field.attname for field in fields)), rows), strict=True)
    prepared = zip(*(_prepared(*column, connection) for column in zip(fields, columns, strict=True)), strict=True)
    quote = connection.ops.quote_name
    table, names = quote(model._meta.db_table), ", ".join(quote(str(field.column)) for field in fields)
    with transaction.atomic(), connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            with connection.wrap_database_errors, cursor.copy(f"COPY {table} ({names}) FROM STDIN") as copy:
                for row in prepared:
                    copy.write_row(row)
        else:
            places = ", ".join(["%s"] * len(fields))
            cursor.executemany(f"INSERT INTO {table} ({names}) VALUES ({places})", list(prepared))


def _prepared(field: "models.Field[Any, Any]", values: Sequence[Any], connection: BaseDatabaseWrapper) -> Sequence[Any]:
    """A column's values as its driver stores them, each distinct value prepared once."""
    if isinstance(field, _PLAIN):
        return values
    if isinstance(field, models.JSONField):
        return [field.get_db_prep_save(value, connection) for value in values]
    prepared = {value: field.get_db_prep_save(value, connection) for value in set(values)}
    return [prepared[value] for value in values]
