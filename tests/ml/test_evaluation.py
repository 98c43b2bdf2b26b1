"""Figures agree with scikit-learn, intervals cover what they should, undefined figures are None."""

import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from sklearn import metrics

from ml import evaluation
from ml.evaluation import (
    Rows,
    Rule,
    SessionBootstrap,
    auc,
    calibration_error,
    delong_interval,
    evaluate,
)


def rows_of(seed, n=900, sessions=60, skill=0.8):
    rng = np.random.default_rng(seed)
    p_geometry = rng.uniform(0.3, 0.6, n)
    signal = rng.normal(size=n)
    odds = np.log(p_geometry / (1 - p_geometry)) + skill * signal
    won = rng.random(n) < 1 / (1 + np.exp(-odds))
    session = np.datetime64("2024-01-01") + np.sort(rng.integers(0, sessions, n))
    r = np.where(won, (1 - p_geometry) / p_geometry, -1.0)
    p = np.round(1 / (1 + np.exp(-odds)), 2)  # rounded: ties
    return Rows(won, p_geometry, r, session), p


def test_point_figures_are_those_of_scikit_learn():
    rows, p = rows_of(1)
    result = evaluate(rows, Rule(p, p > 0.4), seed=7)
    said = p >= 0.5
    assert result.accuracy == pytest.approx(metrics.accuracy_score(rows.won, said))
    assert result.precision == pytest.approx(metrics.precision_score(rows.won, said))
    assert result.recall == pytest.approx(metrics.recall_score(rows.won, said))
    assert result.f1 == pytest.approx(metrics.f1_score(rows.won, said))
    assert result.auc == pytest.approx(metrics.roc_auc_score(rows.won, p))
    assert result.brier == pytest.approx(metrics.brier_score_loss(rows.won, p))
    assert result.log_loss == pytest.approx(metrics.log_loss(rows.won, p))
    assert result.geometry.auc == pytest.approx(metrics.roc_auc_score(rows.won, rows.p_geometry))
    assert result.geometry.log_loss == pytest.approx(metrics.log_loss(rows.won, rows.p_geometry))
    tn, fp, fn, tp = metrics.confusion_matrix(rows.won, said).ravel()
    assert (tn, fp, fn, tp) == (
        result.true_negatives,
        result.false_positives,
        result.false_negatives,
        result.true_positives,
    )
    assert result.mean_r_taken == pytest.approx(rows.r[p > 0.4].mean())
    assert result.taken_minus_all.value == pytest.approx(rows.r[p > 0.4].mean() - rows.r.mean())


def test_each_resampled_auc_is_the_auc_of_that_resample():
    rows, p = rows_of(2, n=200, sessions=12)
    bootstrap = SessionBootstrap(rows.session, seed=3)
    resampled = bootstrap.aucs(rows.won, p)
    days = np.unique(rows.session)
    for draw in range(0, 1000, 100):
        picked = np.concatenate(
            [
                np.flatnonzero(rows.session == day)
                for day, n in zip(days, bootstrap.draws[draw], strict=True)
                for _ in range(n)
            ]
        )
        assert resampled[draw] == pytest.approx(metrics.roc_auc_score(rows.won[picked], p[picked]))


def test_delong_s_error_is_that_of_repeated_samples():
    aucs, widths = [], []
    for seed in range(300):
        rows, p = rows_of(seed, n=300)
        interval = delong_interval(rows.won, p)
        aucs.append(auc(rows.won, p))
        widths.append(interval.width / (2 * 1.96))
    assert np.mean(widths) == pytest.approx(np.std(aucs), rel=0.12)


