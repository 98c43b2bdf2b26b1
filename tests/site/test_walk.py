"""The main job as a whole: replay and live are one program, nothing looks ahead, books never mix."""

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import talib
from constance import config
from django.core.management import call_command

from ml.feature_extractor import FeatureExtractor
from ml.feature_writer import FeatureWriter
from ml.features import FEATURES
from ml.model_trainer import ModelTrainer
from ml.models import Performance, TradeFeatures
from ml.performance_tracker import PerformanceTracker
from positions.market.bars import BarHistory, SessionBars
from positions.market.feeds import ReplayFeed
from positions.market.feeds.simulated import SimulatedMarket
from positions.market.indicators import OPENING_BARS
from positions.models import Instrument, OrderIntent, PositionExit, ShadowTrade, StopMove, Trade
from positions.store import OrmStore
from positions.words import TradeStatus
from tests.bars_file import write_csv
from tests.live import trade_live
from tests.runs import run
from tradingsite import replaying
from tradingsite.summary import trades_sha256

pytestmark = pytest.mark.django_db

FEATURE_COLUMNS = [feature.name for feature in FEATURES]
TRADE_COLUMNS = [
    "signal_key", "side", "planned_entry", "initial_stop", "target", "entry_price", "quantity", "entered_at",
    "stop_price", "exited_at", "exit_price", "exit_reason", "pnl", "r_multiple", "outcome",
]  # fmt: skip


def features(book: str, until: datetime | None = None) -> list[tuple]:
    rows = TradeFeatures.objects.filter(book=book).order_by("signal_key")
    if until is not None:
        rows = rows.filter(signal_at__lte=until)
    return list(rows.values_list("signal_key", "missing", *FEATURE_COLUMNS))


def trades(book: str) -> list[tuple]:
    return list(Trade.objects.filter(book=book).order_by("signal_key").values_list(*TRADE_COLUMNS))


def test_live_minute_by_minute_through_the_database_equals_a_replay_of_everything_at_once():
    run(SimulatedMarket(2, seed=4))
    trade_live("paper:test", SimulatedMarket(2, seed=4))
    assert len(features("simulated")) > 50
    assert features("paper:test") == features("simulated")
    assert len(trades("simulated")) > 50
    assert trades("paper:test") == trades("simulated")
    for table in (OrderIntent, PositionExit, StopMove):
        assert table.objects.filter(book="paper:test").count() == table.objects.filter(book="simulated").count() > 0


@pytest.mark.django_db(transaction=True)
def test_live_through_the_journal_stores_the_features_that_a_replay_stores(tmp_path):
    run(SimulatedMarket(1, seed=4))
    with closing(FeatureWriter(tmp_path)) as writer:
        trade_live("paper:test", SimulatedMarket(1, seed=4), writer)
        assert writer.flush()
    assert len(features("simulated")) > 50
    assert features("paper:test") == features("simulated")


def test_the_indicators_of_a_replay_are_those_of_talibs_batch_functions_over_all_bars_at_once():
    feed, past = SimulatedMarket(1, seed=4), BarHistory()
    run(feed)
    for bars, trading in feed.sessions():
        if trading:
            today = bars
            break
        past.append(bars)
    compared = 0
    for row in TradeFeatures.objects.all():
        symbol = feed.universe.symbols.index(row.symbol)
        before, day = past.recent(symbol, OPENING_BARS), today.values[:, :, symbol]
        traded = np.isfinite(day[3])
        _, high, low, close, volume, price = np.hstack([before, day[:, traded]])
        at = before.shape[1] + traded[: int((row.signal_at - today.session.open) / today.length)].sum() - 1
        macd, signal, histogram = talib.MACD(close, 12, 26, 9)
        in_session = slice(before.shape[1], at + 1)
        expected = {
            "ema20": talib.EMA(close, 20)[at],
            "ema50": talib.EMA(close, 50)[at],
            "rsi14": talib.RSI(close, 14)[at],
            "macd": macd[at],
            "macd_signal": signal[at],
            "macd_histogram": histogram[at],
            "adx14": talib.ADX(high, low, close, 14)[at],
            "atr14": talib.ATR(high, low, close, 14)[at],
        }
        assert {name: getattr(row, name) for name in expected} == expected
        assert row.vwap == pytest.approx(np.average(price[in_session], weights=volume[in_session]), rel=1e-12)
        compared += 1
    assert compared > 50


def test_the_regime_of_the_market_changes_in_the_course_of_a_replay():
    run(SimulatedMarket(2, seed=4))
    for side in ("long", "short"):
        assert len(set(TradeFeatures.objects.filter(side=side).values_list("regime", flat=True))) > 1


