"""What the loop hears of a signal, and what is stored of it, with and without a model."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from structlog.testing import capture_logs

from ml.feature_extractor import FeatureExtractor
from ml.feature_writer import MemoryWriter
from ml.ml_system import MLSystem
from ml.model_trainer import ModelTrainer
from ml.models import MLModel, Prediction, TradeFeatures
from ml.payoff import Payoff
from ml.predictor import Predictor
from ml.serving import Served
from ml.words import PredictionMode
from positions.history import TradeHistory
from positions.market.bars import BarHistory
from positions.market.feeds.simulated import SimulatedMarket
from positions.market.indicators import IndicatorBank
from positions.market.market_regime import MarketState
from positions.models import Trade
from positions.strategy import Opinion, Signal, VwapCross
from positions.words import Feed, Outcome
from tests.ml.synthetic import store, stored_again, training_data, undone

pytestmark = pytest.mark.django_db

NEVER_PAYS = Payoff(win=0, win_per_reward=0, loss=100, band=0)


@pytest.fixture(scope="module")
def market():
    """A simulated session with the signals it gives, stopped at the tenth of them."""
    feed = SimulatedMarket(1, seed=4)
    bank, history = IndicatorBank(feed.universe), BarHistory()
    state, strategy = MarketState(bank), VwapCross()
    signals: list[Signal] = []
    for bars, _ in feed.sessions():
        bank.open_session(bars.session, bars.length, history)
        state.open_session()
        signals = []
        for batch in bars.batches():
            bank.update(batch)
            state.update()
            signals += strategy.signals(bank)
            if len(signals) >= 10:
                break
        history.append(bars)
    return bank, state, signals[-1]


TRADES = training_data(1, sessions=20, per_session=20)


@pytest.fixture(scope="module")
def trained(django_db_setup, django_db_blocker) -> dict[int, MLModel]:
    """The models of two seeds."""
    with undone(django_db_blocker):
        store(TRADES)
        return {seed: ModelTrainer("simulated", seed).train().model for seed in (7, 8)}


@pytest.fixture
def model(trained) -> MLModel:
    return stored_again(trained[7])


def system(market, model: MLModel | None, mode: PredictionMode) -> MLSystem:
    served = Served(mode, Predictor(model) if model else None)
    return asking(market, lambda: served)


def asking(market, served) -> MLSystem:
    bank, state, _ = market
    history = TradeHistory()
    extractor = FeatureExtractor(bank, state, history)
    return MLSystem("simulated", Feed.SIMULATED, extractor, history, served, MemoryWriter())


def test_a_signal_is_stored_whether_or_not_it_is_taken(market):
    bank, _, signal = market
    ml = system(market, None, PredictionMode.OFF)
    assert ml.on_signal(signal, bank) == Opinion(take=True)
    ml.on_decision(signal, "position_open")
    ml.flush()
    row = TradeFeatures.objects.get()
    assert (row.taken, row.not_taken_reason) == (False, "position_open")
    assert row.bars_used >= 250
    assert row.vix_source == "realised"
    assert row.missing == {
        "win_rate_10": "no_closed_trades",
        "streak": "no_closed_trades",
        "symbol_win_rate": "no_closed_trades",
        "symbol_mean_r": "no_closed_trades",
        "spread": "no_quote",
    }
    assert row.complete
    assert row.rsi14 == float(bank.rsi14[signal.row])


def test_in_shadow_mode_the_model_speaks_and_blocks_nothing(market, model):
    bank, _, signal = market
    ml = system(market, model, PredictionMode.SHADOW)
    assert ml.on_signal(signal, bank).take
    ml.on_decision(signal, "")
    ml.flush()
    assert Prediction.objects.get().mode == "shadow"


@pytest.mark.parametrize("may_filter", [True, False])
def test_in_filter_mode_only_a_model_that_earned_it_blocks(market, model, may_filter, monkeypatch):
    bank, _, signal = market
    model.may_filter = may_filter
    predictor = Predictor(model)
    monkeypatch.setattr(predictor, "_loaded", replace(predictor._loaded, payoff=NEVER_PAYS))
    ml = asking(market, lambda: Served(PredictionMode.FILTER, predictor))
    opinion = ml.on_signal(signal, bank)
    assert opinion == (Opinion(take=False, reason="model_skips") if may_filter else Opinion(take=True))


def test_an_unusable_model_lets_signals_go_on_and_says_why_once(market, model):
    bank, _, signal = market
    model.artifact = model.artifact[:-8] + "AAAAAAA="
    ml = system(market, model, PredictionMode.FILTER)
    with capture_logs() as logs:
        for _ in range(3):
            assert ml.on_signal(signal, bank) == Opinion(take=True)
    assert [(entry["event"], "altered" in entry["reason"]) for entry in logs] == [("model_unusable", True)]
    ml.on_decision(signal, "")
    ml.flush()
    assert Prediction.objects.count() == 0
    assert TradeFeatures.objects.filter(signal_key=signal.key).exists()


def told(ml: MLSystem, market) -> list[tuple[int, str, bool]]:
    """What was logged of the signal: model, mode and whether it was overridden."""
    bank, _, signal = market
    ml.on_signal(signal, bank)
    ml.on_decision(signal, "")
    ml.flush()
    return list(
        Prediction.objects.filter(signal_key=signal.key).order_by("id").values_list("model_id", "mode", "overridden")
    )


def test_the_candidate_is_asked_when_all_is_decided_and_decides_nothing(market, model, monkeypatch):
    bank, _, signal = market
    candidate = Predictor(model)
    monkeypatch.setattr(candidate, "_loaded", replace(candidate._loaded, payoff=NEVER_PAYS))
    model.may_filter = True
    ml = asking(market, lambda: Served(PredictionMode.FILTER, None, candidate))
    assert ml.on_signal(signal, bank) == Opinion(take=True)
    assert told(ml, market) == [(model.pk, "shadow", False)]
    assert Prediction.objects.get().decision == "skip"


def test_champion_and_candidate_are_both_logged(market, model, trained):
    other = stored_again(trained[8])
    ml = asking(market, lambda: Served(PredictionMode.FILTER, Predictor(other), Predictor(model)))
    assert told(ml, market) == [(other.pk, "filter", False), (model.pk, "shadow", False)]


def test_with_the_mode_off_nobody_is_asked(market, model):
    ml = asking(market, lambda: Served(PredictionMode.OFF, Predictor(model), Predictor(model)))
    assert told(ml, market) == []


def test_the_mode_is_that_of_the_moment_of_the_signal(market, model):
    bank, _, signal = market
    modes = [PredictionMode.SHADOW]
    ml = asking(market, lambda: Served(modes[-1], Predictor(model)))
    ml.on_signal(signal, bank)
    modes.append(PredictionMode.OFF)
    assert told(ml, market) == []


def test_every_prediction_of_an_overridden_model_says_so_until_its_override_ends(market, model):
    _, _, signal = market
    model.override_until = signal.at + timedelta(minutes=1)
    assert told(system(market, model, PredictionMode.SHADOW), market) == [(model.pk, "shadow", True)]
    Prediction.objects.all().delete()
    TradeFeatures.objects.all().delete()
    model.override_until = signal.at
    assert told(system(market, model, PredictionMode.SHADOW), market) == []


def test_a_closed_trade_becomes_history_and_the_outcome_of_its_prediction(market, model):
    bank, _, signal = market
    ml = system(market, model, PredictionMode.SHADOW)
    ml.on_signal(signal, bank)
    ml.on_decision(signal, "")
    ml.flush()
    ended = Trade(symbol=signal.symbol, signal_key=signal.key, outcome=Outcome.WIN, r_multiple=1.5)
    ended.exited_at = datetime(2024, 1, 2, tzinfo=UTC)
    ml.on_closed(ended)
    ml.flush()
    assert Prediction.objects.get(signal_key=signal.key).outcome == Outcome.WIN
    assert ml.extractor.extract(signal).values["win_rate_10"] == 1.0
