"""Exits while the database is down: nothing is lost or stored twice, whatever becomes of process, line and disk."""

import errno
import os
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal

import pytest
from constance import config
from django.db import OperationalError, connection, transaction
from structlog.testing import capture_logs

from positions.journal import SUFFIX
from positions.journaled_store import PAUSE, REFUSED, JournaledStore, TradeJournal
from positions.live_settings import exit_settings, last_known
from positions.models import OrderIntent, PositionExit, ShadowTrade, StopMove, Trade
from positions.rules import ExitDecision
from positions.store import OrmStore, StoreUnavailable
from positions.words import ExitReason, ExitStatus, IntentStatus, IntentStep, Outcome, TradeStatus
from tests.factories import ShadowTradeFactory
from tests.positions.world import START, World, trade_plan

pytestmark = pytest.mark.django_db(transaction=True)

LEAVE = ExitDecision(ExitReason.TIME_LIMIT, {"minutes": 15, "gain": 0.25})
QUIET, UP = (100.0, 100.2, 99.8, 100.0), (101.5, 101.6, 101.4, 101.5)


@contextmanager
def database_down():
    """Every statement fails, as on a connection that the server has closed."""

    def fail(*_):
        raise OperationalError("server closed the connection unexpectedly")

    with connection.execute_wrapper(fail):
        yield


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "trades"


@pytest.fixture
def in_trade(folder):
    """A world with ten shares of KO and their stop, whose store journals into `folder`."""
    world = World(JournaledStore(OrmStore("simulated"), TradeJournal(folder)))
    world.execution.enter(trade_plan())
    world.bar(QUIET)
    return world


def started_again(world: World, folder) -> World:
    """A new process after a kill: broker, database and disk are all that is left."""
    world.store._lines._journal.close()  # as the kernel does, which frees the lock
    fresh = World(JournaledStore(OrmStore("simulated"), TradeJournal(folder)), now=world.now)
    fresh.exchange = fresh.execution._broker = world.exchange
    return fresh


def lines_in(folder) -> int:
    return sum(len(path.read_bytes().splitlines()) for path in folder.glob(f"*{SUFFIX}"))


def rows():
    """All that is stored, without primary keys."""
    tables = (Trade, OrderIntent, StopMove, PositionExit)
    return [
        sorted(str({k: v for k, v in each.items() if k not in ("id", "trade_id")}) for each in table.objects.values())
        for table in tables
    ]


def later(world: World) -> None:
    world.clock.sleep_until(world.clock.now() + PAUSE)
    world.settle()


def test_an_exit_decided_and_done_while_the_database_is_down_is_stored_once_with_its_reason(in_trade, folder):
    with database_down():
        assert in_trade.execution.exit(in_trade.store.live["KO"], LEAVE, 100.0)
        in_trade.bar(UP)
    assert (in_trade.held(), in_trade.exchange.open_orders()) == (0, {})
    assert [trade.exit_reason for trade in in_trade.closed] == [ExitReason.TIME_LIMIT]
    assert (PositionExit.objects.count(), Trade.objects.get().status) == (0, TradeStatus.OPEN)
    later(in_trade)
    recorded, trade = PositionExit.objects.get(), Trade.objects.get()
    assert (recorded.status, recorded.rule, recorded.evidence) == (ExitStatus.DONE, LEAVE.rule, LEAVE.evidence)
    assert (recorded.decided_at, recorded.exit_price, recorded.pnl) == (START + timedelta(minutes=1), 101.5, trade.pnl)
    assert (trade.status, trade.outcome, trade.exit_price) == (TradeStatus.CLOSED, Outcome.WIN, 101.5)
    assert OrderIntent.objects.filter(step="exit").get().status == IntentStatus.FILLED
    assert (lines_in(folder), in_trade.store.down, len(in_trade.closed)) == (0, False, 1)


def test_what_follows_an_outage_is_as_if_there_had_been_none(tmp_path):
    def a_trade(folder, outage: bool):
        world = World(JournaledStore(OrmStore("simulated"), TradeJournal(folder)))
        world.execution.enter(trade_plan())
        world.bar(QUIET)
        with database_down() if outage else transaction.atomic():
            world.bar(UP)
            world.execution.move_to_breakeven(world.store.live["KO"], Decimal("100.02"), {"close": 101.5})
            world.bar(UP)
            world.execution.exit(world.store.live["KO"], LEAVE, 101.5)
        world.bar(UP)
        world.bar(UP)
        stored = rows()
        Trade.objects.all().delete()
        return stored

    assert a_trade(tmp_path / "a", outage=True) == a_trade(tmp_path / "b", outage=False)


