"""Training: what is learned from, what is stored, the same bytes twice, and too little data is an answer."""

import json
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from django.conf import settings

from ml.artifact import unseal
from ml.features import FEATURE_SET, MODEL_FEATURES
from ml.learners import XGBOOST
from ml.model_trainer import SAMPLE_ROWS, CannotRetrain, ModelTrainer
from ml.models import LeakageCheck, MLModel, TradeFeatures
from ml.words import Gate, ModelStatus
from positions.models import Trade
from positions.words import Outcome
from tests.factories import FIRST_SIGNAL, MLModelFactory, TradeFactory, features_of
from tests.ml.synthetic import store, stored_again, training_data, undone


def checked(is_clean=True):
    LeakageCheck.objects.create(
        feature_set=FEATURE_SET, checked_at=FIRST_SIGNAL, points=50, compared=1000, is_clean=is_clean
    )


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
            "3 closed trades were left out: they have no complete feature row, or one with a number that is not finite."
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


TRADES = training_data(1, sessions=64, per_session=12, edge=2.5)


@pytest.fixture(scope="module")
def result(django_db_setup, django_db_blocker):
    with undone(django_db_blocker):
        store(TRADES)
        checked()
        return ModelTrainer("simulated").train()


@pytest.fixture
def trained(db, result):
    store(TRADES)
    checked()
    return replace(result, model=stored_again(result.model))


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
    assert {
        "geometry",
        "baselines",
        "majority_accuracy",
        "auc_interval",
        "may_filter_reasons",
        "shuffled_labels",
    } <= set(model.metrics)
    assert {"parameters", "seed", "train", "encoder", "libraries", "data_hash", "exit_settings"} <= set(model.manifest)
    for worth in ("gain", "shap"):
        assert {name.partition("=")[0] for name in model.importance[worth]} == {each.name for each in MODEL_FEATURES}
    stored_sample = model.importance["sample"]
    shap = model.importance["shap"]
    assert [each["column"] for each in stored_sample] == sorted(shap, key=shap.get, reverse=True)[: len(stored_sample)]
    assert {len(each[part]) for each in stored_sample for part in ("values", "log_odds")} == {
        min(SAMPLE_ROWS, model.folds[-1]["test"]["n"])
    }
    assert len(json.dumps(stored_sample)) < 100_000
    json.dumps([model.metrics, model.folds, model.importance, model.manifest], allow_nan=False)
    assert trained.evaluation == model.metrics

    artifact = unseal(
        model.artifact, key=settings.MODEL_SIGNING_KEY, sha256=model.artifact_sha256, feature_set=FEATURE_SET
    )
    assert artifact.payoff == model.folds[-1]["payoff"]
    assert artifact.calibrator == model.manifest["calibrator"]


def test_training_again_gives_the_same_bytes_under_the_next_version_and_activates_nothing(trained):
    again, other = ModelTrainer("simulated").train().model, ModelTrainer("simulated", seed=8).train().model
    assert again.artifact == trained.model.artifact
    assert again.metrics == trained.model.metrics
    assert other.artifact_sha256 != trained.model.artifact_sha256
    assert [model.version[-2:] for model in (trained.model, again, other)] == ["-1", "-2", "-3"]
    assert ModelTrainer("simulated").load_latest_model() == other
    assert ModelTrainer("paper:1").load_latest_model() is None
    assert not MLModel.objects.exclude(status=ModelStatus.CANDIDATE).exists()


def test_a_model_trained_again_from_its_manifest_is_the_same_to_the_byte_while_the_book_has_grown(trained):
    model = MLModel.objects.get()
    later = TradeFactory(signal_at=FIRST_SIGNAL + timedelta(days=300))
    features_of(later)
    assert ModelTrainer("elsewhere").train_again(model) == model.artifact
    Trade.objects.filter(signal_at__lt=later.signal_at).first().delete()
    with pytest.raises(CannotRetrain, match="767 now, there were 768"):
        ModelTrainer("elsewhere").train_again(model)


def test_a_tuned_model_is_trained_again_to_the_byte_and_is_an_attempt_of_its_own(trained):
    depths = [{**XGBOOST, "max_depth": depth} for depth in (5, 4, 3, 2, 1)]
    tuner = ModelTrainer("simulated", tuned=depths)
    tuned = tuner.train_on(tuner.load_training_data())
    assert tuned.model.artifact_sha256 != trained.model.artifact_sha256
    assert tuned.model.manifest["parameters"] == depths[-1]
    assert [fold["parameters"] for fold in tuned.model.folds] == depths
    assert ModelTrainer("elsewhere").train_again(MLModel.objects.get(pk=tuned.model.pk)) == tuned.model.artifact
    assert tuned.evaluation["attempts"] == 2
    assert tuner.train().evaluation["attempts"] == 2
    assert ModelTrainer("simulated").train().evaluation["attempts"] == 2


def test_each_further_candidate_on_the_same_sessions_widens_the_bound_and_the_same_again_does_not(trained):
    assert trained.evaluation["attempts"] == 1
    again, other = ModelTrainer("simulated").train(), ModelTrainer("simulated", seed=8).train()
    assert (again.evaluation["attempts"], other.evaluation["attempts"]) == (1, 2)
    bound, interval = other.evaluation["auc_bound"], other.evaluation["auc_interval"]
    assert bound["low"] < interval["low"]
    assert other.evaluation["deflated_sharpe"]["trials"] == 2
    assert other.evaluation["deflated_sharpe"]["best_of_nothing"] > 0


@pytest.mark.django_db
@pytest.mark.parametrize(("is_clean", "sentence"), [(None, "Nobody has looked for leaks"), (False, "knows the future")])
def test_without_a_clean_leakage_check_no_model_passes(is_clean, sentence):
    store(TRADES)
    if is_clean is not None:
        checked()
        checked(is_clean)
    result = ModelTrainer("simulated").train()
    assert result.gate == Gate.FAIL
    assert len(result.reasons) == 1
    assert sentence in result.reasons[0]


@pytest.mark.django_db
def test_a_data_set_that_mixes_exit_rules_or_feeds_says_so():
    store(training_data(1, sessions=3, per_session=2))
    Trade.objects.filter(pk=Trade.objects.first().pk).update(exit_settings_hash="another", feed="iex")
    remarks = ModelTrainer("simulated").load_training_data().remarks()
    assert "2 different sets of exit rules" in remarks[0]
    assert "2 feeds" in remarks[1]


@pytest.mark.django_db
def test_where_the_linear_baseline_is_shown_to_be_better_it_becomes_the_candidate():
    data = training_data(1, sessions=64, per_session=12)
    line = data.columns["rsi14"] + data.columns["adx14"] + data.columns["vwap_distance"] + data.columns["bar_range"]
    won = np.random.default_rng(0).random(len(line)) < 1 / (1 + np.exp(-2 * line))
    store(replace(data, won=won, r=np.where(won, 1.0, -1.0)))
    model = ModelTrainer("simulated").train().model
    assert model.algorithm == "logistic"
    assert model.metrics["baselines"]["xgboost"]["log_loss"] > model.metrics["log_loss"]


@pytest.mark.django_db
def test_a_training_whose_version_another_takes_at_the_last_moment_takes_the_next(trained):
    class Overtaken(ModelTrainer):
        def _free_version(self, last_session):
            version = super()._free_version(last_session)
            if version.endswith("-2"):
                MLModelFactory(version=version)
            return version

    assert Overtaken("simulated").train().model.version.endswith("-3")
    assert MLModel.objects.count() == 3
