"""Drift is found where it is, and not where sessions merely differ as they always do."""

import json

import numpy as np
import pytest
from numpy.typing import NDArray

from ml.drift import (
    FALSE_ALARMS,
    GROW_WITH_THE_BOOK,
    Comparison,
    compare,
    excess_errors,
    psi,
    psi_bound,
    reference_of,
    watch_errors,
)
from ml.features import MODEL_FEATURES
from tests.ml.synthetic import feature_columns, weekdays

Floats = NDArray[np.float64]
Columns = dict[str, NDArray[np.float64]]

TRAINING, LIVE, A_SESSION = 100, 20, 15


def days(sessions: int, a_session: int = A_SESSION) -> NDArray[np.datetime64]:
    return np.repeat(np.array(weekdays(sessions), dtype="datetime64[D]"), a_session)


def rows_of(columns: Columns, part: slice) -> Columns:
    return {name: values[part] for name, values in columns.items()}


def split(columns: Columns) -> dict[str, Comparison]:
    """The last 20 sessions compared with the 100 before them."""
    session, n = days(TRAINING + LIVE), TRAINING * A_SESSION
    reference = reference_of(rows_of(columns, slice(n)), session[:n])
    return compare(reference, rows_of(columns, slice(n, None)), session[n:])


def noise(rng: np.random.Generator) -> Columns:
    return feature_columns(rng, (TRAINING + LIVE) * A_SESSION)


def wandering(rng: np.random.Generator, sessions: int, persistence: float) -> Floats:
    """One value a session, each remembering the one before, with a variance of 1."""
    value, found = rng.normal(), []
    for _ in range(sessions):
        found.append(value)
        value = persistence * value + np.sqrt(1 - persistence**2) * rng.normal()
    return np.array(found)


