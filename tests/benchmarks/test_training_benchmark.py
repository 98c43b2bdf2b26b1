"""What training costs: 10,000 trades, five purged windows, everything that stands beside a model.

    python -m pytest tests/benchmarks/test_training_benchmark.py -m slow -s

Seconds belong to the machine and are printed for the record; what is asserted about them is the bound that was asked
for, and the share of the bare fits, measured in the same run.
"""

import resource
import time

import pytest

from ml.learners import Logistic, XGBoost
from ml.walk_forward import candidate, encoded, learners_of, shuffled_control, walk_forward
from ml.words import Algorithm
from tests.ml.synthetic import training_data

pytestmark = pytest.mark.slow

LONGEST_S, MOST_MB, MOST_OVERHEAD = 60, 1024, 0.30


@pytest.fixture(scope="module")
def data():
    return training_data(1, sessions=400, per_session=25, edge=1.0)


def seconds(call, *arguments, **given):
    """Of the processor, not of the clock: other work on the machine counts for neither side."""
    started = time.process_time()
    result = call(*arguments, **given)
    return time.process_time() - started, result


def test_splitting_encoding_calibrating_and_point_figures_cost_little_beside_the_bare_fits(data):
    learners = (XGBoost(7), Logistic())
    walk_forward(training_data(2, sessions=20), learners, 7)  # imports
    whole, walk = seconds(walk_forward, data, learners, 7)
    bare = 0.0
    for fold in walk.folds:
        parts = encoded(data, fold.window)
        for learner in learners:
            bare += seconds(learner.fit, parts.train, parts.validation, parts.encoder.columns)[0]
    print(f"bare fits {bare:.2f} s, whole walk {whole:.2f} s: overhead {whole / bare - 1:.0%}")  # noqa: T201  # with -s
    assert whole <= (1 + MOST_OVERHEAD) * bare


def test_everything_for_ten_thousand_trades_ends_within_a_minute_and_a_gigabyte(data):
    started = time.perf_counter()
    walk = walk_forward(data, learners_of(7), 7, online=True)
    walked = time.perf_counter()
    algorithm, evaluation = candidate(data, walk, 7)
    judged = time.perf_counter()
    control = shuffled_control(data, walk.folds[-1].window, XGBoost(7), 7)
    fit, rows = walk.folds[-1].fits[algorithm], walk.folds[-1].window.test.rows
    fit.scorer.contributions(fit.encoder.encode(data.columns_of(rows)))
    ended = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(  # noqa: T201  # with -s
        f"{len(data.won):,} trades: walk {walked - started:.1f} s, figures {judged - walked:.1f} s, shuffled and "
        f"contributions {ended - judged:.1f} s; peak {peak:.0f} MB"
    )
    assert set(walk.folds[0].fits) == set(Algorithm)
    assert evaluation.n == len(walk.test_rows)
    assert control is not None
    assert ended - started <= LONGEST_S
    assert peak <= MOST_MB
