from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from math import nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from positions import rules
from positions.rules import DayView, ExitSettings, MarketView, PositionView, RiskSettings
from positions.words import ExitReason, Side

ENTERED = datetime(2025, 5, 12, 14, 0, tzinfo=UTC)
SETTINGS = ExitSettings()
LONG = PositionView(Side.LONG, 100.0, 99.0, 102.0, 1.0, ENTERED, 1000.0, False)
SHORT = PositionView(Side.SHORT, 100.0, 101.0, 98.0, 1.0, ENTERED, 1000.0, False)
QUIET = MarketView(100.1, 99.9, 100.0, 0.1, 0.1)

prices = st.floats(2.0, 900.0)


def test_volume_at_half_the_entry_volume_is_still_enough_and_below_it_is_not():
    assert rules.check_volume(500.0, 1000.0, SETTINGS) is None
    decision = rules.check_volume(499.9, 1000.0, SETTINGS)
    assert decision is not None
    assert decision.rule is ExitReason.LOW_VOLUME
    assert decision.evidence["reference_volume"] == 1000.0


@pytest.mark.parametrize(("mean_volume", "reference"), [(1.0, None), (1.0, nan), (nan, 1000.0), (1.0, 0.0)])
def test_unknown_volume_is_not_low_volume(mean_volume, reference):
    assert rules.check_volume(mean_volume, reference, SETTINGS) is None


@pytest.mark.parametrize(
    ("minutes", "close", "leaves"),
    [(14.9, 99.0, False), (15, 100.0, True), (15, 100.02, True), (15, 100.03, False)],
)
def test_a_trade_leaves_after_fifteen_minutes_unless_it_is_above_zero_after_costs(minutes, close, leaves):
    decision = rules.check_time(LONG, QUIET._replace(close=close), SETTINGS, ENTERED + timedelta(minutes=minutes))
    assert (decision is not None) is leaves


@pytest.mark.parametrize(("position", "sign"), [(LONG, 1), (SHORT, -1)])
def test_momentum_reverses_only_on_the_bar_that_crosses_against_the_trade(position, sign):
    crosses = QUIET._replace(previous_macd_histogram=sign * 0.01, macd_histogram=sign * -0.01)
    already = QUIET._replace(previous_macd_histogram=sign * -0.02, macd_histogram=sign * -0.01)
    with_it = QUIET._replace(previous_macd_histogram=sign * -0.01, macd_histogram=sign * 0.01)
    assert rules.check_momentum(position, crosses, SETTINGS) is not None
    assert rules.check_momentum(position, already, SETTINGS) is None
    assert rules.check_momentum(position, with_it, SETTINGS) is None


def test_unknown_momentum_is_no_reversal():
    nan = float("nan")
    assert rules.check_momentum(LONG, QUIET._replace(previous_macd_histogram=nan, macd_histogram=nan), SETTINGS) is None


@pytest.mark.parametrize(
    ("position", "high", "low", "reached"),
    [(LONG, 102.0, 100.0, True), (LONG, 101.99, 97.0, False), (SHORT, 103.0, 98.0, True), (SHORT, 103.0, 98.01, False)],
)
def test_the_target_is_reached_when_the_bar_touches_it(position, high, low, reached):
    assert (rules.check_target(position, QUIET._replace(high=high, low=low)) is not None) is reached


@pytest.mark.parametrize("switch", ["low_volume", "time_limit", "momentum_reversal", "breakeven"])
def test_a_rule_that_is_switched_off_never_acts(switch):
    off = replace(SETTINGS, **{switch: False})
    storm = MarketView(150.0, 50.0, 102.0, -1.0, 1.0)
    late = ENTERED + timedelta(hours=1)
    acts = {
        "low_volume": rules.check_volume(1.0, 1000.0, off),
        "time_limit": rules.check_time(LONG, storm._replace(close=90.0), off, late),
        "momentum_reversal": rules.check_momentum(LONG, storm, off),
        "breakeven": rules.breakeven_stop(LONG, storm.close, off),
    }
    assert acts[switch] is None


def test_positions_are_flattened_five_minutes_before_the_close():
    assert rules.check_session_close(5.1, SETTINGS) is None
    assert rules.check_session_close(5.0, SETTINGS) is not None


def test_breakeven_goes_to_entry_plus_round_trip_costs_at_one_r():
    assert rules.breakeven_stop(LONG, 100.99, SETTINGS) is None
    assert rules.breakeven_stop(LONG, 101.0, SETTINGS) == Decimal("100.02")
    assert rules.breakeven_stop(SHORT, 99.0, SETTINGS) == Decimal("99.98")


