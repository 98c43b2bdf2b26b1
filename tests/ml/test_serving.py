"""Who speaks of a book's signals: heard of within seconds of a promotion, on nobody's time but its own."""

import time
from collections.abc import Callable
from contextlib import contextmanager
from datetime import UTC, timedelta

import numpy as np
import pytest
from constance import config
from django.db import OperationalError
from django.utils import timezone
from structlog.testing import capture_logs

from ml import serving as module
from ml.feature_writer import FeatureWriter
from ml.model_trainer import ModelTrainer
from ml.models import MLModel, Prediction, TradeFeatures
from ml.registry import TRIAL, on_duty, promote
from ml.serving import Serving
from ml.words import Algorithm, Gate, PredictionMode
from positions.market.feeds.simulated import SimulatedMarket
from positions.models import Trade
from positions.words import Outcome
from tests.factories import MLModelFactory, TradeFactory, features_of
from tests.live import trade_live
from tests.ml.synthetic import training_data

SCORED = {"p_raw": 0.4, "p_win": 0.41, "p_geometry": 0.33, "decision": "take", "latency_us": 150.0}


@pytest.fixture(scope="module")
def artifacts():
    """What two seeds and the online learner make of the same trades: columns of a model that can be loaded."""
    data = training_data(1, sessions=22, per_session=10, edge=2.0)
    made = {}
    for name, seed, algorithm in (
        ("one", 7, Algorithm.XGBOOST),
        ("two", 8, Algorithm.XGBOOST),
        ("online", 7, Algorithm.RIVER),
    ):
        trainer = ModelTrainer("simulated", seed)
        fold = trainer.walk_forward_validation(data).folds[-1]
        made[name] = trainer.artifact_of(fold, algorithm)
    return made


@pytest.fixture
def make(db, artifacts):
    def make(name: str = "one", **fields) -> MLModel:
        algorithm = Algorithm.RIVER if name == "online" else Algorithm.XGBOOST
        return MLModelFactory(artifact=artifacts[name], algorithm=algorithm, **fields)

    return make


@contextmanager
def running(book: str = "simulated"):
    serving = Serving(book)
    serving.start()
    try:
        yield serving
    finally:
        serving.close()


def within(seconds: float, holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.02)
    return holds()


def refreshed(book: str = "simulated") -> Serving:
    serving = Serving(book)
    serving.refresh()
    return serving


def model_of(serving: Serving) -> MLModel | None:
    champion = serving.served().champion
    return champion.model if champion else None


def features() -> dict:
    data = training_data(2, sessions=1, per_session=1)
    return {name: column[0] for name, column in data.columns.items()}


def set_mode(mode: str) -> None:
    config.PREDICTION_MODE = mode


def database_is_away(*_) -> None:
    raise OperationalError("gone")


@pytest.mark.django_db(transaction=True)
class TestLive:
    def test_a_promotion_is_heard_of_within_five_seconds_without_a_restart(self, make):
        old, new = make(champion=True), make("two")
        with running() as serving:
            assert model_of(serving) == old
            promote(new, "simulated", "ada", "better")
            assert within(5, lambda: model_of(serving) == new)
            began = time.perf_counter()
            serving.served().champion.predict(features(), 0.4)
            assert time.perf_counter() - began < 0.05

    def test_a_changed_mode_is_in_force_within_five_seconds(self):
        with running() as serving:
            assert serving.served().mode is PredictionMode.SHADOW
            set_mode("off")
            assert within(5, lambda: serving.served().mode is PredictionMode.OFF)

    def test_while_the_database_is_away_what_is_loaded_serves_and_each_change_is_told_once(self, make, monkeypatch):
        champion = make(champion=True)
        monkeypatch.setattr(module, "EVERY_S", 0.01)
        with running() as serving, capture_logs() as logs:
            with monkeypatch.context() as away:
                away.setattr(module, "on_duty", database_is_away)
                assert within(5, lambda: len(logs) == 1)
                time.sleep(0.2)
                assert model_of(serving) == champion
                assert serving.served().champion.predict(features(), 0.4).p_win > 0
            assert within(5, lambda: len(logs) == 2)
            time.sleep(0.1)
        assert [entry["event"] for entry in logs] == ["models_not_refreshed", "models_refreshed_again"]

    @pytest.mark.filterwarnings("error")
    def test_a_mode_that_is_none_leaves_what_is_loaded_serving_and_the_next_promotion_is_heard_of(
        self, make, monkeypatch
    ):
        old, new = make(champion=True), make("two")
        monkeypatch.setattr(module, "EVERY_S", 0.01)
        with running() as serving, capture_logs() as logs:
            set_mode("Filter")
            assert within(5, lambda: [entry["event"] for entry in logs] == ["models_not_refreshed"])
            assert (model_of(serving), serving.served().mode) == (old, PredictionMode.SHADOW)
            set_mode("filter")
            promote(new, "simulated", "ada", "better")
            assert within(5, lambda: model_of(serving) == new)
            assert serving.served().mode is PredictionMode.FILTER

    def test_a_session_traded_live_is_scored_by_both_models_and_told_what_moved_them(self, make, tmp_path):
        champion, candidate = make(champion=True), make("two")
        with running() as serving:
            writer = FeatureWriter(tmp_path / "journal", serving.explain)
            trade_live("simulated", SimulatedMarket(1, seed=4), writer, serving)
            assert writer.close(30)
        signals = set(TradeFeatures.objects.values_list("signal_key", flat=True))
        assert len(signals) > 10
        for model in (champion, candidate):
            said = Prediction.objects.filter(model=model, mode="shadow")
            assert set(said.values_list("signal_key", flat=True)) == signals
            assert all(len(prediction.contributions) == 5 for prediction in said)
            traded = Trade.objects.filter(outcome__isnull=False).values_list("signal_key", "outcome")
            assert dict(said.filter(outcome__isnull=False).values_list("signal_key", "outcome")) == dict(traded)

    def test_closing_ends_the_thread(self):
        with running() as serving:
            assert serving._thread.is_alive()
        assert not serving._thread.is_alive()