def test_the_auc_interval_is_the_wider_of_two_and_widens_when_days_move_together():
    rows, p = rows_of(4)
    day = rows.session.astype(int) % 2 == 0
    together = Rows(
        np.where(np.random.default_rng(0).random(len(p)) < 0.7, day, rows.won), rows.p_geometry, rows.r, rows.session
    )
    p_day = np.clip(p + np.where(day, 0.1, -0.1), 0.01, 0.99)
    result = evaluate(together, Rule(p_day, p_day > 0.4), seed=7)
    assert result.auc_interval.width >= delong_interval(together.won, p_day).width


def test_a_model_that_repeats_geometry_has_no_skill_and_one_that_knows_more_has():
    rows, p = rows_of(5)
    none = evaluate(rows, Rule(rows.p_geometry, p > 0), seed=7)
    some = evaluate(rows, Rule(p, p > 0.45), seed=7)
    assert (none.skill_log_loss.value, none.skill_auc.value) == (0, 0)
    assert none.skill_log_loss.interval.low == 0 == none.taken_minus_all.value
    assert some.skill_log_loss.interval.low > 0
    assert some.skill_auc.interval.low > 0
    assert some.taken_minus_all.interval.low > 0


def test_calibration_error_is_zero_for_honest_and_large_for_shifted_probabilities():
    rng = np.random.default_rng(6)
    p = rng.uniform(0.2, 0.8, 20_000)
    won = rng.random(20_000) < p
    assert calibration_error(won, p) < 0.015
    assert calibration_error(won, p + 0.15) == pytest.approx(0.15, abs=0.015)


@pytest.mark.parametrize("won", [True, False])
def test_with_one_class_what_is_undefined_is_none(won):
    rows = Rows(np.full(20, won), np.full(20, 0.4), np.full(20, 1.0), np.datetime64("2024-01-01") + np.arange(20) % 4)
    result = evaluate(rows, Rule(np.full(20, 0.3), np.zeros(20, dtype=bool)), seed=7)
    assert (result.auc, result.auc_interval, result.skill_auc) == (None, None, None)
    assert (result.precision, result.mean_r_taken, result.taken_minus_all) == (None, None, None)
    assert (result.recall is None) == (not won)
    json.dumps(result.to_dict(), allow_nan=False)


def test_one_row_of_one_session_is_judged_without_an_interval():
    rows = Rows(np.array([True]), np.array([0.4]), np.array([np.nan]), np.array(["2024-01-02"], dtype="datetime64[D]"))
    result = evaluate(rows, Rule(np.array([0.7]), np.array([True])), seed=7)
    assert (result.n, result.sessions, result.accuracy) == (1, 1, 1.0)
    assert result.accuracy_over_majority.interval is None
    assert (result.n_r, result.mean_r) == (0, None)
    json.dumps(result.to_dict(), allow_nan=False)


def test_no_interval_reaches_beyond_what_its_figure_can_be():
    rows, p = rows_of(0, n=60, sessions=4)
    result = evaluate(rows, Rule(np.where(np.arange(60) % 8 == 0, 0.6, p / 3), p > 0), seed=7)
    for name in ("precision", "recall", "f1", "brier"):
        assert 0 <= result.intervals[name].low <= result.intervals[name].high <= 1, name
    assert -1 <= result.intervals["mcc"].low < result.intervals["mcc"].high <= 1


def test_a_figure_that_rests_on_the_trades_of_one_session_has_no_interval():
    rows, p = rows_of(8, n=60, sessions=4)
    of_one = rows.session == rows.session[0]
    result = evaluate(rows, Rule(p, of_one), seed=7)
    assert result.mean_r_taken == pytest.approx(rows.r[of_one].mean())
    assert (result.intervals["mean_r_taken"], result.taken_minus_all.interval) == (None, None)
    of_two = of_one | (rows.session == rows.session[-1])
    assert evaluate(rows, Rule(p, of_two), seed=7).taken_minus_all.interval is not None


def test_the_same_seed_gives_the_same_intervals_and_another_seed_others():
    rows, p = rows_of(7)
    first, again, other = (evaluate(rows, Rule(p, p > 0.4), seed).skill_log_loss for seed in (7, 7, 8))
    assert first == again
    assert first != other


