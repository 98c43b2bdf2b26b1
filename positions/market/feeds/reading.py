"""Tables in CSV or Parquet files, read whole and checked row by row: the first bad row is refused with one clear line.

Nothing here knows what a bar is; file.py says which columns a file needs and which values are wrong.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from positions.market.bars import Floats

Mask = NDArray[np.bool_]
Whole = NDArray[np.int64]

_CSV, _GZIPPED, _PARQUET = ".csv", ".csv.gz", ".parquet"
_TIME_WITH_OFFSET = r"[T ]\d\d:?\d\d.*(Z|[+-]\d\d(:?\d\d)?)$"
_CORRECT, _CORRECT_OR_SKIP = "correct the file", "correct the file or pass --skip-bad-rows"


class BadBars(ValueError):
    """A file that cannot be replayed. The message is one line: the file, the row and column, and what to do."""


class Table:
    """The wanted columns of a file, all rows, and a verdict on each row.

    Reading a column checks it and `refuse` marks further rows as bad; `settle` then raises BadBars for the bad row that
    comes first in the file, or, when skipping, counts the bad rows. Rows are named by their line in a CSV file (the
    header is line 1) and by their number, from 1, in a Parquet file. Blank lines of a CSV file are no rows.

    Raises BadBars for what is wrong with the file as a whole: absent, empty, unreadable, of an unknown extension,
    without a needed column.
    """

    def __init__(self, path: Path, needed: tuple[str, ...], optional: tuple[str, ...] = (), skip: bool = False) -> None:
        self.path = path
        self._skip = skip
        self._advice = _CORRECT if skip else _CORRECT_OR_SKIP
        self._unit = "row" if path.suffix.lower() == _PARQUET else "line"
        self._first_bad: tuple[int, str] | None = None
        self._columns, self._numbers, self._broken_lines = self._read(needed, optional)
        self.good: Mask = np.ones(len(self._numbers), dtype=bool)
        if not len(self.good):
            raise self.bad_file("it has no rows")

    def __contains__(self, column: str) -> bool:
        return column in self._columns.column_names

    @property
    def skipped(self) -> int:
        """How many rows are left out as bad."""
        return self._broken_lines + int((~self.good).sum())

    def bad_file(self, problem: str) -> BadBars:
        return BadBars(f"{self.path}: {' '.join(problem.splitlines())}")  # names in a broken file hold anything

    def bad_row(self, row: int, column: str, problem: str, advice: str = "") -> BadBars:
        where = f"{self._unit} {self._numbers[row]}, column {column}"
        return self.bad_file(f"{where}: {problem}; {advice or self._advice}")

    def refuse(self, bad: Mask, column: str, problem: str) -> None:
        """Marks rows that are still good as bad. `problem` goes on with "must ..."; the row's value is added to it."""
        rows = np.flatnonzero(bad & self.good)
        if not len(rows):
            return
        self.good[rows] = False
        row = int(rows[0])
        if self._first_bad is None or row < self._first_bad[0]:
            self._first_bad = row, str(self.bad_row(row, column, f"{problem}, is {self._shown(row, column)}"))

    def settle(self) -> None:
        """Raises BadBars for the file's first bad row, or, when skipping, if no row is good."""
        if self._first_bad is None:
            return
        if not self._skip:
            raise BadBars(self._first_bad[1])
        if not self.good.any():
            raise self.bad_file(f"not one good row; the first of {self.skipped} bad ones: {self._first_bad[1]}")

    def text(self, column: str) -> tuple[Whole, list[str]]:
        """A column of texts as codes and the sorted distinct texts that they stand for; an absent one is ""."""
        import pyarrow as pa
        import pyarrow.compute as pc

        encoded = pc.fill_null(self._columns[column].cast(pa.large_string()), "").combine_chunks().dictionary_encode()
        texts: list[str] = encoded.dictionary.to_pylist()
        order = sorted(range(len(texts)), key=texts.__getitem__)
        rank = np.empty(len(texts), dtype=np.int64)
        rank[order] = np.arange(len(texts))
        return rank[encoded.indices.to_numpy()], [texts[i] for i in order]

    def numbers(self, column: str, may_lack: bool = False) -> Floats:
        """A column of finite numbers, NaN where it is empty and may be."""
        import pandas as pd
        import pyarrow as pa
        import pyarrow.compute as pc

        values = self._columns[column]
        if _is_text(values.type):
            lacking = pc.equal(values, "").to_numpy()
            numbers = pd.to_numeric(values.to_pandas(), errors="coerce").to_numpy(np.float64, na_value=np.nan)
        elif _is_number(values.type):
            numbers = _shortest(values) if pa.types.is_float32(values.type) else values.cast(pa.float64(), safe=False)
            numbers = numbers.to_numpy(zero_copy_only=False)
            lacking = np.isnan(numbers)
        else:
            raise self.bad_file(f"column {column} must hold numbers, not {values.type}")
        self.refuse(~np.isfinite(numbers) & ~(lacking & may_lack), column, "must be a finite number")
        return np.asarray(numbers, dtype=np.float64)

    def times(self, column: str) -> Whole:
        """A column of times as microseconds since 1970 UTC. Raises BadBars for a column without a time zone."""
        import pandas as pd
        import pyarrow as pa
        import pyarrow.compute as pc

        values = self._columns[column]
        if pa.types.is_timestamp(values.type):
            aware = np.full(len(values), values.type.tz is not None)
            stamps = values.cast(pa.timestamp("us"), safe=False).to_numpy()
        elif _is_text(values.type):
            aware = pc.match_substring_regex(values, _TIME_WITH_OFFSET).to_numpy()
            parsed = pd.to_datetime(values.to_pandas(), format="ISO8601", utc=True, errors="coerce")
            stamps = parsed.dt.tz_localize(None).to_numpy("datetime64[us]")
        else:
            raise self.bad_file(f"column {column} must hold times, not {values.type}")
        known = ~np.isnat(stamps)
        if known.any() and not (known & aware).any():
            row = int(np.flatnonzero(known)[0])
            problem = f"{self._shown(row, column)} has no time zone"
            raise self.bad_row(row, column, problem, "write times in UTC (with Z or an offset)")
        self.refuse(~known, column, "must be a time (ISO 8601)")
        self.refuse(~aware, column, "must have a time zone (Z or an offset)")
        return np.asarray(stamps.view(np.int64))

    def dates(self, column: str) -> Whole:
        """A column of dates as days since 1970."""
        import pandas as pd
        import pyarrow as pa

        values = self._columns[column]
        if pa.types.is_date(values.type):
            dates = values.cast(pa.date32()).to_numpy()
        elif _is_text(values.type):
            parsed = pd.to_datetime(values.to_pandas(), format="%Y-%m-%d", errors="coerce")
            dates = parsed.to_numpy("datetime64[D]")
        else:
            raise self.bad_file(f"column {column} must hold dates, not {values.type}")
        self.refuse(np.isnat(dates), column, "must be a date (YYYY-MM-DD)")
        return np.asarray(dates.astype("datetime64[D]").astype(np.int64))

    def refuse_disorder(self, groups: Whole, moments: Whole, column: str) -> None:
        """Refuses good rows that repeat a moment of their group or come after a later one of it.

        Groups may follow one another or be interleaved: both (symbol, timestamp) and (timestamp, symbol) are orders.
        """
        rows = np.flatnonzero(self.good)
        if not len(rows):
            return
        rows = rows[np.argsort(groups[rows], kind="stable")]
        start, end = moments[rows].min(), moments[rows].max()
        keys = groups[rows] * (end - start + 1) + (moments[rows] - start)
        earlier = np.zeros(len(self.good), dtype=bool)
        earlier[rows[1:]] = keys[1:] < np.maximum.accumulate(keys)[:-1]
        again = np.zeros(len(self.good), dtype=bool)
        by_key = np.argsort(keys, kind="stable")
        again[rows[by_key[1:]]] = np.diff(keys[by_key]) == 0
        self.refuse(again, column, "must not be a duplicate")
        self.refuse(earlier, column, "must be sorted, later than the rows above it")

    def _read(self, needed: tuple[str, ...], optional: tuple[str, ...]) -> tuple[Any, Whole, int]:
        import pyarrow as pa

        name = self.path.name.lower()
        if not name.endswith((_CSV, _GZIPPED, _PARQUET)):
            raise self.bad_file(f"unknown extension; give a {_CSV}, {_GZIPPED} or {_PARQUET} file")
        if not self.path.is_file():
            raise self.bad_file("no such file; check the path")
        if not self.path.stat().st_size:
            raise self.bad_file("the file is empty")
        try:
            if name.endswith(_PARQUET):
                return self._read_parquet(needed, optional)
            return self._read_csv(needed, optional)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise self.bad_file(f"cannot be read ({_one_line(error)}); make it anew") from error

    def _wanted(self, found: list[str], needed: tuple[str, ...], optional: tuple[str, ...]) -> list[str]:
        for column in needed:
            if column not in found:
                raise self.bad_file(f"column {column} is missing; it has {', '.join(found)[:200]}")
        wanted = [*needed, *(column for column in optional if column in found)]
        for column in wanted:
            if found.count(column) > 1:
                raise self.bad_file(f"column {column} is there {found.count(column)} times; leave one")
        return wanted

    def _read_parquet(self, needed: tuple[str, ...], optional: tuple[str, ...]) -> tuple[Any, Whole, int]:
        import pyarrow.parquet as pq

        with pq.ParquetFile(self.path) as file:
            columns = file.read(self._wanted(file.schema_arrow.names, needed, optional))
        return columns, np.arange(1, len(columns) + 1), 0

    def _read_csv(self, needed: tuple[str, ...], optional: tuple[str, ...]) -> tuple[Any, Whole, int]:
        import pyarrow as pa
        import pyarrow.compute as pc
        from pyarrow import csv

        broken: list[Any] = []

        def note(line: Any) -> str:
            broken.append(line)
            return "skip"

        # Threads would lose the numbers of broken lines. Unlike utf8, this encoding is verified before a line is split.
        read = csv.ReadOptions(use_threads=False, encoding="utf-8-sig")
        parse = csv.ParseOptions(ignore_empty_lines=False, invalid_row_handler=note)
        with csv.open_csv(self.path, read_options=read, parse_options=parse) as head:
            wanted = self._wanted(head.schema.names, needed, optional)
        broken.clear()
        columns = csv.read_csv(
            self.path,
            read_options=read,
            parse_options=parse,
            convert_options=csv.ConvertOptions(
                include_columns=wanted, column_types=dict.fromkeys(wanted, pa.large_string())
            ),
        )
        if broken and not self._skip:
            line = broken[0]
            found = f"{line.actual_columns} values instead of {line.expected_columns}"
            raise self.bad_file(f"line {line.number}, all columns: {found}; {self._advice}")
        numbers = np.arange(2, len(columns) + len(broken) + 2)
        numbers = np.delete(numbers, [line.number - 2 for line in broken])
        blank = np.logical_and.reduce([pc.equal(columns[column], "").to_numpy() for column in wanted])
        if blank.any():
            columns, numbers = columns.filter(pa.array(~blank)), numbers[~blank]
        return columns, numbers, len(broken)

    def _shown(self, row: int, column: str) -> str:
        value = self._columns[column][row].as_py()
        return "empty" if value in (None, "") else _one_line(value)


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_number(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _shortest(values: Any) -> Any:
    """float32 as the shortest decimals that they stand for, what a CSV file would hold: 172.15, not 172.14999."""
    import pyarrow as pa

    encoded = values.combine_chunks().dictionary_encode()
    return encoded.dictionary.cast(pa.large_string()).cast(pa.float64()).take(encoded.indices)


def _one_line(value: object) -> str:
    return " ".join(str(value).split())[:120]
