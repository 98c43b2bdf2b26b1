"""Bars on disk: one Parquet file a session, in which a corrected bar stands beside the one that was seen first."""

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from positions.market.bars import FIELDS, BarHistory, Floats, SessionBars, Universe
from positions.market.calendar import Session, session_of
from positions.market.feeds.reading import BadBars
from positions.words import Feed

Whole = NDArray[np.int64]
Mask = NDArray[np.bool_]

MINUTE = timedelta(minutes=1)
#: Sessions that indicators open on and volume profiles are made of.
HISTORY_SESSIONS = 10

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_SESSION_FILES = "[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9].parquet"


def microseconds(moment: datetime) -> int:
    """Microseconds since 1970 UTC of an aware time."""
    return (moment - _EPOCH) // _MICROSECOND


@dataclass(frozen=True)
class BarRows:
    """Bars in long form, n of them: bar i is of `symbols[codes[i]]`, and `symbols` is sorted.

    `starts` and `seen_at` are microseconds since 1970 UTC, `values` is (6, n) in the order of FIELDS with NaN for an
    unknown vwap, `trade_count` is NaN where unknown.
    """

    symbols: tuple[str, ...]
    codes: Whole
    starts: Whole
    values: Floats
    trade_count: Floats
    seen_at: Whole

    def __len__(self) -> int:
        return len(self.codes)

    @classmethod
    def of(
        cls, names: list[str], starts: Whole, values: Floats, trade_count: Floats, seen_at: Whole | datetime
    ) -> "BarRows":
        """Rows from one name a bar; `seen_at` may be one moment for all."""
        symbols = tuple(sorted(set(names)))
        code_of = {symbol: code for code, symbol in enumerate(symbols)}
        codes = np.array([code_of[name] for name in names], dtype=np.int64)
        if isinstance(seen_at, datetime):
            seen_at = np.full(len(names), microseconds(seen_at))
        return cls(symbols, codes, starts, values.reshape(len(FIELDS), len(names)), trade_count, seen_at)

    @classmethod
    def empty(cls) -> "BarRows":
        nothing = np.empty(0, dtype=np.int64)
        return cls((), nothing, nothing, np.empty((len(FIELDS), 0)), np.empty(0), nothing)

    def take(self, rows: Whole | Mask) -> "BarRows":
        return BarRows(
            self.symbols,
            self.codes[rows],
            self.starts[rows],
            self.values[:, rows],
            self.trade_count[rows],
            self.seen_at[rows],
        )

    def begins(self) -> Mask:
        """Where another bar's rows begin; the rows must be `tidy`, as for all that follows."""
        begins = np.ones(len(self), dtype=bool)
        begins[1:] = (np.diff(self.codes) != 0) | (np.diff(self.starts) != 0)
        return begins

    def revisions(self) -> Whole:
        """0 for the first seen of each bar, 1.. for its corrections."""
        first = np.flatnonzero(self.begins())
        return np.arange(len(self)) - np.repeat(first, np.diff(first, append=len(self)))

    def first_seen(self) -> "BarRows":
        """What was known when each bar first arrived."""
        return self.take(self.begins())

    def revised(self) -> "BarRows":
        """What is known of each bar by now."""
        return self.take(np.roll(self.begins(), -1))

    def matrix(self, session: Session, length: timedelta, universe: Universe) -> Floats:
        """The session's bars of a universe as (6, bars, symbols), NaN where there is none; one row a bar."""
        matrix = np.full((len(FIELDS), (session.close - session.open) // length, len(universe)), np.nan)
        row_of = {symbol: row for row, symbol in enumerate(universe.symbols)}
        column = np.array([row_of.get(symbol, -1) for symbol in self.symbols], dtype=np.int64)[self.codes]
        bar = (self.starts - microseconds(session.open)) // (length // _MICROSECOND)
        wanted = column >= 0
        matrix[:, bar[wanted], column[wanted]] = self.values[:, wanted]
        return matrix


def joined(parts: Iterable[BarRows]) -> BarRows:
    """All rows of the parts, in their order."""
    parts = [part for part in parts if len(part)]
    if not parts:
        return BarRows.empty()
    symbols = tuple(sorted({symbol for part in parts for symbol in part.symbols}))
    code_of = {symbol: code for code, symbol in enumerate(symbols)}
    codes = [np.array([code_of[symbol] for symbol in part.symbols], dtype=np.int64)[part.codes] for part in parts]
    return BarRows(
        symbols,
        np.concatenate(codes),
        np.concatenate([part.starts for part in parts]),
        np.concatenate([part.values for part in parts], axis=1),
        np.concatenate([part.trade_count for part in parts]),
        np.concatenate([part.seen_at for part in parts]),
    )


def tidy(rows: BarRows) -> BarRows:
    """Rows by symbol, start and when they were seen, without those that say the same as the one seen before.

    Making tidy rows tidy again, alone or joined with rows that they came from, changes nothing.
    """
    rows = rows.take(np.lexsort((rows.seen_at, rows.starts, rows.codes)))
    begins = rows.begins()
    again = np.flatnonzero(~begins)  # few, so that the rest need not be compared
    tied = again[rows.seen_at[again] == rows.seen_at[again - 1]]
    if len(tied):  # seen at once: the order of their values makes it one order for all
        tied = np.union1d(tied, tied - 1)
        some = rows.take(tied)
        order = np.arange(len(rows))
        order[tied] = tied[np.lexsort((*some.values, some.seen_at, some.starts, some.codes))]
        rows = rows.take(order)
    before, after = rows.values[:, again - 1], rows.values[:, again]
    same = ((before == after) | (np.isnan(before) & np.isnan(after))).all(axis=0)
    news = np.ones(len(rows), dtype=bool)
    news[again[same]] = False
    return rows.take(news)


class StoredBars:
    """The bars of one feed under `root/<feed>/<YYYY-MM-DD>.parquet`; bars of another length lie in a folder of theirs.

    A file has one row a bar and version of it, sorted by symbol, start and revision: symbol, start (UTC), open, high,
    low, close, volume, vwap, trade_count, seen_at (UTC), revision (0: first seen). It is replaced as a whole, so a
    reader or a killed writer never leaves half of one. Raises BadBars for a file that is not such a file.
    """

    def __init__(self, root: Path, feed: Feed, length: timedelta = MINUTE) -> None:
        self.feed, self.length = feed, length
        minutes = length // MINUTE
        self.folder = root / (feed.value if minutes == 1 else f"{feed.value}-{minutes}min")

    def path(self, day: date) -> Path:
        return self.folder / f"{day}.parquet"

    def days(self) -> list[date]:
        """Sessions of which there are bars, in order."""
        return [date.fromisoformat(path.stem) for path in session_files(self.folder)]

    def fetched(self, day: date) -> frozenset[str]:
        """Symbols whose session was downloaded whole, with or without a bar."""
        path = self.path(day)
        return StoredFile(path).fetched if path.exists() else frozenset()

    def merge(self, session: Session, rows: BarRows, fetched: Iterable[str] = ()) -> int:
        """Add bars of a session, and the symbols of which there are no more to come; returns how many rows are new.

        The same bar twice is one bar; other values for it, seen later, are its next revision. Raises ValueError for
        bars that are not on the session's grid.
        """
        opened, closed = microseconds(session.open), microseconds(session.close)
        outside = (rows.starts < opened) | (rows.starts >= closed)
        if (outside | ((rows.starts - opened) % (self.length // _MICROSECOND) != 0)).any():
            raise ValueError(f"bars outside the session of {session.day} or off its grid of {self.length}")
        with self._locked():
            path = self.path(session.day)
            stored, done = BarRows.empty(), frozenset(fetched)
            if path.exists():
                file = StoredFile(path)
                stored, done = file.rows, done | file.fetched
            merged = tidy(joined([stored, rows]))
            self._write(path, merged, done)
        return len(merged) - len(stored)

    def rows(self, day: date) -> BarRows:
        """All that is known of a session's bars, every revision; no rows where there is no file."""
        path = self.path(day)
        return StoredFile(path).rows if path.exists() else BarRows.empty()

    def session_bars(self, session: Session, universe: Universe, *, revised: bool = False) -> SessionBars:
        """A session of a universe: as first seen (what a live signal knew) or as revised since."""
        rows = self.rows(session.day)
        chosen = rows.revised() if revised else rows.first_seen()
        return SessionBars(session, self.length, universe, chosen.matrix(session, self.length, universe))

    def history(
        self, before: date, universe: Universe, sessions: int = HISTORY_SESSIONS, *, revised: bool = False
    ) -> BarHistory:
        """The last stored sessions strictly before a date: what indicators open on."""
        history = BarHistory(sessions)
        for day in [day for day in self.days() if day < before][-sessions:]:
            session = session_of(day)
            if session is not None:
                history.append(self.session_bars(session, universe, revised=revised))
        return history

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One writer at a time: a download and a live recorder may meet on the same session."""
        from django.core.files import locks

        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("w") as file:
            locks.lock(file, locks.LOCK_EX)
            yield

    def _write(self, path: Path, rows: BarRows, fetched: frozenset[str]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        moment = pa.timestamp("us", tz="UTC")
        columns = {
            "symbol": pa.DictionaryArray.from_arrays(
                pa.array(rows.codes, pa.int32()), pa.array(rows.symbols, pa.string())
            ),
            "start": pa.array(rows.starts).cast(moment),
            **{field: pa.array(values) for field, values in zip(FIELDS, rows.values, strict=True)},
            "trade_count": pa.array(rows.trade_count, from_pandas=True).cast(pa.int64()),
            "seen_at": pa.array(rows.seen_at).cast(moment),
            "revision": pa.array(rows.revisions(), pa.int16()),
        }
        about = {"feed": self.feed.value, "minutes": self.length // MINUTE, "fetched": sorted(fetched)}
        table = pa.table(columns).replace_schema_metadata({"bars": json.dumps(about)})
        aside = path.with_name(f".{path.name}")
        with aside.open("wb") as file:
            pq.write_table(table, file, compression="zstd")
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)


def session_files(folder: Path) -> list[Path]:
    """The session files of a folder, in order of time."""
    return sorted(folder.glob(_SESSION_FILES))


class StoredFile:
    """One session file: what it says of itself, and its rows. Raises BadBars if it is no such file."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.path = path
        try:
            self.day = date.fromisoformat(path.stem)
            about = json.loads((pq.read_schema(path).metadata or {})[b"bars"])
            self.feed = Feed(about["feed"])
            self.length = about["minutes"] * MINUTE
            self.fetched = frozenset(about["fetched"])
        except (pa.ArrowException, OSError, KeyError, ValueError) as error:
            raise BadBars(
                f"{path}: not a session of stored bars; remove it and fetch the session again (fetch_bars)"
            ) from error

    @cached_property
    def rows(self) -> BarRows:
        table = self._read()
        symbol = table["symbol"].combine_chunks()
        values = [table[field].to_numpy() for field in FIELDS]
        return BarRows(
            symbols=tuple(symbol.dictionary.to_pylist()),
            codes=symbol.indices.to_numpy().astype(np.int64),
            starts=table["start"].to_numpy().astype("datetime64[us]").view(np.int64),
            values=np.stack(values),
            trade_count=table["trade_count"].to_numpy().astype(np.float64),
            seen_at=table["seen_at"].to_numpy().astype("datetime64[us]").view(np.int64),
        )

    def _read(self) -> Any:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            return pq.ParquetFile(self.path).read()
        except (pa.ArrowException, OSError) as error:
            raise BadBars(f"{self.path}: cannot be read ({error}); remove it and fetch the session again") from error
