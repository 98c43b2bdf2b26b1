"""What the gate skipped, beside what was taken."""

from datetime import timedelta

import pytest

from ml.performance_tracker import PerformanceTracker, Sample
from positions.words import Outcome, PlanDoubt
from reports.daily import build_report, render_markdown
from reports.figures import DEFINITIONS, Figure
from tests.factories import FIRST_SIGNAL, ShadowTradeFactory, TradeFactory, features_of

pytestmark = pytest.mark.django_db

DAY = FIRST_SIGNAL.date()


def figures() -> dict[str, Figure]:
    sample = Sample(PerformanceTracker("simulated").read().values())
    return {each.key: each.figure(sample) for each in DEFINITIONS}


def test_the_gate_s_precision_is_the_share_of_what_it_skipped_that_would_have_lost():
    ShadowTradeFactory.create_batch(3)
    ShadowTradeFactory(plan_outcome=Outcome.WIN)
    TradeFactory()
    TradeFactory(outcome=Outcome.WIN, plan_outcome=Outcome.LOSS)
    found = figures()
    assert (found["skipped_lost"].value, found["skipped_lost"].n) == (0.75, 4)
    assert found["skipped_lost"].interval.contains(0.75)
    assert found["skipped_r"].value == pytest.approx((1.9 - 3 * 1.05) / 4)
    assert (found["taken_lost"].value, found["taken_lost"].n) == (0.5, 2)
    assert found["taken_plan_r"].value == pytest.approx((1.9 - 1.05) / 2)


def test_what_something_else_kept_or_whose_end_is_doubtful_or_unknown_does_not_count():
    ShadowTradeFactory(not_taken_reason="position_open")
    ShadowTradeFactory(plan_doubt=PlanDoubt.BOTH_TOUCHED)
    ShadowTradeFactory(plan_outcome=None, plan_r=None, plan_exit_reason=None, plan_ended_at=None)
    ShadowTradeFactory(book="paper:x")
    TradeFactory(plan_doubt=PlanDoubt.AT_LAST_PRICE)
    found = figures()
    for key in ("skipped_lost", "skipped_r", "taken_lost", "taken_plan_r"):
        assert (found[key].value, found[key].n) == (None, 0)
        assert found[key].why


def test_over_several_sessions_the_interval_takes_a_session_s_signals_together():
    for day in range(3):
        for n in range(5):
            at = FIRST_SIGNAL + timedelta(days=day, minutes=n)
            ShadowTradeFactory(signal_at=at, plan_outcome=Outcome.WIN if day == 2 else Outcome.LOSS)
    interval = figures()["skipped_lost"].interval
    assert (interval.low, interval.high) == (0.0, 1.0)  # three days that all went one way say nothing


def test_the_daily_report_shows_it():
    features_of(ShadowTradeFactory(), taken=False, not_taken_reason="model_skips")
    text = render_markdown(build_report("simulated", DAY))
    assert "Skipped, would have lost" in text
    assert "100.0%" in text