def test_an_entry_that_fills_while_the_database_is_down_is_protected_at_once(folder):
    world = World(JournaledStore(OrmStore("simulated"), TradeJournal(folder)))
    world.execution.enter(trade_plan())
    with database_down():
        world.bar(QUIET)
        assert world.protected() == world.held() == 10
    later(world)
    assert Trade.objects.get().stop_price == 99
    assert OrderIntent.objects.filter(step="stop").get().status == IntentStatus.WORKING


def test_no_entry_is_made_while_the_database_is_down_nor_before_the_journal_is_stored(in_trade):
    with database_down():
        assert not in_trade.execution.enter(trade_plan("F"))
        assert in_trade.store.down
    assert not in_trade.execution.enter(trade_plan("F"))
    assert set(in_trade.exchange.open_orders()) == {in_trade.store.live["KO"].intents[-1].client_order_id}
    later(in_trade)
    assert in_trade.execution.enter(trade_plan("F"))


def test_an_entry_that_was_stored_although_the_answer_was_lost_is_found_once_the_database_is_back(in_trade):
    plan = trade_plan("F")
    OrmStore("simulated").insert(plan, in_trade.execution._new_intent(plan, [], IntentStep.ENTRY, 10))
    with database_down():
        in_trade.execution.enter(trade_plan("F"))
    later(in_trade)
    in_trade.bar(QUIET, QUIET)
    assert (in_trade.store.live["F"].trade, in_trade.held("F")) == (plan, 10)


def test_a_database_that_is_down_is_not_asked_at_every_call(in_trade):
    asked = 0

    def fail(*_):
        nonlocal asked
        asked += 1
        raise OperationalError("timed out")

    with connection.execute_wrapper(fail):
        in_trade.execution.exit(in_trade.store.live["KO"], LEAVE, 100.0)
        first = asked
        for _ in range(10):
            in_trade.execution.take_events()
    assert asked <= 2 * first


@pytest.mark.parametrize("stored_before", [False, True], ids=["killed before storing", "killed before clearing"])
def test_after_a_kill_the_next_process_stores_what_was_journaled_exactly_once(in_trade, folder, stored_before):
    with database_down():
        in_trade.execution.exit(in_trade.store.live["KO"], LEAVE, 100.0)
        in_trade.bar(UP)
    if stored_before:
        in_trade.store._lines.clear = lambda: (_ for _ in ()).throw(KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            later(in_trade)
        del in_trade.store._lines.clear
        before = rows()
    fresh = started_again(in_trade, folder)
    assert fresh.store.live == {}
    assert (PositionExit.objects.get().status, Trade.objects.get().status) == (ExitStatus.DONE, TradeStatus.CLOSED)
    assert lines_in(folder) == 0
    if stored_before:
        assert rows() == before


def test_a_process_killed_in_the_middle_of_an_exit_is_taken_over_from_its_journal(in_trade, folder):
    with database_down():
        in_trade.execution.exit(in_trade.store.live["KO"], LEAVE, 100.0)
    fresh = started_again(in_trade, folder)
    assert fresh.store.live["KO"].exit.evidence == LEAVE.evidence
    fresh.bar(UP)
    fresh.bar(UP)
    assert (fresh.held(), len(fresh.closed), PositionExit.objects.get().status) == (0, 1, ExitStatus.DONE)
    assert OrderIntent.objects.filter(step="exit").count() == 1


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"no json",
        b'{"trade": {}}',
        b'{"trade":{"book":"simulated","signal_key":"x"},"intents":[],"moves":[],"exits":[]}',
    ],
)
def test_a_whole_line_that_is_no_trade_is_kept_aside_and_does_not_keep_a_process_from_starting(folder, body):
    dead = TradeJournal(folder)
    dead.add(body)
    dead.close()
    with capture_logs() as logs:
        store = JournaledStore(OrmStore("simulated"), TradeJournal(folder))
    assert [each["event"] for each in logs] == ["trade_refused", "database_is_back"]
    assert (store.live, (folder / REFUSED).read_bytes()) == ({}, body + b"\n")


