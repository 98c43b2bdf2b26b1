"""The bank against TA-Lib's batch functions, against a reference written from the definitions, and against itself."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import numpy as np
import pytest
import talib
from hypothesis import given, settings
from hypothesis import strategies as st

from positions.market.bars import BarHistory, SessionBars, Universe
from positions.market.calendar import Session
from positions.market.feeds.simulated import SimulatedMarket
from positions.market.indicators import MINIMUM_BARS, OPENING_BARS, IndicatorBank

MINUTE = timedelta(minutes=1)


def universe(count: int) -> Universe:
    names = tuple(f"S{i}" for i in range(count))
    return Universe(names, ("",) * count, ("",) * count, (True,) * count, None)


def session_bars(closes: np.ndarray, opened: datetime = datetime(2025, 5, 12, 13, 30, tzinfo=UTC)) -> SessionBars:
    """A session made of closes, shape (bars, symbols), with a range of 0.2 around them and a volume of 100."""
    session = Session(opened.date(), opened, opened + timedelta(minutes=390))
    known = np.where(np.isfinite(closes), 1.0, np.nan)
    values = np.stack([closes, closes + 0.1, closes - 0.1, closes, 100.0 * known, np.full(closes.shape, np.nan)])
    return SessionBars(session, MINUTE, universe(closes.shape[1]), values)


def walk(bars: int, symbols: int, seed: int = 1) -> np.ndarray:
    return 100 + np.random.default_rng(seed).normal(0, 0.05, (bars, symbols)).cumsum(axis=0)


def run(bank: IndicatorBank, bars: SessionBars, history: BarHistory) -> None:
    bank.open_session(bars.session, bars.length, history)
    for batch in bars.batches():
        bank.update(batch)


OUTPUTS = ("ema20", "ema50", "rsi14", "macd", "macd_signal", "macd_histogram", "adx14", "atr14")


def batch_values(high: np.ndarray, low: np.ndarray, close: np.ndarray) -> list[float]:
    return [
        talib.EMA(close, 20)[-1],
        talib.EMA(close, 50)[-1],
        talib.RSI(close, 14)[-1],
        *(line[-1] for line in talib.MACD(close, 12, 26, 9)),
        talib.ADX(high, low, close, 14)[-1],
        talib.ATR(high, low, close, 14)[-1],
    ]


def test_streaming_equals_batch_to_the_bit_on_a_simulated_market_with_gaps():
    feed = SimulatedMarket(2, seed=3)
    bank, history = IndicatorBank(feed.universe), BarHistory()
    for bars, _ in feed.sessions():
        run(bank, bars, history)
        last = bars
        opening = [history.recent(row, OPENING_BARS) for row in range(len(feed.universe))]
        history.append(bars)
    for row in range(len(feed.universe)):
        today = last.values[:, :, row]
        series = np.concatenate([opening[row], today[:, np.isfinite(today[3])]], axis=1)
        expected = batch_values(*(np.ascontiguousarray(series[i]) for i in (1, 2, 3)))
        assert [getattr(bank, name)[row] for name in OUTPUTS] == expected


def reference_ema(closes: list[float], n: int) -> float:
    """Seeded by the simple mean of the first n, alpha 2 / (n + 1)."""
    value = sum(closes[:n]) / n
    for close in closes[n:]:
        value += 2 / (n + 1) * (close - value)
    return value


def reference_rsi(closes: list[float], n: int) -> float:
    """Wilder: seeded by the mean of the first n changes."""
    changes = [after - before for before, after in pairwise(closes)]
    gain = sum(max(change, 0) for change in changes[:n]) / n
    loss = sum(max(-change, 0) for change in changes[:n]) / n
    for change in changes[n:]:
        gain = (gain * (n - 1) + max(change, 0)) / n
        loss = (loss * (n - 1) + max(-change, 0)) / n
    return 100 * gain / (gain + loss)


def reference_atr(bars: list[tuple[float, float, float]], n: int) -> float:
    """Wilder: seeded by the mean of true ranges 1 to n."""
    ranges = [max(high, before[2]) - min(low, before[2]) for before, (high, low, _) in pairwise(bars)]
    value = sum(ranges[:n]) / n
    for each in ranges[n:]:
        value = (value * (n - 1) + each) / n
    return value


def test_the_bank_agrees_with_the_definitions_written_out():
    closes = walk(390, 1)
    bank = IndicatorBank(universe(1))
    run(bank, session_bars(closes), BarHistory())
    series = closes[:, 0].tolist()
    assert bank.ema20[0] == pytest.approx(reference_ema(series, 20), rel=1e-12)
    assert bank.ema50[0] == pytest.approx(reference_ema(series, 50), rel=1e-12)
    assert bank.rsi14[0] == pytest.approx(reference_rsi(series, 14), rel=1e-9)
    assert bank.atr14[0] == pytest.approx(reference_atr([(c + 0.1, c - 0.1, c) for c in series], 14), rel=1e-9)


def test_indicators_are_unknown_below_the_minimum_history_and_known_from_there():
    bank = IndicatorBank(universe(1))
    bars = session_bars(walk(390, 1))
    bank.open_session(bars.session, bars.length, BarHistory())
    for number, batch in enumerate(bars.batches(), start=1):
        bank.update(batch)
        assert bool(np.isfinite(bank.adx14[0])) is bool(bank.ready[0]) is (number >= MINIMUM_BARS)


def test_a_missing_minute_leaves_the_state_alone_and_the_symbol_stale():
    closes = walk(390, 2)
    closes[300:303, 0] = np.nan
    bank = IndicatorBank(universe(2))
    bars = session_bars(closes)
    bank.open_session(bars.session, bars.length, BarHistory())
    before = []
    for number, batch in enumerate(bars.batches()):
        bank.update(batch)
        if number == 299:
            before = [getattr(bank, name)[0] for name in (*OUTPUTS, "vwap", "close")]
        if 300 <= number < 303:
            assert not bank.fresh[0]
            assert bank.fresh[1]
            assert [getattr(bank, name)[0] for name in (*OUTPUTS, "vwap", "close")] == before
    series = closes[np.isfinite(closes[:, 0]), 0]
    assert bank.ema50[0] == talib.EMA(series, 50)[-1]


def test_a_symbol_that_appears_at_noon_is_ready_after_the_minimum_history():
    closes = walk(390, 2)
    closes[:130, 0] = np.nan
    bank = IndicatorBank(universe(2))
    run(bank, session_bars(closes), BarHistory())
    assert bank.bars_used.tolist() == [260, 390]
    assert bank.ready.all()
    assert bank.session_open[0] == closes[130, 0]


def test_vwap_is_the_volume_weighted_typical_price_of_the_session_alone():
    first, second = walk(390, 1, seed=1), walk(100, 1, seed=2)
    history = BarHistory()
    bank = IndicatorBank(universe(1))
    yesterday = session_bars(first)
    run(bank, yesterday, history)
    history.append(yesterday)
    run(bank, session_bars(second, datetime(2025, 5, 13, 13, 30, tzinfo=UTC)), history)
    assert bank.vwap[0] == pytest.approx(second.mean(), rel=1e-12)


def test_opening_in_mid_history_gives_the_same_values_as_any_other_run_of_that_session():
    feed = SimulatedMarket(2, seed=5)
    (warm1, _), (warm2, _), (warm3, _), (first, _), (second, _) = list(feed.sessions())
    history = BarHistory()
    for bars in (warm1, warm2, warm3, first):
        history.append(bars)
    travelled, restarted = IndicatorBank(feed.universe), IndicatorBank(feed.universe)
    run(travelled, first, _history(warm1, warm2, warm3))
    run(travelled, second, history)
    run(restarted, second, history)
    for name in (*OUTPUTS, "vwap", "session_high", "previous_macd_histogram", "bars_used"):
        np.testing.assert_array_equal(getattr(travelled, name), getattr(restarted, name), err_msg=name)
    assert travelled.relative_volume(0) == restarted.relative_volume(0)


def _history(*sessions: SessionBars) -> BarHistory:
    history = BarHistory()
    for bars in sessions:
        history.append(bars)
    return history


def test_usual_volume_is_that_of_the_same_minutes_of_the_sessions_before():
    closes = walk(390, 1)
    history = BarHistory()
    for day, volume in ((12, 100.0), (13, 300.0)):
        bars = session_bars(closes, datetime(2025, 5, day, 13, 30, tzinfo=UTC))
        bars.values[4][:] = volume
        bars.values[4][7] = 10 * volume
        history.append(bars)
    today = session_bars(closes, datetime(2025, 5, 14, 13, 30, tzinfo=UTC))
    bank = IndicatorBank(universe(1))
    bank.open_session(today.session, today.length, history)
    seen, usual = [], []
    for batch in today.batches():
        bank.update(batch)
        seen.append(bank.relative_volume(0))
        usual.append(bank.usual_volume(0, 3))
    assert seen[6:9] == [0.5, 0.05, 0.5]
    assert np.isnan(usual[:2]).all()
    assert usual[2:11] == [200.0] * 5 + [800.0] * 3 + [200.0]


def test_swings_volumes_and_returns_look_at_the_sessions_last_bars():
    closes = np.arange(1.0, 21.0).reshape(-1, 1)
    bank = IndicatorBank(universe(1))
    run(bank, session_bars(closes), BarHistory())
    assert bank.lowest(0, 12) == pytest.approx(8.9)
    assert bank.highest(0, 12) == pytest.approx(20.1)
    assert bank.mean_volume(0, 5) == 100.0
    assert np.isnan(bank.mean_volume(0, 21))
    assert bank.returns(12)[0] == pytest.approx(20 / 8 - 1)
    assert bank.session_returns()[0] == pytest.approx(19.0)
    assert bank.closes(0, 3).tolist() == [18.0, 19.0, 20.0]
    assert bank.session.day == date(2025, 5, 12)


PUBLIC = (*OUTPUTS, "previous_macd_histogram", "vwap", "previous_vwap", "close", "previous_close", "session_high",
          "session_low", "session_open", "bars_used", "bars_in_session", "fresh")  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
def test_a_revised_bar_leaves_what_the_right_bar_would_have_left(seed):
    random = np.random.default_rng(seed)
    true = walk(390, 3, seed=seed)
    true[:200, 2] = np.nan  # the third symbol is not ready for long, and its 250th bar never comes
    true[:100, 1] = np.nan  # the second becomes ready in the middle
    wrong = true.copy()
    bars, first_seen = session_bars(true), session_bars(wrong)
    revised = random.random((390, 3)) < 0.2
    first_seen.values[:4] += np.where(revised, random.normal(0, 0.3, (390, 3)), 0.0)
    first_seen.values[4] += np.where(revised, 50.0, 0.0)
    late = revised & (random.random((390, 3)) < 0.3)  # first seen as a minute without a bar
    first_seen.values[:, late] = np.nan
    right, live = IndicatorBank(universe(3)), IndicatorBank(universe(3))
    for bank in (right, live):
        bank.open_session(bars.session, bars.length, BarHistory())
    for number, (truth, seen) in enumerate(zip(bars.batches(), first_seen.batches(), strict=True)):
        right.update(truth)
        live.remember()
        live.update(seen)
        if revised[number].any():
            correction = session_bars(np.where(revised[number], true[number], np.nan)[None, :])
            (batch,) = correction.batches()
            live.revise(replace(batch, start=truth.start))
        for name in PUBLIC:
            np.testing.assert_array_equal(getattr(live, name), getattr(right, name), err_msg=f"{name} at {number}")
    assert live.closes(0, 60).tolist() == right.closes(0, 60).tolist()
    assert live.mean_volume(1, 20) == right.mean_volume(1, 20)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    holes=st.floats(0, 0.3),
    restart_at=st.integers(1, 389),
    together=st.lists(st.booleans(), min_size=4, max_size=4),
)
def test_neither_the_company_of_other_symbols_nor_a_restart_changes_a_value(seed, holes, restart_at, together):
    random = np.random.default_rng(seed)
    yesterday, today = walk(390, 4, seed=seed), walk(390, 4, seed=seed + 1)
    for closes in (yesterday, today):
        closes[random.random(closes.shape) < holes] = np.nan
    day = datetime(2025, 5, 13, 13, 30, tzinfo=UTC)
    whole = IndicatorBank(universe(4))
    run(whole, session_bars(today, day), _history(session_bars(yesterday)))
    for part in ([i for i in range(4) if together[i]], [i for i in range(4) if not together[i]]):
        if not part:
            continue
        bars, past = session_bars(today[:, part], day), _history(session_bars(yesterday[:, part]))
        bank = IndicatorBank(universe(len(part)))
        bank.open_session(bars.session, bars.length, past)
        for number, batch in enumerate(bars.batches()):
            if number == restart_at:  # all is lost: opened again on the stored bars, then today's bars again
                bank = IndicatorBank(universe(len(part)))
                bank.open_session(bars.session, bars.length, past)
                for again, _ in zip(bars.batches(), range(number), strict=False):
                    bank.update(again)
            bank.update(batch)
        for name in PUBLIC:
            np.testing.assert_array_equal(getattr(bank, name), getattr(whole, name)[part], err_msg=name)
