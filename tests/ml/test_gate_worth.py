"""What a model's word on signals was worth: worked by hand, beside the same from single signals, and on markets of
which the truth is known."""

from datetime import date, timedelta

import numpy as np
import pytest
from pytest_django import DjangoAssertNumQueries

from ml.gate_worth import GateWorth, JudgedPlans, Said, gate_worth, judged_plans
from ml.impact import Verdict
from ml.live_record import live_record
from ml.models import MLModel, Prediction
from ml.performance_tracker import PerformanceTracker
from ml.registry import promote
from ml.statistics import clustered_interval, clustered_share_interval
from ml.tables import NOTHING_LIVE, live_rows, live_sentence
from ml.words import Decision
from positions.models import ShadowTrade, Trade
from positions.words import Outcome, PlanDoubt
from tests.factories import FIRST_SIGNAL, MLModelFactory, ShadowTradeFactory, TradeFactory, features_of

DAY = date(2024, 1, 3)
R = {True: 1.9, False: -1.1}


def day(n: int) -> date:
    return DAY + timedelta(days=n)


def worth(*sessions: list[Said]) -> GateWorth:
    found = gate_worth({day(n): judged_plans(said) for n, said in enumerate(sessions)})
    assert found is not None
    return found


def said(refused: bool, *won: bool, odds: float = 1 / 3) -> list[Said]:
    return [Said(1, refused, odds, each, R[each]) for each in won]


def test_both_sides_stand_beside_all_signals_and_their_plans_odds():
    found = worth(
        said(False, True, True, False, odds=0.4) + said(True, False, False),
        said(False, False) + said(True, False, True, odds=0.2),
    )
    assert (found.n, found.sessions, found.won) == (8, 2, pytest.approx(3 / 8))
    assert found.geometry == pytest.approx((3 * 0.4 + 3 / 3 + 2 * 0.2) / 8)
    assert (found.let_through.n, found.let_through.right) == (4, pytest.approx(2 / 4))
    assert (found.refused.n, found.refused.right) == (4, pytest.approx(3 / 4))
    assert found.let_through.by_geometry == pytest.approx((3 * 0.4 + 1 / 3) / 4)
    assert found.refused.by_geometry == pytest.approx(1 - (2 / 3 + 2 * 0.2) / 4)
    assert found.let_through.mean_r == pytest.approx((2 * 1.9 - 2 * 1.1) / 4)
    assert found.difference == pytest.approx(found.let_through.mean_r - (1.9 - 3 * 1.1) / 4)


def market(rng: np.random.Generator, sessions: int, edge: float, drift: float = 0.0) -> list[list[Said]]:
    """Sessions of 5 to 40 signals, half of them refused, whose odds of +2 R against -1 R share a shock of up to 0.1;
    `edge` is what a signal that is let through makes more than one that is refused, `drift` what all make more."""
    made = []
    for size in rng.integers(5, 40, sessions):
        shock, refused = rng.uniform(-0.1, 0.1), rng.random(size) < 0.5
        won = rng.random(size) < 1 / 3 + shock + drift / 3 + np.where(refused, -edge, edge) / 6
        made.append(
            [Said(1, bool(no), 1 / 3, bool(win), 2.0 if win else -1.0) for no, win in zip(refused, won, strict=True)]
        )
    return made


def test_sums_by_session_give_the_intervals_that_single_signals_give():
    sessions = market(np.random.default_rng(1), 25, 0.2)
    found = worth(*sessions)
    for side, refused in ((found.let_through, False), (found.refused, True)):
        of = [(each, n) for n, session in enumerate(sessions) for each in session if each.refused is refused]
        r = np.array([each.r for each, _ in of])
        right = np.array([float(each.won is not refused) for each, _ in of])
        days = [n for _, n in of]
        for own, other in (
            (side.mean_r_interval, clustered_interval(r, days)),
            (side.right_interval, clustered_share_interval(right, days)),
        ):
            assert (own.low, own.high) == (pytest.approx(other.low), pytest.approx(other.high))


def test_the_difference_s_interval_holds_the_truth_as_often_as_it_says_though_sessions_are_shared():
    rng = np.random.default_rng(20260801)
    covered = [worth(*market(rng, 30, 0.1)).difference_interval.contains(0.1) for _ in range(1000)]
    assert 0.93 <= np.mean(covered) <= 0.97


@pytest.mark.parametrize("drift", [-0.2, 0.0])
def test_a_gate_that_refuses_at_random_is_not_called_effective_even_where_all_signals_lose(drift: float):
    rng = np.random.default_rng(7)
    effective = [worth(*market(rng, 30, 0.0, drift)).verdict is Verdict.EFFECTIVE for _ in range(400)]
    assert np.mean(effective) <= 0.04


def test_a_gate_is_effective_only_where_what_it_refused_lost():
    rng = np.random.default_rng(7)
    assert worth(*market(rng, 60, 0.6)).verdict is Verdict.EFFECTIVE
    assert worth(*market(rng, 60, 0.6, drift=0.8)).verdict is Verdict.HARMFUL  # the worse half made money, too
    assert worth(*market(rng, 60, -0.6)).verdict is Verdict.HARMFUL


