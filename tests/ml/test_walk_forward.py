"""Walk forward: what is fitted, what is looked at, and what each learner says on sessions it never saw."""

from dataclasses import replace

import numpy as np
import pytest

from ml.encoder import Encoder
from ml.gate import Evidence, gate, may_filter
from ml.learners import PATIENCE, XGBOOST, Examples, Logistic, XGBoost, scorer_from
from ml.online import prequential
from ml.splits import WINDOWS
from ml.uniqueness import uniqueness
from ml.walk_forward import WALK_STEPS, WalkForward, fit_window, judge, learners_of, shuffled_control, walk_forward
from ml.words import Algorithm
from tests.ml.synthetic import training_data

LEARNERS = (XGBoost(7), Logistic())


def judged(data, seed=7):
    walk = walk_forward(data, LEARNERS, seed)
    shuffled = shuffled_control(data, walk.folds[-1].window, LEARNERS[0], seed, times=5)
    return Evidence(judge(data, walk, Algorithm.XGBOOST, seed), shuffled, leakage_free=True)


def test_a_planted_edge_passes_the_gate_and_may_filter():
    evidence = judged(training_data(0, sessions=120, edge=1.5))
    assert gate(evidence) == ("PASS", [])
    assert may_filter(evidence) == (True, [])


@pytest.mark.parametrize("level", [0.0, 0.6])
def test_without_an_edge_the_gate_fails_even_where_most_trades_win(level):
    evidence = judged(training_data(0, sessions=120, level=level))
    assert gate(evidence)[0] == "FAIL"
    assert not may_filter(evidence)[0]


def test_without_an_edge_few_trades_are_insufficient_and_never_a_pass():
    assert gate(judged(training_data(0, sessions=30, per_session=10)))[0] == "INSUFFICIENT_DATA"


def test_shuffled_outcomes_leave_nothing_to_find():
    data = training_data(1, sessions=100, edge=1.5)
    window = walk_forward(data, (Logistic(),), 7).folds[-1].window
    control = shuffled_control(data, window, Logistic(), 7)
    assert control.n == 20
    assert control.passed
    assert control.mean_auc == pytest.approx(0.5, abs=0.03)


def test_the_booster_that_is_kept_is_the_best_iteration_on_the_validation_part():
    data = training_data(3, sessions=80, edge=1.5)
    half, even = len(data.won) // 2, np.ones(len(data.won))
    encoder = Encoder.fit(data.columns)
    X = encoder.encode(data.columns)
    train, validation = (
        Examples(X[part], data.won[part], even[part]) for part in (slice(None, half), slice(half, None))
    )
    booster = XGBoost(7).fit(train, validation, encoder.columns).booster

    def log_loss(rounds):
        p = booster.inplace_predict(validation.X, iteration_range=(0, rounds)).astype(float)
        return -np.log(np.where(validation.won, p, 1 - p)).mean()

    kept = booster.num_boosted_rounds()
    losses = [log_loss(rounds) for rounds in range(1, kept + 1)]
    assert kept == booster.best_iteration + 1 < 100 - PATIENCE
    assert losses[-1] == min(losses) == pytest.approx(booster.best_score, abs=1e-5)


def test_a_window_is_fitted_without_a_look_at_its_test_part_or_later():
    data = training_data(4, edge=0.5, sessions=60)
    first = walk_forward(data, LEARNERS, 7).folds[0]
    later = data.session >= first.window.test.first
    altered = {
        name: np.where(later, values[::-1], values)
        if values.dtype == object
        else np.where(later, values * 5 + 3, values)
        for name, values in data.columns.items()
    }
    again = walk_forward(
        replace(data, columns=altered, won=np.where(later, ~data.won, data.won), r=np.where(later, -data.r, data.r)),
        LEARNERS,
        7,
    ).folds[0]
    assert again.payoff == first.payoff
    for algorithm, fit in first.fits.items():
        other = again.fits[algorithm]
        assert other.encoder == fit.encoder
        assert other.calibrator == fit.calibrator
        assert other.scorer.to_bytes() == fit.scorer.to_bytes()


def test_a_trade_that_lives_alone_counts_more_than_one_of_many_at_once():
    data = training_data(5, sessions=40, per_session=10)
    together = replace(data, start=np.repeat(data.start[::10], 10), end=np.repeat(data.end[::10], 10))
    alone = data.start == data.start[0]
    start = np.where(np.isin(data.session, data.session[:10]), data.start, together.start)
    end = np.where(np.isin(data.session, data.session[:10]), data.end, together.end)
    unique = uniqueness(start, end)
    assert unique[alone][0] == 1
    assert unique[10:] == pytest.approx(0.1)


@pytest.fixture(scope="module")
def everything():
    data = training_data(5, sessions=80, edge=1.5)
    return data, walk_forward(data, learners_of(7), 7, online=True)


def test_every_learner_is_judged_on_the_same_rows_beside_the_simple_rules(everything):
    data, walk = everything
    evaluation = judge(data, walk, Algorithm.XGBOOST, 7)
    assert set(evaluation.baselines) == {
        "lightgbm", "logistic", "river", "geometry_calibrated", "majority_class", "best_feature",
    }  # fmt: skip
    assert set(walk.folds[0].fits) == set(Algorithm)
    for algorithm in Algorithm:
        assert len(walk.rule(algorithm).p) == len(walk.test_rows)
    assert evaluation.baselines["majority_class"].auc == pytest.approx(0.5, abs=0.03)
    for name in ("lightgbm", "logistic", "river"):
        assert evaluation.baselines[name].auc > 0.6


