"""The gate: every reason in a sentence with its numbers; too little data is neither a pass nor a failure."""

from dataclasses import replace

import numpy as np
import pytest

from ml import gate as module
from ml.evaluation import Estimate, Evaluation, Interval, Rule, ShuffledControl, evaluate
from ml.gate import Evidence, in_one_sentence
from tests.ml.test_evaluation import rows_of

SOUND = ShuffledControl(20, 0.501, 0.004)


def evidence(evaluation: Evaluation, **given) -> Evidence:
    return Evidence(evaluation, **{"shuffled": SOUND, "leakage_free": True, **given})


def gate(evaluation: Evaluation, **given):
    return module.gate(evidence(evaluation, **given))


def may_filter(evaluation: Evaluation):
    return module.may_filter(evidence(evaluation))


@pytest.fixture(scope="module")
def good():
    rows, p = rows_of(1, n=1200, sessions=60, skill=1.2)
    return evaluate(rows, Rule(p, p > 0.45), seed=7, others={"logistic": Rule(rows.p_geometry, p > 0)})


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
            {"auc_bound": Interval(0.5, 0.8)},
            "95 % 0.500 to 0.800 on 1200 trades; the lower bound must be above 0.5.",
        ),
        ({"accuracy_over_majority": Estimate(0.04, Interval(-0.01, 0.09))}, "95 % -0.0100 to +0.0900"),
        ({"accuracy_over_majority": Estimate(0.04, None)}, "is undefined on these rows"),
        ({"log_loss": 0.7, "base_rate_log_loss": 0.69}, "Log-loss is 0.7000; always saying the base rate has 0.6900"),
        ({"brier": 0.26, "base_rate_brier": 0.25}, "Brier score is 0.2600; always saying the base rate has 0.2500"),
        ({"auc": None}, "AUC is undefined on these rows."),
        ({"spiegelhalter_p": 0.01}, "Spiegelhalter's p is 0.0100 on 1200 trades; it must be above 0.01."),
        (
            {"worse_than": {"logistic": Estimate(0.02, Interval(0.001, 0.039))}},
            "Log-loss is worse than logistic regression's by 0.0200, 95 % +0.0010 to +0.0390 on the same trades.",
        ),
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
            "Mean R, costs included, of the trades it would let through minus that of all is +0.0200",
        ),
        ({"taken_minus_all": None}, "let through minus that of all is undefined on these rows."),
        ({"mean_r_taken": -0.01}, "Costs eat it: the "),
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
    evaluation = evaluate(replace(rows, won=won), Rule(np.full(1200, 0.6), p > 0), seed=7)
    assert evaluation.accuracy > 0.55
    assert gate(evaluation)[0] == "FAIL"


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"shuffled": None}, "The control with shuffled outcomes could not be made"),
        (
            {"shuffled": ShuffledControl(20, 0.54, 0.01)},
            "Shuffled outcomes were learned: mean AUC 0.540 over 20 refits",
        ),
        ({"leakage_free": None}, "Nobody has looked for leaks in this feature set: run check_leakage"),
        ({"leakage_free": False}, "check_leakage found a feature that knows the future"),
        (
            {"worse_than_champion": Estimate(0.02, Interval(0.001, 0.039))},
            "Log-loss is worse than the champion's by 0.0200",
        ),
    ],
)
def test_each_missing_proof_alone_fails_the_gate_with_its_sentence(good, given, sentence):
    verdict, reasons = gate(good, **given)
    assert verdict == "FAIL"
    assert [sentence in reason for reason in reasons] == [True]


def test_a_champion_that_may_be_as_good_is_no_reason_to_refuse(good):
    assert gate(good, worse_than_champion=Estimate(0.02, Interval(-0.001, 0.041)))[0] == "PASS"


def test_many_attempts_are_said_where_they_cost_the_model_its_edge(good):
    _, reasons = gate(replace(good, attempts=12, auc_bound=Interval(0.49, 0.8)))
    assert "widened for 12 candidates tried on these sessions" in reasons[0]


def test_the_first_sentence_tells_skill_from_earning(good):
    assert "and what it lets through earns more" in in_one_sentence(evidence(good))
    ranks = replace(good, taken_minus_all=Estimate(0.02, Interval(-0.01, 0.05)))
    assert "but earns no more by it" in in_one_sentence(evidence(ranks))
    none = replace(good, skill_auc=Estimate(0.01, Interval(-0.01, 0.03)))
    assert in_one_sentence(evidence(none)).startswith("No skill is shown beyond the plan's own odds: +0.010 in AUC")
