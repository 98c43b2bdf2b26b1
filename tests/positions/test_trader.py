"""The parts that the trading process is made of: beats, leases before writes, and failures kept apart."""

from datetime import UTC, datetime, timedelta
from threading import Event
from types import SimpleNamespace

import numpy as np
import pytest
from django.db import OperationalError
from structlog.testing import capture_logs

from positions import leases
from positions.broker.port import OrderKind
from positions.clock import ReplayClock
from positions.halting import Halt, halt
from positions.isolation import MOST_FAILURES, Isolation, TooManyFailures, Work
from positions.leases import LeaseTaken, Tenure
from positions.market.bars import BarHistory, SessionBars
from positions.market.feeds.alpaca.access import AlpacaAccess
from positions.market.feeds.alpaca.feed import AlpacaFeed
from positions.market.feeds.alpaca.history import AlpacaBars
from positions.market.feeds.alpaca.minutes import Arrival
from positions.market.quarantine import quarantine
from positions.models import WorkerLease
from positions.store import MemoryStore
from positions.trader import NO_BARS, Beat, LeasedBroker, Trader, next_session
from positions.words import ExitReason, Feed
from tests.positions.stage import FLAT, Stage
from tests.positions.world import MINUTE, NO_BAR, START, UNIVERSE, World, batch, trade_plan

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
    isolation = Isolation("simulated", clock)

    def fail() -> None:
        with isolation.of(Work("exits", "KO")):
            raise ValueError("odd")

    for _ in range(MOST_FAILURES - 1):
        fail()
    assert isolation.last_error == "exits of KO: ValueError('odd')"
    clock.sleep_until(START + timedelta(minutes=11))
    fail()  # the others are long ago
    for _ in range(MOST_FAILURES - 2):
        fail()
    with pytest.raises(TooManyFailures, match=r"30 failures within 10 minutes, the last at exits of KO: ValueError"):
        fail()


def test_a_lease_that_was_taken_is_no_failure_to_go_on_from():
    with pytest.raises(LeaseTaken), Isolation("simulated", ReplayClock(START)).of(Work("exits", "KO")):
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
    monitor = ExitMonitor(bank, world.store, world.execution, ExitSettings, Isolation("simulated", world.clock).of)

    def decide(trade, settings, now):
        if trade.symbol == "KO":
            raise ZeroDivisionError
        return ExitDecision(ExitReason.TIME_LIMIT, {})

    monkeypatch.setattr(monitor, "decide", decide)
    monitor.tick(world.now)
    world.bar((100.0,) * 4, (100.0,) * 4)
    assert [trade.symbol for trade in world.closed] == ["F"]
    assert world.protected("KO") == 10


def trader_of(stage: Stage) -> Trader:
    """Without account and feed: what it makes of bars and of the clock."""
    nobody = SimpleNamespace(wake=Event())
    clock, isolation = stage.world.clock, Isolation("simulated", stage.world.clock)
    return Trader(
        stage.desk, stage.loop, nobody, clock, nobody, nobody, nobody, isolation, lambda now: None, lambda *_: None
    )


@pytest.mark.parametrize(
    ("minutes_left", "without_bars", "leaves"),
    [(4, NO_BARS, True), (4, NO_BARS - timedelta(seconds=1), False), (6, NO_BARS, False), (0, NO_BARS, False)],
    ids=["close", "a bar just came", "not yet", "closed already"],
)
def test_near_the_close_the_clock_closes_what_no_bar_speaks_for(minutes_left, without_bars, leaves):
    stage = Stage(store=MemoryStore("simulated"))
    trade, trader = stage.enter(), trader_of(stage)
    now = stage.session.close - timedelta(minutes=minutes_left)
    trader._session, trader._last_bar_at = stage.session, now - without_bars
    stage.world.clock.sleep_until(now)
    trader._leave_by_the_clock(now, stage.session)
    claimed = stage.world.store.live["KO"].exit
    assert (claimed is not None) is leaves
    assert claimed is None or (claimed.rule, claimed.trade) == (ExitReason.SESSION_CLOSE, trade)


