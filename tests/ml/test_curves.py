import json

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from ml.curves import POINTS, curves, roc, value_by_threshold
from ml.evaluation import Rows


@pytest.fixture
def rows() -> Rows:
    rng = np.random.default_rng(1)
    p = rng.uniform(size=3000)
    won = rng.uniform(size=3000) < p
    sessions = np.datetime64("2024-01-02") + np.repeat(np.arange(60), 50)
    return Rows(won, np.full(3000, 0.5), np.where(won, 1.0, -1.0), sessions)


def test_the_roc_curve_lies_on_scikit_learns(rows):
    p = np.random.default_rng(2).uniform(size=3000).round(2)  # with ties
    x, y = np.array(roc(rows.won, p)).T
    known_x, known_y, _ = roc_curve(rows.won, p, drop_intermediate=False)
    assert len(x) <= POINTS
    assert {(a, b) for a, b in zip(x, y, strict=True)} <= {(a, b) for a, b in zip(known_x, known_y, strict=True)}
    assert np.trapezoid(y, x) == pytest.approx(roc_auc_score(rows.won, p), abs=0.002)


def test_without_both_outcomes_there_is_no_curve():
    assert roc(np.ones(5, dtype=bool), np.linspace(0, 1, 5)) == []


def test_value_by_threshold_is_the_mean_r_of_what_reaches_it_with_its_n(rows):
    p = np.where(rows.won, 0.62, 0.31)
    steps = value_by_threshold(rows, p, 7)
    by = {step["threshold"]: step for step in steps}
    assert by[0.3]["n"] == 3000
    assert by[0.3]["mean_r"] == pytest.approx(rows.r.mean())
    assert by[0.6]["n"] == rows.won.sum()
    assert by[0.6]["mean_r"] == 1.0
    assert max(by) == 0.6  # nothing reaches more
    assert by[0.3]["interval"]["low"] < rows.r.mean() < by[0.3]["interval"]["high"]


def test_a_result_that_is_not_known_is_left_out(rows):
    r = rows.r.copy()
    r[:100] = np.nan
    step = value_by_threshold(Rows(rows.won, rows.p_geometry, r, rows.session), np.full(3000, 0.5), 7)[0]
    assert step["n"] == 2900
    assert np.isfinite(step["mean_r"])


def test_the_curves_survive_json_as_they_are(rows):
    made = curves(rows, np.where(rows.won, 0.6, 0.4), 7)
    assert json.loads(json.dumps(made)) == made