def test_without_news_a_refresh_costs_two_queries_and_never_the_artifact(make, django_assert_num_queries):
    make(champion=True)
    serving = refreshed()
    with django_assert_num_queries(2) as captured:
        serving.refresh()
    assert not any('"artifact",' in query["sql"] for query in captured.captured_queries)


def test_without_news_the_loaded_model_stays_and_a_promoted_candidate_is_not_loaded_again(make):
    make(champion=True)
    candidate = make("two")
    serving = refreshed()
    shadowing = serving.served().candidate
    promote(candidate, "simulated", "ada", "better")
    serving.refresh()
    assert serving.served().champion is shadowing
    assert serving.served().candidate is None


@pytest.mark.django_db
def test_a_book_without_a_champion_says_so_once():
    with capture_logs() as logs:
        serving = refreshed("paper:1")
        serving.refresh()
    assert serving.served().champion is None
    assert [(entry["event"], entry["reason"]) for entry in logs] == [
        ("no_usable_champion", "no model serves this book")
    ]


def test_an_altered_champion_is_refused_with_one_warning_and_the_next_promotion_serves(make):
    broken = make(champion=True)
    MLModel.objects.filter(pk=broken.pk).update(artifact=broken.artifact[:-8] + "AAAAAAA=")
    with capture_logs() as logs:
        serving = refreshed()
        serving.refresh()
    assert serving.served().champion is None
    assert "altered" in serving.served().reason
    assert [(entry["event"], entry["log_level"]) for entry in logs] == [("no_usable_champion", "warning")]
    good = make("two")
    promote(good, "simulated", "ada", "the other is broken")
    serving.refresh()
    assert model_of(serving) == good
    assert serving.served().reason == ""


def test_a_candidate_that_cannot_be_loaded_is_told_once_and_costs_the_champion_nothing(make):
    champion = make(champion=True)
    MLModelFactory()
    with capture_logs() as logs:
        serving = refreshed()
        serving.refresh()
    assert (model_of(serving), serving.served().candidate) == (champion, None)
    assert [entry["event"] for entry in logs].count("candidate_unusable") == 1


def test_an_overridden_champion_serves_until_its_override_ends(make):
    now = timezone.now()
    refused = make(gate=Gate.FAIL)
    promote(refused, "simulated", "ada", "a trial", override_until=now + timedelta(hours=1))
    served = refreshed().served()
    assert served.champion_at(now).model == refused
    assert served.champion_at(now + timedelta(hours=1)) is None
    MLModel.objects.filter(pk=refused.pk).update(override_until=now)
    serving = refreshed()
    assert serving.served().champion is None
    assert serving.served().reason == f"the override of model {refused} has ended"


