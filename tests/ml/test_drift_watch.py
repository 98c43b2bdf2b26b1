"""A champion's drift check: what it compares, what it records, and when it takes the power to skip away."""

import json
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from constance import config
from django.core.management import call_command
from django.db import IntegrityError, transaction
from pytest_django import DjangoAssertNumQueries
from structlog.testing import capture_logs

from ml.drift import reference_of
from ml.drift_watch import check_drift
from ml.model_trainer import ModelTrainer, TrainingData
from ml.models import DriftCheck, MLModel, Prediction, TradeFeatures
from ml.words import ModelStatus
from positions.models import Trade
from tests.factories import MLModelFactory
from tests.ml.synthetic import store, training_data

pytestmark = pytest.mark.django_db

NOW = datetime(2024, 7, 1, 20, 30, tzinfo=UTC)
TRAINED, A_SESSION = 40, 15
N = TRAINED * A_SESSION


def traded(sessions: int = 62, **given: Any) -> TrainingData:
    """40 sessions that a model learned from and others that came later, without drift."""
    return training_data(5, sessions=sessions, per_session=A_SESSION, **given)


def champion_of(data: TrainingData, **given: Any) -> MLModel:
    """Serves `simulated`, remembers the first 40 sessions and was tested on the last of them."""
    reference = reference_of(data.columns_of(np.arange(N)), data.session[:N])
    values = {"manifest": {"reference": reference}, "test_to": data.session[N - 1].item()}
    return MLModelFactory(champion=True, **{**values, **given})


def shift(data: TrainingData, feature: str = "adx14") -> TrainingData:
    data.columns[feature][N:] += 2
    return data


def predict(model: MLModel, odds_hold: int) -> None:
    """A prediction of every closed trade of the book: right in its odds for so many of the first to close, and the
    opposite of right afterwards."""
    rng = np.random.default_rng(1)
    predictions = []
    for number, trade in enumerate(Trade.objects.filter(book=model.serving_book).order_by("exited_at")):
        p = float(np.clip(rng.normal(0.5, 0.2), 0.05, 0.95))
        won = rng.random() < (p if number < odds_hold else 1 - p)
        predictions.append(
            Prediction(
                book=trade.book,
                signal_key=trade.signal_key,
                model=model,
                mode="shadow",
                p_raw=p,
                p_win=p,
                p_geometry=0.4,
                decision="take",
                latency_us=150,
                predicted_at=NOW - timedelta(minutes=number),  # the order of closing counts, not this one
                outcome="WIN" if won else "LOSS",
            )
        )
    Prediction.objects.bulk_create(predictions)


def test_without_drift_nothing_alarms_and_the_mode_stays():
    config.PREDICTION_MODE = "filter"
    data = traded()
    store(data)
    model = champion_of(data)
    predict(model, odds_hold=10_000)
    check = check_drift("simulated", NOW)
    assert (check.alarms, check.not_judged, check.stepped_down, check.reason) == ([], [], False, "")
    assert (check.model, check.checked_at, check.rows, check.sessions) == (model, NOW, 330, 22)
    assert (check.errors, check.errors_before, check.mean_error_before) == (930, 0, None)
    assert check.mean_error == pytest.approx(0, abs=0.02)
    assert check.features["adx14"]["psi"] < check.features["adx14"]["bound"]
    assert config.PREDICTION_MODE == "filter"


def test_an_alarm_steps_filter_down_to_shadow_once_and_says_why():
    config.PREDICTION_MODE = "filter"
    data = shift(traded())
    store(data)
    model = champion_of(data)
    with capture_logs() as logs:
        first, second = check_drift("simulated", NOW), check_drift("simulated", NOW + timedelta(days=1))
    assert config.PREDICTION_MODE == "shadow"
    assert (first.stepped_down, second.stepped_down) == (True, False)
    (alarm,) = first.alarms
    found = first.features["adx14"]
    assert alarm == (
        f"adx14: PSI {found['psi']:.3f} of 330 signals (worth {found['worth']:,.0f} independent ones) against 600 of "
        f"training; without drift it stays below {found['bound']:.3f}."
    )
    assert "from filter to shadow" in first.reason
    assert second.alarms == first.alarms
    assert "PREDICTION_MODE is shadow" in second.reason
    (logged,) = [entry for entry in logs if entry["event"] == "stepped_down"]
    assert (logged["log_level"], logged["book"], logged["model"]) == ("warning", "simulated", model.version)
    assert logged["alarms"] == first.alarms


