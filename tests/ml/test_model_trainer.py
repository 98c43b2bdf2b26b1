"""Training: neither blind nor gullible, the same bytes twice, and too little data is an answer."""

import json
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from django.conf import settings
from xgboost import Booster

from ml.artifact import unseal
from ml.encoder import Encoder
from ml.features import FEATURE_SET, MODEL_FEATURES
from ml.gate import gate, may_filter
from ml.model_trainer import PATIENCE, Examples, ModelTrainer, expected_value_threshold, gain_importance
from ml.models import MLModel, TradeFeatures
from ml.words import Gate, ModelStatus
from positions.words import Outcome
from tests.factories import FIRST_SIGNAL, TradeFactory, features_of
from tests.ml.synthetic import store, training_data


def judged(data, seed=7):
    trainer = ModelTrainer("simulated", seed)
    return trainer.evaluate_model(data, trainer.walk_forward_validation(data))


@pytest.mark.parametrize("seed", range(2))
def test_a_planted_edge_passes_the_gate_and_may_filter(seed):
    evaluation = judged(training_data(seed, sessions=120, edge=1.5))
    assert gate(evaluation) == ("PASS", [])
    assert may_filter(evaluation) == (True, [])


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("level", [0.0, 0.6])
def test_without_an_edge_the_gate_fails_even_where_most_trades_win(seed, level):
    evaluation = judged(training_data(seed, sessions=120, level=level))
    assert gate(evaluation)[0] == "FAIL"
    assert not may_filter(evaluation)[0]


@pytest.mark.parametrize("seed", range(3))
def test_without_an_edge_few_trades_are_insufficient_and_never_a_pass(seed):
    assert gate(judged(training_data(seed, sessions=30, per_session=10)))[0] == "INSUFFICIENT_DATA"


def test_an_edge_that_decayed_before_the_test_sessions_is_refused():
    data, stale = training_data(1, sessions=120, edge=1.5), training_data(2, sessions=120)
    gone = data.session >= np.unique(data.session)[-60]
    won = np.where(gone, stale.won, data.won)
    assert gate(judged(replace(data, won=won, r=np.where(won, 1.2, -1.0))))[0] == "FAIL"


def test_shuffled_outcomes_leave_nothing_to_find():
    data = training_data(1, sessions=100, edge=1.5)
    aucs = [judged(replace(data, won=np.random.default_rng(n).permutation(data.won))).auc for n in range(3)]
    assert np.mean(aucs) == pytest.approx(0.5, abs=0.04)


def test_the_booster_that_is_kept_is_the_best_iteration_on_the_validation_part():
    data = training_data(3, sessions=80, edge=1.5)
    half = len(data.won) // 2
    encoder = Encoder.fit(data.columns)
    X = encoder.encode(data.columns)
    train, validation = (
        Examples(X[:half], data.won[:half], encoder.columns),
        Examples(X[half:], data.won[half:], encoder.columns),
    )
    booster = ModelTrainer("simulated").train_xgboost_model(train, validation)

    def log_loss(rounds):
        p = booster.inplace_predict(validation.X, iteration_range=(0, rounds)).astype(float)
        return -np.log(np.where(validation.won, p, 1 - p)).mean()

    kept = booster.num_boosted_rounds()
    losses = [log_loss(rounds) for rounds in range(1, kept + 1)]
    assert kept == booster.best_iteration + 1 < 100 - PATIENCE
    assert losses[-1] == min(losses) == pytest.approx(booster.best_score, abs=1e-5)


def test_a_training_part_is_fitted_without_a_look_at_later_sessions():
    data = training_data(4, edge=0.5, sessions=60)
    trainer = ModelTrainer("simulated")
    first = trainer.walk_forward_validation(data).folds[0]
    later = data.session >= first.window.test.first
    altered = {
        name: np.where(later, values[::-1], values)
        if values.dtype == object
        else np.where(later, values * 5 + 3, values)
        for name, values in data.columns.items()
    }
    again = trainer.walk_forward_validation(
        replace(data, columns=altered, won=np.where(later, ~data.won, data.won))
    ).folds[0]
    assert again.encoder == first.encoder
    assert again.calibrator == first.calibrator
    assert again.booster.save_raw("ubj") == first.booster.save_raw("ubj")


