"""Where a signal's rows go. In a replay: memory, written in batches. Live: a journal on disk, from which a thread
stores them behind the trader's back, so that a signal never waits for a database."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any, Protocol

import orjson
import structlog
from django.core.exceptions import ValidationError
from django.db import DataError, Error, IntegrityError, connection, connections, models, transaction

from ml.models import Prediction, TradeFeatures
from positions import bulk
from positions.journal import SUFFIX, Journal, checked
from positions.words import Outcome

log = structlog.get_logger(__name__)

#: A row to be: a plain value for each column of its table but the primary key.
Row = Mapping[str, Any]
#: What moved a model's scores of n signals most, given its primary key and their feature rows; None if it cannot say.
Explain = Callable[[int, Sequence[Row]], Sequence[Any] | None]

BATCH = 100
PAUSE_S = 0.25
SYNC_S = 1.0
LONGEST_BACK_OFF_S = 30.0
REFUSED = "refused.jsonl"
ROWS_OWN_FAULT = (IntegrityError, DataError, ValidationError)


def unexplained(model_id: int, rows: Sequence[Row]) -> None:
    """No model is at hand to say what moved its scores."""


class Writer(Protocol):
    """What MLSystem hands a signal's rows to: MemoryWriter in a replay, FeatureWriter live."""

    def hand_over(self, features: Row, predictions: Sequence[Row] = ()) -> None:
        """A signal's features, and what each model said of it."""

    def join_outcome(self, book: str, signal_key: str, outcome: Outcome) -> None:
        """The trade of a signal has ended: to be noted on the predictions made of it."""

    def flush(self) -> bool:
        """Write what waits; whether all of it is in the database."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What is stored in one transaction; `outcomes` holds (book, signal key, outcome)."""

    features: list[Row] = field(default_factory=list)
    predictions: list[Row] = field(default_factory=list)
    outcomes: list[tuple[str, str, str]] = field(default_factory=list)

    def store(self) -> None:
        with transaction.atomic():
            bulk.insert(TradeFeatures, self.features)
            bulk.insert(Prediction, self.predictions)
            keys: dict[tuple[str, str], list[str]] = {}
            for book, key, outcome in self.outcomes:
                keys.setdefault((book, outcome), []).append(key)
            for (book, outcome), ended in keys.items():
                Prediction.objects.filter(book=book, signal_key__in=ended).update(outcome=outcome)

    def explained(self, explain: Explain) -> "Batch":
        """The same, each prediction with what moved it most."""
        features = {(row["book"], row["signal_key"]): row for row in self.features}
        by_model: dict[int, list[Row]] = {}
        for row in self.predictions:
            by_model.setdefault(row["model_id"], []).append(row)
        predictions: list[Row] = []
        for model_id, rows in by_model.items():
            told = explain(model_id, [features[row["book"], row["signal_key"]] for row in rows]) or [None] * len(rows)
            predictions += ({**row, "contributions": each} for row, each in zip(rows, told, strict=True))
        return Batch(self.features, predictions, self.outcomes)

    def without_stored(self) -> "Batch":
        """The same without rows whose unique key is in the database."""
        features = _new(TradeFeatures, self.features, "book", "signal_key")
        predictions = _new(Prediction, self.predictions, "book", "signal_key", "model_id")
        return Batch(features, predictions, self.outcomes)


class MemoryWriter:
    """Rows wait in memory until `flush`; a row whose signal is stored already raises IntegrityError there."""

    def __init__(self, explain: Explain = unexplained) -> None:
        self._batch = Batch()
        self._explain = explain

    def hand_over(self, features: Row, predictions: Sequence[Row] = ()) -> None:
        self._batch.features.append(features)
        self._batch.predictions.extend(predictions)

    def join_outcome(self, book: str, signal_key: str, outcome: Outcome) -> None:
        self._batch.outcomes.append((book, signal_key, outcome))

    def flush(self) -> bool:
        batch, self._batch = self._batch, Batch()
        batch.explained(self._explain).store()
        return True


@dataclass(frozen=True, slots=True)
class Backlog:
    """What was handed over and may not be in the database yet; `oldest_at` (UTC) is None where nothing waits."""

    rows: int = 0
    oldest_at: datetime | None = None


