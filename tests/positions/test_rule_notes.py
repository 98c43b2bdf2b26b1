"""What is noted of rules that nearly acted, or would have acted and might not."""

from dataclasses import replace

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from positions.models import RuleNote, Trade
from positions.rules import ExitSettings
from positions.store import MemoryStore
from positions.words import ExitReason, Rule, RuleNoteKind, TradeStatus
from tests.positions.stage import FLAT, Stage

pytestmark = pytest.mark.django_db

PLAN_ONLY = ExitSettings(low_volume=False, time_limit=False, momentum_reversal=False, breakeven=False)
TWO_MINUTES = replace(PLAN_ONLY, time_limit=True, time_limit_minutes=2.0)


def level(price: float) -> tuple[float, float, float, float]:
    return (price, price, price, price)


def noted() -> list[tuple[str, str]]:
    return list(RuleNote.objects.order_by("noted_at", "id").values_list("rule", "kind"))


def test_the_first_time_that_a_rule_comes_near_is_noted_with_its_inputs_and_no_later_one():
    stage = Stage(PLAN_ONLY)
    stage.enter()  # at 100, stop 99, target 102
    stage.bar(level(99.11))
    assert noted() == []
    stage.bar(level(99.09))
    near = stage.now
    stage.bar(level(99.05))
    note = RuleNote.objects.get()
    assert (note.rule, note.kind, note.noted_at) == (ExitReason.STOP, RuleNoteKind.NEAR, near)
    assert note.evidence["share"] == pytest.approx(0.91)
    assert {"close", "entry", "stop", "target", "risk", "minutes"} <= set(note.evidence)
    stage.bar(level(101.85))
    assert noted() == [("stop", "near"), ("target", "near")]


def test_a_rule_that_acts_is_no_near_miss():
    stage = Stage(PLAN_ONLY)
    stage.enter()
    stage.bar(level(102.5))
    stage.bar(level(102.5))
    assert stage.closed().exit_reason == ExitReason.TARGET
    assert noted() == []


def test_a_rule_that_is_there_without_a_bar_in_the_last_minute_is_noted_and_does_not_act():
    stage = Stage(TWO_MINUTES)
    trade = stage.enter()
    stage.bar(f=FLAT)  # two minutes after the entry, and no bar in KO
    assert trade.status == TradeStatus.OPEN
    assert noted() == [("time_limit", "stale_data")]
    stage.bar(FLAT)
    stage.bar(FLAT)
    assert stage.closed().exit_reason == ExitReason.TIME_LIMIT


def test_a_rule_does_not_act_on_a_trade_that_a_user_took_over_and_says_so_once():
    stage = Stage(TWO_MINUTES)
    trade = stage.enter()
    trade.managed = False
    for _ in range(3):
        stage.bar(FLAT)
    assert trade.status == TradeStatus.OPEN
    assert noted() == [("time_limit", "taken_over")]
    assert RuleNote.objects.get().evidence["limit_minutes"] == 2.0


def test_a_rule_that_would_close_a_trade_that_is_leaving_already_is_noted():
    stage = Stage(TWO_MINUTES)
    stage.enter()
    stage.bar(FLAT)
    (mine,) = stage.world.store.live.values()
    assert mine.trade.status == TradeStatus.EXITING
    stage.bar(f=FLAT)  # no bar in KO: its exit waits
    assert noted() == [("time_limit", "leaving")]


AT_ONE_R = replace(PLAN_ONLY, breakeven=True)


def test_breakeven_that_comes_near_and_turns_back_is_noted_once_with_its_inputs():
    stage = Stage(AT_ONE_R)
    trade = stage.enter()
    stage.bar(level(100.89))
    assert noted() == []
    stage.bar(level(100.91))
    near = stage.now
    stage.bar(level(100.95))
    stage.bar(level(100.2))
    note = RuleNote.objects.get()
    assert (note.rule, note.kind, note.noted_at) == (Rule.BREAKEVEN, RuleNoteKind.NEAR, near)
    inputs = {"close": 100.91, "profit_r": 0.91, "share": 0.91, "at_r": 1.0, "entry": 100.0, "stop": 99.0, "risk": 1.0}
    assert note.evidence == pytest.approx(inputs)
    assert not trade.breakeven_set


def test_breakeven_that_moves_the_stop_is_no_near_miss():
    stage = Stage(AT_ONE_R)
    trade = stage.enter()
    stage.bar(level(101.0))
    stage.bar(level(101.2))
    assert trade.breakeven_set
    assert noted() == []


def test_breakeven_that_is_due_on_a_trade_that_a_user_took_over_is_noted_and_its_stop_stays():
    stage = Stage(AT_ONE_R)
    trade = stage.enter()
    trade.managed = False
    stage.bar(level(100.95))  # near, but not ours to move: no near miss
    assert noted() == []
    for _ in range(2):
        stage.bar(level(101.0))
    assert (trade.stop_price, trade.breakeven_set) == (99, False)
    assert noted() == [("breakeven", "taken_over")]


def test_breakeven_that_is_due_without_a_bar_in_the_last_minute_is_noted():
    stage = Stage(AT_ONE_R)
    trade = stage.enter()
    stage.settings = PLAN_ONLY
    stage.bar(level(101.0))
    stage.settings = AT_ONE_R  # switched on while no bar comes
    stage.bar(f=FLAT)
    assert not trade.breakeven_set
    assert noted() == [("breakeven", "stale_data")]
    stage.bar(level(101.0))
    assert trade.breakeven_set


def test_a_new_process_notes_nothing_twice():
    stage = Stage(PLAN_ONLY)
    stage.enter()
    stage.bar(level(99.05))
    (mine,) = stage.world.store.live.values()
    mine.notes.clear()
    stage.bar(level(99.06))
    assert RuleNote.objects.get().evidence["close"] == 99.05


def test_notes_of_many_trades_take_one_query():
    stage = Stage(PLAN_ONLY)
    for _ in range(5):
        stage.bar(FLAT, FLAT)
    stage.signal("KO")
    stage.signal("F")
    stage.bar(FLAT, FLAT)
    stage.bar(FLAT, FLAT)
    with CaptureQueriesContext(connection) as queries:
        stage.bar(level(99.05), level(99.05))
    assert RuleNote.objects.count() == 2
    assert sum("rule_notes" in each["sql"] for each in queries.captured_queries) == 1


def test_a_replay_writes_the_notes_with_its_trades():
    store = MemoryStore("simulated")
    stage = Stage(PLAN_ONLY, store=store)
    stage.enter()
    stage.bar(level(99.05))
    stage.bar(level(98.5))
    stage.bell()
    store.flush()
    assert noted() == [("stop", "near")]
    assert RuleNote.objects.get().trade == Trade.objects.get()
