"""Stored features against stored bars: equal, different, or right when they were stored."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from django.core.management import CommandError, call_command

from ml.models import TradeFeatures
from positions.market.bar_files import BarRows, StoredBars, microseconds
from positions.market.bars import SessionBars
from positions.market.feeds.file import FileFeed
from positions.market.feeds.simulated import SimulatedMarket
from positions.models import Instruction, Instrument
from positions.words import Feed, InstructionKind, InstructionState
from tests.live import trade_live
from tests.runs import run
from tradingsite.watchlist import watchlist

pytestmark = pytest.mark.django_db

BOOK, ACCOUNT = "replay:000000000000", "paper:audit"
SYMBOLS = 6


@pytest.fixture
def stored(tmp_path) -> Path:
    """Three sessions of six symbols in a folder, as trading would have stored them."""
    bars_on_disk = StoredBars(tmp_path, Feed.IEX)
    for bars, _ in SimulatedMarket(2, seed=11, warm_up=1).sessions():
        bars_on_disk.merge(bars.session, rows_of(bars))
    return tmp_path / "iex"


def rows_of(
    bars, change=lambda values: values, seen_after: timedelta = timedelta(minutes=2), symbols: int = SYMBOLS
) -> BarRows:
    names, starts, values = [], [], []
    for place, batch in enumerate(bars.batches()):
        for row in range(symbols):
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


class Watched:
    """The simulated market as an account's watchlist knows it (a ReplayFeed), in the watchlist's order, without VIX."""

    name, vix = Feed.SIMULATED, None

    def __init__(self, market: SimulatedMarket) -> None:
        self._market, self.length, self.universe = market, market.length, watchlist(ACCOUNT)

    def sessions(self) -> Iterator[tuple[SessionBars, bool]]:
        columns = [self._market.universe.symbols.index(symbol) for symbol in self.universe.symbols]
        for bars, trading in self._market.sessions():
            yield SessionBars(bars.session, bars.length, self.universe, bars.values[:, :, columns]), trading


@pytest.fixture
def account_traded(settings, tmp_path) -> Path:
    """A session of an account whose watchlist has an index and a sector's fund, neither tradable, and stocks of two
    sectors, one without a fund; the folder has bars of other symbols too, and the watchlist is in no order."""
    settings.VAR_DIR = tmp_path
    listed = {
        "XX": ("", "", False), "XT": ("Information Technology", "XT", False), "XFA": ("Financials", "", True),
        "XTB": ("Information Technology", "XT", True), "XTA": ("Information Technology", "XT", True),
        "XFB": ("Financials", "", True),
    }  # fmt: skip
    for symbol, (sector, etf, tradable) in listed.items():
        Instrument.objects.create(book=ACCOUNT, symbol=symbol, sector=sector, sector_etf=etf, tradable=tradable)
    bars_on_disk = StoredBars(tmp_path / "bars", Feed.SIMULATED)
    for bars, _ in SimulatedMarket(1, seed=11, warm_up=1).sessions():
        bars_on_disk.merge(bars.session, rows_of(bars, symbols=len(bars.universe)))
    trade_live(ACCOUNT, Watched(SimulatedMarket(1, seed=11, warm_up=1)))
    return bars_on_disk.folder


def audit(folder: Path, book: str = BOOK, **options) -> tuple[int, dict]:
    day = TradeFeatures.objects.latest("session").session
    report = folder.parent / "audit.json"
    status = 0
    options.setdefault("bars", folder)
    try:
        call_command("audit_features", session=day, book=book, json=report, **options)
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


@pytest.mark.parametrize("named", [True, False])
def test_an_account_is_audited_with_the_universe_that_its_watchlist_gave_to_trading(account_traded, named):
    options = {} if named else {"bars": None}
    status, report = audit(account_traded, ACCOUNT, **options)
    assert report["signals"] > 10
    differing = {each["feature"]: each["differs"] for each in report["features"] if each["differs"]}
    assert (status, differing, report["unexplained"]) == (0, {}, [])
    row = TradeFeatures.objects.filter(book=ACCOUNT, symbol="XTA").first()
    assert None not in (row.sector_strength, row.index_rsi14, row.breadth_ema20, row.vix)


@pytest.mark.parametrize("name", ["market", "vix", "symbols"])
def test_files_of_which_trading_knew_nothing_are_refused_for_an_account(account_traded, tmp_path, name):
    day = TradeFeatures.objects.latest("session").session
    with pytest.raises(CommandError, match=f"leave --{name} out") as refused:
        call_command("audit_features", session=day, book=ACCOUNT, **{name: tmp_path / "file.csv"})
    assert refused.value.returncode == 2


def test_an_account_whose_watchlist_was_emptied_cannot_be_audited(account_traded):
    Instrument.objects.all().delete()
    day = TradeFeatures.objects.latest("session").session
    with pytest.raises(CommandError, match="The watchlist of book paper:audit is empty"):
        call_command("audit_features", session=day, book=ACCOUNT)


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
