"""Worked examples by hand; the figures beside them follow from the formulas in ml/statistics.py."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_ind

from ml.statistics import (
    Interval,
    clustered_interval,
    daily_sharpe,
    daily_sharpe_interval,
    difference_interval,
    max_drawdown,
    max_drawdown_r,
    mean,
    profit_factor,
    share_interval,
    sharpe_per_trade,
    sortino,
    win_rate,
)

NOTHING = np.array([])
results = (
    st.lists(st.floats(-10, 10).map(lambda x: round(x, 3)), min_size=2, max_size=40)
    .filter(lambda r: min(r) < 0 and min(r) < max(r))
    .map(np.array)
)


def test_a_result_of_exactly_zero_is_a_loss() -> None:
    assert win_rate(np.array([5.0, 0.0, -1.0, 2.0])) == 0.5


def test_expectancy_is_the_mean_r() -> None:
    assert mean(np.array([2.0, -1.0, -1.0, 1.0])) == 0.25


def test_profit_factor_is_gains_over_losses() -> None:
    assert profit_factor(np.array([30.0, -10.0, 0.0, 20.0, -15.0])) == 2.0


def test_profit_factor_is_undefined_where_nothing_was_lost() -> None:
    assert profit_factor(np.array([3.0, 0.0])) is None
    assert profit_factor(NOTHING) is None


def test_profit_factor_is_zero_where_nothing_was_won() -> None:
    assert profit_factor(np.array([-3.0])) == 0.0


def test_sharpe_per_trade_is_mean_over_sample_deviation() -> None:
    # mean 0.5, deviations -1.5 .5 .5 .5: variance 3 / 3
    assert sharpe_per_trade(np.array([-1.0, 1.0, 1.0, 1.0])) == pytest.approx(0.5)


def test_daily_sharpe_is_annualised_by_the_root_of_252() -> None:
    assert daily_sharpe(np.array([-0.01, 0.01, 0.01, 0.01])) == pytest.approx(0.5 * math.sqrt(252))


def test_sessions_without_trades_lower_the_daily_sharpe() -> None:
    traded = np.array([0.01, 0.02, 0.015])
    with_rest = np.array([0.01, 0.0, 0.02, 0.0, 0.015])
    assert daily_sharpe(with_rest) < daily_sharpe(traded)  # type: ignore[operator]  # both are defined


def test_sortino_divides_by_the_downside_over_all_days() -> None:
    # mean 0.005, downside sqrt(0.0004 / 4) = 0.01
    assert sortino(np.array([0.02, -0.02, 0.01, 0.01])) == pytest.approx(0.5 * math.sqrt(252))


def test_the_interval_of_the_daily_sharpe_is_as_wide_as_los_standard_error() -> None:
    returns = np.array([-0.01, 0.01, 0.01, 0.01])
    interval = daily_sharpe_interval(returns)
    assert interval is not None
    # a ratio of 0.5 a session: sqrt(252 * (1 + 0.125) / 4) = 8.4187
    assert interval.width / 2 == pytest.approx(1.959964 * 8.4187, abs=1e-3)
    assert interval.low + interval.width / 2 == pytest.approx(0.5 * math.sqrt(252))
    assert daily_sharpe_interval(np.array([0.01])) is None


def test_sortino_is_undefined_without_a_loss() -> None:
    assert sortino(np.array([0.01, 0.0])) is None


@pytest.mark.parametrize("values", [NOTHING, np.array([1.0]), np.array([0.1, 0.1, 0.1])])
def test_sharpe_is_undefined_without_two_different_results(values: np.ndarray) -> None:
    assert sharpe_per_trade(values) is None
    assert daily_sharpe(values) is None


def test_drawdown_in_r_counts_a_loss_on_the_first_trade() -> None:
    assert max_drawdown_r(np.array([-1.0, -0.5, 2.0])) == 1.5


def test_drawdown_in_r_is_the_deepest_fall_not_the_last() -> None:
    # sums 2, 1, 3, 0.5, 1
    assert max_drawdown_r(np.array([2.0, -1.0, 2.0, -2.5, 0.5])) == 2.5


def test_drawdown_of_equity_is_a_fraction_of_its_peak_and_counts_a_loss_on_the_first_day() -> None:
    assert max_drawdown(np.array([-0.1, 1 / 3, -0.3])) == pytest.approx(0.3)
    assert max_drawdown(np.array([-0.2, 0.5])) == pytest.approx(0.2)


def test_without_trades_nothing_is_defined() -> None:
    assert mean(NOTHING) is None
    assert win_rate(NOTHING) is None
    assert max_drawdown_r(NOTHING) is None
    assert max_drawdown(NOTHING) is None
    assert sortino(NOTHING) is None
    assert share_interval(0, 0) is None
    assert clustered_interval(NOTHING, []) is None


def test_wilson_interval_of_five_in_twelve() -> None:
    interval = share_interval(5, 12)
    assert interval is not None
    # p 0.41667, z 1.959964: centre 0.436874, half 0.243541
    assert interval.low == pytest.approx(0.19326, abs=1e-5)
    assert interval.high == pytest.approx(0.68048, abs=1e-5)


def test_wilson_interval_stays_inside_zero_and_one() -> None:
    none_won, all_won = share_interval(0, 3), share_interval(3, 3)
    assert none_won is not None
    assert all_won is not None
    assert (none_won.low, all_won.high) == (0.0, pytest.approx(1.0))
    assert 0 < none_won.high < 1


def test_interval_over_equal_sessions_is_the_t_interval_over_their_means() -> None:
    # session means 1, 2, 4: mean 7/3, sd 1.527525, se 0.881917, t(2) 4.302653
    interval = clustered_interval(np.array([0.0, 2.0, 1.0, 3.0, 5.0, 3.0]), ["a", "a", "b", "b", "c", "c"])
    assert interval is not None
    assert interval.low == pytest.approx(7 / 3 - 4.302653 * 0.881917, abs=1e-5)
    assert interval.high == pytest.approx(7 / 3 + 4.302653 * 0.881917, abs=1e-5)


def test_interval_over_unequal_sessions_weighs_trades_not_sessions() -> None:
    # mean 2, sums of x - mean: a -3, b 3; se sqrt(2 * 18) / 4 = 1.5, t(1) 12.706205
    interval = clustered_interval(np.array([1.0, 1.0, 1.0, 5.0]), ["a", "a", "a", "b"])
    assert interval == Interval(pytest.approx(2 - 12.706205 * 1.5), pytest.approx(2 + 12.706205 * 1.5))


def test_trades_that_move_together_widen_the_interval() -> None:
    values = np.array([1.0, 1.1, 0.9, -1.0, -0.9, -1.1, 1.0, 0.9, 1.1, -1.0, -1.1, -0.9])
    together = clustered_interval(values, [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3])
    alone = clustered_interval(values, range(12))
    assert together is not None
    assert alone is not None
    assert together.high - together.low > 1.5 * (alone.high - alone.low)


def test_one_session_has_no_interval() -> None:
    assert clustered_interval(np.array([1.0, 2.0]), ["a", "a"]) is None


def test_interval_covers_the_truth_as_often_as_it_says() -> None:
    """Driftless market, 29 sessions of 5 to 40 trades that share half of their variance with their session."""
    rng = np.random.default_rng(20240103)
    covered = 0
    for _ in range(600):
        sessions = np.repeat(np.arange(29), rng.integers(5, 40, 29))
        values = rng.normal(size=len(sessions)) + rng.normal(size=29)[sessions]
        interval = clustered_interval(values, sessions.tolist())
        covered += interval is not None and interval.contains(0.0)
    assert 0.92 <= covered / 600 <= 0.975  # 95 % within 3 standard errors


@given(results)
def test_the_order_of_trades_changes_drawdown_alone(r: np.ndarray) -> None:
    assert sharpe_per_trade(r[::-1]) == pytest.approx(sharpe_per_trade(r), rel=1e-9, abs=1e-9)
    assert profit_factor(r[::-1]) == pytest.approx(profit_factor(r), rel=1e-9, abs=1e-9)
    assert win_rate(r[::-1]) == win_rate(r)


@given(results, st.sampled_from([0.5, 2.0, 8.0]))
def test_risking_more_changes_drawdown_but_not_sharpe(r: np.ndarray, scale: float) -> None:
    assert sharpe_per_trade(r * scale) == pytest.approx(sharpe_per_trade(r), rel=1e-9, abs=1e-9)
    assert max_drawdown_r(r * scale) == pytest.approx(scale * (max_drawdown_r(r) or 0.0), rel=1e-9, abs=1e-9)


@given(results)
def test_drawdown_is_at_least_the_final_loss_and_the_worst_trade(r: np.ndarray) -> None:
    drawdown = max_drawdown_r(r)
    assert drawdown is not None
    assert drawdown >= max(-float(r.sum()), -float(r.min()), 0.0) - 1e-9


def test_the_interval_of_a_difference_is_welchs_where_every_trade_is_its_own_session() -> None:
    values, others = np.array([1.0, 3.0, 2.0, 6.0]), np.array([0.0, 1.0, 0.5])
    interval = difference_interval(values, range(4), others, range(3))
    welch = ttest_ind(values, others, equal_var=False).confidence_interval()
    assert interval is not None
    assert (interval.low, interval.high) == pytest.approx((welch.low, welch.high))
    assert difference_interval(values, range(4), np.array([1.0]), [1]) is None
