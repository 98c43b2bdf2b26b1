"""A candidate takes the champion's place by itself only on what both said of live signals before their trades ended."""

from datetime import timedelta

import numpy as np
import pytest
from constance import config

from ml import succession
from ml.models import MLModel, Prediction
from ml.registry import TRIAL, PromotionRefused, champion, promote
from ml.succession import Trial, judge_trial, succeed, trial_of
from positions.models import Trade
from positions.words import Outcome
from tests.factories import MLModelFactory, TradeFactory
from tests.ml.synthetic import weekdays
from tests.ml.test_train_model_command import run


def trial(n=240, sessions=12, candidate=0.0, other=0.0) -> Trial:
    """Signals whose truth is known; each side says the truth, blurred by noise of its own."""
    rng = np.random.default_rng(5)
    truth = rng.uniform(0.2, 0.8, n)

    def said(noise: float) -> np.ndarray:
        return np.clip(truth + rng.normal(0, noise, n) if noise else truth, 0.02, 0.98)

    days = np.array(weekdays(sessions), dtype="datetime64[D]")
    session = np.sort(np.resize(days, n))
    return Trial(rng.random(n) < truth, said(candidate), said(other), "champion 20240103-1", session)


def test_a_candidate_that_says_the_same_as_the_champion_is_not_worse():
    same = trial()
    verdict = judge_trial(same)
    assert verdict.takes_over
    assert verdict.reason == (
        "log-loss not worse than champion 20240103-1's: +0.0000, 95 % +0.0000 to +0.0000, on 240 live signals of 12 "
        "sessions scored before their trades ended"
    )


def test_a_better_candidate_takes_over_and_one_that_is_shown_to_be_worse_does_not():
    assert judge_trial(trial(other=0.3)).takes_over
    refused = judge_trial(trial(candidate=0.3))
    assert not refused.takes_over
    assert refused.reason.startswith("log-loss worse than champion 20240103-1's: +0.")


@pytest.mark.parametrize("n", [0, 1, TRIAL - 1])
def test_with_fewer_signals_than_a_trial_has_nothing_is_decided(n):
    verdict = judge_trial(trial(n=n))
    assert not verdict.takes_over
    assert verdict.reason.startswith(f"{TRIAL} are needed on {n} live signals")


def test_one_session_decides_nothing_however_many_signals_it_had():
    verdict = judge_trial(trial(n=300, sessions=1))
    assert not verdict.takes_over
    assert "one session has no interval" in verdict.reason


class World:
    """A book with trades that closed, and what two models said of their signals."""

    def __init__(self, trades: int = TRIAL + 20) -> None:
        days = weekdays(10)
        self.trades = [
            TradeFactory.build(
                session=days[number % 10], outcome=Outcome.WIN if number % 2 else Outcome.LOSS, symbol=f"S{number}"
            )
            for number in range(trades)
        ]
        Trade.objects.bulk_create(self.trades)

    def said(self, model: MLModel, sure: float, mode: str = "shadow", late: bool = False) -> None:
        """The model gives the outcome `sure`, before the trade ended or, if late, after it."""
        Prediction.objects.bulk_create(
            Prediction(
                book="simulated",
                signal_key=trade.signal_key,
                model=model,
                mode=mode,
                p_raw=0.5,
                p_win=sure if trade.outcome == Outcome.WIN else 1 - sure,
                p_geometry=0.5,
                decision="take",
                latency_us=150.0,
                outcome=trade.outcome,
                predicted_at=trade.exited_at + timedelta(minutes=1 if late else -1),
            )
            for trade in self.trades
        )


@pytest.mark.django_db
class TestSucceed:
    def test_a_candidate_no_worse_than_the_champion_is_promoted_with_the_figures_as_the_reason(self):
        world, serving, candidate = World(), MLModelFactory(champion=True), MLModelFactory()
        world.said(serving, 0.6)
        world.said(candidate, 0.7)
        done = succeed("simulated")
        assert (done.candidate, done.verdict.takes_over) == (candidate, True)
        promoted = champion("simulated")
        assert (promoted, promoted.promoted_by) == (candidate, "automatic")
        assert promoted.promotion_reason.startswith(f"log-loss not worse than champion {serving.version}'s: -0.")
        serving.refresh_from_db()
        assert serving.archived_by == "automatic"

    def test_whoever_was_promoted_by_hand_meanwhile_stays(self, monkeypatch):
        world, candidate, chosen = World(), MLModelFactory(), MLModelFactory()
        world.said(candidate, 0.7)

        def judged_while_somebody_promotes(trial):
            promote(chosen, "simulated", "ada", "by hand")
            return judge_trial(trial)

        monkeypatch.setattr(succession, "judge_trial", judged_while_somebody_promotes)
        with pytest.raises(PromotionRefused, match="since you looked"):
            succeed("simulated")
        assert champion("simulated") == chosen

    def test_a_worse_candidate_stays_one(self):
        world, serving, candidate = World(), MLModelFactory(champion=True), MLModelFactory()
        world.said(serving, 0.7)
        world.said(candidate, 0.6)
        assert not succeed("simulated").verdict.takes_over
        assert champion("simulated") == serving

    @pytest.mark.parametrize(("sure", "takes_over"), [(0.6, True), (0.4, False)])
    def test_without_a_champion_it_must_not_be_worse_than_geometry(self, sure, takes_over):
        candidate = MLModelFactory()
        World().said(candidate, sure)
        assert succeed("simulated").verdict.takes_over is takes_over
        assert (champion("simulated") == candidate) is takes_over

    def test_a_candidate_whose_trial_is_not_over_is_not_judged(self):
        World(TRIAL - 1).said(MLModelFactory(), 0.7)
        assert succeed("simulated") is None

    def test_what_was_scored_when_the_outcome_could_be_known_proves_nothing(self):
        candidate = MLModelFactory()
        World().said(candidate, 0.99, late=True)
        assert succeed("simulated").verdict.reason.startswith(f"{TRIAL} are needed on 0 live signals")
        assert champion("simulated") is None

    def test_only_signals_that_both_scored_count_and_a_skipped_one_has_no_outcome(self, django_assert_num_queries):
        world, serving, candidate = World(30), MLModelFactory(champion=True), MLModelFactory()
        world.said(candidate, 0.7)
        world.trades = world.trades[:20]
        world.said(serving, 0.6, mode="filter")
        Trade.objects.filter(pk=world.trades[0].pk).delete()
        with django_assert_num_queries(3):
            found = trial_of("simulated", candidate, serving)
        assert (len(found.won), found.against) == (19, f"champion {serving.version}")
        np.testing.assert_allclose(found.p, np.where(found.won, 0.7, 0.3))
        np.testing.assert_allclose(found.other, np.where(found.won, 0.6, 0.4))


@pytest.mark.django_db
@pytest.mark.parametrize("allowed", [False, True])
def test_training_promotes_by_itself_only_where_the_setting_says_so(allowed):
    candidate = MLModelFactory()
    World().said(candidate, 0.7)
    config.AUTO_PROMOTE = allowed
    shown = run("train_model", "--book", "simulated")
    assert (champion("simulated") == candidate) is allowed
    assert (f"Model {candidate.version} now serves simulated: log-loss not worse than geometry's" in shown) is allowed
