"""Streaming, batch and recomputation agree on every symbol of a real month, and with the definitions written out."""

from itertools import pairwise

import numpy as np
import pytest
import talib

from positions.market.bars import BarHistory, SessionBars, Universe
from positions.market.feeds.file import FileFeed
from positions.market.indicators import MINIMUM_BARS, OPENING_BARS, IndicatorBank

OUTPUTS = ("ema20", "ema50", "rsi14", "macd", "macd_signal", "macd_histogram", "adx14", "atr14")


@pytest.fixture(scope="module")
def sessions(shared_data) -> list[SessionBars]:
    feed = FileFeed(shared_data / "us_1min_2018.parquet", symbols=shared_data / "symbols.csv")
    return [bars for bars, _ in feed.sessions()]


def run(bank: IndicatorBank, bars: SessionBars, history: BarHistory) -> None:
    bank.open_session(bars.session, bars.length, history)
    for batch in bars.batches():
        bank.update(batch)


def present(sessions: list[SessionBars], row: int) -> np.ndarray:
    """All bars of a symbol, shape (6, bars)."""
    column = np.concatenate([bars.values[:, :, row] for bars in sessions], axis=1)
    return column[:, np.isfinite(column[3])]


def batch_values(series: np.ndarray) -> list[float]:
    high, low, close = (np.ascontiguousarray(series[i]) for i in (1, 2, 3))
    return [
        talib.EMA(close, 20)[-1],
        talib.EMA(close, 50)[-1],
        talib.RSI(close, 14)[-1],
        *(line[-1] for line in talib.MACD(close, 12, 26, 9)),
        talib.ADX(high, low, close, 14)[-1],
        talib.ATR(high, low, close, 14)[-1],
    ]


def test_streaming_equals_batch_and_recomputation_to_the_bit_on_every_symbol_after_every_session(sessions):
    universe = sessions[0].universe
    bank, history = IndicatorBank(universe), BarHistory()
    compared = 0
    for number, bars in enumerate(sessions):
        openings = [history.recent(row, OPENING_BARS) for row in range(len(universe))]
        run(bank, bars, history)
        history.append(bars)
        for row in range(len(universe)):
            today = bars.values[:, :, row]
            series = np.concatenate([openings[row], today[:, np.isfinite(today[3])]], axis=1)
            streamed = [getattr(bank, name)[row] for name in OUTPUTS]
            assert streamed == batch_values(series), universe.symbols[row]
            if openings[row].shape[1] == OPENING_BARS and number == len(sessions) - 1:
                assert streamed == batch_values(present(sessions, row)), universe.symbols[row]
            compared += 1
    assert compared == 29 * len(universe)


def reference(series: np.ndarray) -> dict[str, float]:
    """The indicators from their definitions, in plain Python: the oracle is not TA-Lib itself."""
    bars = list(zip(series[1].tolist(), series[2].tolist(), series[3].tolist(), strict=True))
    closes = [close for _, _, close in bars]

    def ema(values: list[float], n: int, first: int = 0) -> list[float]:
        """Seeded by the mean of `n` values from `first` on."""
        line = [sum(values[first : first + n]) / n]
        for value in values[first + n :]:
            line.append(line[-1] + 2 / (n + 1) * (value - line[-1]))
        return line

    def wilder(values: list[float], n: int) -> float:
        mean = sum(values[:n]) / n
        for value in values[n:]:
            mean += (value - mean) / n
        return mean

    def wilder_sums(values: list[float], n: int) -> list[float]:
        """Sums over n - 1 values, then s - s / n + x."""
        line = [sum(values[: n - 1])]
        for value in values[n - 1 :]:
            line.append(line[-1] - line[-1] / n + value)
        return line[1:]

    changes = [after - before for before, after in pairwise(closes)]
    gain, loss = wilder([max(c, 0) for c in changes], 14), wilder([max(-c, 0) for c in changes], 14)
    slow = ema(closes, 26)
    fast = ema(closes, 12, first=14)  # TA-Lib seeds it with the last 12 of the first 26
    macd = [f - s for f, s in zip(fast[-len(slow) :], slow, strict=True)]
    signal = ema(macd, 9)[-1]
    true_range = [max(h, b[2]) - min(low, b[2]) for b, (h, low, _) in pairwise(bars)]
    up = [after[0] - before[0] for before, after in pairwise(bars)]
    down = [before[1] - after[1] for before, after in pairwise(bars)]
    plus = wilder_sums([u if u > d and u > 0 else 0.0 for u, d in zip(up, down, strict=True)], 14)
    minus = wilder_sums([d if d > u and d > 0 else 0.0 for u, d in zip(up, down, strict=True)], 14)
    ranges = wilder_sums(true_range, 14)
    dx = [
        100 * abs(p / r - m / r) / (p / r + m / r) if p + m else 0.0
        for p, m, r in zip(plus, minus, ranges, strict=True)
    ]
    return {
        "ema20": ema(closes, 20)[-1],
        "ema50": ema(closes, 50)[-1],
        "rsi14": 100 * gain / (gain + loss),
        "macd": macd[-1],
        "macd_signal": signal,
        "macd_histogram": macd[-1] - signal,
        "adx14": wilder(dx, 14),
        "atr14": wilder(true_range, 14),
    }


def test_every_symbol_agrees_with_the_definitions_written_out(sessions):
    bank = IndicatorBank(sessions[0].universe)
    run(bank, sessions[0], BarHistory())
    for row in range(len(bank.universe) - 1):
        told = reference(present(sessions[:1], row))
        for name, expected in told.items():
            assert getattr(bank, name)[row] == pytest.approx(expected, rel=1e-9, abs=1e-9), (
                f"{name} of {bank.universe.symbols[row]}"
            )
        day = present(sessions[:1], row)
        typical = (day[1] + day[2] + day[3]) / 3
        assert bank.vwap[row] == pytest.approx((typical * day[4]).sum() / day[4].sum(), rel=1e-9)


def test_a_symbol_has_the_same_values_whatever_it_is_watched_with(sessions):
    whole, names = IndicatorBank(sessions[0].universe), sessions[0].universe.symbols
    chosen = [0, 17, 40]
    few = Universe(tuple(names[i] for i in chosen), ("",) * 3, ("",) * 3, (True,) * 3, None)
    part, past_whole, past_part = IndicatorBank(few), BarHistory(), BarHistory()
    for bars in sessions[:3]:
        alone = SessionBars(bars.session, bars.length, few, np.ascontiguousarray(bars.values[:, :, chosen]))
        run(whole, bars, past_whole)
        run(part, alone, past_part)
        past_whole.append(bars)
        past_part.append(alone)
    for name in (*OUTPUTS, "vwap", "session_high", "previous_macd_histogram"):
        assert getattr(whole, name)[chosen].tolist() == getattr(part, name).tolist(), name
    assert (part.bars_used > MINIMUM_BARS).all()