def test_gain_names_the_features_that_carry_the_planted_edge():
    fold = ModelTrainer("simulated").walk_forward_validation(training_data(5, sessions=80, edge=1.5)).folds[-1]
    importance = gain_importance(fold)
    assert set(importance) == set(fold.encoder.columns)
    assert {"rsi14", "adx14"} & set(list(importance)[:4])


def test_the_threshold_is_where_a_trade_is_expected_to_break_even():
    won = np.array([True, True, False, False])
    assert expected_value_threshold(won, np.array([2.0, 1.8, -1.0, -1.1])) == pytest.approx(1.05 / (1.9 + 1.05))
    assert expected_value_threshold(won, np.array([2.0, 1.8, np.nan, np.nan])) is None
    assert expected_value_threshold(np.array([True]), np.array([2.0])) is None


@pytest.mark.django_db
class TestLoading:
    def test_what_is_loaded_is_what_was_stored_in_order_of_signals_with_two_queries(self, django_assert_num_queries):
        data = training_data(1, sessions=12, per_session=4)
        store(data)
        with django_assert_num_queries(2):
            loaded = ModelTrainer("simulated").load_training_data()
        for name, values in data.columns.items():
            np.testing.assert_array_equal(loaded.columns[name], values)
        for name in ("won", "session", "start", "end", "r", "p_geometry"):
            np.testing.assert_array_equal(getattr(loaded, name), getattr(data, name))
        assert loaded.missing == {"sector_strength": int(np.isnan(data.columns["sector_strength"]).sum())}
        assert loaded.exit_settings == {"0123456789abcdef": 48}

    def test_only_closed_trades_of_the_book_with_a_complete_row_of_this_feature_set_are_learned_from(self):
        learned = TradeFactory(signal_at=FIRST_SIGNAL)
        features_of(learned, vix=None)
        features_of(TradeFactory(still_open=True))
        features_of(TradeFactory(book="paper:1"))
        features_of(TradeFactory(), complete=False, rsi14=None)
        TradeFactory()
        features_of(TradeFactory(), feature_set="an older one")
        data = ModelTrainer("simulated").load_training_data()
        assert list(data.signal_key) == [learned.signal_key]
        assert (data.n_incomplete, data.n_other_feature_set) == (2, 1)
        assert data.missing == {"vix": 1}

    def test_the_hash_changes_with_any_value_and_with_nothing_else(self):
        store(training_data(1, sessions=3, per_session=2))
        first = ModelTrainer("simulated").load_training_data().data_hash
        assert ModelTrainer("simulated", seed=8).load_training_data().data_hash == first
        row = TradeFeatures.objects.order_by("id").last()
        row.adx14 += 1e-12
        row.save()
        assert ModelTrainer("simulated").load_training_data().data_hash != first


@pytest.mark.django_db
class TestTooLittle:
    def test_no_trades_at_all(self):
        result = ModelTrainer("paper:nobody").train()
        assert (result.model, result.gate, result.evaluation) == (None, Gate.INSUFFICIENT_DATA, None)
        assert result.reasons[0].startswith("Too little data: 0 sessions with closed trades")

    def test_one_session(self):
        store(training_data(1, sessions=1, per_session=30))
        result = ModelTrainer("simulated").train()
        assert (result.model, result.gate) == (None, Gate.INSUFFICIENT_DATA)
        assert "1 sessions" in result.reasons[0]
        assert "need 11" in result.reasons[0]

    def test_trades_without_complete_features_are_counted_in_the_reasons(self):
        for minutes in range(3):
            features_of(TradeFactory(signal_at=FIRST_SIGNAL + timedelta(minutes=minutes)), complete=False)
        assert ModelTrainer("simulated").train().reasons[1] == (
            "3 closed trades were left out: they have no complete feature row."
        )

    @pytest.mark.parametrize("outcome", list(Outcome))
    def test_one_class_only(self, outcome):
        data = training_data(1, sessions=12, per_session=3)
        won = np.full(len(data.won), outcome == Outcome.WIN)
        store(replace(data, won=won, r=np.where(won, 1.0, -1.0)))
        result = ModelTrainer("simulated").train()
        assert (result.model, result.gate) == (None, Gate.INSUFFICIENT_DATA)
        assert len(result.reasons) == 5
        assert "Window 1 of 5 could not be fitted" in result.reasons[0]

    def test_a_window_that_could_not_be_fitted_keeps_the_model_from_passing(self):
        data = training_data(1, sessions=22, per_session=5, edge=0.9)
        early = data.session < np.unique(data.session)[-9]
        store(replace(data, won=np.where(early, True, data.won)))
        result = ModelTrainer("simulated").train()
        assert result.model is not None
        assert result.gate == Gate.INSUFFICIENT_DATA
        assert "Window 1 of 5 could not be fitted" in result.reasons[0]

    def test_eleven_sessions_train_a_model_that_says_what_is_missing(self):
        store(training_data(1, sessions=11, per_session=6))
        result = ModelTrainer("simulated").train()
        assert (result.gate, result.model.status) == (Gate.INSUFFICIENT_DATA, ModelStatus.CANDIDATE)
        assert result.reasons == [
            "Too little data: 30 out-of-sample trades; 200 are needed.",
            *[reason for reason in result.reasons[1:-1] if "wins" in reason or "losses" in reason],
            "Too little data: 5 out-of-sample sessions; 30 are needed.",
        ]