RUNS = 2000


def simulated(seed, sessions=60):
    """Some fifteen trades a session, days that differ, a model that knows something and hopes too much, and another."""
    rng = np.random.default_rng(seed)
    n = 15 * sessions
    place = np.sort(rng.integers(0, sessions, n))
    p_geometry, signal = rng.uniform(0.3, 0.6, n), rng.normal(size=n)
    odds = np.log(p_geometry / (1 - p_geometry))
    won = rng.random(n) < 1 / (1 + np.exp(-(odds + 0.8 * signal + 0.3 * rng.normal(size=sessions)[place])))
    p = 1 / (1 + np.exp(-(odds + 0.8 * signal + 0.18)))
    other = 1 / (1 + np.exp(-(odds + 0.4 * signal + 0.4 * rng.normal(size=n))))
    r = np.where(won, (1 - p_geometry) / p_geometry, -1.0)
    session = np.datetime64("2024-01-01") + place
    return Rows(won, p_geometry, r, session), Rule(p, p > 0.4), Rule(other, other > 0.45)


def figures_of(judged):
    """Every figure that has an interval, by name, with it."""
    compared = ("skill_log_loss", "skill_auc", "accuracy_over_majority", "taken_minus_all")
    estimates = {name: getattr(judged, name) for name in compared}
    estimates |= {f"log-loss over {name}": each for name, each in judged.worse_than.items()}
    rules = {"geometry": judged.geometry, **judged.baselines}
    return {
        "auc": (judged.auc, judged.auc_interval),
        **{name: (getattr(judged, name), interval) for name, interval in judged.intervals.items()},
        **{name: (estimate.value, estimate.interval) for name, estimate in estimates.items()},
        **{
            f"{name} of {rule}": (getattr(scores, name), getattr(scores, f"{name}_interval"))
            for rule, scores in rules.items()
            for name in ("auc", "accuracy", "mean_r_taken")
        },
    }


def intervals_of(seed):
    rows, model, other = simulated(seed)
    figures = figures_of(evaluate(rows, model, seed, others={"another": other}))
    return {name: interval for name, (_, interval) in figures.items()}


@pytest.fixture
def truth(monkeypatch):
    """Every figure on a million trades of 67,000 sessions, where no interval is asked for."""
    monkeypatch.setattr(evaluation, "RESAMPLES", 1)
    rows, model, other = simulated(10**6, sessions=67_000)
    rows = replace(rows, session=np.full(len(rows.won), rows.session[0]))
    return {name: value for name, (value, _) in figures_of(evaluate(rows, model, 0, others={"another": other})).items()}


@pytest.mark.slow
def test_each_interval_holds_the_truth_in_about_95_of_100_runs(truth):
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        runs = list(pool.map(intervals_of, range(RUNS), chunksize=50))
    held = {name: np.mean([run[name].contains(value) for run in runs]) for name, value in truth.items()}
    for name, share in held.items():
        print(f"{share:.2%} of {RUNS:,} intervals hold the {name}, {truth[name]:.4f}")  # noqa: T201  # with -s
    assert len(held) == 23
    assert {name: share for name, share in held.items() if not 0.935 <= share <= 0.965} == {}


@pytest.mark.slow
def test_the_interval_of_the_calibration_error_holds_the_nought_of_honest_probabilities():
    held = 0
    for seed in range(RUNS):
        rng = np.random.default_rng(seed)
        p = rng.uniform(0.2, 0.8, 900)
        interval = SessionBootstrap(np.arange(900) % 60, seed).calibration_interval(rng.random(900) < p, p)
        held += interval.contains(0)
    print(f"{held / RUNS:.2%} of {RUNS:,} intervals hold it")  # noqa: T201  # with -s
    assert held / RUNS >= 0.935  # above it nothing is to be missed, so about 97.5
