"""`train_model` and `promote_model` as a trader meets them."""

import json
from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from ml.models import MLModel, TradeFeatures
from ml.registry import champion
from ml.words import Gate
from positions.models import Trade
from tests.factories import MLModelFactory, TradeFactory, features_of
from tests.ml.synthetic import store, training_data


def run(*args, **options):
    out = StringIO()
    call_command(*args, stdout=out, **options)
    return out.getvalue()


@pytest.mark.django_db
def test_train_model_shows_figures_baselines_and_the_verdict_with_its_reasons(tmp_path):
    store(training_data(1, sessions=40, per_session=10))
    report = tmp_path / "result.json"
    shown = run("train_model", "--book", "simulated", "--seed", "3", "--json", str(report))
    model = MLModel.objects.get()
    for words in ("AUC", "geometry", "logistic", "majority class", "lift", model.version, model.gate):
        assert words in shown
    assert f"Trained on {model.n_train} trades (the last of 5 windows)." in shown
    assert (
        f"Tested on {model.n_test} trades of {model.metrics['sessions']} sessions (5 windows, none seen in training)."
        in shown
    )
    for reason in (*model.gate_reasons, *model.metrics["may_filter_reasons"]):
        assert reason in shown
    result = json.loads(report.read_text())
    assert (result["version"], result["seed"], result["gate"]) == (model.version, 3, model.gate)
    assert result["metrics"]["n"] == model.n_test


@pytest.mark.django_db
def test_train_model_without_trades_says_what_is_missing_and_is_no_error(tmp_path):
    report = tmp_path / "result.json"
    shown = run("train_model", "--book", "paper:nobody", "--json", str(report))
    assert "INSUFFICIENT_DATA" in shown
    assert "0 sessions" in shown
    result = json.loads(report.read_text())
    assert (result["version"], result["metrics"], result["gate"]) == (None, None, "INSUFFICIENT_DATA")


@pytest.mark.django_db
def test_train_model_if_due_trains_once_and_again_only_when_trades_have_closed_since(tmp_path):
    store(training_data(1, sessions=22, per_session=6))
    report = tmp_path / "result.json"
    due = ("train_model", "--book", "simulated", "--if-due", "--json", str(report))
    run(*due)
    version = MLModel.objects.get().version
    assert json.loads(report.read_text())["due"]
    shown = run(*due)
    assert shown.startswith("Nothing to do: no trade of book simulated with complete features has closed since")
    assert version in shown
    result = json.loads(report.read_text())
    assert (result["due"], result["version"], result["gate"], result["promoted"]) == (False, None, None, None)
    assert MLModel.objects.count() == 1
    later = Trade.objects.latest("exited_at").exited_at + timedelta(days=1)
    trade = TradeFactory(signal_at=later, session=later.date())
    assert "Nothing to do" in run(*due)
    features_of(trade)
    run(*due)
    assert MLModel.objects.count() == 2


@pytest.mark.django_db
def test_promote_model_makes_a_candidate_champion_and_says_where_it_serves():
    model = MLModelFactory()
    shown = run("promote_model", model.version, "--book", "simulated", "--who", "ada", "--why", "passed")
    assert shown.strip() == f"Model {model.version} now serves simulated."
    assert champion("simulated") == model


@pytest.mark.django_db
def test_promote_model_needs_the_word_foreign_for_a_model_of_another_book():
    version = MLModelFactory(book="replay:0123456789ab").version
    options = ("--book", "replay:0123456789ab", "--to", "paper:1", "--who", "ada", "--why", "trial")
    with pytest.raises(CommandError, match="--foreign"):
        run("promote_model", version, *options)
    assert champion("paper:1") is None
    assert "trained on replay:0123456789ab" in run("promote_model", version, *options, "--foreign")


@pytest.mark.django_db
def test_promote_model_names_the_versions_there_are_or_says_how_to_get_one():
    MLModelFactory(version="20240216-1")
    with pytest.raises(CommandError, match=r"no model 7\. Its newest: 20240216-1"):
        run("promote_model", "7", "--book", "simulated", "--who", "ada", "--why", "x")
    with pytest.raises(CommandError, match="train_model --book paper:1"):
        run("promote_model", "7", "--book", "paper:1", "--who", "ada", "--why", "x")


@pytest.mark.django_db
def test_one_trade_with_an_infinite_feature_is_left_out_and_counted():
    store(training_data(1, sessions=22, per_session=6))
    broken = TradeFeatures.objects.order_by("signal_at")[40]
    TradeFeatures.objects.filter(pk=broken.pk).update(rsi14=float("inf"))
    shown = run("train_model")
    assert "1 closed trades were left out: they have no complete feature row, or one with a number that is" in shown
    assert MLModel.objects.get().manifest["n_incomplete"] == 1


@pytest.mark.django_db
def test_if_due_a_model_that_does_not_know_its_trades_is_followed_by_one_that_does():
    MLModelFactory(manifest={})
    assert "INSUFFICIENT_DATA" in run("train_model", "--if-due")


@pytest.mark.parametrize(("option", "choices"), [("--label", "net, plan"), ("--algorithm", "xgboost, lightgbm")])
def test_a_word_that_is_none_is_answered_with_those_there_are(option, choices):
    with pytest.raises(CommandError) as refused:
        run("train_model", option, "none")
    assert choices in str(refused.value).replace("'", "")


@pytest.mark.django_db
def test_an_override_that_has_ended_is_told_in_new_york_time():
    version = MLModelFactory(gate=Gate.FAIL).version
    with pytest.raises(CommandError, match="would have ended at 2020-01-03 00:00 in New York"):
        run("promote_model", version, "--who", "ada", "--why", "x", "--override", "--until", "2020-01-02")