@pytest.mark.parametrize(
    ("close", "minutes", "volume", "rule", "share"),
    [
        (99.25, 3, 1000, "stop", 0.75),  # R is 1 dollar: a quarter of it is left
        (100.75, 3, 1000, "breakeven", 0.75),
        (101.5, 3, 1000, "breakeven", 1.0),
        (100.0, 12, 1000, "time_limit", 0.8),
        (100.1, 3, 600, "low_volume", 500 / 600),
        (100.1, 14, nan, "breakeven", 0.1),  # in profit its time does not run
        (98.0, 3, 1000, "stop", 1.0),
    ],
)
def test_the_nearest_rule_is_the_one_that_has_come_furthest(close, minutes, volume, rule, share):
    near = rules.nearest_rule(LONG, close, volume, 1000.0, SETTINGS, ENTERED + timedelta(minutes=minutes))
    assert near.rule == rule
    assert near.share == pytest.approx(share)


def test_once_the_stop_is_at_breakeven_or_that_is_off_the_target_is_next():
    moved, off = LONG._replace(breakeven_set=True), replace(SETTINGS, breakeven=False)
    for position, settings in ((moved, SETTINGS), (LONG, off)):
        near = rules.nearest_rule(position, 101.5, nan, None, settings, ENTERED + timedelta(minutes=3))
        assert (near.rule, near.share) == ("target", pytest.approx(0.75))


def test_breakeven_has_come_as_far_as_its_profit_of_the_profit_it_waits_for():
    assert rules.share_of_breakeven(LONG, 100.6, replace(SETTINGS, breakeven_at_r=1.5)) == pytest.approx(0.4)
    assert rules.share_of_breakeven(SHORT, 99.4, SETTINGS) == pytest.approx(0.6)
    assert rules.share_of_breakeven(LONG, 99.5, SETTINGS) == -0.5


def test_breakeven_is_set_once():
    assert rules.breakeven_stop(LONG._replace(breakeven_set=True), 105.0, SETTINGS) is None


@given(
    side=st.sampled_from(Side),
    entry=prices,
    risk=st.floats(0.01, 50.0),
    stop_in_r=st.floats(0.1, 3.0),
    close=prices,
    cost=st.floats(0.0, 1.0),
    at_r=st.floats(0.1, 5.0),
)
def test_a_breakeven_stop_never_loosens_and_never_passes_the_market(side, entry, risk, stop_in_r, close, cost, at_r):
    sign = 1 if side is Side.LONG else -1
    position = PositionView(side, entry, entry - sign * stop_in_r * risk, entry, risk, ENTERED, None, False)
    settings = replace(SETTINGS, cost_per_share=cost, breakeven_at_r=at_r)
    stop = rules.breakeven_stop(position, close, settings)
    if stop is not None:
        assert sign * (float(stop) - position.stop) > 0
        assert sign * (close - float(stop)) > 0
        assert sign * (float(stop) - entry) >= 2 * cost - 1e-6


@given(price=st.floats(0.0005, 5000.0), side=st.sampled_from(Side))
def test_an_initial_stop_is_on_the_tick_and_no_nearer_than_planned(price, side):
    stop = rules.initial_stop(price, side)
    tick = Decimal("0.01") if price >= 1 else Decimal("0.0001")
    assert stop % tick == 0
    assert float(stop) <= price + 1e-8 if side is Side.LONG else float(stop) >= price - 1e-8
    assert abs(float(stop) - price) < float(tick) + 1e-8


@given(
    entry=prices,
    risk=st.floats(0.01, 20.0),
    equity=st.floats(0, 1e6),
    buying_power=st.floats(0, 1e6),
)
def test_a_size_never_exceeds_risk_notional_or_buying_power(entry, risk, equity, buying_power):
    settings = RiskSettings()
    shares = rules.whole_shares(entry, entry - risk, equity, buying_power, settings)
    assert shares >= 0
    assert shares * risk <= equity * settings.risk_per_trade * (1 + 1e-9)
    assert shares * entry <= min(equity * settings.max_notional, buying_power) * (1 + 1e-9)


def test_each_protection_blocks_entries_and_says_which_it_is():
    settings = RiskSettings()
    noon = datetime(2025, 5, 12, 16, tzinfo=UTC)
    day = DayView(noon, False, 9, 0.0, 100_000.0, 59, 3, noon)
    assert rules.blocked(day, settings) == ""
    assert rules.blocked(replace(day, halted=True), settings) == "halted"
    assert rules.blocked(replace(day, open_positions=10), settings) == "max_open_positions"
    assert rules.blocked(replace(day, pnl=-3_000.0), settings) == "daily_loss_limit"
    assert rules.blocked(replace(day, orders=60), settings) == "max_orders_per_minute"
    assert rules.blocked(replace(day, losses=4), settings) == "cooldown"
    assert rules.blocked(replace(day, losses=4, last_loss_at=noon - timedelta(minutes=30)), settings) == ""
    assert rules.blocked(replace(day, losses=4), replace(settings, cooldown_losses=0)) == ""


def test_the_settings_hash_changes_with_any_number():
    assert replace(SETTINGS, time_limit_minutes=16.0).hash != SETTINGS.hash == ExitSettings().hash
