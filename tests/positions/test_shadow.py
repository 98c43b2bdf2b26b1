"""Signals that are not taken, followed on paper: on a whole desk driven by hand, over a restart, with no database."""

from dataclasses import replace
from decimal import Decimal

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from hypothesis import event, given, settings
from hypothesis import strategies as st

from positions.market.bars import BarHistory
from positions.models import ShadowTrade, Trade
from positions.store import MemoryStore
from positions.strategy import Opinion
from positions.words import ExitReason, Outcome, PlanDoubt, Side
from tests.positions.stage import FLAT, Stage
from tests.positions.test_ledger import bar
from tests.positions.test_plans import ONLY_THE_PLAN
from tests.positions.world import MINUTE, UNIVERSE, batch

SKIPPED = Opinion(take=False, reason="model_skips")


def skipping(**options: object) -> Stage:
    """A desk whose model lets nothing through, with one signal in KO: entry 100, stop 99, target 102."""
    stage = Stage(**options)
    stage.listener.opinion = SKIPPED
    stage.bar(FLAT)
    stage.signal()
    stage.bar(FLAT)
    return stage


def ends_of(rows: list[Trade] | list[ShadowTrade]) -> list[tuple[object, ...]]:
    return sorted(
        (r.signal_key, r.entered_at, r.entry_price, r.risk_per_share, r.plan_exit_reason, r.plan_ended_at, r.plan_r)
        for r in rows
    )


@settings(max_examples=100, deadline=None)
@given(
    bars=st.lists(st.tuples(bar(), bar()), min_size=24, max_size=24),
    sides=st.lists(st.tuples(st.sampled_from([None, *Side]), st.sampled_from([None, *Side])), min_size=24, max_size=24),
    flatten_minutes=st.sampled_from([0.0, 3.0]),
)
def test_a_signal_that_was_not_taken_ends_as_the_trade_would_have_whatever_the_bars(bars, sides, flatten_minutes):
    rules = replace(ONLY_THE_PLAN, flatten_minutes=flatten_minutes)

    def run(opinion: Opinion, wanted: set[str] | None) -> Stage:
        """`wanted`: keys of the signals to give, all where it is None."""
        stage = Stage(rules, minutes=len(bars), store=MemoryStore("simulated"))
        stage.listener.opinion = opinion
        for pair, both in zip(bars, sides, strict=True):
            for symbol, (_, _, _, close), side in zip(UNIVERSE.symbols, pair, both, strict=True):
                if side is not None and close == close:
                    sign = 1 if side is Side.LONG else -1
                    stage.signal(symbol, side, entry=close, stop=close - sign, target=close + sign)
            if wanted is not None:
                stage.strategy.next = [signal for signal in stage.strategy.next if signal.key in wanted]
            stage.bar(*pair)
        stage.bell()
        return stage

    traded = run(Opinion(take=True), None).world.closed
    event(f"{min(len(traded), 3)} trades or more")
    on_paper = run(SKIPPED, {trade.signal_key for trade in traded}).world.store
    assert ends_of(list(on_paper.shadows.values())) == ends_of(traded)


@pytest.mark.django_db
def test_a_skipped_signal_enters_at_the_next_bar_s_open_and_ends_at_its_target_after_costs():
    stage = skipping()
    assert ShadowTrade.objects.get().entered_at is None
    stage.bar((100.2, 100.3, 100.1, 100.2))
    stage.bar((101.0, 102.5, 101.0, 102.4))
    stage.bar((102.2, 102.2, 102.2, 102.2))
    row = ShadowTrade.objects.get()
    assert (row.not_taken_reason, row.entry_price, row.risk_per_share) == (
        "model_skips",
        Decimal("100.2"),
        Decimal("1.2"),
    )
    assert (row.plan_exit_reason, row.plan_outcome, row.plan_ended_at) == (
        ExitReason.TARGET,
        Outcome.WIN,
        stage.now - MINUTE,
    )
    assert row.plan_r == pytest.approx((102.2 - 100.2 - 0.02) / 1.2)
    assert not Trade.objects.exists()


