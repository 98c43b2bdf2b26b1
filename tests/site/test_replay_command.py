"""`replay` as a trader meets it, from the bars file to the rows, the figures and the file for machines."""

import json
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command

from ml.models import MLModel, Performance, Prediction, TradeFeatures
from positions.market.feeds.simulated import SimulatedMarket
from positions.models import StopMove, Trade
from tests.bars_file import write_csv
from tradingsite.summary import trades_sha256

pytestmark = pytest.mark.django_db


@pytest.fixture(scope="module")
def bars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve sessions of twelve stocks: just enough for a model."""
    return write_csv(tmp_path_factory.mktemp("bars") / "bars.csv", SimulatedMarket(9, seed=5))


def replayed(tmp_path: Path, **options: Any) -> dict[str, Any]:
    call_command("replay", json=tmp_path / "summary.json", **options)
    return json.loads((tmp_path / "summary.json").read_text())


def test_replay_trains_scores_and_tells_the_same_in_tables_and_json(
    bars: Path, tmp_path: Path, settings: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    settings.VAR_DIR = tmp_path
    summary = replayed(tmp_path, bars=bars, train=True, seed=3)
    book, told = summary["book"], " ".join(capsys.readouterr().out.split())

    trades = Trade.objects.filter(book=book, status="closed")
    assert summary["trades"] == trades.count() > 500
    assert summary["wins"] == trades.filter(outcome="WIN").count()
    assert summary["losses"] == trades.filter(outcome="LOSS").count()
    assert summary["exits"] == Counter(trades.values_list("exit_reason", flat=True))
    assert summary["breakeven_moves"] == StopMove.objects.filter(book=book, status="confirmed").count() > 0
    assert summary["signals"] == summary["feature_rows"] == TradeFeatures.objects.filter(book=book).count()
    assert summary["trades_sha256"] == trades_sha256(book)
    assert summary["sessions"] == Performance.objects.filter(book=book).count() == 12
    assert Path(summary["report"]).is_file()

    model = MLModel.objects.get(book=book)
    shown = summary["model"]
    assert (shown["version"], shown["status"], shown["gate"]) == (model.version, "candidate", model.gate)
    assert (shown["n_train"], shown["n_test"]) == (model.n_train, model.n_test)
    assert (shown["test_sessions"], shown["windows"]) == (model.metrics["sessions"], len(model.folds))
    assert shown["auc"] == model.metrics["auc"]
    assert shown["auc_geometry"] == model.metrics["geometry"]["auc"]
    assert shown["gate_reasons"][: len(model.gate_reasons)] == model.gate_reasons != []
    assert model.seed == 3

    scored = TradeFeatures.objects.filter(book=book, complete=True, session__range=(model.test_from, model.test_to))
    predictions = Prediction.objects.filter(book=book)
    assert set(predictions.values_list("signal_key", flat=True)) == set(scored.values_list("signal_key", flat=True))
    assert summary["predictions"] == predictions.count() > 10
    assert summary["prediction_p99_ms"] > 0
    assert {prediction.mode for prediction in predictions} == {"shadow"}
    assert all(len(prediction.contributions) == 5 for prediction in predictions)
    outcomes = dict(trades.values_list("signal_key", "outcome"))
    assert {each.signal_key: each.outcome for each in predictions} == {
        key: outcomes.get(key) for key in scored.values_list("signal_key", flat=True)
    }
    assert {prediction.outcome for prediction in predictions} >= {"WIN", "LOSS"}

    for words in (
        f"{summary['trades']:,}: {summary['wins']:,} won, {summary['losses']:,} lost",
        f"{model.n_train:,} trades (the last of 5 windows)",
        f"Gate: {model.gate}",
        *model.gate_reasons,
    ):
        assert words in told


def most_open_at_once(book: str) -> int:
    """From the trades themselves: how many were open, from the order to the exit."""
    events: list[tuple[datetime, int]] = []
    for entered, exited in Trade.objects.filter(book=book, status="closed").values_list("entered_at", "exited_at"):
        events += [(entered, 1), (exited, -1)]
    most = now = 0
    for _, change in sorted(events):
        now += change
        most = max(most, now)
    return most


def test_protections_hold_and_change_what_is_traded(bars: Path, tmp_path: Path, settings: Any) -> None:
    from constance import config

    settings.VAR_DIR = tmp_path
    config.MAX_OPEN_POSITIONS = 3
    free, protected = (replayed(tmp_path, bars=bars, protections=protections) for protections in (False, True))
    assert free["book"] != protected["book"]
    assert free["trades_sha256"] != protected["trades_sha256"]
    assert most_open_at_once(free["book"]) > 3
    assert most_open_at_once(protected["book"]) == 3
    blocked = TradeFeatures.objects.filter(book=protected["book"], not_taken_reason="max_open_positions")
    assert blocked.exists()
    assert not TradeFeatures.objects.filter(book=free["book"], not_taken_reason="max_open_positions").exists()
