"""Rows handed over are stored exactly once, whatever becomes of the database, the disk or the process."""

import json
import os
import random
import resource
import select
import signal
import threading
import time
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from django.db import connection, connections, models
from structlog.testing import capture_logs

from ml.feature_writer import REFUSED, Backlog, Explain, FeatureWriter, MemoryWriter, backlog, unexplained
from ml.models import MLModel, Prediction, TradeFeatures
from positions.journal import Journal
from positions.words import Outcome
from tests.factories import MLModelFactory, TradeFeaturesFactory

SIGNAL_AT = datetime(2025, 1, 3, 15, 0, tzinfo=UTC)


@pytest.fixture(autouse=True)
def short_locks(transactional_db):
    """A database that is locked says so at once."""
    if connection.vendor != "sqlite":
        yield
        return
    options = connections.settings["default"]["OPTIONS"]
    patience = options["timeout"]
    options["timeout"] = 0.1
    connection.close()
    yield
    options["timeout"] = patience
    connection.close()


@contextmanager
def writing(folder: Path, explain: Explain = unexplained):
    writer = FeatureWriter(folder, explain)
    try:
        yield writer
    finally:
        writer.close()


def row_of(instance: models.Model) -> dict:
    return {field.attname: getattr(instance, field.attname) for field in instance._meta.concrete_fields}


def features(key: str, **values) -> dict:
    return row_of(TradeFeaturesFactory.build(signal_key=key, signal_at=SIGNAL_AT, session=date(2025, 1, 3), **values))


def prediction(key: str, model: MLModel) -> dict:
    return row_of(
        Prediction(
            book="simulated",
            signal_key=key,
            model=model,
            mode="shadow",
            p_raw=0.4,
            p_win=0.41,
            p_geometry=0.33,
            threshold=0.36,
            decision="take",
            latency_us=150.0,
            predicted_at=SIGNAL_AT,
        )
    )


def keys() -> list[str]:
    return sorted(TradeFeatures.objects.values_list("signal_key", flat=True))


def stored_within(seconds: float, expected: int) -> bool:
    deadline = time.monotonic() + seconds
    while (found := TradeFeatures.objects.count()) < expected and time.monotonic() < deadline:
        time.sleep(0.02)
    return found == expected


@contextmanager
def no_database():
    """No table, so that every write fails; reads of the test itself are for afterwards."""
    table = TradeFeatures._meta.db_table
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {table} RENAME TO hidden")
    yield
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE hidden RENAME TO {table}")


def left_behind(folder: Path, *bodies: bytes) -> Path:
    """The journal of a process that is no more."""
    journal = Journal.create(folder)
    for body in bodies:
        journal.append(body)
    journal.close()
    return journal.path


def journalled(folder: Path, *rows: dict) -> bytes:
    """The bytes of a journal of these rows."""
    with no_database(), writing(folder) as writer:
        for row in rows:
            writer.hand_over(row)
        writer.close()
    (path,) = folder.glob("*.journal")
    data = path.read_bytes()
    path.unlink()
    return data


def test_what_is_handed_over_is_stored_as_it_was(tmp_path):
    row = features("one", rsi14=0.1 + 0.2, ema20=1e-17, spread=None, missing={"spread": "no_quote"}, vix=float("nan"))
    with writing(tmp_path / "journal") as writer:
        writer.hand_over(row)
        assert stored_within(5, 1)
    saved = TradeFeatures.objects.values().get()
    del saved["id"], row["id"]
    assert saved == {**row, "vix": None}


def test_live_rows_equal_replayed_rows(tmp_path):
    memory = MemoryWriter()
    memory.hand_over(features("replayed", rsi14=1 / 3, win_rate_10=None))
    assert memory.flush()
    with writing(tmp_path / "journal") as live:
        live.hand_over(features("live", rsi14=1 / 3, win_rate_10=None))
    first, second = TradeFeatures.objects.order_by("id").values()
    same = first.keys() - {"id", "signal_key", "symbol"}
    assert {name: first[name] for name in same} == {name: second[name] for name in same}


