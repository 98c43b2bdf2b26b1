"""The impact of exit rules: worked examples by hand, and 2,000 markets of which the truth is known.

In the simulated markets a trade's target is at +2 R and its stop at -1 R. From x in R a driftless price reaches the
target first with probability (x + 1) / 3, so that its plan is worth x on average: leaving at x changes nothing,
whatever rule said so. `worth` is what a rule is made to be worth a trade: where it leaves, what follows drifts against
(or for) the trade by so much. Three trades in five are left early, at x between -0.6 and 0.6; the trades of a session
share a shock to the odds of up to 0.05; sessions are of unequal size.
"""

from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal

import numpy as np
import pytest

from ml.impact import CAUTION, ClosedTrade, Effect, Verdict, effect, impact, why_excluded
from ml.statistics import Floats
from positions.words import ExitReason, PlanDoubt

SEEDS = 2_000
#: Trades of each session: 1,600 in 32 sessions.
SIZES = np.tile([20, 35, 45, 50, 50, 55, 65, 80], 4)
SESSIONS = np.repeat(np.arange(len(SIZES)), SIZES).tolist()
SHARE_TOUCHED = 0.6


def markets(worth: float = 0.0, seeds: int = SEEDS) -> tuple[Floats, Floats]:
    """Results in R under the rule and of the plans, each of shape (seeds, trades)."""
    rng = np.random.default_rng(20260722)
    shape = seeds, len(SESSIONS)
    touched = rng.random(shape) < SHARE_TOUCHED
    left_at = rng.uniform(-0.6, 0.6, shape)
    shock = np.repeat(rng.uniform(-0.05, 0.05, (seeds, len(SIZES))), SIZES, axis=1)
    # Where the rule does not speak the plan runs from the entry, at 0 R.
    value = np.where(touched, left_at - worth / SHARE_TOUCHED, 0.0)
    plan = np.where(rng.random(shape) < (value + 1) / 3 + shock, 2.0, -1.0)
    return np.where(touched, left_at, plan), plan


def effects(worth: float = 0.0) -> list[Effect]:
    ones = np.ones(len(SESSIONS))
    return [effect(r, plan, SESSIONS, ones) for r, plan in zip(*markets(worth), strict=True)]


@pytest.fixture(scope="module")
def driftless() -> list[Effect]:
    return effects()


def share(of: list[Effect], verdict: Verdict) -> float:
    return sum(each.verdict is verdict for each in of) / len(of)


def test_without_drift_the_interval_of_the_net_effect_covers_zero_as_often_as_it_says(driftless: list[Effect]) -> None:
    covered = [each.net_interval is not None and each.net_interval.contains(0.0) for each in driftless]
    assert 0.935 <= np.mean(covered) <= 0.965


def test_without_drift_no_rule_is_called_effective_or_harmful_more_often_than_chance(driftless: list[Effect]) -> None:
    assert share(driftless, Verdict.EFFECTIVE) <= 0.035
    assert share(driftless, Verdict.HARMFUL) <= 0.035


def test_without_drift_the_average_loss_falls_by_a_third_and_nothing_is_gained(driftless: list[Effect]) -> None:
    assert np.mean([each.average_loss_reduction for each in driftless]) > 0.3
    assert abs(np.mean([each.net for each in driftless])) < 0.003
    assert "proves nothing by itself" in CAUTION


def test_a_rule_that_is_worth_a_tenth_of_r_is_called_effective() -> None:
    assert share(effects(worth=0.1), Verdict.EFFECTIVE) >= 0.9


def test_a_rule_that_costs_a_tenth_of_r_is_called_harmful_however_much_smaller_the_losses_are() -> None:
    harmful = effects(worth=-0.1)
    assert share(harmful, Verdict.HARMFUL) >= 0.9
    assert np.mean([each.average_loss_reduction for each in harmful]) > 0.3


def test_the_interval_of_the_average_loss_covers_what_it_converges_to(driftless: list[Effect]) -> None:
    r, plan = markets()
    truth = 1 - r[r < 0].mean() / plan[plan < 0].mean()
    covered = [
        each.average_loss_interval is not None and each.average_loss_interval.contains(truth) for each in driftless
    ]
    assert 0.93 <= np.mean(covered) <= 0.97