@pytest.mark.django_db
def test_whatever_keeps_a_signal_from_being_traded_it_is_followed_but_without_a_plan():
    stage = Stage(protections=True)
    stage.enter()
    stage.signal()  # in KO, whose position is open
    stage.risk = replace(stage.risk, max_open_positions=1)
    stage.signal("F")
    stage.bar(FLAT, FLAT)
    stage.signal("F", stop=101.0)  # a stop beyond the entry is no plan
    stage.signal("F", Side.SHORT, target=float("nan"))
    stage.bar(FLAT, FLAT)
    reasons = ShadowTrade.objects.order_by("symbol").values_list("symbol", "not_taken_reason")
    assert list(reasons) == [("F", "max_open_positions"), ("KO", "position_open")]
    assert not ShadowTrade.objects.filter(signal_key__in=Trade.objects.values("signal_key")).exists()


@pytest.mark.django_db
def test_without_a_bar_to_enter_in_for_two_minutes_nothing_is_entered():
    stage = skipping()
    for _ in range(2):
        stage.bar()
    stage.bar(FLAT)
    stage.bell()
    row = ShadowTrade.objects.get()
    assert (row.entered_at, row.plan_outcome) == (None, None)


@pytest.mark.django_db
def test_a_bar_that_was_missed_leaves_the_end_unknown():
    stage = skipping()
    stage.bar(FLAT)
    stage.now += MINUTE
    stage.bar((98.0, 98.0, 98.0, 98.0))
    stage.bell()
    assert ShadowTrade.objects.get().plan_outcome is None


@pytest.mark.django_db
def test_stop_and_target_in_one_bar_count_as_the_stop_and_are_doubted():
    stage = skipping()
    stage.bar((100.0, 103.0, 98.0, 100.0))
    row = ShadowTrade.objects.get()
    assert (row.plan_exit_reason, row.plan_outcome, row.plan_doubt) == (
        ExitReason.STOP,
        Outcome.LOSS,
        PlanDoubt.BOTH_TOUCHED,
    )


@pytest.mark.django_db
def test_a_new_process_follows_on_what_the_last_one_followed():
    stage = skipping()
    stage.bar((100.2, 100.2, 100.2, 100.2))
    later = Stage()
    later.loop.open_session(later.session, MINUTE, BarHistory())
    for price in (FLAT, FLAT, (100.2, 100.2, 100.2, 100.2)):
        later.loop.catch_up(batch(later.now, price, FLAT, 1000.0))
        later.now += MINUTE
    later.bar((99.5, 99.5, 98.5, 98.8))
    row = ShadowTrade.objects.get()
    assert (row.entry_price, row.plan_exit_reason, row.plan_outcome) == (
        Decimal("100.2"),
        ExitReason.STOP,
        Outcome.LOSS,
    )


@pytest.mark.django_db
def test_however_many_signals_a_bar_brings_they_are_stored_by_one_query():
    stage = Stage()
    stage.listener.opinion = SKIPPED
    counts = []
    for symbols in (["KO"], ["KO", "F"]):
        stage.bar(FLAT, FLAT)
        for symbol in symbols:
            stage.signal(symbol)
        with CaptureQueriesContext(
            connection,
        ) as queries:
            stage.bar(FLAT, FLAT)
        counts.append(sum("shadow_trades" in each["sql"] for each in queries.captured_queries))
    assert counts == [1, 1]
    assert ShadowTrade.objects.count() == 3


@pytest.mark.django_db
def test_a_replay_writes_them_with_its_trades():
    store = MemoryStore("simulated")
    stage = skipping(store=store)
    stage.bar((98.5, 98.5, 98.5, 98.5))
    stage.bar(FLAT)
    stage.bell()
    assert not ShadowTrade.objects.exists()
    store.flush()
    store.flush()
    assert ShadowTrade.objects.get().plan_exit_reason == ExitReason.STOP
