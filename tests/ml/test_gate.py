"""The gate: every reason in a sentence with its numbers; too little data is neither a pass nor a failure."""

from dataclasses import replace

import numpy as np
import pytest

from ml.evaluation import Estimate, Interval, evaluate
from ml.gate import gate, may_filter
from tests.ml.test_evaluation import rows_of


@pytest.fixture(scope="module")
def good():
    rows, p = rows_of(1, n=1200, sessions=60, skill=1.2)
    return evaluate(rows, p, p > 0.45, seed=7)


def test_a_model_with_a_clear_edge_passes_and_may_filter(good):
    assert gate(good) == ("PASS", [])
    assert may_filter(good) == (True, [])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"accuracy": 0.55}, "Accuracy is 0.550 on 1200 trades; it must be above 0.55."),
        (
            {"auc": 0.60},
            "AUC is 0.600 on 1200 trades; it must be above 0.60; an edge is present, below the required level.",
        ),
        (
            {"auc_interval": Interval(0.5, 0.8)},
            "95 % 0.500 to 0.800 on 1200 trades; the lower bound must be above 0.5.",
        ),
        ({"accuracy_over_majority": Estimate(0.04, Interval(-0.01, 0.09))}, "95 % -0.0100 to +0.0900"),
        ({"accuracy_over_majority": Estimate(0.04, None)}, "is undefined on these rows"),
        ({"log_loss": 0.7, "base_rate_log_loss": 0.69}, "Log-loss is 0.7000; always saying the base rate has 0.6900"),
        ({"brier": 0.26, "base_rate_brier": 0.25}, "Brier score is 0.2600; always saying the base rate has 0.2500"),
        ({"auc": None}, "AUC is undefined on these rows."),
    ],
)
def test_each_shortcoming_alone_fails_the_gate_with_its_sentence(good, change, sentence):
    verdict, reasons = gate(replace(good, **change))
    assert verdict == "FAIL"
    assert [sentence in reason for reason in reasons] == [True]
    assert not may_filter(replace(good, **change))[0]


def test_every_reason_is_listed_not_just_the_first(good):
    _, reasons = gate(replace(good, accuracy=0.5, auc=0.55, brier=0.3))
    assert len(reasons) == 3


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"n": 199}, "Too little data: 199 out-of-sample trades; 200 are needed."),
        ({"wins": 49}, "Too little data: 49 wins among the out-of-sample trades; 50 are needed."),
        ({"losses": 49}, "Too little data: 49 losses among the out-of-sample trades; 50 are needed."),
        ({"sessions": 29}, "Too little data: 29 out-of-sample sessions; 30 are needed."),
    ],
)
def test_too_little_data_is_said_and_nothing_else_is_judged(good, change, sentence):
    assert gate(replace(good, **change, auc=0.4)) == ("INSUFFICIENT_DATA", [sentence])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"skill_log_loss": Estimate(0.001, Interval(-0.002, 0.004))},
            "Improvement in log-loss over geometry is +0.0010",
        ),
        ({"skill_auc": Estimate(0.01, Interval(0.0, 0.02))}, "Improvement in AUC over geometry is +0.0100"),
        (
            {"taken_minus_all": Estimate(0.02, Interval(-0.01, 0.05))},
            "Mean R of the trades it would take minus that of all",
        ),
        ({"taken_minus_all": None}, "(costs included) is undefined on these rows."),
    ],
)
def test_a_model_that_only_repeats_geometry_or_earns_nothing_may_be_champion_but_not_filter(good, change, sentence):
    short = replace(good, **change)
    allowed, reasons = may_filter(short)
    assert gate(short)[0] == "PASS"
    assert not allowed
    assert [sentence in reason for reason in reasons] == [True]


def test_a_high_base_rate_alone_does_not_pass():
    rows, p = rows_of(2, n=1200, skill=0.0)
    rng = np.random.default_rng(2)
    won = rng.random(1200) < 0.6
    evaluation = evaluate(replace(rows, won=won), np.full(1200, 0.6), p > 0, seed=7)
    assert evaluation.accuracy > 0.55
    assert gate(evaluation)[0] == "FAIL"
