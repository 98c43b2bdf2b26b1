"""Serving: what is said of one signal is what was evaluated, and a model that must not score does not."""

from dataclasses import replace

import numpy as np
import pytest
from django.conf import settings
from django.test import override_settings

from ml.artifact import fingerprint, seal, unseal
from ml.features import FEATURE_SET
from ml.model_trainer import ModelTrainer
from ml.predictor import ModelUnusable, Predictor
from ml.words import Algorithm, Decision, Gate
from tests.factories import MLModelFactory
from tests.ml.synthetic import training_data

pytestmark = pytest.mark.django_db


class Trained:
    """A model stored once for the whole module, with the rows it was tested on."""

    def __init__(self, data, walk, model):
        self.data, self.walk, self.model = data, walk, model
        self.rows = walk.folds[-1].window.test.rows

    def features(self, row):
        return row_of(self.data.columns, row)


def row_of(columns, place):
    """One signal as it is handed to the predictor: None where a value is unknown."""
    values = {name: column[place] for name, column in columns.items()}
    return {name: None if isinstance(v, float) and np.isnan(v) else v for name, v in values.items()}


@pytest.fixture(scope="module")
def trained(django_db_setup, django_db_blocker):
    data = training_data(1, sessions=64, per_session=34, edge=2.0)
    trainer = ModelTrainer("simulated")
    walk = trainer.walk_forward_validation(data)
    with django_db_blocker.unblock():
        model = trainer.save_model(data, walk, replace(trainer.judge(data, walk), gate=Gate.PASS))
        yield Trained(data, walk, model)
        model.delete()


def test_serving_one_signal_at_a_time_says_what_was_evaluated(trained):
    predictor, fold = Predictor(trained.model), trained.walk.folds[-1]
    rule = fold.fits[Algorithm.XGBOOST].rule
    assert len(trained.rows) >= 200
    scores = [predictor.predict(trained.features(row), 0.4) for row in trained.rows]
    np.testing.assert_allclose([score.p_win for score in scores], rule.p, rtol=0, atol=1e-6)
    assert [score.decision != Decision.SKIP for score in scores] == list(rule.taken)
    assert {Decision.TAKE, Decision.SKIP} <= {score.decision for score in scores}
    reward = trained.data.columns["reward_to_risk"][trained.rows]
    assert [score.threshold for score in scores] == list(fold.payoff.thresholds(reward))
    assert all(0 < score.p_raw < 1 for score in scores)


def test_on_a_thousand_rows_with_unknown_values_and_unseen_categories_serving_equals_evaluation(trained):
    rows = np.arange(1000)
    columns = trained.data.columns_of(rows)
    chance = np.random.default_rng(0)
    for name in ("vix", "rsi14", "reward_to_risk"):
        columns[name] = np.where(chance.random(1000) < 0.2, np.nan, columns[name])
    columns["regime"] = np.where(chance.random(1000) < 0.2, "sideways", columns["regime"])
    fit = trained.walk.folds[-1].fits[Algorithm.XGBOOST]
    evaluated = fit.calibrator.apply(fit.scorer.raw(fit.encoder.encode(columns)))
    predictor = Predictor(trained.model)
    served = [predictor.predict(row_of(columns, place), 0.4).p_win for place in rows]
    np.testing.assert_allclose(served, evaluated, rtol=0, atol=1e-6)
    np.testing.assert_allclose(predictor.probabilities(columns), evaluated, rtol=0, atol=1e-6)
    assert np.isnan(columns["rsi14"]).sum() > 100


def test_the_stored_model_is_the_best_iteration_and_no_round_more(trained):
    fitted = trained.walk.folds[-1].fits[Algorithm.XGBOOST].scorer.booster
    stored = Predictor(trained.model)._loaded.scorer.booster
    assert stored.num_boosted_rounds() == fitted.best_iteration + 1


def test_a_zero_is_served_as_a_zero_as_it_was_trained_and_not_as_an_unknown_value(trained):
    """In a sparse matrix a zero is no entry, which trees take for unknown: another answer, without any error."""
    import xgboost
    from scipy.sparse import csr_matrix

    fit, columns = trained.walk.folds[-1].fits[Algorithm.XGBOOST], trained.data.columns_of(trained.rows)
    dense = fit.encoder.encode(columns)
    as_trained = xgboost.DMatrix(dense, feature_names=list(fit.encoder.columns))
    as_sparse = xgboost.DMatrix(csr_matrix(np.nan_to_num(dense)), feature_names=list(fit.encoder.columns))
    booster, predictor = fit.scorer.booster, Predictor(trained.model)
    served = [predictor.predict(trained.features(row), 0.4).p_raw for row in trained.rows]
    np.testing.assert_allclose(served, booster.predict(as_trained), rtol=0, atol=1e-6)
    assert np.abs(booster.predict(as_sparse) - served).max() > 0.01


def test_many_signals_at_once_are_let_through_as_each_alone(trained):
    predictor = Predictor(trained.model)
    rule = predictor.rule(trained.data.columns_of(trained.rows))
    alone = [predictor.predict(trained.features(row), 0.4).decision for row in trained.rows]
    assert list(rule.taken) == [decision != Decision.SKIP for decision in alone]