@pytest.mark.parametrize("mode", ["off", "shadow"])
def test_an_alarm_in_another_mode_changes_nothing(mode: str):
    config.PREDICTION_MODE = mode
    data = shift(traded())
    store(data)
    champion_of(data)
    check = check_drift("simulated", NOW)
    assert check.alarms
    assert not check.stepped_down
    assert mode == config.PREDICTION_MODE


def test_no_alarm_steps_up():
    config.PREDICTION_MODE = "shadow"
    data = traded()
    store(data)
    champion_of(data)
    assert check_drift("simulated", NOW).alarms == []
    assert config.PREDICTION_MODE == "shadow"


def test_another_book_than_the_sites_own_alarms_and_decides_nothing(settings: Any):
    settings.BOOK = "live:1"
    config.PREDICTION_MODE = "filter"
    data = shift(traded())
    store(data)
    champion_of(data)
    check = check_drift("simulated", NOW)
    assert check.alarms
    assert check.reason == "PREDICTION_MODE stays filter: it is that of book live:1, not of simulated."
    assert config.PREDICTION_MODE == "filter"


def test_errors_that_grow_in_order_of_closing_are_an_alarm_with_both_figures():
    config.PREDICTION_MODE = "filter"
    data = traded(sessions=150)
    store(data)
    predict(champion_of(data), odds_hold=1_200)
    check = check_drift("simulated", NOW)
    (alarm,) = check.alarms
    assert check.mean_error > 0.05 > check.mean_error_before
    assert alarm == (
        f"The squared error beyond what its odds imply rose from {check.mean_error_before:+.3f} on "
        f"{check.errors_before:,} closed predictions to {check.mean_error:+.3f} on the {check.errors:,} since "
        "(ADWIN, delta 0.002)."
    )
    assert check.stepped_down


def test_predictions_of_other_models_and_books_and_open_trades_do_not_count():
    data = traded()
    store(data)
    store(data, "paper:1")
    predict(MLModelFactory(champion=True, book="paper:1"), odds_hold=0)
    predict(MLModelFactory(champion=True), odds_hold=0)
    MLModel.objects.filter(book="simulated").update(status=ModelStatus.ARCHIVED)
    model = champion_of(data)
    assert check_drift("simulated", NOW).errors == 0
    predict(model, odds_hold=10_000)
    Prediction.objects.filter(model=model, pk__in=Prediction.objects.filter(model=model)[:30].values("pk")).update(
        outcome=None
    )
    assert check_drift("simulated", NOW).errors == 900


def test_where_no_model_serves_there_is_nothing_to_check():
    MLModelFactory()
    MLModelFactory(champion=True, book="paper:1")
    assert check_drift("simulated", NOW) is None
    assert not DriftCheck.objects.exists()


def test_too_few_signals_are_not_judged_and_it_is_said_how_many_are_needed():
    config.PREDICTION_MODE = "filter"
    data = shift(traded(sessions=TRAINED + 19))
    store(data)
    champion_of(data)
    check = check_drift("simulated", NOW)
    assert (check.rows, check.features, check.alarms) == (285, {}, [])
    assert check.not_judged == [
        "Features: 285 complete signals since its test sessions; 300 are needed.",
        "Errors: no signal that the model scored has closed yet.",
    ]
    assert config.PREDICTION_MODE == "filter"


def test_a_model_that_remembers_nothing_of_its_training_is_told_to_be_replaced():
    data = traded()
    store(data)
    champion_of(data, manifest={})
    assert "train and promote a new one" in check_drift("simulated", NOW).not_judged[0]


def test_a_model_of_other_features_is_not_compared():
    data = traded()
    store(data)
    champion_of(data, feature_set="an older one")
    check = check_drift("simulated", NOW)
    assert "this program computes others" in check.not_judged[0]
    assert check.features == {}