class Altered:
    """A feed whose bars change after a moment: other prices, other volumes, other holes."""

    def __init__(self, feed: ReplayFeed, after: datetime) -> None:
        self._feed, self._after = feed, after
        self.name, self.universe, self.length, self.vix = feed.name, feed.universe, feed.length, feed.vix

    def sessions(self) -> Iterator[tuple[SessionBars, bool]]:
        noise = np.random.default_rng(0)
        for bars, trading in self._feed.sessions():
            first = max(0, int(np.ceil((self._after - bars.session.open) / bars.length)))
            values = bars.values.copy()
            tail = values[:, first:]
            tail[:4] *= 1.07 + 0.02 * noise.standard_normal(tail.shape[1:])
            tail[1], tail[2] = np.fmax.reduce(tail[:4]), np.fmin.reduce(tail[:4])
            tail[4] *= 3
            tail[:, noise.random(tail.shape[1:]) < 0.1] = np.nan
            yield replace(bars, values=values), trading


def cut_points(book: str, count: int) -> list[datetime]:
    times = sorted(set(TradeFeatures.objects.filter(book=book).values_list("signal_at", flat=True)))
    return times[:: len(times) // count][:count]


def changed_by_the_future(seed: int, cuts: list[datetime]) -> set[str]:
    """Names of the features that differ, over all signals up to each cut, when everything after it is altered."""
    changed: set[str] = set()
    for cut in cuts:
        before = features("simulated", until=cut)
        run(Altered(SimulatedMarket(1, seed), cut), "replay:000000000000")
        after = features("replay:000000000000", until=cut)
        assert [row[0] for row in before] == [row[0] for row in after], f"other signals until {cut}"
        for old, new in zip(before, after, strict=True):
            changed |= {name for name, a, b in zip(FEATURE_COLUMNS, old[2:], new[2:], strict=True) if a != b}
    return changed


def test_no_feature_of_a_signal_changes_when_the_bars_after_it_are_altered():
    run(SimulatedMarket(1, seed=4))
    cuts = cut_points("simulated", 5)
    assert len(cuts) == 5
    assert changed_by_the_future(4, cuts) == set()


def test_a_feature_that_looks_ahead_is_found_out(monkeypatch):
    seen: list[SessionBars] = []
    honest_session, honest_features = replaying.replay_session, FeatureExtractor.extract_technical_features

    def remember(loop, past, exchange, clock, bars):
        seen[:] = [bars]
        honest_session(loop, past, exchange, clock, bars)

    def whole_day_volume(self, signal):
        day = np.nanmean(seen[0].values[4][:, signal.row])
        return {**honest_features(self, signal), "relative_volume": float(self._bank.volume[signal.row] / day)}

    monkeypatch.setattr(replaying, "replay_session", remember)
    monkeypatch.setattr(FeatureExtractor, "extract_technical_features", whole_day_volume)
    run(SimulatedMarket(1, seed=4))
    assert changed_by_the_future(4, cut_points("simulated", 2)) == {"relative_volume"}


def test_every_signal_has_a_feature_row_and_every_trade_an_outcome():
    run(SimulatedMarket(2, seed=9))
    taken = set(TradeFeatures.objects.filter(taken=True).values_list("signal_key", flat=True))
    assert taken == set(Trade.objects.values_list("signal_key", flat=True))
    assert set(Trade.objects.values_list("status", flat=True)) == {TradeStatus.CLOSED}
    assert not Trade.objects.filter(outcome=None).exists()
    assert not TradeFeatures.objects.filter(taken=False, not_taken_reason="").exists()
    passed_over = TradeFeatures.objects.filter(taken=False).exclude(not_taken_reason="invalid_plan")
    reasons = dict(passed_over.values_list("signal_key", "not_taken_reason"))
    assert dict(ShadowTrade.objects.values_list("signal_key", "not_taken_reason")) == reasons
    assert not ShadowTrade.objects.filter(entered_at__isnull=False, plan_outcome=None).exists()


def count_rows() -> dict[str, int]:
    tables = (Trade, ShadowTrade, TradeFeatures, PositionExit, StopMove, OrderIntent, Instrument, Performance)
    return {table.__name__: table.objects.count() for table in tables}


def assert_history_is_of(book: str) -> None:
    """What features say of past trades counts the book's own that had closed, and no other's."""
    closed = list(Trade.objects.filter(book=book, status="closed").values_list("symbol", "exited_at"))
    counted = 0
    for row in TradeFeatures.objects.filter(book=book):
        until = {symbol_trades(closed, row.symbol, row.signal_at, at_once) for at_once in (False, True)}
        assert min(until) <= row.symbol_trades <= max(until)
        if not any(exited_at <= row.signal_at for _, exited_at in closed):
            assert row.win_rate_10 is None
        counted += row.symbol_trades
    assert counted > 0


def symbol_trades(closed: list[tuple[str, datetime]], symbol: str, at: datetime, at_once: bool) -> int:
    """Trades of a symbol closed before a moment; `at_once` counts those of the moment itself too."""
    return sum(one == symbol and (exited < at or (at_once and exited == at)) for one, exited in closed)


def test_quickstart_replay_and_paper_in_one_database_never_see_each_others_trades(tmp_path, settings):
    settings.VAR_DIR = tmp_path
    write_csv(tmp_path / "bars.csv", SimulatedMarket(1, seed=5))

    def replay_file() -> str:
        call_command("replay", bars=tmp_path / "bars.csv", json=tmp_path / "replay.json")
        return json.loads((tmp_path / "replay.json").read_text())["book"]

    call_command("quickstart", sessions=1, no_serve=True, json=tmp_path / "quickstart.json")
    replayed = replay_file()
    trade_live("paper:test", SimulatedMarket(1, seed=6))
    PerformanceTracker("paper:test").record_sessions(
        [Trade.objects.filter(book="paper:test").latest("session").session]
    )

    own = {
        book: set(Trade.objects.filter(book=book, status="closed").values_list("signal_key", flat=True))
        for book in ("simulated", replayed, "paper:test")
    }
    assert all(own.values())
    for book, keys in own.items():
        learned_from = set(ModelTrainer(book).load_training_data().signal_key)
        assert learned_from
        assert learned_from <= keys
        assert_history_is_of(book)
        assert sum(Performance.objects.filter(book=book).values_list("trades", flat=True)) == len(keys)
        assert OrmStore(book).live == {}
    before, hashes = count_rows(), {book: trades_sha256(book) for book in own}
    assert replay_file() == replayed
    call_command("quickstart", sessions=1, no_serve=True)
    assert count_rows() == before
    assert {book: trades_sha256(book) for book in own} == hashes


def test_a_replay_that_breaks_off_leaves_the_book_as_it_was():
    run(SimulatedMarket(1, seed=4))
    before = trades_sha256("simulated")

    class BreaksOff(Altered):
        def sessions(self):
            yield from list(super().sessions())[:-1]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(BreaksOff(SimulatedMarket(1, seed=8), datetime.max.replace(tzinfo=replaying.UTC)))
    assert trades_sha256("simulated") == before
    assert set(Trade.objects.values_list("book", flat=True)) == {"simulated"}


SUMMARY_KEYS = {
    "sessions", "symbols", "bars", "bars_per_second", "signals", "feature_rows", "trades", "wins", "losses", "exits",
    "not_taken", "breakeven_moves", "win_rate", "avg_r", "avg_r_ci", "model", "predictions", "prediction_p99_ms",
    "report", "trades_sha256", "wall_s", "peak_mb",
}  # fmt: skip
MODEL_KEYS = {
    "version", "status", "n_train", "n_test", "auc", "auc_ci", "auc_geometry", "accuracy", "majority_accuracy",
    "brier", "gate", "gate_reasons",
}  # fmt: skip


def test_one_session_is_too_little_for_a_model_and_says_so(tmp_path, settings, capsys):
    settings.VAR_DIR = tmp_path
    call_command("quickstart", sessions=1, no_serve=True, json=tmp_path / "summary.json")
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert set(summary) >= SUMMARY_KEYS
    assert set(summary["model"]) >= MODEL_KEYS
    assert summary["model"]["gate"] == "INSUFFICIENT_DATA"
    assert summary["model"]["version"] is None
    assert summary["signals"] == summary["feature_rows"] > 0
    assert Path(summary["report"]).is_file()
    told = capsys.readouterr().out
    assert "simulated" in told
    assert "password: " in told
    call_command("quickstart", sessions=1, no_serve=True)
    assert "password: " not in capsys.readouterr().out


def test_a_run_without_a_trade_says_why_every_signal_was_left(tmp_path, settings, capsys):
    settings.VAR_DIR = tmp_path
    config.RISK_PER_TRADE = 0.0
    call_command("quickstart", sessions=1, no_serve=True, json=tmp_path / "summary.json")
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["trades"] == 0
    assert summary["not_taken"] == {"too_small": summary["signals"]}
    assert "too_small" in capsys.readouterr().out


def test_a_replay_of_real_bars_closes_every_trade_and_repeats_itself(shared_data, tmp_path, settings):
    settings.VAR_DIR = tmp_path
    summaries = []
    for number in range(2):
        call_command(
            "replay",
            bars=shared_data / "us_1min_2018.parquet",
            market=shared_data / "us_1min_2018_market.parquet",
            vix=shared_data / "vix_daily.parquet",
            symbols=shared_data / "symbols.csv",
            first=datetime(2018, 2, 22).date(),  # noqa: DTZ001  # a New York date
            last=datetime(2018, 2, 23).date(),  # noqa: DTZ001  # a New York date
            json=tmp_path / f"{number}.json",
        )
        summaries.append(json.loads((tmp_path / f"{number}.json").read_text()))
    first, second = summaries
    assert first["trades_sha256"] == second["trades_sha256"]
    assert (first["sessions"], first["symbols"]) == (2, 61)
    assert first["signals"] == first["feature_rows"] > first["trades"] > 100
    assert first["wins"] + first["losses"] == first["trades"] == Trade.objects.count()
    assert Trade.objects.exclude(status=TradeStatus.CLOSED).count() == 0
    assert set(TradeFeatures.objects.values_list("vix_source", flat=True)) == {"cboe"}