def test_a_prediction_is_stored_with_its_signal_and_hears_how_the_trade_ended(tmp_path):
    with writing(tmp_path / "journal") as writer:
        writer.hand_over(features("one"), [prediction("one", MLModelFactory())])
        writer.join_outcome("simulated", "one", Outcome.WIN)
    saved = Prediction.objects.get()
    assert (saved.p_win, saved.predicted_at, saved.outcome) == (0.41, SIGNAL_AT, Outcome.WIN)


def test_what_moved_each_prediction_is_asked_for_behind_the_signal_once_a_model_and_batch(tmp_path):
    champion, candidate, gone = MLModelFactory(), MLModelFactory(), MLModelFactory(book="paper:1")
    asked = []

    def explain(model_id, rows):
        asked.append((model_id, threading.current_thread().name))
        return None if model_id == gone.pk else [[{"feature": "rsi14", "value": row["rsi14"]}] for row in rows]

    with no_database(), writing(tmp_path / "journal") as waits:
        for key in ("one", "two"):
            rows = [prediction(key, model) for model in (champion, candidate, gone)]
            waits.hand_over(features(key, rsi14=float(len(key))), rows)
    with writing(tmp_path / "journal", explain) as writer:
        assert writer.flush()
    assert asked == [(model.pk, "feature-writer") for model in (champion, candidate, gone)]
    stored = Prediction.objects.order_by("signal_key", "model_id").values_list("signal_key", "contributions")
    said = [{"feature": "rsi14", "value": 3.0}]
    assert list(stored) == [(key, told) for key in ("one", "two") for told in (said, said, None)]


def test_a_signal_handed_over_twice_is_stored_once_and_the_first_counts(tmp_path):
    for rsi in (10.0, 20.0):
        with writing(tmp_path / "journal") as writer:
            writer.hand_over(features("one", rsi14=rsi))
            writer.hand_over(features("one", rsi14=rsi + 5))
    assert TradeFeatures.objects.get().rsi14 == 10.0


def test_close_stores_everything_and_leaves_no_file(tmp_path):
    writer = FeatureWriter(tmp_path / "journal")
    for number in range(350):
        writer.hand_over(features(f"{number:03}"))
    assert writer.close()
    assert keys() == [f"{number:03}" for number in range(350)]
    assert list((tmp_path / "journal").iterdir()) == []


def test_a_closed_writer_takes_nothing_more(tmp_path):
    writer = FeatureWriter(tmp_path / "journal")
    writer.close()
    with pytest.raises(RuntimeError, match="closed"):
        writer.hand_over(features("late"))


def test_a_forked_child_does_not_write_into_its_parents_journal(tmp_path):
    with writing(tmp_path / "journal") as writer:
        child = os.fork()
        if child == 0:
            try:
                writer.hand_over(features("child"))
            except RuntimeError:
                os._exit(0)
            os._exit(1)
        assert os.waitpid(child, 0)[1] == 0


def test_while_the_database_is_down_rows_wait_on_disk_and_nobody_waits_for_them(tmp_path):
    with writing(tmp_path / "journal") as writer:
        with no_database(), capture_logs() as logs:
            started = time.perf_counter()
            for number in range(1000):
                writer.hand_over(features(f"{number:04}"))
            assert time.perf_counter() - started < 3
            time.sleep(0.6)
            seen = writer.backlog()
            assert seen.rows == 1000
            assert seen == backlog(tmp_path / "journal")
            assert 0.5 < (datetime.now(UTC) - seen.oldest_at).total_seconds() < 10
        assert "rows_wait" in {entry["event"] for entry in logs}
        assert writer.flush(timeout=20)
        assert writer.backlog() == Backlog()
    assert keys() == [f"{number:04}" for number in range(1000)]


