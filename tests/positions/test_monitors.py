"""The monitors and the loop on a market driven by hand, bar by bar."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import numpy as np
import pytest

from positions.broker.port import Unavailable
from positions.loop import TradingLoop
from positions.market.bars import BarHistory, SessionBars
from positions.market.calendar import Session
from positions.models import PositionExit, Trade
from positions.rules import ExitDecision, ExitSettings, RiskSettings
from positions.strategy import Opinion
from positions.words import ExitReason, Side, TradeStatus
from tests.positions.stage import FLAT, Stage
from tests.positions.world import MINUTE, START, UNIVERSE, batch

pytestmark = pytest.mark.django_db


def test_a_signal_becomes_a_protected_trade_sized_by_its_risk():
    stage = Stage()
    trade = stage.enter()
    assert trade.status == TradeStatus.OPEN
    assert trade.quantity == 200  # 20 % of 100,000 dollars binds before 0.5 % of risk at one dollar a share
    assert trade.entry_volume == 1000.0
    assert stage.world.protected() == 200


def test_an_entry_that_filled_while_nobody_watched_is_protected_before_the_session_is_opened():
    stage = Stage()
    for _ in range(5):
        stage.bar(FLAT)
    stage.signal()
    stage.bar(FLAT)
    stage.world.exchange.open_bar(batch(stage.now, FLAT))
    for listeners in (stage.world.execution.entered_listeners, stage.world.execution.closing_listeners):
        listeners.clear()
    started = TradingLoop(stage.desk)
    started.settle()
    assert (stage.world.held(), stage.world.protected()) == (200, 200)
    started.open_session(stage.session, MINUTE, BarHistory())
    assert [trade.symbol for trade in started._followed.values()] == ["KO"]


def test_the_target_closes_a_trade_at_the_next_open():
    stage = Stage()
    stage.enter()
    stage.bar((100.5, 102.1, 100.5, 101.9))
    stage.bar((101.7, 101.8, 101.6, 101.7))
    assert (stage.closed().exit_reason, stage.closed().exit_price) == (ExitReason.TARGET, Decimal("101.7"))


def test_a_bar_that_touches_stop_and_target_counts_as_the_stop():
    stage = Stage()
    stage.enter()
    stage.bar((100.5, 102.5, 98.9, 101.0))
    assert stage.closed().exit_reason == ExitReason.STOP


def test_a_dried_up_volume_closes_the_trade_when_enough_bars_show_it():
    stage = Stage(ExitSettings(time_limit=False, momentum_reversal=False))
    stage.enter()
    for _ in range(5):
        stage.bar(FLAT, volume=400.0)
    stage.bar(FLAT)
    assert stage.closed().exit_reason == ExitReason.LOW_VOLUME
    evidence = PositionExit.objects.get().evidence
    assert (evidence["reference"], evidence["reference_volume"]) == ("entry", 1000.0)
    assert evidence["mean_volume"] < 500.0


def test_against_its_profile_a_volume_has_dried_up_only_where_these_minutes_usually_have_more():
    entry = ExitSettings(time_limit=False, momentum_reversal=False)
    stage = Stage(replace(entry, low_volume_reference="profile"))
    yesterday = Session(
        START.date() - timedelta(days=1), START - timedelta(days=1), stage.session.close - timedelta(days=1)
    )
    values = np.full((6, 300, 2), 100.0)
    values[4] = np.where(np.arange(300) < 12, 400.0, 1000.0)[:, None]
    history = BarHistory()
    history.append(SessionBars(yesterday, MINUTE, UNIVERSE, values))
    stage.loop.open_session(stage.session, MINUTE, history)
    stage.enter()
    for _ in range(5):
        stage.bar(FLAT, volume=400.0)
    assert stage.world.closed == []  # against that at entry, 1,000 a minute, this was a dried-up volume
    for _ in range(6):
        stage.bar(FLAT, volume=400.0)
    assert stage.closed().exit_reason == ExitReason.LOW_VOLUME
    evidence = PositionExit.objects.get().evidence
    assert (evidence["reference"], evidence["reference_volume"]) == ("profile", 880.0)


def test_missing_minutes_are_not_a_dried_up_volume_and_let_no_rule_act():
    stage = Stage(ExitSettings(momentum_reversal=False))
    stage.enter()
    for _ in range(20):
        stage.bar(f=FLAT)
    assert stage.world.closed == []
    stage.bar(FLAT)
    stage.bar(FLAT)
    assert stage.closed().exit_reason == ExitReason.TIME_LIMIT


def test_while_the_whole_feed_is_frozen_no_rule_acts_and_the_stop_stays():
    stage = Stage(ExitSettings())
    stage.enter()
    for _ in range(30):
        stage.bar()
        stage.loop.tick(stage.now)
        stage.loop.tick_breakeven()
    assert PositionExit.objects.count() == 0
    assert (stage.world.held(), stage.world.protected()) == (200, 200)
    stage.bar((98.5, 98.5, 98.5, 98.5))
    assert (stage.closed().exit_reason, stage.closed().exit_price) == (ExitReason.STOP, Decimal("98.5"))


@pytest.mark.parametrize(
    ("reopens_at", "reason"), [(97.0, ExitReason.STOP), (99.5, ExitReason.TIME_LIMIT)], ids=["below the stop", "above"]
)
def test_through_a_halt_nothing_is_sold_and_after_the_reopening_the_trade_is_left_once(reopens_at, reason):
    stage = Stage(ExitSettings(low_volume=False, momentum_reversal=False))
    stage.enter()
    for _ in range(20):
        stage.bar(f=FLAT)
    assert (stage.world.closed, stage.world.held(), stage.world.protected()) == ([], 200, 200)
    assert PositionExit.objects.count() == 0
    for _ in range(3):
        stage.bar((reopens_at,) * 4, FLAT)
    assert (stage.closed().exit_reason, stage.closed().exit_price) == (reason, Decimal(str(reopens_at)))
    assert (stage.world.held(), stage.world.exchange.open_orders()) == (0, {})


def test_settings_changed_in_a_trade_hold_from_the_next_tick_and_leave_its_plan_as_it_was():
    stage = Stage(ExitSettings(low_volume=False, momentum_reversal=False))
    trade = stage.enter()
    plan = ("planned_entry", "initial_stop", "target", "risk_per_share", "planned_quantity", "exit_settings_hash")
    before = {name: getattr(trade, name) for name in plan}
    for _ in range(5):
        stage.bar(FLAT)
    assert stage.world.closed == []
    stage.settings = replace(stage.settings, time_limit_minutes=3, breakeven_at_r=0.1, cost_per_share=0.05)
    for _ in range(2):
        stage.bar(FLAT)
    closed = Trade.objects.get()
    assert (closed.exit_reason, PositionExit.objects.get().evidence["limit_minutes"]) == (ExitReason.TIME_LIMIT, 3)
    assert {name: getattr(closed, name) for name in plan} == before


def test_fifteen_minutes_without_profit_close_the_trade():
    stage = Stage(ExitSettings(low_volume=False, momentum_reversal=False))
    trade = stage.enter()
    for _ in range(15):
        stage.bar(FLAT)
    closed = stage.closed()
    assert closed.exit_reason == ExitReason.TIME_LIMIT
    assert closed.exited_at - trade.entered_at == timedelta(minutes=15)


def test_everything_is_closed_five_minutes_before_the_session_ends_even_without_bars():
    stage = Stage(minutes=30)
    stage.enter()
    while stage.now < START + timedelta(minutes=26):
        stage.bar(f=FLAT)
    assert stage.world.store.live["KO"].trade.status == TradeStatus.EXITING
    stage.bar(FLAT)
    assert stage.closed().exit_reason == ExitReason.SESSION_CLOSE


def test_a_trade_whose_symbol_has_had_no_bar_since_the_start_is_still_left_before_the_close():
    stage = Stage(minutes=30)
    stage.enter()
    stage.loop.open_session(stage.session, MINUTE, BarHistory())  # a process that began just now, without history
    while stage.now < stage.session.close - timedelta(minutes=4):
        stage.bar(f=FLAT)
    assert PositionExit.objects.get().rule == ExitReason.SESSION_CLOSE
    stage.bar(FLAT)
    assert (stage.closed().exit_reason, stage.world.held()) == (ExitReason.SESSION_CLOSE, 0)


def test_at_one_r_the_stop_goes_to_breakeven_and_stays():
    stage = Stage()
    trade = stage.enter()
    stage.bar((100.9, 101.1, 100.9, 101.0))
    assert trade.stop_price == Decimal("100.02")
    stage.bar((101.2, 101.5, 101.2, 101.4))
    assert trade.stop_price == Decimal("100.02")
    assert trade.initial_stop == 99
    stage.bar((101.0, 101.0, 99.0, 99.5))
    assert stage.closed().exit_reason == ExitReason.BREAKEVEN_STOP


def test_a_switch_that_is_turned_off_is_off_from_the_next_tick():
    stage = Stage(ExitSettings(low_volume=False, momentum_reversal=False))
    stage.enter()
    for _ in range(13):
        stage.bar(FLAT)
    stage.settings = replace(stage.settings, time_limit=False)
    for _ in range(5):
        stage.bar(FLAT)
    assert stage.world.closed == []


def test_a_tick_without_news_asks_nothing(django_assert_num_queries):
    stage = Stage()
    stage.enter()
    with django_assert_num_queries(0):
        for _ in range(6):
            stage.loop.tick(stage.now)
            stage.loop.tick_breakeven()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"stop": 100.0}, "invalid_plan"),
        ({"target": 99.5}, "invalid_plan"),
        ({"stop": float("nan")}, "invalid_plan"),
        ({"entry": 30_000.0, "stop": 29_000.0, "target": 31_000.0}, "too_small"),
    ],
)
def test_a_plan_that_cannot_be_traded_is_named_and_not_traded(changes, reason):
    stage = Stage()
    stage.bar(FLAT)
    stage.signal(**changes)
    stage.bar(FLAT)
    assert stage.listener.decisions == [reason]
    assert stage.world.store.live == {}


def test_an_account_that_cannot_be_read_is_not_traded_on():
    stage = Stage(protections=True)

    def unreachable():
        raise Unavailable("connection refused")

    stage.world.exchange.account = unreachable
    for _ in range(5):
        stage.bar(FLAT)
    stage.signal()
    stage.bar(FLAT)
    assert stage.listener.decisions == ["account_unknown"]
    assert stage.world.store.live == {}


def test_a_second_signal_of_a_symbol_in_a_trade_is_heard_but_not_traded():
    stage = Stage()
    stage.enter()
    stage.signal(side=Side.SHORT)
    stage.bar(FLAT)
    assert stage.listener.decisions == ["", "position_open"]


def test_a_signal_that_the_adviser_blocks_is_not_traded():
    stage = Stage()
    stage.listener.opinion = Opinion(take=False, reason="model_skips")
    stage.signal()
    stage.bar(FLAT)
    assert stage.listener.decisions == ["model_skips"]
    assert stage.world.store.live == {}


def test_an_entry_that_finds_no_market_is_given_up():
    stage = Stage()
    stage.bar(FLAT)
    stage.signal()
    stage.bar(FLAT)
    for _ in range(3):
        stage.bar(f=FLAT)
    assert stage.world.store.live == {}
    assert Trade.objects.get().status == TradeStatus.CANCELLED
    assert stage.world.held() == 0


def test_protections_block_entries_and_say_why():
    stage = Stage(protections=True)
    stage.risk = RiskSettings(max_open_positions=1)
    stage.bar(FLAT, FLAT)
    stage.signal("KO")
    stage.bar(FLAT, FLAT)
    stage.signal("F")
    stage.bar(FLAT, FLAT)
    assert stage.listener.decisions == ["", "max_open_positions"]
    stage.bar((100.0, 100.0, 95.0, 95.0), FLAT)
    stage.risk = RiskSettings(daily_loss_limit=0.001)
    stage.signal("F")
    stage.bar(FLAT, FLAT)
    assert stage.listener.decisions[-1] == "daily_loss_limit"


def test_decisions_do_not_depend_on_the_order_of_positions():
    outcomes = []
    for order in (("KO", "F"), ("F", "KO")):
        stage = Stage(ExitSettings(low_volume=False, momentum_reversal=False))
        stage.bar(FLAT, FLAT)
        for symbol in order:
            stage.signal(symbol)
        for _ in range(18):
            stage.bar(FLAT, (100.0, 100.3, 99.9, 100.2))
        outcomes.append(sorted((t.symbol, t.exit_reason, t.exit_price) for t in stage.world.closed))
        assert np.isfinite(stage.bank.vwap).all()
        Trade.objects.all().delete()
    assert outcomes[0] == outcomes[1]
    assert [symbol for symbol, *_ in outcomes[0]] == ["KO"]


def test_a_trade_that_is_leaving_is_told_of_with_its_price_and_since_when_its_exit_is_held_up():
    stage = Stage()
    trade = stage.enter()
    mine = stage.world.store.live["KO"]
    [told] = stage.exits.watched(stage.world.clock.now())
    assert (told["held_up_since"], "leaves_by" in told) == (None, False)
    stage.world.execution._send = lambda *_: iter(())  # nothing is heard of any order
    stage.exits.execute_early_exit(mine, ExitDecision(ExitReason.MANUAL, {}))
    assert trade.status == TradeStatus.EXITING
    [told] = stage.exits.watched(stage.world.clock.now())
    assert (told["price"], told["leaves_by"], told["held_up_since"]) == (FLAT[3], "manual", None)
    mine.alarmed = "exit_held_up"
    [told] = stage.exits.watched(stage.world.clock.now())
    assert told["held_up_since"] == mine.exit.decided_at.isoformat()
