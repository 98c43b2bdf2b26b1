"""The commands about one stored model, as a trader meets them."""

import json
import os
import subprocess
import sys
from datetime import date, datetime, timedelta
from io import StringIO
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone

from ml.model_trainer import ModelTrainer
from ml.models import MLModel, TradeFeatures
from ml.predictor import Predictor
from ml.registry import champion, promote
from ml.words import Algorithm, Gate, ModelStatus
from positions.models import Trade
from tests.factories import MLModelFactory
from tests.ml.synthetic import store, stored_again, training_data, undone
from tests.site.conftest import make_session

SESSIONS, A_SESSION = 22, 12


def run(*args, **options):
    out = StringIO()
    call_command(*args, stdout=out, **options)
    return out.getvalue()


TRADES = training_data(1, sessions=SESSIONS, per_session=A_SESSION, edge=2.0)


@pytest.fixture(scope="module")
def model(django_db_setup, django_db_blocker) -> MLModel:
    with undone(django_db_blocker):
        store(TRADES)
        return ModelTrainer("simulated").train().model


@pytest.fixture
def trained(db, model) -> MLModel:
    store(TRADES)
    return stored_again(model)


class TestPromote:
    pytestmark = pytest.mark.django_db
    SIGNED = ("--who", "ada", "--why", "to see it at work")

    def test_an_override_ends_with_a_named_new_york_day_and_says_so(self, tmp_path):
        model = MLModelFactory(gate=Gate.FAIL)
        last = timezone.localdate() + timedelta(days=2)
        report = tmp_path / "promoted.json"
        options = ("--override", "--until", str(last), "--json", str(report))
        shown = run("promote_model", model.version, *self.SIGNED, *options)
        assert f"until the end of {last}, though it did not pass its gate" in shown
        ends = datetime.combine(last + timedelta(days=1), datetime.min.time(), ZoneInfo("America/New_York"))
        assert champion("simulated").override_until == ends
        stored = json.loads(report.read_text())
        assert (stored["version"], stored["status"], stored["serving_book"]) == (model.version, "champion", "simulated")
        assert datetime.fromisoformat(stored["override_until"]) == ends

    @pytest.mark.parametrize("options", [("--override",), ("--until", "2999-01-01")])
    def test_an_override_and_its_end_belong_together(self, options):
        model = MLModelFactory(gate=Gate.FAIL)
        with pytest.raises(CommandError, match="belong together") as refused:
            run("promote_model", model.version, *self.SIGNED, *options)
        assert refused.value.returncode == 2
        assert champion("simulated") is None


@pytest.mark.django_db
def test_rollback_model_says_who_serves_again_and_who_is_archived(tmp_path):
    first, second = MLModelFactory(), MLModelFactory()
    for model in (first, second):
        promote(model, "simulated", "ada", "better")
    report = tmp_path / "rolled_back.json"
    shown = run("rollback_model", "--who", "bob", "--why", "it skips winners", "--json", str(report))
    assert shown.strip() == f"Model {first.version} serves simulated again; {second.version} is archived."
    told = json.loads(report.read_text())
    assert (told["restored"]["version"], told["withdrawn"]["archived_by"]) == (first.version, "bob")
    with pytest.raises(CommandError, match="No model served simulated before") as refused:
        run("rollback_model", "--who", "bob", "--why", "again")
    assert refused.value.returncode == 2