def test_a_process_that_ends_while_the_database_is_down_leaves_its_rows_to_the_next(tmp_path):
    with no_database():
        writer = FeatureWriter(tmp_path / "journal")
        writer.hand_over(features("one"))
        assert not writer.close()
    assert backlog(tmp_path / "journal").rows == 1
    with writing(tmp_path / "journal"):
        pass
    assert keys() == ["one"]
    assert backlog(tmp_path / "journal") == Backlog()


def test_a_locked_database_makes_rows_wait_not_the_caller(tmp_path):
    with writing(tmp_path / "journal") as writer:
        with connection.cursor() as cursor:
            if connection.vendor == "sqlite":
                cursor.execute("BEGIN IMMEDIATE")
            else:
                cursor.execute("BEGIN; LOCK TABLE ml_trade_features IN EXCLUSIVE MODE")
            started = time.perf_counter()
            for number in range(20):
                writer.hand_over(features(f"{number:02}"))
            took = time.perf_counter() - started
            time.sleep(0.8)
            assert writer.backlog().rows == 20
            cursor.execute("COMMIT")
        assert took < 0.5
        assert writer.flush(timeout=20)
    assert len(keys()) == 20


def test_a_row_that_the_database_refuses_is_set_aside_and_holds_up_no_other(tmp_path):
    with capture_logs() as logs, writing(tmp_path / "journal") as writer:
        writer.hand_over(features("good"))
        writer.hand_over(features("bad", side="both"))
        writer.hand_over(features("better"))
        assert writer.flush()
        assert writer.refused_rows == 1
    assert keys() == ["better", "good"]
    assert b'"bad"' in (tmp_path / "journal" / REFUSED).read_bytes()
    assert "row_refused" in {entry["event"] for entry in logs}


def test_two_writers_at_once_leave_each_others_journals_alone(tmp_path):
    folder = tmp_path / "journal"
    with writing(folder) as first, writing(folder) as second:
        assert len(list(folder.glob("*.journal"))) == 2
        for number in range(100):
            first.hand_over(features(f"first{number:02}"))
            second.hand_over(features(f"second{number:02}"))
        assert first.flush()
        assert second.flush()
        assert len(list(folder.glob("*.journal"))) == 2
    assert len(keys()) == 200