def walks(drift: float, trades: int = 20_000) -> Effect:
    """The time limit (at 15 minutes not above zero) and breakeven (at +1 R) on prices that walk 0.1 R a minute, after
    0.02 R of costs, beside stop at -1 R, target at +2 R and the end of the session."""
    rng = np.random.default_rng(3)
    price, stop = np.zeros(trades), np.full(trades, -1.0)
    own, plan = np.full(trades, np.nan), np.full(trades, np.nan)
    for minute in range(1, 391):
        price += rng.normal(drift, 0.1, trades)
        over = (price >= 2) | (minute == 390)
        plan = np.where(np.isnan(plan) & (over | (price <= -1)), price - 0.02, plan)
        left = over | (price <= stop) | ((minute == 15) & (price <= 0.02))
        own = np.where(np.isnan(own) & left, price - 0.02, own)
        stop[price >= 1] = 0.02
    return effect(own, plan, list(range(trades)), np.ones(trades))


def test_on_walking_prices_the_average_loss_falls_by_half_whether_the_rules_help_or_harm() -> None:
    driftless, rising = walks(0.0), walks(0.001)
    for each in (driftless, rising):
        assert each.average_loss_reduction is not None
        assert each.average_loss_reduction > 0.5
    assert driftless.net_interval is not None
    assert driftless.net_interval.contains(0.0)
    assert rising.mean_r < 0.6 * rising.otherwise_mean_r
    assert rising.verdict is Verdict.HARMFUL


def test_worked_by_hand() -> None:
    r, plan = np.array([-0.5, 0.5, -1.0, 0.25]), np.array([-1.0, 2.0, -1.0, -0.75])
    found = effect(r, plan, [1, 1, 2, 2], np.array([100.0, 50.0, 100.0, 200.0]))
    assert (found.n, found.sessions) == (4, 2)
    assert found.saved == pytest.approx((0.5 + 0.0 + 1.0) / 4)
    assert found.given_up == pytest.approx(1.5 / 4)
    assert found.net == pytest.approx(0.0) == pytest.approx(found.saved - found.given_up)
    assert found.net_dollars == pytest.approx(50 - 75 + 200)
    assert found.average_loss_reduction == pytest.approx(1 - 0.75 / (2.75 / 3))
    assert (found.mean_r, found.otherwise_mean_r) == (pytest.approx(-0.1875), pytest.approx(-0.1875))
    assert found.net_interval is not None
    assert found.net_interval.high == pytest.approx(12.7062 * 0.5)  # session sums -1 and 1: SE sqrt(2 * 2) / 4


def test_an_improvement_in_percent_takes_a_baseline_that_is_not_zero() -> None:
    sessions, ones = list(range(8)), np.ones(8)
    plan = np.array([-1.0, -0.9, -1.1, -1.0, -0.9, -1.1, -1.0, -1.0])
    assert effect(plan + 0.1, plan, sessions, ones).improvement == pytest.approx(0.1)
    even = np.array([-1.0, 1.0] * 4)
    assert effect(even + 0.1, even, sessions, ones).improvement is None


def test_a_rule_with_smaller_losses_and_no_harm_to_speak_of_is_harmless() -> None:
    sessions = np.repeat(np.arange(20), 2).tolist()
    plan = np.array([-1.0, 2.0] * 20)
    r = np.where(plan < 0, -0.8, 1.8) + np.repeat([0.02, -0.02], 2).tolist() * 10
    assert effect(r, plan, sessions, np.ones(40)).verdict is Verdict.HARMLESS


def test_inconclusive_says_how_many_more_trades_it_takes_until_the_effect_is_known(driftless: list[Effect]) -> None:
    waiting = [each for each in driftless if each.verdict is Verdict.INCONCLUSIVE and each.trades_needed]
    assert len(waiting) > 500
    for each in waiting:
        assert each.net_interval is not None
        assert each.trades_needed == int(np.ceil(1_600 * (each.net_interval.width / 2 / 0.05) ** 2)) - 1_600
    assert not any(each.trades_needed for each in driftless if each.verdict is not Verdict.INCONCLUSIVE)


@pytest.mark.parametrize(("sessions", "verdict"), [(19, Verdict.INCONCLUSIVE), (20, Verdict.EFFECTIVE)])
def test_a_verdict_takes_twenty_sessions_however_clear_the_figures_are(sessions: int, verdict: Verdict) -> None:
    plan = np.tile([-1.0, 2.0], sessions)
    r = plan + np.tile([0.5, 0.0, 0.4, 0.0], sessions)[: len(plan)]
    assert effect(r, plan, np.repeat(np.arange(sessions), 2).tolist(), np.ones(len(plan))).verdict is verdict


