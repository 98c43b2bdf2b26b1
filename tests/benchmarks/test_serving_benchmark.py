"""What a prediction costs a signal, while the other core is busy.

    python -m pytest tests/benchmarks/test_serving_benchmark.py -m slow --benchmark-json=benchmarks.json

Baselines run in the same test, in turns with what they are compared with, so that a busy machine slows both.
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pytest_benchmark", reason="benchmarks need pytest-benchmark (the dev group of pyproject.toml)")

from ml.encoder import CATEGORIES, CONTINUOUS
from ml.learners import XGBoost
from ml.model_trainer import ModelTrainer
from ml.predictor import Predictor
from ml.registry import promote
from ml.serving import Serving
from ml.splits import rolling_windows
from ml.walk_forward import fit_window
from ml.words import Algorithm
from tests.factories import MLModelFactory
from tests.ml.synthetic import training_data

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]

ROWS = 2000
WARM = 100


@pytest.fixture(scope="module", autouse=True)
def busy_core():
    """Another process that never rests."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        yield
        process.kill()


class Model:
    """A model of a hundred trees of depth 6, as large as they get, and signals to score."""

    def __init__(self) -> None:
        self.data = training_data(1, sessions=200, per_session=50, edge=1.0)
        window = rolling_windows(self.data.session, self.data.end)[-1]
        learner = _AllRounds(7)
        self.fold = fit_window(self.data, window, (learner,), 7)
        self.fit = self.fold.fits[Algorithm.XGBOOST]
        self.artifact = ModelTrainer.artifact_of(self.fold, Algorithm.XGBOOST)
        self.columns = self.data.columns_of(np.arange(ROWS))
        self.rows = [
            {
                name: None if isinstance(column[n], float) and np.isnan(column[n]) else column[n]
                for name, column in self.columns.items()
            }
            for n in range(ROWS)
        ]
        self.encoded = self.fit.encoder.encode(self.columns)


class _AllRounds(XGBoost):
    """Every round is kept: serving is measured on the largest model there can be."""

    def fit(self, train, validation, columns, callbacks=()):
        return super().fit(train, train, columns, callbacks)


@pytest.fixture(scope="module")
def model() -> Model:
    return Model()


@pytest.fixture
def stored(model: Model):
    return MLModelFactory(artifact=model.artifact)


def timed(call: Callable[[Any], object], *arguments: Any) -> float:
    began = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - began


def test_from_features_to_a_decision_costs_little_more_than_the_bare_trees(benchmark, model, stored):
    predictor = Predictor(stored)
    predictor.load()
    booster = predictor._loaded.scorer.booster
    assert booster.num_boosted_rounds() == 100
    bare, served, places = [], [], iter(list(range(ROWS)) * 4)

    def setup():
        place = next(places)
        bare.append(timed(booster.inplace_predict, model.encoded[place : place + 1]))
        return (model.rows[place - 1000],), {}  # another row, whose way through the trees is not warm

    def serve(row):
        served.append(timed(lambda features: predictor.predict(features, 0.4), row))

    if benchmark.disabled:
        pytest.skip("a ratio of medians needs the rounds that --benchmark-disable leaves out")
    benchmark.pedantic(serve, setup=setup, rounds=3 * ROWS, warmup_rounds=WARM)
    base, median = statistics.median(bare[WARM:]), statistics.median(served[WARM:])
    p99 = float(np.percentile(served[WARM:], 99))
    benchmark.extra_info |= {
        "n": len(served),
        "bare_us": base * 1e6,
        "served_us": median * 1e6,
        "ratio": median / base,
        "p99_ms": p99 * 1e3,
    }
    print(benchmark.extra_info)  # noqa: T201  # with -s
    assert median <= 1.5 * base
    assert p99 <= 0.002


def test_it_is_fifteen_times_as_fast_as_the_pipeline_of_scikit_learn(benchmark, model, stored):
    """The same trees behind a ColumnTransformer that scales and one-hot encodes, asked with a frame of one row."""
    import pandas as pd
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler
    from xgboost import XGBClassifier

    names = [name for name, _ in CATEGORIES]
    frame = pd.DataFrame(model.data.columns)
    known = [list(categories) for _, categories in CATEGORIES]
    transformer = ColumnTransformer(
        [
            ("numbers", StandardScaler(), list(CONTINUOUS)),
            ("words", OneHotEncoder(categories=known, handle_unknown="ignore", sparse_output=False), names),
        ]
    ).fit(frame.iloc[model.fold.window.train.rows])
    classifier = XGBClassifier(n_jobs=1)
    classifier.load_model(bytearray(model.fit.scorer.to_bytes()))
    pipeline = Pipeline([("columns", transformer), ("trees", classifier)])
    frames = [frame.iloc[[n]] for n in range(300)]
    predictor = Predictor(stored)
    predictor.load()
    theirs = [float(pipeline.predict_proba(each)[0, 1]) for each in frames]
    ours = [predictor.predict(row, 0.4).p_raw for row in model.rows[:300]]
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)

    pipeline_times, served = [], []

    def setup():
        pipeline_times.extend(timed(pipeline.predict_proba, each) for each in frames[:30])

    def serve():
        served.extend(timed(lambda features: predictor.predict(features, 0.4), row) for row in model.rows[:30])

    if benchmark.disabled:
        pytest.skip("a ratio of medians needs the rounds that --benchmark-disable leaves out")
    benchmark.pedantic(serve, setup=setup, rounds=20, warmup_rounds=1)
    slow, fast = statistics.median(pipeline_times), statistics.median(served)
    benchmark.extra_info |= {"pipeline_us": slow * 1e6, "served_us": fast * 1e6, "times": slow / fast}
    print(benchmark.extra_info)  # noqa: T201  # with -s
    assert slow >= 15 * fast


def test_the_first_prediction_after_a_promotion_waits_for_nothing(benchmark, model, stored):
    """A running thread loads and warms the new champion up before it serves; the trader's own first call is timed."""
    promote(stored, "simulated", "ada", "first")
    serving = Serving("simulated")
    serving.start()
    first = []
    try:
        for number in range(5):
            before = serving.served().champion
            promote(MLModelFactory(artifact=model.artifact), "simulated", "ada", "next")
            promoted = time.perf_counter()
            while serving.served().champion is before:
                time.sleep(0.01)
                assert time.perf_counter() - promoted < 5
            first.append(timed(lambda row: serving.served().champion.predict(row, 0.4), model.rows[number]))
        benchmark.extra_info["first_ms"] = [each * 1e3 for each in first]
        print(benchmark.extra_info)  # noqa: T201  # with -s
        benchmark(serving.served().champion.predict, model.rows[0], 0.4)
    finally:
        serving.close()
    assert max(first) <= 0.05


def test_a_thousand_signals_at_once(benchmark, model, stored):
    predictor = Predictor(stored)
    columns = model.data.columns_of(np.arange(1000))
    predictor.load()
    rule = benchmark(predictor.rule, columns)
    assert len(rule.p) == 1000
    if not benchmark.disabled:
        print(benchmark.stats.stats.median * 1e3, "ms")  # noqa: T201  # with -s
        assert benchmark.stats.stats.median <= 0.01
