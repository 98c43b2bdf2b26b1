"""The parts that the trading process is made of: beats, leases before writes, and failures kept apart."""

from datetime import UTC, datetime, timedelta

import pytest
from django.db import OperationalError

from positions import leases
from positions.clock import ReplayClock
from positions.isolation import MOST_FAILURES, Isolation, TooManyFailures
from positions.leases import LeaseTaken, Tenure
from positions.models import WorkerLease
from positions.store import MemoryStore
from positions.trader import Beat, LeasedBroker, next_session
from tests.positions.world import START, World, trade_plan

TEN = timedelta(seconds=10)
LEASE = timedelta(seconds=12)


def test_a_beat_keeps_its_rate_and_does_not_make_up_for_what_it_missed():
    beat = Beat(TEN)
    asked = (0, 4, 10, 19.9, 23, 29, 30, 75, 79, 80)
    assert [at for at in asked if beat.is_due(START + timedelta(seconds=at))] == [0, 10, 23, 30, 75, 80]
    assert beat.next(START) == START + timedelta(seconds=90)


def test_the_next_session_is_the_one_that_is_open_or_comes():
    friday_evening = datetime(2025, 5, 9, 21, tzinfo=UTC)
    assert str(next_session(friday_evening).day) == "2025-05-12"
    assert str(next_session(datetime(2025, 5, 12, 19, 59, tzinfo=UTC)).day) == "2025-05-12"


@pytest.mark.django_db
def test_who_slept_while_another_took_over_sends_nothing_more():
    world = World(MemoryStore("simulated"))
    asleep = datetime.now(UTC) - timedelta(minutes=1)
    mine = leases.acquire("paper:1", "trade", asleep, LEASE)
    broker = LeasedBroker(world.exchange, Tenure(mine, LEASE))
    WorkerLease.objects.filter(pk=mine.pk).update(epoch=mine.epoch + 1, holder="another:1")
    world.execution._broker = broker
    with pytest.raises(LeaseTaken, match="taken over by another process"):
        world.execution.enter(trade_plan())
    assert broker.open_orders() == {}


@pytest.mark.django_db
def test_a_lease_that_is_ours_is_asked_for_again_only_when_half_of_it_is_over(django_assert_num_queries):
    lease = leases.acquire("paper:1", "trade", datetime.now(UTC), LEASE)
    with django_assert_num_queries(0):
        Tenure(lease, LEASE).check()
    lease.heartbeat_at -= timedelta(seconds=7)
    tenure = Tenure(lease, LEASE)
    with django_assert_num_queries(1):
        tenure.check()
        tenure.check()
    tenure.renew(tick_seconds=0.2, calls_a_tick=1.5, last_error="none")
    assert WorkerLease.objects.get().calls_a_tick == 1.5


@pytest.mark.django_db
def test_while_the_database_is_away_the_holder_goes_on(monkeypatch):
    lease = leases.acquire("paper:1", "trade", datetime.now(UTC) - timedelta(minutes=1), LEASE)

    def away(*args, **told):
        raise OperationalError("away")

    monkeypatch.setattr(leases, "renew", away)
    Tenure(lease, LEASE).check()


def test_what_goes_wrong_with_one_is_told_and_too_much_of_it_ends_the_process():
    clock = ReplayClock(START)
    isolation = Isolation(clock)

    def fail() -> None:
        with isolation.of("KO"):
            raise ValueError("odd")

    for _ in range(MOST_FAILURES - 1):
        fail()
    assert isolation.last_error == "KO: ValueError('odd')"
    clock.sleep_until(START + timedelta(minutes=11))
    fail()  # the others are long ago
    for _ in range(MOST_FAILURES - 2):
        fail()
    with pytest.raises(TooManyFailures, match=r"30 failures within 10 minutes, the last at KO: ValueError\('odd'\)"):
        fail()


def test_a_lease_that_was_taken_is_no_failure_to_go_on_from():
    with pytest.raises(LeaseTaken), Isolation(ReplayClock(START)).of("KO"):
        raise LeaseTaken("taken")


def test_one_position_that_cannot_be_judged_does_not_keep_the_other_from_being_closed(monkeypatch):
    from positions.exit_monitor import ExitMonitor
    from positions.market.bars import BarHistory
    from positions.market.calendar import session_of
    from positions.market.indicators import IndicatorBank
    from positions.rules import ExitDecision, ExitSettings
    from positions.words import ExitReason
    from tests.positions.world import MINUTE, UNIVERSE, batch

    world = World(MemoryStore("simulated"))
    world.bar((100.0,) * 4, (100.0,) * 4)
    for symbol in ("KO", "F"):
        world.execution.enter(trade_plan(symbol))
    world.bar((100.0,) * 4, (100.0,) * 4)
    bank = IndicatorBank(UNIVERSE)
    session = session_of(START.date())
    assert session is not None
    bank.open_session(session, MINUTE, BarHistory())
    bank.update(batch(world.now, (100.0,) * 4, (100.0,) * 4))
    monitor = ExitMonitor(bank, world.store, world.execution, ExitSettings, Isolation(world.clock).of)

    def decide(trade, settings, now):
        if trade.symbol == "KO":
            raise ZeroDivisionError
        return ExitDecision(ExitReason.TIME_LIMIT, {})

    monkeypatch.setattr(monitor, "decide", decide)
    monitor.tick(world.now)
    world.bar((100.0,) * 4, (100.0,) * 4)
    assert [trade.symbol for trade in world.closed] == ["F"]
    assert world.protected("KO") == 10
