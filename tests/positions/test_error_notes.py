"""What goes wrong unexpectedly is counted by session and kind, and never lost while only the database is away."""

from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace

import pytest
from django.db import DataError, connection
from django.test.utils import CaptureQueriesContext
from structlog.testing import capture_logs

from positions.clock import ReplayClock
from positions.isolation import MOST_FAILURES, Isolation, TooManyFailures, Work
from positions.journaled_store import PAUSE, JournaledStore, TradeJournal
from positions.models import ErrorNote
from positions.store import OrmStore
from tests.positions.stage import FLAT, Stage
from tests.positions.test_journaled_store import database_down
from tests.positions.test_trader import trader_of
from tests.positions.world import START
from tradingsite.privacy import without_secrets

pytestmark = pytest.mark.django_db

BOOK, DAY = "simulated", START.date()


class Odd(Exception):
    pass


def fail(isolation: Isolation, work: Work, error: Exception) -> None:
    with isolation.of(work):
        raise error


def isolation_at(moment: datetime = START) -> Isolation:
    return Isolation(BOOK, ReplayClock(moment))


def store(isolation: Isolation) -> None:
    """As a process does it; the next one begins with nothing in hand."""
    assert OrmStore(BOOK).note_errors(list(isolation.errors.values()))
    isolation.errors.clear()


@pytest.fixture
def stage() -> Stage:
    stage = Stage(store=OrmStore(BOOK))
    stage.enter()
    return stage


def watched(stage: Stage) -> tuple[Isolation, list[int]]:
    """Isolates each position of a stage, and breaks its look at the volume; what was asked is counted."""
    isolation, asked = Isolation(BOOK, stage.world.clock), list[int]()

    def broken(*_: object) -> None:
        asked.append(1)
        raise Odd("no such column")

    stage.exits._isolate = isolation.of
    stage.exits.check_volume_exit = broken
    return isolation, asked


def test_a_position_that_cannot_be_looked_at_is_one_row_however_often_it_failed(stage):
    isolation, asked = watched(stage)
    for _ in range(3):
        stage.bar(FLAT)
        store(isolation)
    note = ErrorNote.objects.get()
    assert (note.book, note.session, note.job, note.symbol, note.error) == (BOOK, DAY, "exits", "KO", "Odd")
    assert (note.message, note.subject) == ("Odd('no such column')", stage.world.store.live["KO"].trade.signal_key)
    assert note.count == len(asked) == 3
    assert note.last_at - note.first_at == timedelta(minutes=2)


def test_other_jobs_symbols_errors_and_sessions_are_rows_of_their_own():
    isolation = isolation_at()
    for work, error in (
        (Work("exits", "KO"), Odd()),
        (Work("exits", "F"), Odd()),
        (Work("tick"), Odd()),
        (Work("exits", "KO"), ValueError()),
    ):
        fail(isolation, work, error)
    isolation._clock.sleep_until(START + timedelta(days=1))
    fail(isolation, Work("exits", "KO"), Odd())
    store(isolation)
    assert sorted(ErrorNote.objects.values_list("session", "job", "symbol", "error", "count")) == [
        (DAY, "exits", "F", "Odd", 1),
        (DAY, "exits", "KO", "Odd", 1),
        (DAY, "exits", "KO", "ValueError", 1),
        (DAY, "tick", "", "Odd", 1),
        (DAY + timedelta(days=1), "exits", "KO", "Odd", 1),
    ]


def test_messages_that_are_never_the_same_do_not_fill_the_table():
    isolation = isolation_at()
    for number in range(MOST_FAILURES - 1):
        fail(isolation, Work("bars", subject=f"14:{number:02} UTC"), Odd(number))
    store(isolation)
    note = ErrorNote.objects.get()
    assert (note.count, note.subject, note.message) == (29, "14:28 UTC", "Odd(28)")


def test_the_next_process_goes_on_counting():
    for hours in (0, 1, 2):
        isolation = isolation_at(START + timedelta(hours=hours))
        for _ in range(2):
            fail(isolation, Work("tick"), Odd())
        store(isolation)
    note = ErrorNote.objects.get()
    assert (note.count, note.first_at, note.last_at) == (6, START, START + timedelta(hours=2))


@pytest.mark.parametrize(
    ("moment", "session"),
    [
        (datetime(2025, 5, 16, 22, tzinfo=UTC), date(2025, 5, 16)),  # after Friday's close
        (datetime(2025, 5, 17, 3, tzinfo=UTC), date(2025, 5, 16)),  # Friday still in New York
        (datetime(2025, 5, 18, 15, tzinfo=UTC), date(2025, 5, 16)),  # Sunday
        (datetime(2025, 5, 19, 11, tzinfo=UTC), date(2025, 5, 19)),  # before Monday's open
    ],
    ids=["evening", "night", "Sunday", "early"],
)
def test_what_fails_outside_a_session_counts_for_its_day_or_the_last_session_before(moment, session):
    isolation = isolation_at(moment)
    fail(isolation, Work("reconcile"), Odd())
    (note,) = isolation.errors.values()
    assert note.session == session


