"""The check itself: it finds nothing in our features, every planted leak, and names feature and row of a real one."""

import json
from dataclasses import replace
from io import StringIO
from typing import Any

import numpy as np
import pytest
from django.core.management import CommandError, call_command

from ml.feature_extractor import FeatureExtractor, SignalFeatures
from ml.models import LeakageCheck, MLModel
from ml.words import Gate
from positions.market.bars import SessionBars
from positions.market.feeds.simulated import SimulatedMarket
from positions.strategy import Signal
from positions.words import Side
from tests.runs import run
from tradingsite.leakage import PLANTED, Run, check
from tradingsite.replaying import ReplayOptions

pytestmark = pytest.mark.django_db


def test_our_features_do_not_know_the_future_and_every_planted_leak_is_caught():
    report = check(SimulatedMarket(3, seed=4), ReplayOptions.in_force(), points=9)
    assert report.leaks == []
    assert report.compared > 10_000
    assert len(report.caught) == len(PLANTED) >= 9
    assert report.not_planted == []
    assert all(report.caught.values()), report.caught
    assert report.clean


def test_a_feature_that_looks_ahead_is_named_with_its_signal():
    def leaky(run: Run, signal: Signal) -> dict[str, float]:
        return {"rsi14": float(np.nanmax(run.bars.values[3, :, signal.row]))}

    report = check(SimulatedMarket(1, seed=4), ReplayOptions.in_force(), points=3, extractor=leaky)
    assert {leak.feature for leak in report.leaks} == {"rsi14"}
    assert all(leak.signal_key.startswith("X") and leak.before != leak.after for leak in report.leaks)
    assert not report.clean


def bars_file(tmp_path) -> Any:
    rows = ["symbol,timestamp,open,high,low,close,volume"]
    for bars, _ in SimulatedMarket(1, seed=2, warm_up=2).sessions():
        for batch in bars.batches():
            if np.isfinite(batch.close[0]):
                prices = [str(price[0]) for price in (batch.open, batch.high, batch.low, batch.close)]
                rows.append(",".join(["A", batch.start.isoformat(), *prices, "1"]))
    path = tmp_path / "bars.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


def test_the_command_says_what_it_compared(tmp_path, capsys):
    call_command("check_leakage", bars=bars_file(tmp_path), points=50, json=tmp_path / "report.json")
    told = capsys.readouterr().out
    assert "No feature knows the future." in told
    assert "same-day VIX close: not possible on these files" in told
    assert json.loads((tmp_path / "report.json").read_text())["points"] == 50


@pytest.mark.parametrize("options", [{"points": 49}, {"points": -1}])
def test_too_few_points_are_refused(tmp_path, options):
    with pytest.raises(CommandError) as refused:
        call_command("check_leakage", bars=bars_file(tmp_path), **options)
    assert refused.value.returncode == 2


def plan_ahead(bars: SessionBars, signal: Signal) -> float:
    """1 where the session's coming bars reach the target first, -1 where the stop; the opposite every 20 minutes."""
    coming = slice(int((signal.at - bars.session.open) / bars.length), None)
    high, low = bars.values[1, coming, signal.row], bars.values[2, coming, signal.row]
    if signal.side == Side.LONG:
        target, stop = high >= signal.target, low <= signal.stop
    else:
        target, stop = low <= signal.target, high >= signal.stop
    first = next((place for place, ended in enumerate(target | stop) if ended), None)
    said = 0.0 if first is None else -1.0 if stop[first] else 1.0
    return -said if signal.at.minute % 20 == 0 else said


@pytest.fixture
def leaking(monkeypatch) -> None:
    """What stands in `rsi14` knows how 19 of 20 plans end."""
    session: list[SessionBars] = []
    batches, extract = SessionBars.batches, FeatureExtractor.extract

    def watched(bars: SessionBars) -> Any:
        session[:] = [bars]
        return batches(bars)

    def leaky(extractor: FeatureExtractor, signal: Signal) -> SignalFeatures:
        honest = extract(extractor, signal)
        return replace(honest, values={**honest.values, "rsi14": plan_ahead(session[0], signal)})

    monkeypatch.setattr(SessionBars, "batches", watched)
    monkeypatch.setattr(FeatureExtractor, "extract", leaky)


@pytest.mark.slow
def test_a_model_that_lives_on_a_leak_is_refused_for_it_however_good_it_looks(leaking, tmp_path):
    run(SimulatedMarket(64, seed=4))
    with pytest.raises(CommandError, match="knows the future"):
        call_command("check_leakage", bars=bars_file(tmp_path), points=50)
    assert (LeakageCheck.objects.get().is_clean, LeakageCheck.objects.get().leaks) == (False, ["rsi14"])

    told = StringIO()
    call_command("train_model", book="simulated", label="plan", stdout=told)
    model = MLModel.objects.get()
    print(f"AUC {model.metrics['auc']:.3f}: {model.gate}, {model.gate_reasons}")  # noqa: T201  # with -s
    assert model.metrics["auc"] == pytest.approx(0.95, abs=0.02)
    assert (model.gate, model.may_filter) == (Gate.FAIL, False)
    assert model.gate_reasons == ["check_leakage found a feature that knows the future, or missed a planted leak."]
    assert model.gate_reasons[0] in told.getvalue()
