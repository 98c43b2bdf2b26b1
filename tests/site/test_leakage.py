"""The check itself: it finds nothing in our features, every planted leak, and names feature and row of a real one."""

import json
from typing import Any

import numpy as np
import pytest
from django.core.management import CommandError, call_command

from positions.market.feeds.simulated import SimulatedMarket
from positions.strategy import Signal
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