def test_only_what_the_model_is_asked_about_and_could_have_been_taken_is_compared():
    data = traded()
    store(data)
    champion_of(data)
    live = list(TradeFeatures.objects.order_by("-signal_at", "-id")[:330])
    for row, (reason, complete) in zip(
        live, [("model_skips", True)] * 10 + [("position_open", True)] * 7 + [("", False)] * 5, strict=False
    ):
        row.not_taken_reason, row.taken, row.complete = reason, not reason, complete
    TradeFeatures.objects.bulk_update(live, ["not_taken_reason", "taken", "complete"])
    TradeFeatures.objects.filter(pk=live[-1].pk).update(feature_set="an older one")
    assert check_drift("simulated", NOW).rows == 330 - 7 - 5 - 1


def test_a_model_of_another_book_has_seen_none_of_the_serving_books_sessions():
    data = traded()
    store(data, "paper:1")
    champion_of(data, book="replay:0123456789ab", serving_book="paper:1", test_to=data.session[-1].item())
    assert check_drift("paper:1", NOW).rows == 62 * A_SESSION


def test_the_newest_signals_are_compared_up_to_a_cap(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ml.drift_watch.NEWEST_SIGNALS", 300)
    data = traded(sessions=80)
    store(data)
    champion_of(data)
    check = check_drift("simulated", NOW)
    assert (check.rows, check.sessions) == (300, 20)


@pytest.mark.parametrize("sessions", [62, 100])
def test_a_check_takes_as_many_queries_however_many_rows_there_are(
    sessions: int, django_assert_num_queries: DjangoAssertNumQueries
):
    data = traded(sessions=sessions)
    store(data)
    predict(champion_of(data), odds_hold=10_000)
    with django_assert_num_queries(6):  # champion, signals, predictions, the row and its two savepoints
        check_drift("simulated", NOW)


def test_a_trained_model_remembers_the_rows_it_was_trained_on_and_no_others():
    data = training_data(1, sessions=40, per_session=10)
    store(data)
    model = ModelTrainer("simulated").train().model
    reference = model.manifest["reference"]
    assert reference["rows"] == model.n_train
    first, last = (np.datetime64(model.manifest["train"][end]) for end in ("from", "to"))
    inside = np.flatnonzero((data.session >= first) & (data.session <= last))
    assert reference == json.loads(json.dumps(reference_of(data.columns_of(inside), data.session[inside])))


def test_a_step_down_without_a_reason_is_refused_by_the_database():
    check = DriftCheck(
        book="simulated", model=MLModelFactory(champion=True), checked_at=NOW, rows=0, sessions=0, errors=0,
        errors_before=0, stepped_down=True,
    )  # fmt: skip
    with pytest.raises(IntegrityError, match="drift_step_down_has_a_reason"), transaction.atomic():
        check.save()
    check.reason = "drift"
    check.save()


def command(*arguments: str) -> str:
    out = StringIO()
    call_command("check_drift", *arguments, stdout=out)
    return out.getvalue()


def test_the_command_shows_what_alarmed_beside_its_bound_and_that_the_mode_stepped_down(tmp_path: Path):
    config.PREDICTION_MODE = "filter"
    data = shift(traded())
    store(data)
    model = champion_of(data)
    shown = command("--json", str(tmp_path / "drift.json"))
    check = DriftCheck.objects.get()
    for words in (*check.alarms, *check.not_judged, check.reason, model.version, "330 signals of 22 sessions"):
        assert words in shown
    first_row = next(line for line in shown.splitlines() if line.strip().startswith("adx14 "))
    assert first_row.rstrip().endswith("alarm")
    told = json.loads((tmp_path / "drift.json").read_text())
    assert (told["book"], told["version"], told["alarms"]) == ("simulated", model.version, check.alarms)
    assert (told["stepped_down"], told["features"]) == (True, check.features)


def test_the_command_without_a_champion_says_how_to_get_one_and_is_no_error(tmp_path: Path):
    shown = command("--book", "paper:1", "--json", str(tmp_path / "drift.json"))
    assert shown == (
        "No model serves paper:1: nothing to check. One that passed its gate is promoted with promote_model.\n"
    )
    told = json.loads((tmp_path / "drift.json").read_text())
    assert (told["version"], told["alarms"]) == (None, None)
