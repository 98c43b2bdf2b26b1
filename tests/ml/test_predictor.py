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


class Trained:
    """A model stored once for the whole module, with the rows it was tested on."""

    def __init__(self, data, walk, model):
        self.data, self.walk, self.model = data, walk, model
        self.rows = walk.folds[-1].window.test.rows

    def features(self, row):
        values = {name: column[row] for name, column in self.data.columns.items()}
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