def test_below_twenty_sessions_there_is_no_verdict_however_clear_the_figures_are():
    clear = [said(False, True, True, n % 2 == 0) + said(True, False, False, n % 3 == 0) for n in range(20)]
    assert worth(*clear).verdict is Verdict.EFFECTIVE
    assert worth(*clear[:19]).verdict is Verdict.INCONCLUSIVE
    assert "No verdict: 19 of the 20 sessions that one takes." in live_sentence(worth(*clear[:19]))


def test_where_it_refused_nothing_there_is_nothing_to_set_it_beside():
    found = worth(*[said(False, True, False)] * 30)
    assert (found.refused, found.difference, found.verdict) == (None, None, Verdict.INCONCLUSIVE)
    assert "it refused none whose plan's end is certain" in live_sentence(found)
    assert live_rows(found)[1] == ("refused: lost", "0", "-", "-", "-", "-", "-")


def test_the_sentence_has_both_shares_with_n_interval_and_baselines():
    said_so = live_sentence(worth(*market(np.random.default_rng(3), 60, 0.6)))
    for words in (
        "that it let through",
        "that it refused",
        "(95 %: ",
        "of all signals",
        "own odds 66.7%",
        "Effective: ",
    ):
        assert words in said_so


def test_one_session_has_no_interval():
    found = worth(said(False, True, False) + said(True, True, False))
    assert (found.difference, found.difference_interval, found.let_through.right_interval) == (0.0, None, None)


def test_a_model_that_said_nothing_has_no_worth():
    assert gate_worth({}) is None
    assert gate_worth({DAY: []}) is None
    assert live_sentence(None) == NOTHING_LIVE


def test_models_are_kept_apart():
    other = Said(2, True, 0.5, True, 1.9)
    assert judged_plans([*said(False, True), other]) == [
        JudgedPlans(1, False, 1, 1, 1.9, 1 / 3),
        JudgedPlans(2, True, 1, 1, 1.9, 0.5),
    ]


def scored(row: Trade | ShadowTrade, model: MLModel, decision: Decision) -> None:
    features_of(row)
    Prediction.objects.create(
        book=row.book, signal_key=row.signal_key, model=model, mode="shadow", p_raw=0.4, p_win=0.4, p_geometry=0.3,
        decision=decision, latency_us=180, predicted_at=row.signal_at,
    )  # fmt: skip


@pytest.fixture
def serving(db: None) -> MLModel:
    """Judged on sessions until the day before the first signal."""
    return promote(MLModelFactory(test_to=day(-1)), "simulated", "ada", "better")


def record() -> None:
    tracker = PerformanceTracker("simulated")
    tracker.record_sessions(list(tracker.read()))


class TestLiveRecord:
    def test_taken_or_not_each_signal_counts_on_the_side_where_the_model_put_it(self, serving: MLModel):
        scored(TradeFactory(outcome=Outcome.LOSS, plan_outcome=Outcome.WIN), serving, Decision.TAKE)
        scored(TradeFactory(outcome=Outcome.LOSS), serving, Decision.SKIP)  # shadow mode: it was traded all the same
        scored(ShadowTradeFactory(symbol="HELD", not_taken_reason="position_open"), serving, Decision.ABSTAIN)
        scored(ShadowTradeFactory(symbol="SKIPPED"), serving, Decision.SKIP)
        record()
        found = live_record(serving)
        assert (found.let_through.n, found.let_through.right, found.let_through.by_geometry) == (2, 0.5, 0.3)
        assert (found.refused.n, found.refused.right, found.refused.by_geometry) == (2, 1.0, 0.7)
        assert found.refused.mean_r == pytest.approx(-1.05)

    def test_what_it_was_judged_on_what_others_said_and_what_is_doubtful_does_not_count(self, serving: MLModel):
        scored(TradeFactory(plan_doubt=PlanDoubt.BOTH_TOUCHED), serving, Decision.TAKE)
        scored(TradeFactory(still_open=True), serving, Decision.TAKE)
        scored(TradeFactory(signal_at=FIRST_SIGNAL - timedelta(days=1)), serving, Decision.TAKE)  # it was judged on it
        scored(TradeFactory(), MLModelFactory(), Decision.TAKE)
        TradeFactory()
        elsewhere = TradeFactory(book="paper:1")
        scored(elsewhere, serving, Decision.TAKE)
        record()
        PerformanceTracker("paper:1").record_session(elsewhere.session)
        assert live_record(serving) is None

    def test_it_takes_one_query_however_many_sessions_there_are(
        self, serving: MLModel, django_assert_num_queries: DjangoAssertNumQueries
    ):
        for n in range(5):
            scored(TradeFactory(signal_at=FIRST_SIGNAL + timedelta(days=n)), serving, Decision.TAKE)
        record()
        with django_assert_num_queries(1):
            found = live_record(serving)
        assert (found.n, found.sessions) == (5, 5)
