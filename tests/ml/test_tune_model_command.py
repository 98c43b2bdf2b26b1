"""`tune_model` as a trader meets it."""

import json
from datetime import UTC, datetime, timedelta
from io import StringIO

import optuna
import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from ml.model_trainer import ModelTrainer
from ml.models import MLModel
from ml.tuning import START, Storage
from positions.models import WorkerLease
from tests.ml.synthetic import store, training_data

pytestmark = pytest.mark.django_db(transaction=True)  # the trials are written by connections of their own


@pytest.fixture
def studies():
    storage = Storage.of(connection.settings_dict)
    opened = optuna.storages.RDBStorage(storage.url, engine_kwargs={"connect_args": dict(storage.options)})
    yield opened
    for name in optuna.get_all_study_names(opened):
        optuna.delete_study(study_name=name, storage=opened)
    opened.engine.dispose()


def run(*args):
    out = StringIO()
    call_command("tune_model", *args, stdout=out)
    return out.getvalue()


def trials_in(studies):
    return sum(summary.n_trials for summary in optuna.get_all_study_summaries(studies))


def test_each_windows_choice_is_shown_trained_with_judged_and_never_searched_twice(studies, tmp_path, capfd):
    store(training_data(1, sessions=40, per_session=10, edge=2.0))
    report = tmp_path / "result.json"
    shown = run("--trials", "3", "--seed", "3", "--json", str(report))
    model, result = MLModel.objects.get(), json.loads(report.read_text())
    assert [name.rpartition("seed ")[2] for name in optuna.get_all_study_names(studies)] == [
        f"3, window {number}" for number in range(1, 6)
    ]
    assert trials_in(studies) == 15
    chosen = [{**START, **window["chosen"]} for window in result["tuning"]]
    assert [fold["parameters"] for fold in model.folds] == chosen
    assert model.manifest["parameters"] == chosen[-1]
    assert ModelTrainer("simulated").train_again(model) == model.artifact
    assert any(window["log_loss"] < window["start_log_loss"] for window in result["tuning"])
    assert (result["version"], result["gate"], result["seed"]) == (model.version, model.gate, 3)
    for words in ("window 5", "of these pruned", "log-loss, defaults", "min_child_weight", "geometry", model.version):
        assert words in shown
    for reason in (*model.gate_reasons, *model.metrics["may_filter_reasons"]):
        assert reason in shown
    assert capfd.readouterr().out.splitlines() == [f"Window {number} of 5: 3 trials." for number in range(1, 6)]

    assert run("--trials", "3", "--seed", "3") == shown.replace(model.version, f"{model.version[:-1]}2")
    assert trials_in(studies) == 15
    assert MLModel.objects.order_by("-id").first().artifact == model.artifact
    assert ModelTrainer("simulated", seed=3).train().evaluation["attempts"] == 2


def test_on_a_terminal_a_bar_counts_trials_of_all_windows(studies, capfd, monkeypatch):
    store(training_data(1, sessions=11, per_session=6))
    monkeypatch.setenv("FORCE_COLOR", "1")
    run("--trials", "1")
    told = capfd.readouterr().out
    assert "Trials" in told
    assert "Window 1 of 5" not in told


def test_too_little_data_is_told_as_train_model_tells_it_and_nothing_is_searched(studies, tmp_path):
    report = tmp_path / "result.json"
    shown = run("--book", "paper:nobody", "--json", str(report))
    assert "No model: INSUFFICIENT_DATA." in shown
    assert "0 sessions with closed trades" in shown
    result = json.loads(report.read_text())
    assert (result["version"], result["metrics"], result["tuning"]) == (None, None, [])
    assert trials_in(studies) == 0


def test_a_book_that_another_process_is_tuning_is_left_to_it(studies):
    store(training_data(1, sessions=11, per_session=6))
    now = datetime.now(UTC)
    ahead = {"acquired_at": now, "heartbeat_at": now, "expires_at": now + timedelta(minutes=5)}
    WorkerLease.objects.create(book="simulated", name="tune_model", holder="elsewhere:1", **ahead)
    with pytest.raises(CommandError, match="tune_model of simulated is being done already") as refused:
        run()
    assert refused.value.returncode == 2
    assert trials_in(studies) == 0


def test_a_database_that_fails_meanwhile_ends_with_status_3_and_says_how_to_go_on(monkeypatch, tmp_path):
    store(training_data(1, sessions=11, per_session=6))
    gone = Storage(f"sqlite:///{tmp_path / 'gone' / 'db.sqlite3'}", {})
    monkeypatch.setattr(Storage, "of", lambda database: gone)
    with pytest.raises(CommandError, match="run the same command again") as failed:
        run()
    assert failed.value.returncode == 3
    assert not WorkerLease.objects.exists()
    assert not MLModel.objects.exists()