def test_on_a_full_disk_the_signal_goes_on_and_its_row_is_stored(tmp_path):
    """A limit on file sizes makes the journal's write fail as a full disk does, halfway through a line."""
    parent, child_end = os.pipe()
    close_connections()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            writer = FeatureWriter(tmp_path / "journal")
            time.sleep(0.05)  # the thread has looked and found nothing, and looks again in a quarter of a second
            resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
            for number in range(6):
                writer.hand_over(features(str(number)))
            seen = writer.backlog().rows
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            writer.hand_over(features("6"))
            stored = writer.close(20)
            os.write(child_end, json.dumps([writer.journal_errors, seen, stored]).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(child_end)
    with os.fdopen(parent, "rb") as pipe:
        told = pipe.read()
    assert os.waitpid(child, 0)[1] == 0
    errors, seen, stored = json.loads(told)
    assert errors == 5
    assert (seen, stored) == (6, True)
    assert keys() == [str(number) for number in range(7)]


def test_a_journal_cut_off_at_any_byte_gives_its_whole_lines_and_no_error(tmp_path):
    bodies = [b'{"a": 1}', b"{}", b'["longer", "line"]', b"0"]
    whole = left_behind(tmp_path / "whole", *bodies).read_bytes()
    ends = [len(whole[: i + 1]) for i, byte in enumerate(whole) if byte == ord("\n")]
    for size in range(len(whole) + 1):
        folder = tmp_path / str(size)
        folder.mkdir()
        (folder / "dead.journal").write_bytes(whole[:size])
        (journal,) = Journal.orphans(folder)
        found: list[bytes] = []
        while journal.done < journal.end:
            more, journal.done = journal.read(2)
            found += more
        journal.close()
        assert found == bodies[: sum(end <= size for end in ends)]


@pytest.mark.parametrize("most", [1, 2, 100])
def test_a_damaged_byte_costs_its_own_line_alone(tmp_path, most):
    bodies = [b'{"a": %d}' % number for number in range(4)]
    whole = left_behind(tmp_path / "whole", *bodies).read_bytes()
    length = len(whole) // 4
    path = tmp_path / "dead.journal"
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        (journal,) = Journal.orphans(tmp_path)
        found: list[bytes] = []
        while journal.done < journal.end:
            more, journal.done = journal.read(most)
            found += more
        journal.close()
        joined = place % length == length - 1  # without its line feed a line runs into the next
        lost = {place // length, place // length + 1} if joined else {place // length}
        assert found == [body for number, body in enumerate(bodies) if number not in lost]


def test_a_torn_last_line_is_skipped_with_a_log_line_and_the_lines_before_it_are_stored(tmp_path):
    data = journalled(tmp_path / "journal", features("one"), features("two"))
    (tmp_path / "journal" / "dead.journal").write_bytes(data[:-700])
    with capture_logs() as logs, writing(tmp_path / "journal") as writer:
        assert writer.flush()
    assert keys() == ["one"]
    assert [entry["file"] for entry in logs if entry["event"] == "journal_line_damaged"] == ["dead.journal"]
    assert list((tmp_path / "journal").iterdir()) == []


def test_a_journal_longer_than_one_read_is_read_whole(tmp_path):
    bodies = [b"%d" % number * 997 for number in range(1000)]
    left_behind(tmp_path, *bodies)
    (journal,) = Journal.orphans(tmp_path)
    found: list[bytes] = []
    while journal.done < journal.end:
        more, journal.done = journal.read(100)
        found += more
    journal.close()
    assert found == bodies


def close_connections() -> None:
    """Before a fork: parent and child must not share one."""
    connections.close_all()
    if connection.vendor == "postgresql":
        connection.close_pool()


def hand_over_until_killed(folder: Path, told: int, run: int) -> None:
    """A trading process: hands over signals in bursts and tells each afterwards."""
    writer, number, chance = FeatureWriter(folder), 0, random.Random(run)
    while True:
        for _ in range(chance.randint(1, 30)):
            key = f"{run:03}-{number:05}"
            writer.hand_over(features(key))
            os.write(told, key.encode() + b"\n")
            number += 1
        time.sleep(chance.uniform(0, 0.15))


def kill_between_hand_over_and_write(folder: Path, run: int, chance: random.Random) -> tuple[list[str], int]:
    """What a process had handed over when SIGKILL hit it, and how many of those were not stored then."""
    told, tell = os.pipe()
    close_connections()
    child = os.fork()
    if child == 0:
        try:
            os.close(told)
            hand_over_until_killed(folder, tell, run)
        finally:
            os._exit(1)
    os.close(tell)
    try:
        select.select([told], [], [], 20)  # its first signal has been handed over
        time.sleep(chance.uniform(0, 0.5))
    finally:
        os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
    with os.fdopen(told, "rb") as pipe:
        handed_over = [line.decode() for line in pipe.read().split(b"\n") if len(line) == 9]
    return handed_over, len(handed_over) - TradeFeatures.objects.filter(signal_key__in=handed_over).count()


@pytest.mark.parametrize("kills", [10, pytest.param(100, marks=pytest.mark.slow)])
def test_after_a_kill_every_signal_handed_over_has_exactly_one_row(tmp_path, kills):
    chance, unstored, total = random.Random(kills), 0, 0
    for run in range(kills):
        handed_over, waiting = kill_between_hand_over_and_write(tmp_path / "journal", run, chance)
        assert handed_over
        unstored, total = unstored + (waiting > 0), total + len(handed_over)
        writer = FeatureWriter(tmp_path / "journal")
        assert writer.close(20)
        found = keys()
        assert len(found) == len(set(found))
        assert set(handed_over) <= set(found)
        TradeFeatures.objects.all().delete()
    print(f"{kills} kills, {total} signals handed over, {unstored} kills before all was stored")  # noqa: T201  # with -s
    assert unstored > kills / 4