class TestShow:
    def test_figures_baselines_verdicts_reasons_and_service_are_shown(self, trained, tmp_path):
        report = tmp_path / "model.json"
        shown = run("show_model", trained.version, "--json", str(report))
        for words in ("AUC", "geometry", "logistic", "May skip trades: no", "It is a candidate and serves nothing."):
            assert words in shown
        for reason in trained.gate_reasons:
            assert reason in shown
        told = json.loads(report.read_text())
        assert told["manifest"] == trained.manifest
        assert told["metrics"]["n"] == trained.n_test
        assert told["problems"] is None
        assert "artifact" not in told

    def test_what_it_said_of_live_signals_is_shown_or_that_nothing_is_known_of_it(self, trained, tmp_path):
        report = tmp_path / "model.json"
        assert "What its word on live signals is worth is not known" in run(
            "show_model", trained.version, "--json", str(report)
        )
        assert json.loads(report.read_text())["live"] is None
        side = {"model": trained.pk, "n": 10, "won": 4, "r": 1.5, "p_geometry": 3.0}
        judged = [{**side, "refused": False}, {**side, "refused": True}]
        make_session("simulated", trained.test_to + timedelta(days=1), judged=judged)
        shown = run("show_model", trained.version, "--json", str(report))
        assert "of 10 that it let through 40.0% won" in shown
        assert "refused: lost" in shown
        assert json.loads(report.read_text())["live"]["refused"]["right"] == 0.6

    def test_who_promoted_overrode_and_archived_it_is_told(self, trained):
        until = timezone.now() + timedelta(days=1)
        promote(trained, "simulated", "ada", "a trial", override_until=until)
        shown = run("show_model", trained.version)
        assert "promoted by ada: a trial. It did not pass its gate; the override ends" in shown
        promote(MLModelFactory(), "simulated", "bob", "better")
        assert "archived by bob" in run("show_model", trained.version)

    def test_verified_a_model_is_loaded_and_trained_again_to_the_byte(self, trained):
        shown = run("show_model", trained.version, "--verify")
        assert "Hash, signature and feature set are right" in shown
        assert "Trained again it is the same to the byte" in shown

    def test_verified_an_altered_artifact_ends_with_status_1(self, trained, tmp_path):
        MLModel.objects.update(artifact=trained.artifact[:-8] + "AAAAAAA=")
        report = tmp_path / "model.json"
        with pytest.raises(CommandError, match="not what it says") as failed:
            run("show_model", trained.version, "--verify", "--json", str(report))
        assert failed.value.returncode == 1
        problems = json.loads(report.read_text())["problems"]
        assert "altered" in problems["artifact"]
        assert "another model" in problems["trained_again"]

    @pytest.mark.parametrize("column", ["artifact_sha256", "algorithm", "feature_set"])
    def test_verified_a_row_that_says_something_else_than_its_artifact_ends_with_status_1(self, trained, column):
        MLModel.objects.update(**{column: "é" if column == "artifact_sha256" else Algorithm.LIGHTGBM})
        with pytest.raises(CommandError, match="not what it says") as failed:
            run("show_model", trained.version, "--verify")
        assert failed.value.returncode == 1

    def test_verified_a_trade_that_closed_after_the_training_changes_nothing(self, trained):
        later = Trade.objects.latest("exited_at")
        features = TradeFeatures.objects.get(signal_key=later.signal_key)
        later.pk = features.pk = None
        later.signal_key = features.signal_key = "open at the training"
        later.exited_at += timedelta(minutes=5)
        later.save()
        features.save()
        assert "Trained again it is the same to the byte" in run("show_model", trained.version, "--verify")

    def test_verified_a_model_that_does_not_know_its_trades_ends_with_status_1(self, trained, tmp_path):
        MLModel.objects.update(manifest={})
        report = tmp_path / "model.json"
        with pytest.raises(CommandError, match="not what it says"):
            run("show_model", trained.version, "--verify", "--json", str(report))
        problems = json.loads(report.read_text())["problems"]
        assert "does not say which trades it learned from" in problems["trained_again"]

    def test_verified_on_other_trades_than_it_was_trained_on_ends_with_status_1(self, trained, tmp_path):
        TradeFeatures.objects.filter(pk=TradeFeatures.objects.first().pk).update(rsi14=1.5)
        report = tmp_path / "model.json"
        with pytest.raises(CommandError) as failed:
            run("show_model", trained.version, "--verify", "--json", str(report))
        assert failed.value.returncode == 1
        problems = json.loads(report.read_text())["problems"]
        assert problems["artifact"] == ""
        assert "not those that model" in problems["trained_again"]


class TestExport:
    def test_xgboost_itself_reads_what_was_exported_and_scores_the_same(self, trained, tmp_path):
        import xgboost

        path = tmp_path / "model.json"
        assert str(path) in run("export_model", trained.version, "--to", str(path))
        assert "learner" in json.loads(path.read_text())
        booster = xgboost.Booster(model_file=path)
        loaded = Predictor(trained)._loaded
        X = loaded.encoder.encode(ModelTrainer("simulated").load_training_data().columns)
        np.testing.assert_array_equal(booster.inplace_predict(X), loaded.scorer.booster.inplace_predict(X))

    def test_a_linear_model_is_exported_as_its_weights(self, db, tmp_path):
        store(training_data(1, sessions=SESSIONS, per_session=A_SESSION))
        model = ModelTrainer("simulated").train(algorithm=Algorithm.LOGISTIC).model
        run("export_model", model.version, "--to", str(tmp_path / "model.json"))
        assert set(json.loads((tmp_path / "model.json").read_text())) == {"weights", "intercept"}

    def test_another_file_is_never_written_over_without_the_word_force(self, trained, tmp_path):
        path = tmp_path / "model.json"
        path.write_text("precious")
        with pytest.raises(CommandError, match="--force") as refused:
            run("export_model", trained.version, "--to", str(path))
        assert (refused.value.returncode, path.read_text()) == (2, "precious")
        run("export_model", trained.version, "--to", str(path), "--force")
        assert path.read_text().startswith("{")
        assert list(tmp_path.iterdir()) == [path]

    @pytest.mark.parametrize("where", [".", "nowhere/model.json"])
    def test_a_place_that_is_no_file_is_refused(self, db, tmp_path, where):
        with pytest.raises(CommandError, match="--to") as refused:
            run("export_model", MLModelFactory().version, "--to", str(tmp_path / where), "--force")
        assert refused.value.returncode == 2

    def test_a_model_that_must_not_be_used_is_not_exported(self, db, tmp_path):
        with pytest.raises(CommandError, match=r"^Refused: .*MODEL_SIGNING_KEY.*train a new one\.$"):
            run("export_model", MLModelFactory().version, "--to", str(tmp_path / "model.json"))

    def test_a_model_whose_row_names_another_algorithm_is_not_exported(self, trained, tmp_path):
        MLModel.objects.update(algorithm=Algorithm.LIGHTGBM)
        with pytest.raises(CommandError, match="its row was altered") as refused:
            run("export_model", trained.version, "--to", str(tmp_path / "model.json"))
        assert (refused.value.returncode, list(tmp_path.iterdir())) == (2, [])


