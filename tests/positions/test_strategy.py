"""The default strategy, rule by rule, on a market written out by hand."""

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from positions.market.bars import Universe
from positions.market.calendar import Session
from positions.strategy import Signal, VwapCross
from positions.words import Side

OPEN = datetime(2025, 5, 12, 13, 30, tzinfo=UTC)
CLOSE = OPEN + timedelta(minutes=390)


#: One symbol that crosses its VWAP upwards in an uptrend, with an ATR of a dollar, and one that does the opposite.
UP: dict[str, Any] = {
    "close": 100.2,
    "vwap": 100.0,
    "previous_close": 99.9,
    "previous_vwap": 100.0,
    "ema20": 101.0,
    "ema50": 100.0,
    "atr14": 1.0,
    "session_high": 102.2,
    "session_low": 98.2,
    "fresh": True,
    "ready": True,
    "tradable": True,
    "lows": [50.0, 98.7, *[99.0] * 11],  # of its last bars, the oldest first
    "highs": [150.0, 101.7, *[101.0] * 11],
}
DOWN = {**UP, "close": 99.8, "previous_close": 100.1, "ema20": 99.0}


class Market:
    """The symbols as the strategy sees them, at noon."""

    def __init__(self, *symbols: dict[str, Any], now: datetime = OPEN + timedelta(minutes=150)) -> None:
        self.__dict__ |= {name: np.array([symbol[name] for symbol in symbols]) for name in UP}
        names = ("KO", "F")[: len(symbols)]
        self.now, self.session = now, Session(OPEN.date(), OPEN, CLOSE)
        self.universe = Universe(names, ("",) * len(names), ("",) * len(names), (True,) * len(names), None)

    @property
    def minute_of_session(self) -> float:
        return (self.now - OPEN) / timedelta(minutes=1)

    @property
    def minutes_to_close(self) -> float:
        return (CLOSE - self.now) / timedelta(minutes=1)

    def lowest(self, row: int, count: int) -> float:
        return float(self.__dict__["lows"][row, -count:].min())

    def highest(self, row: int, count: int) -> float:
        return float(self.__dict__["highs"][row, -count:].max())


def signals(*symbols: dict[str, Any], **given: datetime) -> list[Signal]:
    return VwapCross().signals(Market(*symbols, **given))  # type: ignore[arg-type]  # all that the strategy reads


def test_a_cross_of_the_vwap_in_the_trends_direction_is_a_signal_of_that_side() -> None:
    long, short = signals(UP, DOWN)
    assert (long.symbol, long.row, long.side, long.entry) == ("KO", 0, Side.LONG, 100.2)
    assert (short.symbol, short.row, short.side, short.entry) == ("F", 1, Side.SHORT, 99.8)
    assert (long.at, long.session) == (Market().now, OPEN.date())


BOTH = pytest.mark.parametrize("cross", [UP, DOWN], ids=["up", "down"])


@BOTH
def test_a_cross_against_the_trend_or_without_one_is_none(cross: dict[str, Any]) -> None:
    assert signals({**cross, "ema20": cross["ema50"], "ema50": cross["ema20"]}) == []
    assert signals({**cross, "ema20": cross["ema50"]}) == []


@BOTH
def test_only_the_bar_that_crosses_gives_a_signal(cross: dict[str, Any]) -> None:
    assert signals({**cross, "previous_close": cross["close"]}) == []
    assert signals({**cross, "close": cross["previous_close"]}) == []


@BOTH
def test_a_price_that_stands_still_while_the_vwap_passes_it_crosses_too(cross: dict[str, Any]) -> None:
    other_side = 2 * cross["close"] - cross["vwap"]
    assert len(signals({**cross, "previous_close": cross["close"], "previous_vwap": other_side})) == 1


@BOTH
@pytest.mark.parametrize(
    ("minute", "count"), [(1, 0), (29, 0), (30, 1), (31, 1), (359, 1), (360, 1), (361, 0), (389, 0)]
)
def test_the_first_and_the_last_thirty_minutes_are_quiet(cross: dict[str, Any], minute: int, count: int) -> None:
    assert len(signals(cross, now=OPEN + timedelta(minutes=minute))) == count


@BOTH
@pytest.mark.parametrize(
    "lack", [{"fresh": False}, {"ready": False}, {"tradable": False}, {"previous_vwap": float("nan")}], ids=str
)
def test_without_a_bar_a_history_a_vwap_or_leave_to_trade_there_is_no_signal(
    cross: dict[str, Any], lack: dict[str, Any]
) -> None:
    assert signals({**cross, **lack}) == []


def test_the_stop_lies_behind_the_swing_of_twelve_bars_and_the_target_at_the_sessions_extreme() -> None:
    long, short = signals(UP, DOWN)
    assert (long.stop, long.target) == pytest.approx((98.7, 102.2))
    assert (short.stop, short.target) == pytest.approx((101.7, 98.2))


@BOTH
@pytest.mark.parametrize(
    ("extremes", "atr_away"),
    [
        ({"lows": [100.1] * 12, "highs": [99.9] * 12, "session_high": 100.3, "session_low": 99.7}, 0.75),
        ({"lows": [90.0] * 12, "highs": [110.0] * 12, "session_high": 120.0, "session_low": 80.0}, 4.0),
    ],
    ids=["near", "far"],
)
def test_stop_and_target_lie_three_quarters_to_four_atr_from_the_entry(
    cross: dict[str, Any], extremes: dict[str, Any], atr_away: float
) -> None:
    (signal,) = signals({**cross, **extremes, "atr14": 0.8})
    sign = 1 if signal.side is Side.LONG else -1
    assert sign * (signal.entry - signal.stop) == pytest.approx(atr_away * 0.8)
    assert sign * (signal.target - signal.entry) == pytest.approx(atr_away * 0.8)