@pytest.fixture
def trained(db):
    store(training_data(1, sessions=64, per_session=12, edge=2.5))
    return ModelTrainer("simulated").train()


def test_progress_is_told_after_each_window():
    steps = []
    data = training_data(1, sessions=11, per_session=6)
    ModelTrainer("simulated").walk_forward_validation(data, lambda done, total: steps.append((done, total)))
    assert steps == [(n, 5) for n in range(1, 6)]


def test_a_stored_model_is_a_candidate_of_the_last_window_with_all_that_judging_and_retraining_need(trained):
    model = MLModel.objects.get()
    assert (model.status, model.gate, model.may_filter) == (ModelStatus.CANDIDATE, Gate.PASS, True)
    assert (model.n_train, model.n_validation, model.n_test) == (28 * 12, 6 * 12, 5 * 6 * 12)
    assert model.version == f"{model.test_to:%Y%m%d}-1"
    assert model.test_from < model.test_to
    assert model.feature_set == FEATURE_SET
    assert len(model.folds) == 5
    assert model.folds[-1]["test"]["to"] == str(model.test_to)
    assert model.metrics["n"] == sum(fold["metrics"]["n"] for fold in model.folds) == model.n_test
    assert {"geometry", "logistic_regression", "majority_accuracy", "auc_interval", "may_filter_reasons"} <= set(
        model.metrics
    )
    assert {"parameters", "seed", "train", "encoder", "libraries", "data_hash", "exit_settings"} <= set(model.manifest)
    assert {name.partition("=")[0] for name in model.importance} == {feature.name for feature in MODEL_FEATURES}
    json.dumps([model.metrics, model.folds, model.importance, model.manifest], allow_nan=False)
    assert trained.evaluation == model.metrics

    artifact = unseal(
        model.artifact, key=settings.MODEL_SIGNING_KEY, sha256=model.artifact_sha256, feature_set=FEATURE_SET
    )
    booster = Booster()
    booster.load_model(bytearray(artifact.booster))
    assert booster.num_boosted_rounds() == model.folds[-1]["best_iteration"] + 1
    assert artifact.threshold == model.threshold == model.folds[-1]["threshold"]


def test_training_again_gives_the_same_bytes_under_the_next_version_and_activates_nothing(trained):
    again, other = ModelTrainer("simulated").train().model, ModelTrainer("simulated", seed=8).train().model
    assert again.artifact == trained.model.artifact
    assert again.metrics == trained.model.metrics
    assert other.artifact_sha256 != trained.model.artifact_sha256
    assert [model.version[-2:] for model in (trained.model, again, other)] == ["-1", "-2", "-3"]
    assert ModelTrainer("simulated").load_latest_model() == other
    assert ModelTrainer("paper:1").load_latest_model() is None
    assert not MLModel.objects.exclude(status=ModelStatus.CANDIDATE).exists()