class TestEvaluate:
    def test_by_default_it_is_judged_on_the_sessions_it_has_not_seen_beside_geometry(self, trained, tmp_path):
        report = tmp_path / "evaluation.json"
        shown = run("evaluate_model", trained.version, "--json", str(report))
        assert f"on sessions {trained.test_from} to {trained.test_to}:" in shown
        assert "geometry" in shown
        told = json.loads(report.read_text())
        metrics = told["metrics"]
        assert told["live"] is None
        assert "What its word on live signals is worth is not known" in shown
        last_window = trained.folds[-1]["metrics"]
        for name in ("n", "auc", "log_loss", "brier", "n_taken", "mean_r_taken"):
            assert metrics[name] == pytest.approx(last_window[name]), name
        assert metrics["geometry"] == last_window["geometry"]

    def test_trades_that_closed_since_count_too_and_the_sessions_can_be_chosen(self, trained, tmp_path):
        last = Trade.objects.latest("signal_at")
        last.pk, later = None, timedelta(days=7)
        key = last.signal_key
        last.signal_key, last.session = "later", last.session + later
        last.save()
        row = TradeFeatures.objects.get(signal_key=key)
        row.pk, row.signal_key, row.session = None, "later", last.session
        row.save()
        assert f"to {last.session}:" in run("evaluate_model", trained.version)
        report = tmp_path / "evaluation.json"
        first = trained.test_from + timedelta(days=1)
        run(
            "evaluate_model", trained.version, "--from", str(first), "--to", str(trained.test_to), "--json", str(report)
        )
        told = json.loads(report.read_text())
        assert (date.fromisoformat(told["from"]) >= first, told["to"]) == (True, str(trained.test_to))

    def test_a_session_that_it_was_fitted_on_is_refused(self, trained):
        day = trained.test_from - timedelta(days=1)
        with pytest.raises(CommandError, match=f"first unseen session is {trained.test_from}") as refused:
            run("evaluate_model", trained.version, "--from", str(day))
        assert refused.value.returncode == 2

    def test_a_last_session_before_the_first_is_told_as_such(self, trained):
        for last in (trained.test_from - timedelta(days=1), trained.test_from - timedelta(days=400)):
            with pytest.raises(CommandError, match=f"Session {last} comes before {trained.test_from}") as refused:
                run("evaluate_model", trained.version, "--to", str(last))
            assert refused.value.returncode == 2

    def test_the_online_learner_has_seen_its_own_test_sessions_too(self, db):
        store(training_data(1, sessions=SESSIONS, per_session=A_SESSION))
        model = ModelTrainer("simulated").train(algorithm=Algorithm.RIVER).model
        with pytest.raises(CommandError, match="No trade of book simulated"):
            run("evaluate_model", model.version)
        with pytest.raises(CommandError, match="has seen sessions"):
            run("evaluate_model", model.version, "--from", str(model.test_to))


@pytest.mark.django_db
@pytest.mark.parametrize("command", ["show_model", "evaluate_model", "export_model"])
def test_a_version_that_does_not_exist_is_answered_with_those_there_are(command, tmp_path):
    MLModelFactory(version="20240216-1")
    more = ("--to", str(tmp_path / "model.json")) if command == "export_model" else ()
    with pytest.raises(CommandError, match=r"no model 7\. Its newest: 20240216-1") as refused:
        run(command, "7", *more)
    assert refused.value.returncode == 2


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_ten_of_ten_retrains_from_the_stored_manifest_are_equal_to_the_byte_in_processes_of_their_own():
    """Whatever the number of threads OpenMP is given."""
    store(training_data(1, sessions=SESSIONS, per_session=A_SESSION, edge=2.0))
    version = ModelTrainer("simulated").train().model.version
    for attempt in range(10):
        done = subprocess.run(
            [sys.executable, str(settings.BASE_DIR / "manage.py"), "show_model", version, "--verify"],
            env={**os.environ, "DATABASE_URL": address(), "OMP_NUM_THREADS": str(1 + attempt % 2)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "the same to the byte" in done.stdout


def address() -> str:
    """DATABASE_URL of the tests' own database."""
    database = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"sqlite:///{database['NAME']}"
    return "postgres://{USER}:{PASSWORD}@{HOST}:{PORT}/{NAME}".format(**database)


@pytest.mark.django_db
def test_two_threads_make_the_same_model_as_one(trained):
    manifest = {**trained.manifest, "parameters": {**trained.manifest["parameters"], "nthread": 2}}
    trained.manifest = manifest
    assert ModelTrainer("simulated").train_again(trained) == trained.artifact
    assert trained.status == ModelStatus.CANDIDATE