def backlog(folder: Path) -> Backlog:
    """The backlog of every process that journals into `folder`, read from its files.

    A file is emptied as soon as all it holds is stored; until then all of it counts.
    """
    rows, oldest = 0, []
    for path in folder.glob(f"*{SUFFIX}"):
        try:
            file = path.open("rb")
        except FileNotFoundError:
            continue  # stored and removed since it was listed
        with file:
            bodies = filter(None, map(checked, file))
            first = next(bodies, None)
            if first is not None:
                oldest.append(orjson.loads(first)["at"])
                rows += 1 + sum(1 for _ in bodies)
    return Backlog(rows, datetime.fromtimestamp(min(oldest), UTC) if oldest else None)


class FeatureWriter:
    """Takes rows in microseconds and stores each exactly once, whatever becomes of the database or the process.

    The journal is the queue: handing over writes one line to it, a thread follows behind, stores what it reads in
    batches, and empties the file when all of it is safe. A database that is down, locked or slow makes the file grow
    and nobody wait. What dead processes left in `folder` is stored first; rows that are there already are left alone.
    Only what the disk refuses waits in memory. Works in the process that made it; a fork makes its own. `explain` is
    called in that thread.
    """

    def __init__(self, folder: Path, explain: Explain = unexplained) -> None:
        self.folder = folder
        self._explain = explain
        self.journal_errors = 0
        self.refused_rows = 0
        self._pid = os.getpid()
        self._journal = Journal.create(folder)
        self._orphans = list(Journal.orphans(folder))
        self._in_memory: list[bytes] = []
        self._failures = 0
        self._lock = Lock()
        self._closing, self._wake = Event(), Event()
        self._storing = Thread(target=self._store_behind, name="feature-writer", daemon=True)
        self._syncing = Thread(target=self._sync_behind, name="journal-sync", daemon=True)
        self._syncing.start()
        self._storing.start()

    def hand_over(self, features: Row, predictions: Sequence[Row] = ()) -> None:
        """Journal a signal's rows; NaN becomes null. Raises RuntimeError after `close` and in a forked child."""
        self._append({"at": time.time(), "features": features, "predictions": predictions})

    def join_outcome(self, book: str, signal_key: str, outcome: Outcome) -> None:
        self._append({"at": time.time(), "outcome": (book, signal_key, outcome)})

    def _append(self, record: Row) -> None:
        body = orjson.dumps(record, option=orjson.OPT_SERIALIZE_NUMPY)
        with self._lock:
            if self._closing.is_set() or os.getpid() != self._pid:
                raise RuntimeError("this FeatureWriter is closed or another process's; make a new one")
            try:
                self._journal.append(body)
            except OSError as error:
                self._in_memory.append(body)
                self.journal_errors += 1
                log.error("journal_write_failed", file=str(self._journal.path), error=str(error))

    def backlog(self) -> Backlog:
        """As `backlog` of the folder, with what this process holds in memory."""
        on_disk, in_memory = backlog(self.folder), [orjson.loads(body)["at"] for body in self._in_memory]
        times = [datetime.fromtimestamp(min(in_memory), UTC)] if in_memory else []
        times += [on_disk.oldest_at] if on_disk.oldest_at else []
        return Backlog(on_disk.rows + len(in_memory), min(times, default=None))

    def flush(self, timeout: float = 5.0) -> bool:
        """Wait at most `timeout` seconds until everything is stored; whether it is."""
        deadline = time.monotonic() + timeout
        self._wake.set()
        while self._waiting() and time.monotonic() < deadline:
            time.sleep(0.005)
        return not self._waiting()

    def close(self, timeout: float = 5.0) -> bool:
        """Store what waits, try no more after a failure, and stop; whether everything was stored in `timeout` seconds.

        What was not stays in the journal for the next start.
        """
        with self._lock:
            self._closing.set()
        self._wake.set()
        self._storing.join(timeout)
        return not self._storing.is_alive() and not self._waiting()

    def _waiting(self) -> bool:
        return bool(self._orphans or self._in_memory or self._journal.end)

    def _sync_behind(self) -> None:
        while not self._closing.wait(SYNC_S):
            try:
                self._journal.sync()
            except OSError as error:
                self.journal_errors += 1
                log.error("journal_sync_failed", file=str(self._journal.path), error=str(error))

    def _store_behind(self) -> None:
        try:
            while True:
                closing = self._closing.is_set()
                pause = self._store_some()
                if closing and (self._failures or not self._waiting()):
                    break
                self._wake.wait(pause)
                self._wake.clear()
        finally:
            connections.close_all()
        self._syncing.join()
        self._leave()

    def _store_some(self) -> float:
        """One batch from the oldest journal into the database; returns the seconds to wait before the next."""
        journal = self._orphans[0] if self._orphans else self._journal
        in_memory = self._in_memory[:BATCH]
        try:
            bodies, done = journal.read(BATCH)
            self._store(in_memory + bodies)
            if done == journal.end > 0:
                _force_to_disk()
        except (Error, OSError) as error:
            connections.close_all()
            self._failures += 1
            pause: float = min(PAUSE_S * 2**self._failures, LONGEST_BACK_OFF_S)
            log.warning("rows_wait", file=str(journal.path), failures=self._failures, retry_s=pause, error=str(error))
            return pause
        self._failures = 0
        with self._lock:
            del self._in_memory[: len(in_memory)]
            journal.done = done
            if journal is not self._journal and done == journal.end:
                self._orphans.pop(0).remove()
            elif done == journal.end > 0:
                journal.clear()
        return 0.0 if self._orphans or len(bodies) == BATCH else PAUSE_S

    def _store(self, bodies: list[bytes]) -> None:
        """Store rows; raises django.db.Error, but for a row's own fault, if the database takes none at the moment."""
        try:
            _batch(bodies).explained(self._explain).store()
        except ROWS_OWN_FAULT:
            for body in bodies:
                self._store_one(body)

    def _store_one(self, body: bytes) -> None:
        """Store a row unless it is there already; set it aside if the database will never take it."""
        try:
            _batch([body]).explained(self._explain).without_stored().store()
        except ROWS_OWN_FAULT as error:
            self.refused_rows += 1
            log.error("row_refused", kept_in=REFUSED, error=str(error))
            with (self.folder / REFUSED).open("ab") as file:
                file.write(body + b"\n")

    def _leave(self) -> None:
        """Keep what is not stored for the next start."""
        for journal in self._orphans:
            journal.close()
        if self._journal.end:
            self._journal.close()
        else:
            self._journal.remove()
        if self._in_memory:
            log.error("rows_lost", rows=len(self._in_memory), reason="neither journal nor database took them")


