"""Signals that were not taken, as rows to learn from."""

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from ml.training_data import TrainingData
from ml.training_rows import load_training_data
from ml.words import Label
from positions.models import ShadowTrade
from positions.words import Outcome
from tests.factories import FIRST_SIGNAL, ShadowTradeFactory, TradeFactory, features_of

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _signals() -> None:
    """A trade that won and, a minute later, a signal that was skipped and would have lost."""
    features_of(TradeFactory(symbol="AAPL", signal_at=FIRST_SIGNAL))
    features_of(ShadowTradeFactory(symbol="MSFT", signal_at=FIRST_SIGNAL + timedelta(minutes=1)), taken=False)


def told(data: TrainingData) -> list[tuple[str, bool, bool, float]]:
    symbols = [key.partition("-")[0] for key in data.signal_key.tolist()]
    return list(zip(symbols, data.shadow.tolist(), data.won.tolist(), data.r.tolist(), strict=True))


def test_plans_are_learned_from_all_signals_and_those_on_paper_are_flagged():
    data = load_training_data("simulated", Label.PLAN)
    assert told(data) == [("AAPL", False, True, 1.9), ("MSFT", True, False, -1.05)]
    assert "1 of the 2 rows are signals not taken" in data.remarks()[0]
    assert sum(data.exit_settings.values()) == 1


def test_results_as_executed_are_learned_from_trades_alone_unless_asked_otherwise():
    assert told(load_training_data("simulated")) == [("AAPL", False, True, 1.9)]
    assert len(told(load_training_data("simulated", Label.PLAN, shadow=False))) == 1
    assert len(told(load_training_data("simulated", Label.NET, shadow=True))) == 2


def test_rows_on_paper_change_the_data_s_hash_and_their_absence_does_not():
    traded = load_training_data("simulated", Label.PLAN, shadow=False).data_hash
    assert load_training_data("simulated", Label.PLAN).data_hash != traded
    ShadowTrade.objects.all().delete()
    assert load_training_data("simulated", Label.PLAN).data_hash == traded


def test_what_ended_later_or_is_not_known_is_left_out():
    ended = FIRST_SIGNAL + timedelta(minutes=21)
    assert len(told(load_training_data("simulated", Label.PLAN, ended))) == 2
    assert len(told(load_training_data("simulated", Label.PLAN, ended - timedelta(seconds=1)))) == 1
    assert told(load_training_data("simulated", Label.PLAN, closed_after=ended)) == []
    unknown = {"plan_outcome": None, "plan_r": None, "plan_exit_reason": None, "plan_ended_at": None}
    features_of(ShadowTradeFactory(symbol="KO", **unknown), taken=False)
    assert len(told(load_training_data("simulated", Label.PLAN))) == 2


def test_a_signal_that_was_traded_after_all_counts_once():
    ShadowTradeFactory(symbol="AAPL", signal_at=FIRST_SIGNAL, plan_outcome=Outcome.LOSS)
    assert told(load_training_data("simulated", Label.PLAN))[0] == ("AAPL", False, True, 1.9)
    assert len(told(load_training_data("simulated", Label.PLAN))) == 2


def test_three_queries_read_however_many():
    with CaptureQueriesContext(connection) as queries:
        load_training_data("simulated", Label.PLAN)
    assert len(queries) == 3