def test_gain_and_contributions_name_the_features_that_carry_the_planted_edge(everything):
    data, walk = everything
    for algorithm in Algorithm:
        fit, rows = walk.folds[-1].fits[algorithm], walk.folds[-1].window.test.rows
        added = fit.scorer.contributions(fit.encoder.encode(data.columns_of(rows)))
        assert added.shape == (len(rows), len(fit.encoder.columns) + 1)
        for worth in (fit.scorer.gain(), np.abs(added[:, :-1]).mean(axis=0)):
            best = {fit.encoder.columns[place] for place in np.argsort(-worth)[:6]}
            assert "rsi14" in best, (algorithm, best)


def test_contributions_add_up_to_the_log_odds_of_the_raw_score(everything):
    data, walk = everything
    for algorithm in Algorithm:
        fit = walk.folds[-1].fits[algorithm]
        X = fit.encoder.encode(data.columns_of(walk.folds[-1].window.test.rows))
        raw = fit.scorer.raw(X)
        np.testing.assert_allclose(
            fit.scorer.contributions(X).sum(axis=1), np.log(raw / (1 - raw)), rtol=0, atol=2e-5, err_msg=algorithm
        )


@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_what_is_stored_scores_as_what_was_fitted(everything, algorithm):
    data, walk = everything
    fit = walk.folds[-1].fits[algorithm]
    X = fit.encoder.encode(data.columns_of(walk.folds[-1].window.test.rows))
    again = scorer_from(algorithm, fit.scorer.to_bytes(), fit.encoder.columns)
    np.testing.assert_array_equal(again.raw(X), fit.scorer.raw(X))
    assert again.to_bytes() == fit.scorer.to_bytes()
    with pytest.raises(ValueError, match="column"):
        scorer_from(algorithm, fit.scorer.to_bytes(), ["another"])


def test_the_online_learner_knows_of_a_trade_only_once_it_has_closed():
    data = training_data(6, sessions=20, edge=1.5)
    data = replace(data, end=data.start + np.timedelta64(70, "m"))  # several live at once
    told = prequential(data.columns, data.won, data.start, data.end)
    moment = data.start[157]
    open_or_later = data.end >= moment
    altered = prequential(data.columns, np.where(open_or_later, ~data.won, data.won), data.start, data.end)
    np.testing.assert_array_equal(altered.p[:158], told.p[:158])
    assert (altered.p[200:] != told.p[200:]).any()


def test_the_online_learner_goes_on_from_what_was_stored_as_if_it_had_never_stopped():
    data = training_data(6, sessions=20, edge=1.5)
    plain = Encoder.plain()
    X = plain.encode(data.columns)
    told = prequential(data.columns, data.won, data.start, data.end).scorer
    stored = scorer_from(Algorithm.RIVER, told.to_bytes(), plain.columns)
    for scorer in (told, stored):
        scorer.learn(X[3], True)
    assert stored.to_bytes() == told.to_bytes()
    assert stored.score(X[4]) == told.score(X[4])


@pytest.mark.parametrize(("online", "expected"), [(False, WINDOWS), (True, WALK_STEPS)])
def test_every_step_of_a_walk_is_told(online, expected):
    steps = []
    data = training_data(1, sessions=11, per_session=6)
    walk_forward(data, (Logistic(),), 7, online=online, progress=steps.append)
    assert steps == [1] * expected


def test_a_tuned_learner_of_each_window_takes_the_first_learners_place():
    data = training_data(1, sessions=40, edge=1.0)
    tuned = [XGBoost(7, {**XGBOOST, "max_depth": depth}) for depth in range(1, 6)]
    walk = walk_forward(data, LEARNERS, 7, tuned=tuned)
    for fold, learner in zip(walk.folds, tuned, strict=True):
        alone = fit_window(data, fold.window, [learner], 7).fits[Algorithm.XGBOOST]
        assert fold.fits[Algorithm.XGBOOST].parameters == learner.parameters
        assert fold.fits[Algorithm.XGBOOST].scorer.to_bytes() == alone.scorer.to_bytes()
        assert set(fold.fits) == {Algorithm.XGBOOST, Algorithm.LOGISTIC}


def test_an_edge_that_decayed_before_the_test_sessions_is_refused():
    data, stale = training_data(1, sessions=120, edge=1.5), training_data(2, sessions=120)
    gone = data.session >= np.unique(data.session)[-60]
    won = np.where(gone, stale.won, data.won)
    assert gate(judged(replace(data, won=won, r=np.where(won, 1.2, -1.0))))[0] == "FAIL"


def test_figures_of_one_window_alone_can_be_had():
    data = training_data(1, sessions=40, edge=1.0)
    walk = walk_forward(data, LEARNERS, 7)
    alone = judge(data, WalkForward(walk.folds[:1], []), Algorithm.LOGISTIC, 7)
    assert alone.n == len(walk.folds[0].window.test.rows)