def _batch(bodies: list[bytes]) -> Batch:
    """Journalled records as rows. Raises ValidationError for what is no date."""
    records = [orjson.loads(body) for body in bodies]
    return Batch(
        [_row(TradeFeatures, record["features"]) for record in records if "features" in record],
        [_row(Prediction, prediction) for record in records for prediction in record.get("predictions", ())],
        [tuple(record["outcome"]) for record in records if "outcome" in record],
    )


def _row(model: type[models.Model], stored: dict[str, Any]) -> Row:
    """What JSON made of a row, back in the types of its columns; a column that is newer than the journal is null."""
    names, times = _columns(model)
    row = {**names, **stored}
    for column in times:
        row[column.attname] = column.to_python(row[column.attname])
    return row


@cache
def _columns(model: type[models.Model]) -> tuple[dict[str, None], list["models.DateField[Any, Any]"]]:
    fields = model._meta.concrete_fields
    return {field.attname: None for field in fields}, [field for field in fields if isinstance(field, models.DateField)]


def _new(model: type[models.Model], rows: list[Row], *key: str) -> list[Row]:
    known = model._default_manager
    return [row for row in rows if not known.filter(**{name: row[name] for name in key}).exists()]


def _force_to_disk() -> None:
    """What is committed survives a loss of power. PostgreSQL has seen to it; SQLite's log waits for a checkpoint."""
    if connection.vendor == "sqlite":
        with suppress(FileNotFoundError):
            log_file = os.open(f"{connection.settings_dict['NAME']}-wal", os.O_RDONLY)
            try:
                os.fsync(log_file)
            finally:
                os.close(log_file)
