"""One minute of the whole US market: our bank against TA-Lib's bare streaming handles, its batch functions and pandas.

    python -m pytest tests/benchmarks -m slow --benchmark-json=benchmarks.json

Every figure has its baseline in the same run; ratios decide, milliseconds belong to the machine.
"""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pytest_benchmark", reason="benchmarks need pytest-benchmark (the dev group of pyproject.toml)")

import talib
from talib import stream

from ml.feature_extractor import FeatureExtractor
from positions.history import TradeHistory
from positions.market.bars import BarBatch, BarHistory, SessionBars, Universe
from positions.market.calendar import Session
from positions.market.indicators import IndicatorBank
from positions.market.market_regime import MarketState
from positions.strategy import Signal
from positions.words import Side

pytestmark = pytest.mark.slow

SYMBOLS, BARS, MINUTE = 10_000, 390, timedelta(minutes=1)
OPENED = datetime(2025, 5, 12, 13, 30, tzinfo=UTC)
UNIVERSE = Universe(
    tuple(f"S{i}" for i in range(SYMBOLS)),
    tuple(f"Sector {i % 11}" for i in range(SYMBOLS)),
    ("",) * SYMBOLS,
    (True,) * SYMBOLS,
    0,
)
BATCH_BARS = 250
ROUNDS = {"rounds": 60, "iterations": 1, "warmup_rounds": 5}


@pytest.fixture(scope="module")
def history() -> SessionBars:
    close = 100 + np.random.default_rng(0).normal(0, 0.05, (BARS, SYMBOLS)).cumsum(axis=0)
    values = np.stack([close, close + 0.05, close - 0.05, close, np.full(close.shape, 500.0), close])
    session = Session(date(2025, 5, 12), OPENED, OPENED + BARS * MINUTE)
    return SessionBars(session, MINUTE, UNIVERSE, values)


@pytest.fixture(scope="module")
def minute(history) -> BarBatch:
    return next(iter(history.batches()))


@pytest.fixture(scope="module")
def bank(history) -> IndicatorBank:
    past = BarHistory()
    past.append(history)
    opened = IndicatorBank(UNIVERSE)
    opened.open_session(history.session, MINUTE, past)
    return opened


Benchmark = Callable[..., Any]


@pytest.mark.benchmark(group="one minute of 10,000 symbols")
def test_the_bank_with_all_market_features(benchmark: Any, bank: IndicatorBank, minute: BarBatch) -> None:
    market = MarketState(bank)

    def one_minute() -> None:
        bank.update(minute)
        market.update()
        market.breadth_ema20()
        market.breadth_vwap()
        market.sector_return(7)
        bank.returns(12)

    benchmark.pedantic(one_minute, **ROUNDS)


@pytest.mark.benchmark(group="one minute of 10,000 symbols")
def test_the_bare_streaming_handles(benchmark: Any, history: SessionBars, minute: BarBatch) -> None:
    handles = []
    for row in range(SYMBOLS):
        high, low, close = (np.ascontiguousarray(history.values[i, :, row]) for i in (1, 2, 3))
        handles.append(
            (
                stream.EMA(close, timeperiod=20).update,
                stream.EMA(close, timeperiod=50).update,
                stream.RSI(close, timeperiod=14).update,
                stream.MACD(close, fastperiod=12, slowperiod=26, signalperiod=9).update,
                stream.ADX(high, low, close, timeperiod=14).update,
                stream.ATR(high, low, close, timeperiod=14).update,
            )
        )
    highs, lows, closes = minute.high.tolist(), minute.low.tolist(), minute.close.tolist()

    def one_minute() -> None:
        for (ema20, ema50, rsi, macd, adx, atr), high, low, close in zip(handles, highs, lows, closes, strict=True):
            ema20(close)
            ema50(close)
            rsi(close)
            macd(close)
            adx(high, low, close)
            atr(high, low, close)

    benchmark.pedantic(one_minute, **ROUNDS)


@pytest.mark.benchmark(group="one minute of 10,000 symbols")
def test_talib_batch_over_the_last_250_bars(benchmark: Any, history: SessionBars) -> None:
    series = [
        tuple(np.ascontiguousarray(history.values[i, -BATCH_BARS:, row]) for i in (1, 2, 3)) for row in range(SYMBOLS)
    ]

    def one_minute() -> None:
        for high, low, close in series:
            talib.EMA(close, 20)
            talib.EMA(close, 50)
            talib.RSI(close, 14)
            talib.MACD(close, 12, 26, 9)
            talib.ADX(high, low, close, 14)
            talib.ATR(high, low, close, 14)

    benchmark.pedantic(one_minute, rounds=3, iterations=1)


@pytest.mark.benchmark(group="one minute of 10,000 symbols")
def test_pandas_over_the_last_250_bars(benchmark: Any, history: SessionBars) -> None:
    """Vectorised over symbols, and only the four that ewm can: it is the best case of the usual notebook."""
    import pandas as pd

    close = pd.DataFrame(history.values[3, -BATCH_BARS:])

    def one_minute() -> None:
        close.ewm(span=20, adjust=False).mean()
        close.ewm(span=50, adjust=False).mean()
        macd = close.ewm(span=12, adjust=False).mean() - close.ewm(span=26, adjust=False).mean()
        macd.ewm(span=9, adjust=False).mean()
        change = close.diff()
        change.clip(lower=0).ewm(alpha=1 / 14, adjust=False).mean()
        (-change.clip(upper=0)).ewm(alpha=1 / 14, adjust=False).mean()

    benchmark.pedantic(one_minute, rounds=3, iterations=1)


@pytest.mark.benchmark(group="features of one signal, 10,000 symbols loaded")
def test_features_of_one_signal(benchmark: Any, bank: IndicatorBank, minute: BarBatch) -> None:
    """The extra figure `p99_ms` is the 99th percentile of single extractions."""
    from time import perf_counter

    bank.update(minute)
    market = MarketState(bank)
    market.update()
    extractor = FeatureExtractor(bank, market, TradeHistory())
    signal = Signal("S7", 7, Side.LONG, bank.now, bank.session.day, 100.0, 99.0, 102.0)
    took = []
    for _ in range(2000):
        began = perf_counter()
        extractor.extract(signal)
        took.append(1000 * (perf_counter() - began))
    benchmark.extra_info["p99_ms"] = float(np.percentile(took, 99))
    benchmark(extractor.extract, signal)