@pytest.mark.parametrize(("active", "leaves"), [(True, True), (False, False)], ids=["exits", "breakeven alone"])
def test_while_history_is_downloaded_the_clock_closes_before_the_bell(active, leaves):
    stage = Stage(store=MemoryStore("simulated"))
    stage.enter()
    trader, session = trader_of(stage), next_session(START)
    stage.exits.active = active
    clock, downloaded, seen = stage.world.clock, Event(), []

    def history(session):
        assert downloaded.wait(30)
        return BarHistory()

    def look(now, session):
        seen.append((now, stage.world.store.live["KO"].exit is not None))
        if now >= bell - timedelta(minutes=1):
            downloaded.set()

    bell, begun = session.close, session.close - timedelta(minutes=7)
    trader._market, trader._broker = SimpleNamespace(history=history), SimpleNamespace(requests_sent=0)
    trader._tenure, trader._carry_out = SimpleNamespace(renew=lambda **told: None), look
    clock.sleep_until(begun)
    assert trader._history(session) is not None
    flatten = timedelta(minutes=stage.settings.flatten_minutes)
    assert {left for now, left in seen if now < bell - flatten} == {False}
    assert {left for now, left in seen if bell - flatten <= now < bell} == {leaves}


def test_while_history_is_downloaded_who_is_told_to_leave_leaves(settings, tmp_path):
    settings.VAR_DIR = tmp_path
    stage = Stage(store=MemoryStore("simulated"))
    stage.enter()
    trader = trader_of(stage)
    trader._broker = SimpleNamespace(requests_sent=0)
    halt("simulated", Halt("who", START, flatten=True))
    trader._tick(stage.world.clock.now())
    claimed = stage.world.store.live["KO"].exit
    assert claimed is not None
    assert claimed.rule == ExitReason.MANUAL


def test_while_history_is_downloaded_what_is_asked_for_finds_the_session_open(settings, tmp_path):
    settings.VAR_DIR = tmp_path
    stage, asked = Stage(store=MemoryStore("simulated")), []
    trader = trader_of(stage)
    trader._broker = SimpleNamespace(requests_sent=0)
    trader._carry_out = lambda now, session: asked.append(session.open <= now < session.close)
    session = next_session(START)
    trader._tick(session.open + timedelta(hours=1))
    trader._tick(session.close)
    assert asked == [True, False]


def test_bars_that_stop_in_market_hours_are_told_once_and_so_is_their_return():
    stage = Stage(store=MemoryStore("simulated"))
    trader, opened = trader_of(stage), stage.session.open
    trader._updates = SimpleNamespace(trouble="")
    trader._tenure = SimpleNamespace(renew=lambda **told: None)
    trader._session, trader._last_bar_at = stage.session, opened
    said = []
    for minutes in (4, 5, 6, 7, 8):
        if minutes == 7:
            trader._last_bar_at = opened + timedelta(minutes=7)
        with capture_logs() as logs:
            trader._tell_state(opened + timedelta(minutes=minutes))
        said.append([(each["event"], each["trouble"]) for each in logs])
    since = f"none since {opened:%H:%M} UTC"
    assert said == [[], [("bars_stopped", since)], [], [("bars_again", None)], []]
    with capture_logs() as logs:
        trader._tell_state(stage.session.close)
    assert logs == []


