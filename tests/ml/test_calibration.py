"""Calibration: better probabilities without turning or tearing the ranking."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from ml.calibration import ISOTONIC_FROM_ROWS, Isotonic, Platt, calibrator_from_dict, fit_calibrator, fit_platt


def overconfident(seed, n):
    """Scores whose log-odds are three times too far out."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=n)
    return 1 / (1 + np.exp(-3 * z)), rng.random(n) < 1 / (1 + np.exp(-z))


def brier(p, won):
    return ((p - won) ** 2).mean()


def distorted(seed, n):
    """Scores that rank well and say what no sigmoid can mend: two levels of truth behind them."""
    p = np.random.default_rng(seed).uniform(0.05, 0.95, n)
    return p, np.random.default_rng(seed + 100).random(n) < np.where(p < 0.7, 0.3, 0.9)


@pytest.mark.parametrize(
    ("scores", "rows", "method"),
    [
        (overconfident, 300, Platt),
        (overconfident, ISOTONIC_FROM_ROWS, Platt),
        (distorted, ISOTONIC_FROM_ROWS - 1, Platt),
        (distorted, ISOTONIC_FROM_ROWS, Isotonic),
    ],
)
def test_scores_are_mended_by_platt_where_rows_are_few_and_else_by_what_later_rows_prefer(scores, rows, method):
    calibrator = fit_calibrator(*scores(1, rows))
    p, won = scores(2, 5000)
    assert isinstance(calibrator, method)
    assert brier(calibrator.apply(p), won) < brier(p, won)


def test_platt_recovers_the_slope_that_was_planted():
    fitted = fit_platt(*overconfident(1, 20_000))
    assert fitted.slope == pytest.approx(1 / 3, abs=0.03)
    assert fitted.intercept == pytest.approx(0, abs=0.05)


def test_platt_is_logistic_regression_on_the_logit_when_rows_are_many():
    p, won = overconfident(1, 20_000)
    reference = LogisticRegression(C=np.inf).fit(np.log(p / (1 - p))[:, None], won)
    assert fit_platt(p, won).slope == pytest.approx(reference.coef_[0, 0], abs=1e-3)


@pytest.mark.parametrize("won", [True, False])
def test_a_validation_part_of_one_class_gives_a_cautious_probability(won):
    p = np.linspace(0.4, 0.6, 20)
    calibrated = fit_platt(p, np.full(20, won)).apply(p)
    assert ((calibrated > 0.5) == won).all()
    assert ((calibrated > 0.01) & (calibrated < 0.99)).all()


def test_scores_that_rank_the_wrong_way_round_are_levelled_not_turned():
    p, won = overconfident(1, 500)
    calibrated = fit_platt(1 - p, won).apply(np.array([0.1, 0.5, 0.9]))
    assert np.ptp(calibrated) == 0
    assert calibrated[0] == pytest.approx(won.mean(), abs=0.01)


def test_perfectly_separated_and_constant_scores_stay_finite():
    separated = fit_platt(np.repeat([0.001, 0.999], 50), np.repeat([False, True], 50))
    constant = fit_platt(np.full(60, 0.7), np.arange(60) < 20)
    assert np.isfinite([separated.slope, separated.intercept]).all()
    assert constant.apply(np.array([0.7]))[0] == pytest.approx(1 / 3, abs=0.02)


@pytest.mark.parametrize("rows", [300, 3000])
def test_calibrated_probabilities_rise_with_the_score_and_never_claim_certainty(rows):
    calibrated = fit_calibrator(*distorted(1, rows)).apply(np.linspace(0, 1, 500))
    assert (np.diff(calibrated) >= 0).all()
    assert calibrated.min() > 0
    assert calibrated.max() < 1


@pytest.mark.parametrize("rows", [300, 3000])
def test_what_is_stored_is_plain_and_calibrates_the_same(rows):
    calibrator = fit_calibrator(*distorted(1, rows))
    stored = calibrator.to_dict()
    assert {type(value) for value in stored.values()} <= {str, float, list}
    assert calibrator_from_dict(stored) == calibrator