def test_one_session_says_nothing_however_many_trades_it_has() -> None:
    found = effect(np.array([-0.5] * 50), np.array([-1.0] * 50), [1] * 50, np.ones(50))
    assert (found.net, found.net_interval) == (0.5, None)
    assert (found.verdict, found.trades_needed) == (Verdict.INCONCLUSIVE, None)


@dataclass(frozen=True)
class Closed:
    """A trade that its stop closed, as its plan had it, unless a test says otherwise."""

    session: date = date(2024, 1, 3)
    managed: bool = True
    breakeven_set: bool = False
    quantity: int = 10
    risk_per_share: Decimal | None = Decimal(1)
    exit_reason: str | None = ExitReason.STOP
    r_multiple: float | None = -1.0
    plan_exit_reason: str | None = ExitReason.STOP
    plan_r: float | None = -1.0
    plan_doubt: str | None = None


def early(day: int, rule: ExitReason, r: float, plan_r: float) -> ClosedTrade:
    return Closed(session=date(2024, 1, 3) + timedelta(days=day), exit_reason=rule, r_multiple=r, plan_r=plan_r)


def test_each_rule_is_judged_by_the_trades_it_closed_and_all_together_by_all() -> None:
    trades = [
        Closed(),
        early(0, ExitReason.TIME_LIMIT, -0.5, -1.0),
        early(1, ExitReason.TIME_LIMIT, -0.5, 2.0),
        early(1, ExitReason.BREAKEVEN_STOP, 0.0, -1.0),
    ]
    found = impact(trades)
    assert {rule: (each.n, each.net) for rule, each in found.rules.items()} == {
        ExitReason.TIME_LIMIT: (2, pytest.approx(-1.0)),
        ExitReason.BREAKEVEN_STOP: (1, pytest.approx(1.0)),
    }
    assert found.together is not None
    assert (found.together.n, found.together.net) == (4, pytest.approx(-0.25))


@pytest.mark.parametrize(
    ("trade", "reason"),
    [
        (Closed(exit_reason=ExitReason.MANUAL), "taken over by hand"),
        (Closed(managed=False), "taken over by hand"),
        (Closed(r_multiple=None, risk_per_share=None), "initial risk not known"),
        (Closed(plan_r=None, plan_exit_reason=None), "end of the plan not known"),
        (Closed(plan_doubt=PlanDoubt.BOTH_TOUCHED), "stop and target in one bar of the plan"),
        (Closed(plan_doubt=PlanDoubt.AT_LAST_PRICE), "no bar for the plan to leave in"),
    ],
)
def test_a_trade_that_says_nothing_certain_is_counted_and_left_out(trade: Closed, reason: str) -> None:
    assert why_excluded(trade) == reason
    found = impact([Closed(), Closed(), trade])
    assert found.excluded == {reason: 1}
    assert found.together is not None
    assert found.together.n == 2


@pytest.mark.parametrize(
    "untrue",
    [
        [Closed(exit_reason=ExitReason.TARGET)] * 2 + [Closed()] * 98,
        [Closed(r_multiple=-1.03)] * 51 + [Closed()] * 49,
        [],
    ],
    ids=["other exits than the plan's", "other results than the plan's", "no trade was left alone"],
)
def test_where_the_plans_do_not_reproduce_the_trades_left_alone_there_is_no_figure(untrue: list[Closed]) -> None:
    found = impact([*untrue, early(0, ExitReason.TIME_LIMIT, -0.5, -1.0), early(1, ExitReason.TIME_LIMIT, 0.0, -1.0)])
    assert not found.fidelity.holds
    assert (found.together, found.rules) == (None, {})


def test_fidelity_bears_one_other_exit_in_a_hundred_and_small_differences() -> None:
    trades = [Closed(exit_reason=ExitReason.TARGET)] + [Closed(r_multiple=-1.019)] * 99
    found = impact(trades)
    assert (found.fidelity.n, found.fidelity.same) == (100, 99)
    assert found.fidelity.holds


def test_a_trade_whose_stop_was_moved_is_no_witness_of_fidelity() -> None:
    assert impact([Closed(), Closed(breakeven_set=True)]).fidelity.n == 1
