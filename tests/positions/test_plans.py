"""The plan's own result beside the trade's: on a whole desk driven by hand, over a restart, where bars are missing."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from hypothesis import event, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from positions.market.bar_files import BarRows, StoredBars, microseconds
from positions.models import Trade
from positions.rules import ExitSettings
from positions.store import MemoryStore
from positions.words import ExitReason, Feed, Outcome, Side
from tests.positions.stage import FLAT, Stage
from tests.positions.test_ledger import bar
from tests.positions.world import MINUTE, START, UNIVERSE

ONLY_THE_PLAN = ExitSettings(low_volume=False, time_limit=False, momentum_reversal=False, breakeven=False)
TWO_MINUTES = replace(ONLY_THE_PLAN, time_limit=True, time_limit_minutes=2.0)


def result(trade: Trade) -> tuple[object, ...]:
    return trade.exit_reason, trade.exited_at, trade.r_multiple, trade.outcome


def plan_result(trade: Trade) -> tuple[object, ...]:
    return trade.plan_exit_reason, trade.plan_ended_at, trade.plan_r, trade.plan_outcome


@settings(max_examples=150, deadline=None)
@given(
    bars=st.lists(st.tuples(bar(), bar()), min_size=24, max_size=24),
    sides=st.lists(st.tuples(st.sampled_from([None, *Side]), st.sampled_from([None, *Side])), min_size=24, max_size=24),
    distances=st.tuples(st.sampled_from([0.5, 1.0, 2.0]), st.sampled_from([0.5, 1.0, 2.0])),
    flatten_minutes=st.sampled_from([0.0, 3.0]),
)
def test_a_trade_that_is_left_alone_ends_as_its_plan_whatever_the_bars(bars, sides, distances, flatten_minutes):
    rules = replace(ONLY_THE_PLAN, flatten_minutes=flatten_minutes)
    stage = Stage(rules, minutes=len(bars), store=MemoryStore("simulated"))
    risk, reward = distances
    for pair, wanted in zip(bars, sides, strict=True):
        for symbol, (_, _, _, close), side in zip(UNIVERSE.symbols, pair, wanted, strict=True):
            if side is not None and close == close:
                sign = 1 if side is Side.LONG else -1
                stage.signal(symbol, side, entry=close, stop=close - sign * risk, target=close + sign * reward)
        stage.bar(*pair)
    stage.bell()
    for trade in stage.world.closed:
        event(f"{trade.exit_reason}, {'at the bell' if trade.exited_at == stage.now else 'before'}")
        assert plan_result(trade) == result(trade)


@pytest.mark.django_db
def test_a_plan_goes_on_after_an_early_rule_has_closed_the_trade() -> None:
    stage = Stage(TWO_MINUTES)
    stage.enter()
    stage.bar(FLAT)
    stage.bar(FLAT)
    (closed,) = stage.world.closed
    assert closed.exit_reason == ExitReason.TIME_LIMIT
    assert plan_result(Trade.objects.get()) == (None, None, None, None)
    stage.bar((101.0, 102.0, 101.0, 102.0))
    stage.bar((101.5, 101.5, 101.5, 101.5))
    saved = Trade.objects.get()
    assert plan_result(saved) == (ExitReason.TARGET, stage.now - MINUTE, 1.48, Outcome.WIN)
    assert saved.outcome == Outcome.LOSS


@pytest.mark.django_db
def test_a_plan_does_not_know_of_a_stop_that_was_moved_to_breakeven() -> None:
    stage = Stage()
    stage.enter()
    stage.bar((100.9, 101.1, 100.9, 101.0))
    stage.bar((100.5, 100.5, 99.5, 99.5))
    stage.bar((99.5, 102.0, 99.5, 101.5))
    stage.bar((101.5, 101.5, 101.5, 101.5))
    saved = Trade.objects.get()
    assert saved.exit_reason == ExitReason.BREAKEVEN_STOP
    assert saved.plan_exit_reason == ExitReason.TARGET


@pytest.mark.django_db
def test_plans_that_end_together_are_saved_together() -> None:
    stage = Stage(TWO_MINUTES, minutes=20)
    stage.bar(FLAT, FLAT)
    stage.signal("KO")
    stage.signal("F")
    while stage.now < START + timedelta(minutes=15):
        stage.bar(FLAT, FLAT)
    assert len(stage.world.closed) == 2
    with CaptureQueriesContext(connection) as queries:
        stage.bar(FLAT, FLAT)
    assert sum(query["sql"].startswith("UPDATE") for query in queries) == 1
    assert set(Trade.objects.values_list("plan_exit_reason", flat=True)) == {ExitReason.SESSION_CLOSE}


# -- a process that starts anew in the middle of a session

#: After the seven bars of `Stage.enter`: the time limit closes the trade in the third, its plan leaves in the last.
LIFE = (FLAT, FLAT, FLAT, FLAT, (101.0, 102.0, 101.0, 102.0), (101.5, 101.5, 101.5, 101.5))
ENTERED = 7


def stored(folder: Path, stage: Stage, without: tuple[int, ...] = ()) -> StoredBars:
    """The session's bars so far as a recorder has stored them, but for those of some minutes."""
    session = stage.bank.session
    bars = [FLAT] * ENTERED + list(LIFE)
    minutes = [minute for minute in range((stage.now - START) // MINUTE) if minute not in without]
    rows = BarRows.of(
        ["KO"] * len(minutes),
        np.array([microseconds(START + minute * MINUTE) for minute in minutes]),
        np.array([(*bars[minute], 1000.0, 100.0) for minute in minutes]).T,
        np.full(len(minutes), np.nan),
        stage.now,
    )
    on_disk = StoredBars(folder, Feed.IEX)
    on_disk.merge(session, rows)
    return on_disk


def interrupted_after(bars: int) -> Stage:
    """A desk whose process ended when so many bars of LIFE had been traded."""
    stage = Stage(TWO_MINUTES)
    stage.enter()
    for prices in LIFE[:bars]:
        stage.bar(prices)
    assert Trade.objects.get().exit_reason == ExitReason.TIME_LIMIT
    return stage


def started_anew(before: Stage, on_disk: StoredBars) -> Stage:
    """A new process on the same database and the stored bars."""
    stage = Stage(TWO_MINUTES)
    stage.now = before.now
    for batch in on_disk.session_bars(stage.bank.session, UNIVERSE).batches():
        if batch.end <= stage.now:
            stage.loop.catch_up(batch)
    return stage


@pytest.mark.django_db
def test_after_a_restart_a_plan_is_taken_up_from_the_stored_bars(tmp_path: Path) -> None:
    before = interrupted_after(4)
    stage = started_anew(before, stored(tmp_path, before))
    assert Trade.objects.get().plan_outcome is None
    stage.bar(LIFE[4])
    stage.bar(LIFE[5])
    assert plan_result(Trade.objects.get()) == (ExitReason.TARGET, stage.now - MINUTE, 1.48, Outcome.WIN)


@pytest.mark.django_db
def test_a_plan_that_ended_while_no_process_ran_is_found_to_have_ended_then(tmp_path: Path) -> None:
    before = interrupted_after(3)
    before.now += 3 * MINUTE
    started_anew(before, stored(tmp_path, before))
    assert plan_result(Trade.objects.get()) == (ExitReason.TARGET, before.now - MINUTE, 1.48, Outcome.WIN)


@pytest.mark.django_db
@pytest.mark.parametrize(
    "without", [(ENTERED + 1,), (ENTERED + 3,), tuple(range(ENTERED + 4))], ids=["in between", "the last", "all"]
)
def test_where_a_stored_bar_is_missing_the_plan_stays_unknown(tmp_path: Path, without: tuple[int, ...]) -> None:
    before = interrupted_after(4)
    stage = started_anew(before, stored(tmp_path, before, without))
    stage.bar(LIFE[4])
    while stage.now < stage.bank.session.close:
        stage.bar(LIFE[5])
    with capture_logs() as logs:
        stage.bell()
    assert plan_result(Trade.objects.get()) == (None, None, None, None)
    assert [(line["event"], line["plans"]) for line in logs] == [("plans_not_known", 1)]


@pytest.mark.django_db
def test_bars_missing_before_the_entry_do_not_matter(tmp_path: Path) -> None:
    before = interrupted_after(4)
    stage = started_anew(before, stored(tmp_path, before, tuple(range(ENTERED - 1))))
    stage.bar(LIFE[4])
    stage.bar(LIFE[5])
    assert Trade.objects.get().plan_outcome == Outcome.WIN


@pytest.mark.django_db
def test_a_plan_in_a_symbol_that_is_watched_no_more_does_not_keep_a_process_from_starting(tmp_path: Path) -> None:
    before = interrupted_after(4)
    Trade.objects.update(symbol="GONE")
    stage = started_anew(before, stored(tmp_path, before))
    stage.bar(LIFE[4])
    stage.bar(LIFE[5])
    assert Trade.objects.get().plan_outcome is None
