"""Stored features against stored bars: equal, different, or right when they were stored."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from django.core.management import CommandError, call_command

from ml.models import TradeFeatures
from positions.market.bar_files import BarRows, StoredBars, microseconds
from positions.market.feeds.file import FileFeed
from positions.market.feeds.simulated import SimulatedMarket
from positions.models import Instruction
from positions.words import Feed, InstructionKind, InstructionState
from tests.runs import run

pytestmark = pytest.mark.django_db

BOOK = "replay:000000000000"
SYMBOLS = 6


@pytest.fixture
def stored(tmp_path) -> Path:
    """Three sessions of six symbols in a folder, as trading would have stored them."""
    bars_on_disk = StoredBars(tmp_path, Feed.IEX)
    for bars, _ in SimulatedMarket(2, seed=11, warm_up=1).sessions():
        bars_on_disk.merge(bars.session, rows_of(bars))
    return tmp_path / "iex"


def rows_of(bars, change=lambda values: values, seen_after: timedelta = timedelta(minutes=2)) -> BarRows:
    names, starts, values = [], [], []
    for place, batch in enumerate(bars.batches()):
        for row in range(SYMBOLS):
            bar = bars.values[:, place, row]
            if np.isfinite(bar[3]):
                names.append(bars.universe.symbols[row])
                starts.append(microseconds(batch.start))
                values.append(bar)
    seen = microseconds(datetime(2025, 1, 1, tzinfo=UTC) + seen_after)
    return BarRows.of(
        names,
        np.array(starts),
        change(np.array(values).T),
        np.full(len(names), np.nan),
        np.full(len(names), seen),
    )


def audit(folder: Path, **options) -> tuple[int, dict]:
    day = TradeFeatures.objects.latest("session").session
    report = folder.parent / "audit.json"
    status = 0
    try:
        call_command("audit_features", session=day, book=BOOK, bars=folder, json=report, **options)
    except CommandError as error:
        status = error.returncode
    return status, json.loads(report.read_text())


def counts(report: dict, name: str) -> tuple[int, int, int]:
    (feature,) = [each for each in report["features"] if each["feature"] == name]
    return feature["equal"], feature["differs"], feature["late"]


def test_what_was_stored_is_what_the_bars_say(stored):
    run(FileFeed(stored), BOOK)
    status, report = audit(stored)
    assert status == 0
    assert report["signals"] > 10
    assert report["unexplained"] == []
    for feature in report["features"]:
        assert (feature["equal"], feature["differs"], feature["late"]) == (report["signals"], 0, 0), feature["feature"]


def test_a_value_that_the_bars_do_not_give_is_named_with_its_signal(stored, capsys):
    run(FileFeed(stored), BOOK)
    row = TradeFeatures.objects.latest("session")
    TradeFeatures.objects.filter(pk=row.pk).update(rsi14=row.rsi14 + 1e-6)
    status, report = audit(stored)
    assert status == 1
    assert counts(report, "rsi14") == (report["signals"] - 1, 1, 0)
    assert f"rsi14 of {row.signal_key}: stored" in capsys.readouterr().out


def test_a_bar_corrected_afterwards_is_data_that_arrived_late_and_no_difference(stored, tmp_path):
    run(FileFeed(stored), BOOK)
    *_, (last, _) = SimulatedMarket(2, seed=11, warm_up=1).sessions()

    def volume_doubled(values):
        return values * np.array([1, 1, 1, 1, 2, 1])[:, None]

    StoredBars(tmp_path, Feed.IEX).merge(last.session, rows_of(last, volume_doubled, timedelta(minutes=5)))
    status, report = audit(stored)
    assert status == 0
    equal, differs, late = counts(report, "relative_volume")
    assert (equal, differs) == (0, 0)
    assert late == report["signals"]
    assert counts(report, "rsi14") == (report["signals"], 0, 0)


def test_a_signal_that_the_bars_do_not_give_is_named(stored):
    run(FileFeed(stored), BOOK)
    row = TradeFeatures.objects.latest("session")
    TradeFeatures.objects.filter(pk=row.pk).update(signal_key="KO-20250101T000000Z-long")
    status, report = audit(stored)
    assert status == 1
    assert report["unexplained"] == ["KO-20250101T000000Z-long"]


def came_by_the_api(row: TradeFeatures) -> None:
    Instruction.objects.create(
        book=BOOK, kind=InstructionKind.SIGNAL, symbol=row.symbol, side="long", stop=1, target=2, asked_by="ada",
        asked_at=row.signal_at, expires_at=row.signal_at, state=InstructionState.ACCEPTED, signal_key=row.signal_key,
    )  # fmt: skip


def test_signals_that_came_by_the_api_are_counted_and_left_out(stored, capsys):
    run(FileFeed(stored), BOOK)
    day = TradeFeatures.objects.latest("session").session
    given = TradeFeatures.objects.filter(session=day).count()
    row = TradeFeatures.objects.latest("session")
    row.pk, row.signal_key = None, "KO-20250101T000000Z-long"
    row.save()
    came_by_the_api(row)
    status, report = audit(stored)
    assert (status, report["signals"], report["by_api"], report["unexplained"]) == (0, given, 1, [])
    assert "Not among them: 1 signal that came by the API." in capsys.readouterr().out


def test_where_every_signal_came_by_the_api_there_is_nothing_to_compare(stored):
    run(FileFeed(stored), BOOK)
    day = TradeFeatures.objects.latest("session").session
    for row in TradeFeatures.objects.filter(session=day):
        came_by_the_api(row)
    with pytest.raises(CommandError, match=f"every signal of book {BOOK} on {day} came by the API"):
        call_command("audit_features", session=day, book=BOOK, bars=stored)


def test_nothing_to_compare_is_told_in_one_line(stored):
    with pytest.raises(CommandError, match="has no features of 2024-12-31") as refused:
        call_command("audit_features", session=datetime(2024, 12, 31, tzinfo=UTC).date(), book=BOOK, bars=stored)
    assert refused.value.returncode == 2