def test_a_journal_torn_at_any_byte_of_its_last_line_keeps_the_lines_before(in_trade, folder):
    with database_down():
        in_trade.execution.exit(in_trade.store.live["KO"], LEAVE, 100.0)
        in_trade.execution.save()
    (path,) = folder.glob(f"*{SUFFIX}")
    whole = path.read_bytes()
    *before, last = whole.splitlines(keepends=True)
    for length in range(len(last)):
        torn = folder / f"torn-{length}"
        torn.mkdir()
        (torn / f"dead{SUFFIX}").write_bytes(b"".join(before) + last[:length])
        journal = TradeJournal(torn)
        with capture_logs() as logs:
            left = journal.left_behind()
        journal.close()
        assert left == [line[9:-1] for line in before]
        assert [each["event"] for each in logs] == (["journal_line_damaged"] if length else [])
    assert len(before) >= 2


def test_a_full_disk_is_an_alarm_and_no_reason_not_to_leave(in_trade, folder, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with database_down(), monkeypatch.context() as disk, capture_logs() as logs:
        disk.setattr("positions.journal.os.pwrite", full)
        in_trade.execution.exit(in_trade.store.live["KO"], LEAVE, 100.0)
        in_trade.bar(UP)
        assert not in_trade.execution.enter(trade_plan("F"))
    assert in_trade.held() == 0
    assert "trade_journal_failed" in {each["event"] for each in logs if each["log_level"] == "error"}
    later(in_trade)
    assert (PositionExit.objects.get().status, Trade.objects.get().status) == (ExitStatus.DONE, TradeStatus.CLOSED)


def test_what_another_process_ended_meanwhile_stays_ended_and_is_told(in_trade):
    other = World(OrmStore("simulated"), now=in_trade.now)
    other.exchange = other.execution._broker = in_trade.exchange
    with database_down():
        in_trade.store.update(in_trade.store.live["KO"].trade, "unprotected_seconds")
    other.execution.exit(other.store.live["KO"], LEAVE, 100.0)
    other.bar(UP)
    later(in_trade)
    assert [trade.exit_reason for trade in in_trade.closed] == [ExitReason.TIME_LIMIT]
    assert (Trade.objects.get().status, PositionExit.objects.get().status) == (TradeStatus.CLOSED, ExitStatus.DONE)
    assert in_trade.store.live == {}


def test_two_processes_that_decided_apart_keep_the_reason_that_was_stored_first(in_trade):
    other = World(OrmStore("simulated"), now=in_trade.now)
    other.exchange = other.execution._broker = in_trade.exchange
    with database_down():
        in_trade.execution.exit(in_trade.store.live["KO"], ExitDecision(ExitReason.LOW_VOLUME, {}), 100.0)
    other.execution.exit(other.store.live["KO"], LEAVE, 100.0)
    for world in (other, in_trade, other, in_trade):
        later(world)
    in_trade.bar(UP)
    later(in_trade)
    recorded = PositionExit.objects.get()
    assert (recorded.status, recorded.rule) == (ExitStatus.DONE, ExitReason.TIME_LIMIT)
    assert (in_trade.held(), Trade.objects.get().status) == (0, TradeStatus.CLOSED)


def test_a_database_restored_from_an_old_backup_gets_the_journaled_trade_anew(in_trade, folder):
    with database_down():
        in_trade.execution.exit(in_trade.store.live["KO"], LEAVE, 100.0)
    Trade.objects.all().delete()
    later(in_trade)
    assert [intent.step for intent in OrderIntent.objects.order_by("id")] == ["entry", "stop", "exit"]
    in_trade.bar(UP)
    assert (Trade.objects.get().status, PositionExit.objects.get().status) == (TradeStatus.CLOSED, ExitStatus.DONE)


def test_a_line_that_the_database_will_never_take_is_kept_aside_and_holds_up_no_other(in_trade, folder):
    in_trade.execution.enter(trade_plan("F"))
    with database_down():
        in_trade.execution.exit(in_trade.store.live["KO"], LEAVE, 100.0)
        in_trade.bar(QUIET, QUIET)
    Trade.objects.filter(symbol="KO").delete()
    OrmStore("simulated").insert(trade_plan("KO", at=START + timedelta(days=1)))
    with capture_logs() as logs:
        later(in_trade)
    assert "trade_refused" in {each["event"] for each in logs}
    assert b"KO-20250512T140000Z-long" in (folder / REFUSED).read_bytes()
    assert Trade.objects.get(symbol="F").status == TradeStatus.OPEN
    assert not in_trade.store.down


def test_the_end_of_a_plan_waits_for_the_database_too(in_trade):
    trade = in_trade.store.live["KO"].trade
    with database_down():
        in_trade.execution.exit(in_trade.store.live["KO"], LEAVE, 100.0)
        in_trade.bar(UP)
        trade.plan_outcome, trade.plan_r, trade.plan_exit_reason = Outcome.WIN, 1.98, ExitReason.TARGET
        trade.plan_ended_at = in_trade.now
        in_trade.store.plans_ended([trade])
    later(in_trade)
    stored = Trade.objects.get()
    assert (stored.status, stored.plan_outcome, stored.plan_r) == (TradeStatus.CLOSED, Outcome.WIN, 1.98)


def test_shadow_trades_wait_for_the_database_too(in_trade):
    with database_down():
        in_trade.store.store_shadows([ShadowTradeFactory.build(symbol="F")])
    later(in_trade)
    assert ShadowTrade.objects.get().symbol == "F"
    assert not in_trade.store.down


def test_a_deadlock_at_any_statement_of_an_exit_repeats_the_write_and_never_the_order(tmp_path):
    def leave(failing: int) -> int:
        """Leave with that statement failing; returns how many there were."""
        world = World(JournaledStore(OrmStore("simulated"), TradeJournal(tmp_path / str(failing))))
        world.execution.enter(trade_plan())
        world.bar(QUIET)
        statements = 0

        def execute_or_fail(execute, *arguments):
            nonlocal statements
            statements += 1
            if statements == failing:
                raise OperationalError("deadlock detected")
            return execute(*arguments)

        with connection.execute_wrapper(execute_or_fail):
            world.execution.exit(world.store.live["KO"], LEAVE, 100.0)
            world.bar(UP)
            later(world)
        assert (world.held(), world.exchange.open_orders(), len(world.closed)) == (0, {}, 1)
        assert PositionExit.objects.get().status == ExitStatus.DONE
        assert OrderIntent.objects.filter(step="exit").get().status == IntentStatus.FILLED
        Trade.objects.all().delete()
        return statements

    for failing in range(1, leave(0) + 1):
        leave(failing)


def test_a_start_without_a_database_says_so():
    with database_down(), pytest.raises(StoreUnavailable):
        OrmStore("simulated")


def test_settings_that_cannot_be_read_are_those_read_last():
    config.TIME_LIMIT_EXIT = False
    read = last_known(exit_settings)
    with database_down():
        with capture_logs() as logs:
            assert not read().time_limit
        assert [each["event"] for each in logs] == ["settings_not_read"]
        with pytest.raises(OperationalError):
            exit_settings()


@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite locks the whole database, see below")
def test_an_exit_does_not_wait_for_a_row_that_somebody_holds_locked(in_trade):
    import time

    import psycopg

    options = connection.get_connection_params()
    names = ("dbname", "user", "password", "host", "port")
    with psycopg.connect(**{name: options[name] for name in names if options.get(name)}) as blocker:
        blocker.execute("SELECT * FROM trades FOR UPDATE")
        began = time.monotonic()
        in_trade.execution.exit(in_trade.store.live["KO"], LEAVE, 100.0)
        assert time.monotonic() - began < 4
        in_trade.bar(UP)
        assert in_trade.held() == 0
    later(in_trade)
    assert PositionExit.objects.get().status == ExitStatus.DONE


@pytest.mark.skipif(connection.vendor != "sqlite", reason="PostgreSQL locks rows, see above")
def test_an_exit_does_not_wait_for_a_database_that_somebody_holds_locked(in_trade):
    import sqlite3
    import time

    blocker = sqlite3.connect(connection.settings_dict["NAME"])
    blocker.execute("BEGIN IMMEDIATE")
    began = time.monotonic()
    in_trade.execution.exit(in_trade.store.live["KO"], LEAVE, 100.0)
    assert time.monotonic() - began < 4
    in_trade.bar(UP)
    assert in_trade.held() == 0
    blocker.close()
    later(in_trade)
    assert PositionExit.objects.get().status == ExitStatus.DONE