class TestTrial:
    def shadow(self, model: MLModel, scored: int, closed: int = 0) -> None:
        Prediction.objects.bulk_create(
            Prediction(
                book="simulated",
                signal_key=f"{model.version}-{number}",
                model=model,
                mode="shadow",
                outcome=Outcome.WIN if number < closed else None,
                predicted_at=timezone.now(),
                **SCORED,
            )
            for number in range(scored)
        )

    def on_trial(self) -> MLModel | None:
        trial = on_duty("simulated").on_trial
        return trial.model if trial else None

    @pytest.mark.django_db
    def test_the_newest_candidate_that_passed_its_gate_shadows(self):
        MLModelFactory(champion=True)
        MLModelFactory()
        newest = MLModelFactory()
        MLModelFactory(gate=Gate.FAIL)
        MLModelFactory(feature_set="an older one")
        MLModelFactory(book="paper:1")
        assert self.on_trial() == newest

    @pytest.mark.django_db
    def test_a_candidate_older_than_the_champion_was_passed_over(self):
        MLModelFactory()
        MLModelFactory(champion=True)
        assert self.on_trial() is None

    @pytest.mark.django_db
    def test_a_trial_that_has_begun_goes_on_however_many_candidates_come_and_then_the_newest_has_its_turn(self):
        first = MLModelFactory()
        self.shadow(first, scored=3)
        MLModelFactory()
        newest = MLModelFactory()
        assert self.on_trial() == first
        Prediction.objects.all().delete()
        self.shadow(first, scored=TRIAL, closed=TRIAL - 1)
        assert self.on_trial() == first
        Prediction.objects.update(outcome=Outcome.LOSS)
        assert self.on_trial() == newest

    @pytest.mark.django_db
    def test_who_is_on_duty_is_one_query(self, django_assert_num_queries):
        for _ in range(3):
            self.shadow(MLModelFactory(), scored=2, closed=1)
        with django_assert_num_queries(1):
            assert [(each.scored, each.closed) for each in on_duty("simulated").candidates] == [(2, 1)] * 3


class TestLearningOn:
    """The online learner, stored, goes on learning from the trades that end."""

    END = np.datetime64("2024-01-30T21:00:00")

    @pytest.fixture
    def online(self, make):
        return make("online", champion=True, manifest={"last_closed_at": str(self.END)})

    def closed(self, minutes: int, **fields) -> Trade:
        ended = self.END.item().replace(tzinfo=UTC) + timedelta(minutes=minutes)
        trade = TradeFactory(signal_at=ended - timedelta(minutes=20), exited_at=ended, **fields)
        features_of(trade, rsi14=float(minutes))
        return trade

    def p(self, serving: Serving) -> float:
        return serving.served().champion.predict(features(), 0.4).p_raw

    def test_at_its_start_it_catches_up_on_the_trades_that_ended_since_and_no_others(self, online):
        before = self.p(refreshed())
        self.closed(-5)
        assert self.p(refreshed()) == before
        self.closed(5)
        assert self.p(refreshed()) != before

    def test_a_candidate_that_does_not_say_what_it_learned_from_is_refused_and_the_champion_serves(self, make):
        champion = make(champion=True)
        make("online", manifest={})
        served = refreshed().served()
        assert (served.champion.model, served.candidate) == (champion, None)

    def test_it_learns_from_each_closed_trade_once(self, online):
        serving = refreshed()
        self.closed(5)
        serving.refresh()
        learned = self.p(serving)
        serving.refresh()
        assert self.p(serving) == learned
        self.closed(4, outcome=Outcome.LOSS)  # ended earlier, and reached the tables later
        serving.refresh()
        assert self.p(serving) != learned

    def test_a_trade_whose_features_are_not_stored_yet_is_learned_from_when_they_are(self, online):
        serving = refreshed()
        before = self.p(serving)
        ended = self.END.item().replace(tzinfo=UTC) + timedelta(minutes=5)
        trade = TradeFactory(signal_at=ended - timedelta(minutes=20), exited_at=ended)
        serving.refresh()
        assert self.p(serving) == before
        features_of(trade)
        serving.refresh()
        assert self.p(serving) != before

    def test_told_as_they_come_or_caught_up_on_at_once_it_is_the_same_model(self, online):
        live = refreshed()
        for minutes in range(3):
            self.closed(minutes + 1, outcome=Outcome.LOSS if minutes == 1 else Outcome.WIN)
            live.refresh()
        assert self.p(live) == self.p(refreshed())


def test_what_moved_a_prediction_is_said_by_the_models_that_serve_and_by_no_other(make):
    champion, candidate, other = make(champion=True), make("two"), make(book="paper:1")
    serving = refreshed()
    for model in (champion, candidate):
        (told,) = serving.explain(model.pk, [features()])
        assert len(told) == 5
    assert serving.explain(other.pk, [features()]) is None
    assert serving.explain(champion.pk, [{"rsi14": 1.0}]) is None