@pytest.mark.parametrize("n", [1, 300])
def test_what_moved_a_score_agrees_with_shap(trained, n):
    import shap

    fit, columns = trained.walk.folds[-1].fits[Algorithm.XGBOOST], trained.data.columns_of(np.arange(n))
    encoded = fit.encoder.encode(columns)
    expected = shap.TreeExplainer(fit.scorer.booster).shap_values(encoded)
    np.testing.assert_allclose(fit.scorer.contributions(encoded)[:, :-1], expected, rtol=0, atol=1e-4)
    explained = Predictor(trained.model).explain([row_of(columns, place) for place in range(n)])
    for place, told in enumerate(explained):
        by_feature: dict[str, float] = {}
        for column, value in zip(fit.encoder.columns, expected[place], strict=True):
            feature = column.partition("=")[0]
            by_feature[feature] = by_feature.get(feature, 0.0) + value
        largest = sorted(map(abs, by_feature.values()), reverse=True)[:5]
        np.testing.assert_allclose([abs(each["log_odds"]) for each in told], largest, atol=1e-4)
        for each in told:
            assert each["log_odds"] == pytest.approx(by_feature[each["feature"]], abs=1e-4)
            assert each["value"] == row_of(columns, place)[each["feature"]]


def test_all_that_moved_a_score_adds_up_to_its_log_odds(trained):
    fit, columns = trained.walk.folds[-1].fits[Algorithm.XGBOOST], trained.data.columns_of(np.arange(50))
    p = fit.scorer.raw(fit.encoder.encode(columns))
    summed = fit.scorer.contributions(fit.encoder.encode(columns)).sum(axis=1)
    np.testing.assert_allclose(summed, np.log(p / (1 - p)), atol=1e-4)


@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_every_learner_is_served_and_explained_as_it_was_evaluated(trained, algorithm):
    fold = trained.walk.folds[-1]
    artifact = ModelTrainer.artifact_of(fold, algorithm)
    predictor = Predictor(MLModelFactory.build(artifact=artifact, algorithm=algorithm))
    fit, columns = fold.fits[algorithm], trained.data.columns_of(trained.rows[:50])
    evaluated = fit.calibrator.apply(fit.scorer.raw(fit.encoder.encode(columns)))
    served = [predictor.predict(row_of(columns, place), 0.4).p_win for place in range(50)]
    np.testing.assert_allclose(served, evaluated, rtol=0, atol=1e-6)
    assert all(len(told) == 5 for told in predictor.explain([row_of(columns, place) for place in range(50)]))


def test_a_model_that_was_fitted_once_for_all_refuses_to_learn_on(trained):
    with pytest.raises(ModelUnusable, match="does not learn on"):
        Predictor(trained.model).learn(trained.data)


def test_a_score_says_why_and_how_long_it_took(trained):
    score = Predictor(trained.model).predict(trained.features(0), 0.4)
    assert score.p_geometry == 0.4
    assert f"{score.p_win:.3f}" in score.reason
    assert f"{score.threshold:.3f}" in score.reason
    assert 0 < score.latency_us < 1e6


def test_the_order_of_features_and_those_the_model_does_not_know_change_nothing(trained):
    predictor, features = Predictor(trained.model), trained.features(5)
    shuffled = {"ema20": 412.0, **dict(reversed(features.items()))}
    assert predictor.predict(shuffled, 0.4).p_win == predictor.predict(features, 0.4).p_win


def test_a_missing_feature_is_refused_by_name(trained):
    features = trained.features(5)
    del features["adx14"]
    with pytest.raises(ModelUnusable, match="adx14"):
        Predictor(trained.model).predict(features, 0.4)


def test_a_word_where_a_number_belongs_is_refused(trained):
    with pytest.raises(ModelUnusable, match="not a number"):
        Predictor(trained.model).predict({**trained.features(5), "adx14": "high"}, 0.4)


def test_an_unseen_category_and_unknown_values_still_get_a_probability(trained):
    unknown = dict.fromkeys(trained.features(5))
    for features in ({**trained.features(5), "regime": "sideways"}, unknown):
        assert 0 < Predictor(trained.model).predict(features, 0.4).p_win < 1


def copy_of(model):
    return MLModelFactory.build(
        artifact=model.artifact, artifact_sha256=model.artifact_sha256, threshold=model.threshold
    )


def test_an_altered_artifact_is_refused_with_the_model_s_name(trained):
    model = copy_of(trained.model)
    model.artifact = model.artifact[:-8] + "AAAAAAA="
    with pytest.raises(ModelUnusable, match=rf"model simulated {model.version}: .*altered"):
        Predictor(model).load()


def test_a_model_signed_with_another_key_is_refused(trained):
    with override_settings(MODEL_SIGNING_KEY="another"), pytest.raises(ModelUnusable, match="MODEL_SIGNING_KEY"):
        Predictor(copy_of(trained.model)).load()


def resealed(model, **changed):
    """The model with other contents, signed as this site signs."""
    artifact = unseal(
        model.artifact, key=settings.MODEL_SIGNING_KEY, sha256=model.artifact_sha256, feature_set=FEATURE_SET
    )
    text = seal(replace(artifact, **changed), settings.MODEL_SIGNING_KEY)
    return MLModelFactory.build(artifact=text, artifact_sha256=fingerprint(text))


def test_a_model_of_another_feature_set_is_refused(trained):
    with pytest.raises(ModelUnusable, match="train a new one"):
        Predictor(resealed(trained.model, feature_set="fedcba9876543210")).load()


def test_trees_grown_on_columns_in_another_order_are_refused(trained):
    encoder = trained.walk.folds[-1].fits[Algorithm.XGBOOST].encoder.to_dict()
    for name in ("names", "mean", "scale"):
        encoder[name][0], encoder[name][1] = encoder[name][1], encoder[name][0]
    with pytest.raises(ModelUnusable, match="other columns"):
        Predictor(resealed(trained.model, encoder=encoder)).load()


def test_without_a_payoff_the_model_abstains(trained):
    score = Predictor(resealed(trained.model, payoff=None)).predict(trained.features(5), 0.4)
    assert (score.decision, score.threshold) == (Decision.ABSTAIN, None)
    assert score.reason.startswith("too few wins and losses")