def test_a_message_is_one_line_without_secrets_that_every_database_takes():
    class Unprintable(Exception):
        def __repr__(self) -> str:
            return "first\nsecond\x00\ud800 hunter2" + "x" * 1000

    isolation = Isolation(BOOK, ReplayClock(START), lambda text: text.replace("hunter2", "***"))
    fail(isolation, Work("tick"), Unprintable())
    store(isolation)
    note = ErrorNote.objects.get()
    assert note.message.startswith("first second   ***x")
    assert len(note.message) == 300
    assert "hunter2" not in isolation.last_error


def test_keys_and_passwords_of_the_installation_are_blotted_out(settings):
    settings.ALPACA_SECRET_KEY, settings.NOTIFY_URLS = (
        "s3cr3t",
        "mailto://me:pw@example.org, json://you:pw2@example.org",
    )
    text = "no answer to s3cr3t from json://you:pw2@example.org and mailto://me:pw@example.org"
    assert without_secrets(text) == "no answer to *** from *** and ***"


def test_an_isolated_listener_counts_with_its_trade(stage):
    isolation = Isolation(BOOK, stage.world.clock)

    def deaf(trade: object) -> None:
        raise Odd

    stage.world.execution.isolate = isolation.of
    stage.world.execution.closed_listeners.append(deaf)
    stage.bar((98.0,) * 4)
    trade = stage.closed()
    assert [(each.job, each.symbol, each.subject) for each in isolation.errors.values()] == [
        ("telling", "KO", trade.signal_key)
    ]


# -- who stores them, and when


def beating(stage: Stage):
    trader = trader_of(stage)
    trader._updates = SimpleNamespace(trouble=lambda now: "", stop=lambda: None, start=lambda: None, wake=trader._wake)
    trader._tenure = SimpleNamespace(renew=lambda **told: None)
    return trader


def test_a_failed_tick_is_stored_with_the_next_sign_of_life_and_a_quiet_one_asks_nothing(stage, monkeypatch):
    trader = beating(stage)
    monkeypatch.setattr(trader, "_broker", SimpleNamespace(requests_sent=0))
    monkeypatch.setattr(trader._loop, "settle", lambda: (_ for _ in ()).throw(Odd("settle")))
    with CaptureQueriesContext(connection) as quiet:
        trader._tell_state(START)
    trader._tick(START)
    assert not ErrorNote.objects.exists()
    with CaptureQueriesContext(connection) as told:
        trader._tell_state(START)
    assert ErrorNote.objects.get().job == "tick"
    assert "error_notes" not in str(quiet.captured_queries)
    assert sum('"error_notes"' in each["sql"] for each in told.captured_queries) == 2


def test_what_fails_while_the_database_is_away_is_counted_once_it_is_back(tmp_path):
    stage = Stage(store=JournaledStore(OrmStore(BOOK), TradeJournal(tmp_path)))
    trader = beating(stage)
    with database_down():
        stage.world.store.store_shadows([])
        fail(trader._isolation, Work("tick"), Odd())
        trader._tell_state(START)
        fail(trader._isolation, Work("tick"), Odd())
        trader._tell_state(START)
    assert not ErrorNote.objects.exists()
    stage.world.store.settle(START + PAUSE)
    trader._tell_state(START)
    trader._tell_state(START)
    assert ErrorNote.objects.get().count == 2


def test_a_process_that_ends_without_its_database_says_what_was_not_counted(tmp_path, monkeypatch):
    stage = Stage(store=JournaledStore(OrmStore(BOOK), TradeJournal(tmp_path)))
    trader = beating(stage)
    monkeypatch.setattr(trader, "_do_chores", lambda now: fail(trader._isolation, Work("reconcile"), Odd()))
    monkeypatch.setattr(trader, "_tick", lambda now: trader.stop())
    with database_down(), capture_logs() as logs:
        trader.run()
    assert [each["errors"] for each in logs if each["event"] == "errors_not_counted"] == [1]


@pytest.mark.parametrize("ending", [Odd("unforeseen"), TooManyFailures("at last")])
def test_what_ends_the_process_is_counted_before_it_ends(stage, monkeypatch, ending):
    trader = beating(stage)

    def end(now: datetime) -> None:
        fail(trader._isolation, Work("exits", "KO"), Odd())
        raise ending

    monkeypatch.setattr(trader, "_do_chores", end)
    with pytest.raises(type(ending)):
        trader.run()
    expected = ["exits", "process"] if isinstance(ending, Odd) else ["exits"]
    assert sorted(ErrorNote.objects.values_list("job", flat=True)) == expected


def test_a_count_that_the_database_refuses_ends_nothing_and_is_told_once(stage, monkeypatch):
    trader = beating(stage)
    fail(trader._isolation, Work("tick"), Odd())

    def refuse(notes: object) -> bool:
        raise DataError("value too long")

    monkeypatch.setattr(stage.world.store, "note_errors", refuse)
    with capture_logs() as logs:
        trader._tell_state(START)
        trader._tell_state(START)
    assert [each["event"] for each in logs].count("errors_not_counted") == 1