def test_the_lease_tells_of_trades_first_then_of_bars_then_of_streams():
    stage, told = Stage(store=MemoryStore("simulated")), []
    stage.enter()
    trader, mine = trader_of(stage), stage.world.store.live["KO"]
    trader._updates = SimpleNamespace(trouble="the connection was lost")
    trader._tenure = SimpleNamespace(renew=lambda **state: told.append(state["last_error"]))
    trader._session, trader._last_bar_at = stage.session, stage.session.open
    mine.alarmed, mine.unprotected_since = "position_unprotected", START
    trader._tell_state(stage.session.open + timedelta(minutes=6))
    mine.alarmed, mine.unprotected_since = "", None
    trader._tell_state(stage.session.open + timedelta(minutes=6))
    trader._last_bar_at += timedelta(minutes=6)
    trader._tell_state(stage.session.open + timedelta(minutes=6))
    assert told == [
        f"position_unprotected: KO since {START:%H:%M:%S} UTC",
        f"none since {START:%H:%M} UTC",
        "the connection was lost",
    ]


def test_a_bar_that_a_feed_tells_again_is_taken_in_once():
    stage = Stage(store=MemoryStore("simulated"))
    trader, told = trader_of(stage), Arrival(batch(START, FLAT, NO_BAR), False)
    stage.world.clock.sleep_until(START + timedelta(minutes=1))
    for _ in range(2):
        trader._take_bar(told)
    assert (stage.bank.version, trader._isolation.last_error) == (1, "")


def test_the_first_bar_of_a_session_is_judged_by_the_last_close_of_the_history():
    stage = Stage(store=MemoryStore("simulated"))
    trader, given = trader_of(stage), []
    values = np.full((6, 1, 2), 100.0)
    values[:, :, 1] = np.nan  # F did not trade
    history = BarHistory()
    history.append(SessionBars(stage.session, MINUTE, UNIVERSE, values))
    stage.loop.open_session(stage.session, MINUTE, history)
    trader._market = SimpleNamespace(
        feed=lambda session, memory: given.append(memory) or SimpleNamespace(start=lambda: None)
    )
    trader._connect(stage.session)
    stage.bank.close[:] = 900.0  # the bars that come later change nothing of it
    [memory] = given
    wild = (900.0,) * 4
    clean, memory, refused = quarantine(batch(START, wild, wild), memory)
    assert refused.tolist() == [True, False]
    assert np.isnan(clean.close[0])


def test_bars_that_were_kept_out_are_told_with_each_heartbeat_and_when_the_feed_is_left():
    stage = Stage(store=MemoryStore("simulated"))
    trader, told = trader_of(stage), []
    trader._updates = SimpleNamespace(trouble="")
    trader._tenure = SimpleNamespace(renew=lambda **state: told.append(state["quarantined_bars"]))
    access, clock = AlpacaAccess("key", "secret", Feed.IEX, "http://127.0.0.1:9"), stage.world.clock
    trader._tell_state(START)
    feed = trader._feed = AlpacaFeed(access, UNIVERSE, stage.session, clock, AlpacaBars(access, clock))
    feed.counts.quarantined = 3
    trader._tell_state(START)
    with capture_logs() as logs:
        trader._leave_feed()
    trader._tell_state(START)
    assert told == [None, 3, None]
    assert [(each["event"], each["session"], each["quarantined"], each["late"]) for each in logs] == [
        ("bars_counted", stage.session.day, 3, 0)
    ]


def test_on_an_early_close_the_clock_leaves_before_the_real_bell_and_a_holiday_is_no_session():
    eve, after = next_session(datetime(2025, 7, 3, 12, tzinfo=UTC)), next_session(datetime(2025, 7, 3, 17, tzinfo=UTC))
    assert (eve.close, str(after.day)) == (datetime(2025, 7, 3, 17, tzinfo=UTC), "2025-07-07")
    stage = Stage(store=MemoryStore("simulated"))
    stage.enter()
    trader, sent = trader_of(stage), stage.world.exchange.open_orders
    for minutes_left, leaves in ((6, False), (-1, False), (4, True)):
        now = eve.close - timedelta(minutes=minutes_left)
        trader._last_bar_at = now - NO_BARS
        trader._leave_by_the_clock(now, eve)
        assert (stage.world.store.live["KO"].exit is not None) is leaves
    assert [order.kind for order in sent().values() if order.stop_price is None] == [OrderKind.MARKET]