def market(rng: np.random.Generator) -> Columns:
    """No drift, but sessions: a day's rows resemble each other (correlation 0.16), their spread changes from day to
    day, and VIX has one value a day that remembers the last."""
    columns = noise(rng)
    sessions = TRAINING + LIVE
    for values in columns.values():
        if values.dtype == np.float64:
            of_the_day = np.repeat(rng.normal(size=sessions), A_SESSION)
            values[:] = np.sqrt(0.16) * of_the_day + np.sqrt(0.84) * values
    columns["realised_volatility"] *= np.exp(np.repeat(wandering(rng, sessions, 0.8), A_SESSION) / 2)
    columns["vix"] = np.repeat(wandering(rng, sessions, 0.95), A_SESSION)
    columns["day_of_week"] = np.tile(np.repeat(np.arange(5.0), A_SESSION), sessions // 5)
    return columns


def alarms(found: dict[str, Comparison]) -> list[str]:
    return [name for name, comparison in found.items() if comparison.alarm]


def test_a_fixed_threshold_alarms_by_the_number_of_rows_and_the_bound_does_not():
    rng = np.random.default_rng(1)

    def no_drift(n: int) -> Floats:
        training, live = (rng.multinomial(rows, [0.1] * 10, 2_000) / rows for rows in (1_000, n))
        return np.array([psi(a, 1_000, b, n)[0] for a, b in zip(training, live, strict=True)])

    of_50, of_100, of_300 = no_drift(50), no_drift(100), no_drift(300)
    assert np.mean(of_50 > 0.1) > 0.8
    assert 0.3 < np.mean(of_100 > 0.1) < 0.5
    assert np.mean(of_300 > 0.1) < 0.02
    for n, found in ((100, of_100), (300, of_300)):
        assert 0.002 < np.mean(found > psi_bound(10, 1_000, n, chance=0.01)) < 0.02


def test_without_drift_a_check_of_every_feature_hardly_ever_alarms_though_rows_of_a_session_are_alike():
    checks = [alarms(split(market(np.random.default_rng(seed)))) for seed in range(150)]
    assert sum(map(bool, checks)) <= 0.03 * len(checks)


def test_were_the_rows_of_a_session_taken_for_independent_the_same_check_would_mostly_be_wrong():
    wrong = 0
    for seed in range(20):
        found = split(market(np.random.default_rng(seed)))
        n, m = TRAINING * A_SESSION, LIVE * A_SESSION
        chance = FALSE_ALARMS / len(found)
        wrong += any(comparison.psi > psi_bound(10, n, m, chance) for comparison in found.values())
    assert wrong >= 15


@pytest.mark.parametrize("seed", range(10))
def test_a_shifted_feature_is_found_and_only_it(seed):
    columns = market(np.random.default_rng(seed))
    columns["adx14"][TRAINING * A_SESSION :] += 1.5
    assert alarms(split(columns)) == ["adx14"]


def test_a_feature_that_spreads_out_without_shifting_is_found():
    columns = noise(np.random.default_rng(2))
    columns["return_1"][TRAINING * A_SESSION :] *= 3
    assert alarms(split(columns)) == ["return_1"]


def test_a_category_that_takes_over_is_found():
    columns = noise(np.random.default_rng(3))
    columns["regime"][TRAINING * A_SESSION :] = "storm"
    assert alarms(split(columns)) == ["regime"]


def test_values_that_go_missing_are_found_though_none_was_missing_in_training():
    columns = noise(np.random.default_rng(4))
    columns["rsi14"][TRAINING * A_SESSION :: 3] = np.nan
    assert alarms(split(columns)) == ["rsi14"]


def test_a_category_that_was_never_seen_is_compared_like_a_missing_one():
    columns = noise(np.random.default_rng(5))
    columns["vix_source"][TRAINING * A_SESSION :: 2] = "elsewhere"
    assert alarms(split(columns)) == ["vix_source"]


def test_a_feature_that_never_changed_is_not_judged_until_it_does():
    columns = noise(np.random.default_rng(6))
    columns["streak"][:] = 0.0
    found = split(columns)["streak"]
    assert (found.psi, found.bound) == (0.0, None)
    columns["streak"][TRAINING * A_SESSION :] = 1.0
    assert alarms(split(columns)) == ["streak"]


def test_what_grows_with_the_book_is_shown_and_never_alarms():
    columns = noise(np.random.default_rng(7))
    for name in GROW_WITH_THE_BOOK:
        columns[name][TRAINING * A_SESSION :] += 5
    found = split(columns)
    assert alarms(found) == []
    assert all(found[name].psi > 1 and found[name].bound is None for name in GROW_WITH_THE_BOOK)


def test_a_value_a_session_is_worth_an_observation_a_session_at_most_and_independent_rows_many():
    columns = noise(np.random.default_rng(8))
    columns["vix"] = np.repeat(np.random.default_rng(8).normal(size=TRAINING + LIVE), A_SESSION)
    found = split(columns)
    assert 5 < found["vix"].effective <= LIVE
    assert 100 < found["rsi14"].effective <= LIVE * A_SESSION


def test_a_reference_is_plain_numbers_that_survive_being_stored():
    session, columns = days(TRAINING), feature_columns(np.random.default_rng(9), TRAINING * A_SESSION)
    reference = reference_of(columns, session)
    stored = json.loads(json.dumps(reference, allow_nan=False))
    assert stored == reference
    assert (stored["rows"], stored["sessions"], stored["rows_per_session"]) == (1_500, 100, 15.0)
    assert set(stored["features"]) == {feature.name for feature in MODEL_FEATURES}
    rsi = stored["features"]["rsi14"]
    assert (len(rsi["bins"]), rsi["shares"]) == (9, [pytest.approx(0.1, abs=0.001)] * 10 + [0.0])
    assert stored["features"]["sector_strength"]["shares"][-1] == pytest.approx(0.1, abs=0.03)


def test_tied_quantiles_share_a_bin():
    columns = feature_columns(np.random.default_rng(10), TRAINING * A_SESSION)
    columns["streak"] = np.repeat([0.0, 1.0], TRAINING * A_SESSION // 2)
    streak = reference_of(columns, days(TRAINING))["features"]["streak"]
    assert len(streak["bins"]) < 4
    assert sorted(streak["shares"])[-2:] == [0.5, 0.5]
    assert sum(streak["shares"]) == 1.0


def test_the_order_of_the_rows_does_not_matter():
    session, columns = days(TRAINING), feature_columns(np.random.default_rng(11), TRAINING * A_SESSION)
    order = np.random.default_rng(11).permutation(len(session))
    shuffled = reference_of({name: values[order] for name, values in columns.items()}, session[order])
    assert shuffled == reference_of(columns, session)


def coin(rng: np.random.Generator, *parts: tuple[int, float]) -> Floats:
    return np.concatenate([(rng.random(n) < rate).astype(np.float64) for n, rate in parts])


def test_a_steady_error_rate_never_alarms_in_40_series_of_2000():
    rng = np.random.default_rng(1)
    assert [watch_errors(coin(rng, (2_000, 0.45))).alarm for _ in range(40)] == [False] * 40


def test_a_rise_of_the_error_rate_from_45_to_60_percent_is_found_with_both_rates():
    rng = np.random.default_rng(2)
    found = [watch_errors(coin(rng, (1_000, 0.45), (1_000, 0.60))) for _ in range(40)]
    assert sum(each.alarm for each in found) >= 38
    for each in found:
        if each.alarm:
            assert each.mean_before < each.mean
            assert each.n + each.n_before <= 2_000


def test_a_fall_of_the_error_rate_is_a_change_and_no_alarm():
    rng = np.random.default_rng(3)
    found = [watch_errors(coin(rng, (1_000, 0.60), (1_000, 0.40))) for _ in range(10)]
    assert all(each.n_before > 0 and not each.alarm for each in found)


def test_a_rise_that_has_passed_is_no_alarm_any_more():
    found = watch_errors(coin(np.random.default_rng(4), (1_000, 0.4), (1_000, 0.7), (1_000, 0.4)))
    assert found.n_before > 0
    assert not found.alarm


def test_no_error_is_no_mean_and_no_alarm():
    nothing = watch_errors(np.array([]))
    assert (nothing.mean, nothing.n, nothing.alarm) == (None, 0, False)


def test_a_calibrated_model_that_begins_to_skip_what_has_low_odds_does_not_look_worse():
    rng = np.random.default_rng(5)
    plain = beyond = 0
    for _ in range(12):
        p = np.clip(rng.normal(0.4, 0.2, 6_000), 0.05, 0.95)
        won = rng.random(6_000) < p
        asked = np.concatenate([np.arange(2_000), 2_000 + np.flatnonzero(p[2_000:] > 0.36)])
        plain += watch_errors(((p - won) ** 2)[asked]).alarm
        beyond += watch_errors(excess_errors(p, won)[asked]).alarm
    assert plain > 4
    assert beyond == 0


def test_a_model_whose_odds_come_to_mean_the_opposite_is_found():
    rng = np.random.default_rng(6)
    p = np.clip(rng.normal(0.4, 0.12, 2_600), 0.05, 0.95)
    truth = np.where(np.arange(2_600) < 1_400, p, 0.8 - p)
    found = watch_errors(excess_errors(p, rng.random(2_600) < truth))
    assert found.alarm
    assert found.mean_before == pytest.approx(0.0, abs=0.02)
