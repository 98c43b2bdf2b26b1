"""Rows of a table as a file, written while they are read: a million of them are never in memory at once."""

import csv
import io
import json
from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from typing import Any, cast

from django.db import models

AT_ONCE = 5_000
FORMULA = ("=", "+", "-", "@", "\t", "\r")

Row = tuple[Any, ...]
Fields = list["models.Field[Any, Any]"]


class _Chunks(io.RawIOBase):
    """A file that is read away while it is written."""

    def __init__(self) -> None:
        self._written: list[bytes] = []
        self._place = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def write(self, content: Any) -> int:
        self._written.append(bytes(content))
        self._place += len(content)
        return len(content)

    def taken(self) -> bytes:
        content, self._written = b"".join(self._written), []
        return content


def _batches(rows: Iterator[Row]) -> Iterator[list[Row]]:
    while batch := list(islice(rows, AT_ONCE)):
        yield batch


def csv_of(fields: Fields, rows: Iterator[Row]) -> Iterator[bytes]:
    """UTF-8 with a head of column names; times ISO 8601 in UTC, nothing for null, JSON as text.

    What a spreadsheet would take for a formula has an apostrophe before it: texts come from whoever may send signals.
    """
    chunks = _Chunks()
    writer = csv.writer(text := io.TextIOWrapper(cast(Any, chunks), "utf-8", newline="", write_through=True))
    writer.writerow([field.attname for field in fields])
    for batch in _batches(rows):
        writer.writerows([_text(value) for value in row] for row in batch)
        yield chunks.taken()
    yield chunks.taken()
    text.detach()


def _text(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, str) and value.startswith(FORMULA):
        return f"'{value}"
    return json.dumps(value) if isinstance(value, dict | list) else value


def parquet_of(fields: Fields, rows: Iterator[Row]) -> Iterator[bytes]:
    """Columns typed as in the table: decimals exact, times with their zone, JSON as text."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([(field.attname, _arrow_type(field)) for field in fields])
    chunks = _Chunks()
    with pq.ParquetWriter(pa.PythonFile(chunks, "w"), schema, compression="zstd") as writer:
        for batch in _batches(rows):
            columns = zip(*batch, strict=True)
            arrays = [
                pa.array([json.dumps(value) if isinstance(value, dict | list) else value for value in column], kind)
                for column, kind in zip(columns, schema.types, strict=True)
            ]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
            yield chunks.taken()
    yield chunks.taken()


def _arrow_type(field: "models.Field[Any, Any]") -> Any:
    import pyarrow as pa

    if isinstance(field, models.ForeignKey):
        return pa.int64()
    if isinstance(field, models.DecimalField):
        return pa.decimal128(field.max_digits, field.decimal_places)
    kinds = {
        models.DateTimeField: pa.timestamp("us", tz="UTC"),
        models.DateField: pa.date32(),
        models.BooleanField: pa.bool_(),
        models.FloatField: pa.float64(),
        models.IntegerField: pa.int64(),
        models.AutoField: pa.int64(),
    }
    return next((kind for of, kind in kinds.items() if isinstance(field, of)), pa.string())
