"""The indicators of the whole universe, kept up to date bar by bar.

One object serves live trading, replay, audits and restarts: at a session's start each symbol's TA-Lib handles open on
its last 800 stored bars and are then updated with every completed bar, so training and trading cannot differ. EMA, RSI,
MACD, ADX and ATR run across sessions, as charts show them; VWAP starts anew with each session.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray
from talib import stream

from positions.market.bars import BarBatch, BarHistory, Floats, Universe
from positions.market.calendar import Session

#: Bars that handles open on at a session's start, where there are so many.
OPENING_BARS = 800
#: Below this history EMA50 and ADX still depend on where the data happens to begin: their values stay NaN.
MINIMUM_BARS = 250
#: Completed bars of each symbol kept for swings, returns and mean volumes.
WINDOW = 64

_HIGH, _LOW, _CLOSE, _VOLUME = range(4)
_OUTPUTS = 8
_UNKNOWN = (np.nan,) * _OUTPUTS

Update = Callable[..., float]
Updates = tuple[Update, Update, Update, Callable[[float], tuple[float, float, float]], Update, Update]


class _Handles:
    """The streaming handles of one symbol, opened on at least MINIMUM_BARS of high, low and close."""

    __slots__ = ("_adx", "_atr", "_ema20", "_ema50", "_macd", "_rsi", "updates")

    def __init__(self, high: Floats, low: Floats, close: Floats) -> None:
        self._ema20 = stream.EMA(close, timeperiod=20)
        self._ema50 = stream.EMA(close, timeperiod=50)
        self._rsi = stream.RSI(close, timeperiod=14)
        self._macd = stream.MACD(close, fastperiod=12, slowperiod=26, signalperiod=9)
        self._adx = stream.ADX(high, low, close, timeperiod=14)
        self._atr = stream.ATR(high, low, close, timeperiod=14)
        self._bind()

    def value(self) -> tuple[float, ...]:
        return (
            self._ema20.value,
            self._ema50.value,
            self._rsi.value,
            *self._macd.value,
            self._adx.value,
            self._atr.value,
        )

    def copy(self) -> "_Handles":
        """Independent handles at the same bar."""
        twin = object.__new__(_Handles)
        for name in ("_ema20", "_ema50", "_rsi", "_macd", "_adx", "_atr"):
            setattr(twin, name, getattr(self, name).copy())
        twin._bind()
        return twin

    def _bind(self) -> None:
        """Look the update methods up once: they are called for every bar."""
        self.updates: Updates = (
            self._ema20.update,
            self._ema50.update,
            self._rsi.update,
            self._macd.update,
            self._adx.update,
            self._atr.update,
        )


#: What one bar changes of a symbol, besides its handles; the last axis is the symbol's. Of the window of past bars the
#: cursor is enough: the place it points at is written again.
_STATE = (
    "_values", "previous_macd_histogram", "bars_used", "open", "high", "low", "close", "volume", "previous_close",
    "_cursor", "bars_in_session", "session_open", "session_high", "session_low", "vwap", "previous_vwap",
    "_traded_value", "_traded_volume",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Snapshot:
    arrays: dict[str, NDArray[Any]]
    handles: list[_Handles | None]
    collected: list[list[tuple[float, float, float]]]


class IndicatorBank:
    """Indicators and session state of every symbol; each public array has shape (symbols,), NaN where not known.

    `open_session` once a session, then `update` with each completed bar. A symbol without a bar in a minute keeps its
    state and is not `fresh`. `ready` symbols have MINIMUM_BARS of history behind their indicators.
    """

    def __init__(self, universe: Universe) -> None:
        n = len(universe)
        self.universe = universe
        self.tradable = np.array(universe.tradable, dtype=bool)
        self.row_of = {symbol: row for row, symbol in enumerate(universe.symbols)}

        self._values = np.full((_OUTPUTS, n), np.nan)
        (
            self.ema20,
            self.ema50,
            self.rsi14,
            self.macd,
            self.macd_signal,
            self.macd_histogram,
            self.adx14,
            self.atr14,
        ) = self._values
        self.previous_macd_histogram = np.full(n, np.nan)
        self._handles: list[_Handles | None] = [None] * n
        self._collected: list[list[tuple[float, float, float]]] = [[] for _ in range(n)]
        self.bars_used = np.zeros(n, dtype=np.int64)

        self.open = np.full(n, np.nan)
        self.high = np.full(n, np.nan)
        self.low = np.full(n, np.nan)
        self.close = np.full(n, np.nan)
        self.volume = np.full(n, np.nan)
        self.previous_close = np.full(n, np.nan)
        self.fresh = np.zeros(n, dtype=bool)

        self._window = np.full((4, n, WINDOW), np.nan)
        self._cursor = np.zeros(n, dtype=np.int64)
        self._all_rows = np.arange(n)
        self.bars_in_session = np.zeros(n, dtype=np.int64)
        self.session_open = np.full(n, np.nan)
        self.session_high = np.full(n, np.nan)
        self.session_low = np.full(n, np.nan)
        self.vwap = np.full(n, np.nan)
        self.previous_vwap = np.full(n, np.nan)
        self._traded_value = np.zeros(n)
        self._traded_volume = np.zeros(n)
        self._profile = np.empty((0, n))
        self.share_above_vwap: float | None = None
        #: Mean absolute one-bar return of the index over the bars before the session: what "usual" volatility means.
        self.usual_index_move = float("nan")

        self._before: _Snapshot | None = None
        self.session: Session
        self.length: timedelta
        self.now: datetime
        self.minute_of_session: float
        self.minutes_to_close: float
        #: Grows with every bar taken in, so that a tick can tell whether there is anything new.
        self.version = 0

    def open_session(self, session: Session, length: timedelta, history: BarHistory) -> None:
        """Build the state that every run has at this session's start, from stored bars alone."""
        self.session, self.length = session, length
        self._set_time(session.open)
        bars = int((session.close - session.open) / length)
        self._profile = history.volume_profile(bars, len(self.universe))
        self._traded_value[:] = 0.0
        self._traded_volume[:] = 0.0
        self.bars_in_session[:] = 0
        for array in (self.vwap, self.previous_vwap, self.session_open, self.session_high, self.session_low):
            array[:] = np.nan
        self.fresh[:] = False
        for row in range(len(self.universe)):
            self._open_symbol(row, history.recent(row, OPENING_BARS))
        self.usual_index_move = float("nan")
        if self.universe.index is not None:
            closes = history.recent(self.universe.index, OPENING_BARS)[3]
            if len(closes) >= MINIMUM_BARS:
                self.usual_index_move = float(np.abs(np.diff(closes) / closes[:-1]).mean())

    def _open_symbol(self, row: int, recent: Floats) -> None:
        _, high, low, close, volume, _ = recent
        self.bars_used[row] = len(close)
        self._window[:, row, :] = np.nan
        kept = min(len(close), WINDOW)
        if kept:
            self._window[:, row, :kept] = np.stack((high, low, close, volume))[:, -kept:]
        self._cursor[row] = kept % WINDOW
        self.close[row] = close[-1] if kept else np.nan
        self.previous_close[row] = np.nan
        if len(close) >= MINIMUM_BARS:
            self._collected[row] = []
            self._open_handles(row, high, low, close)
        else:
            self._handles[row] = None
            self._values[:, row] = np.nan
            self._collected[row] = list(zip(high.tolist(), low.tolist(), close.tolist(), strict=True))

    def _open_handles(self, row: int, high: Floats, low: Floats, close: Floats) -> tuple[float, ...]:
        handles = _Handles(*map(np.ascontiguousarray, (high, low, close)))
        self._handles[row] = handles
        value = handles.value()
        self._values[:, row] = value
        return value

    def update(self, batch: BarBatch) -> None:
        """Take in one completed bar of every symbol."""
        rows = np.flatnonzero(np.isfinite(batch.close))
        self._set_time(batch.end)
        self.version += 1
        self.share_above_vwap = batch.share_above_vwap
        self.fresh[:] = False
        self._take_in(rows, batch)

    def _set_time(self, now: datetime) -> None:
        self.now = now
        self.minute_of_session = (now - self.session.open) / timedelta(minutes=1)
        self.minutes_to_close = (self.session.close - now) / timedelta(minutes=1)

    def remember(self) -> None:
        """Keep the state as it is, so that the next bar can be revised. For live trading, when nothing is urgent."""
        self._before = _Snapshot(
            {name: getattr(self, name).copy() for name in _STATE},
            [handles.copy() if handles else None for handles in self._handles],
            [list(bars) for bars in self._collected],
        )

    def revise(self, batch: BarBatch) -> None:
        """Replace the last bar of the symbols that `batch` has: as if it had come in like that at first.

        Takes a `remember` between the last two bars. A symbol that had no bar has one now.
        """
        assert self._before is not None, "remember() was not called before the bar that is revised"
        rows = np.flatnonzero(np.isfinite(batch.close))
        for name, kept in self._before.arrays.items():
            getattr(self, name)[..., rows] = kept[..., rows]
        for row in rows.tolist():
            handles = self._before.handles[row]
            self._handles[row] = handles.copy() if handles else None
            self._collected[row] = list(self._before.collected[row])
        self.version += 1
        self._take_in(rows, batch)

    def _take_in(self, rows: NDArray[np.int64], batch: BarBatch) -> None:
        self.fresh[rows] = True
        high, low, close, volume = batch.high[rows], batch.low[rows], batch.close[rows], batch.volume[rows]
        self._update_session(rows, batch, high, low, close, volume)
        self._update_indicators(rows, high.tolist(), low.tolist(), close.tolist())
        self._window[:, rows, self._cursor[rows]] = (high, low, close, volume)
        self._cursor[rows] = (self._cursor[rows] + 1) % WINDOW
        self.bars_in_session[rows] += 1
        self.bars_used[rows] += 1

    def _update_session(
        self, rows: NDArray[np.int64], batch: BarBatch, high: Floats, low: Floats, close: Floats, volume: Floats
    ) -> None:
        self.previous_close[rows] = self.close[rows]
        self.previous_vwap[rows] = self.vwap[rows]
        self.open[rows] = batch.open[rows]
        self.high[rows] = high
        self.low[rows] = low
        self.close[rows] = close
        self.volume[rows] = volume
        self.session_high[rows] = np.fmax(self.session_high[rows], high)
        self.session_low[rows] = np.fmin(self.session_low[rows], low)
        first = rows[self.bars_in_session[rows] == 0]
        if len(first):
            self.session_open[first] = batch.open[first]
        given = batch.vwap[rows]
        price = np.where(np.isfinite(given), given, (high + low + close) / 3.0)
        self._traded_value[rows] += price * volume
        self._traded_volume[rows] += volume
        traded = self._traded_volume[rows]
        self.vwap[rows] = np.divide(self._traded_value[rows], traded, out=np.full(len(rows), np.nan), where=traded > 0)

    def _update_indicators(
        self, rows: NDArray[np.int64], highs: Sequence[float], lows: Sequence[float], closes: Sequence[float]
    ) -> None:
        self.previous_macd_histogram[rows] = self.macd_histogram[rows]
        handles_of = self._handles
        values: list[float] = []
        extend = values.extend
        for row, high, low, close in zip(rows.tolist(), highs, lows, closes, strict=True):
            handles = handles_of[row]
            if handles is None:
                extend(self._collect(row, high, low, close))
                continue
            ema20, ema50, rsi, macd, adx, atr = handles.updates
            line, signal, histogram = macd(close)
            extend(
                (
                    ema20(close),
                    ema50(close),
                    rsi(close),
                    line,
                    signal,
                    histogram,
                    adx(high, low, close),
                    atr(high, low, close),
                )
            )
        self._values[:, rows] = np.array(values).reshape(len(rows), _OUTPUTS).T

    def _collect(self, row: int, high: float, low: float, close: float) -> tuple[float, ...]:
        bars = self._collected[row]
        bars.append((high, low, close))
        if len(bars) < MINIMUM_BARS:
            return _UNKNOWN
        self._collected[row] = []
        return self._open_handles(row, *np.array(bars).T)

    @property
    def ready(self) -> NDArray[np.bool_]:
        return self.bars_used >= MINIMUM_BARS

    def _last(self, quantity: int, row: int, count: int) -> Floats:
        end = int(self._cursor[row])
        ring: Floats = self._window[quantity, row]
        if end >= count:
            return ring[end - count : end]
        return np.concatenate((ring[end - count :], ring[:end]))

    def _in_session(self, row: int, count: int) -> int:
        return min(count, int(self.bars_in_session[row]))

    def lowest(self, row: int, count: int) -> float:
        """Lowest low of the session's last `count` bars of a symbol (at least one bar must exist)."""
        return float(self._last(_LOW, row, self._in_session(row, count)).min())

    def highest(self, row: int, count: int) -> float:
        """Highest high of the session's last `count` bars of a symbol (at least one bar must exist)."""
        return float(self._last(_HIGH, row, self._in_session(row, count)).max())

    def mean_volume(self, row: int, count: int) -> float:
        """Mean volume of the session's last `count` (1 to 64) bars that exist; NaN where there are fewer."""
        assert 1 <= count <= WINDOW
        if self._in_session(row, count) < count:
            return float("nan")
        volumes: list[float] = self._last(_VOLUME, row, count).tolist()
        return sum(volumes) / count

    def usual_volume(self, row: int, count: int) -> float:
        """Mean volume of the session's last `count` bars on the sessions before; NaN without a profile of them all."""
        end = round((self.now - self.session.open) / self.length)
        volumes: list[float] = self._profile[max(0, end - count) : end, row].tolist()
        return sum(volumes) / count if len(volumes) == count else float("nan")

    def closes(self, row: int, count: int) -> Floats:
        """The last `count` (at most 64) closes of a symbol across sessions, oldest first; NaN where there are fewer."""
        return self._last(_CLOSE, row, count)

    def returns(self, bars: int) -> Floats:
        """Return of every symbol over its last `bars` bars, as a fraction, shape (symbols,)."""
        before: Floats = self._window[_CLOSE, self._all_rows, (self._cursor - 1 - bars) % WINDOW]
        returns: Floats = self.close / before - 1.0
        return returns

    def session_returns(self) -> Floats:
        """Return of every symbol since its first price of the session, as a fraction, shape (symbols,)."""
        returns: Floats = self.close / self.session_open - 1.0
        return returns

    def relative_volume(self, row: int) -> float:
        """Volume of the last bar against the same minute's mean over the sessions before; NaN without a profile."""
        place = int((self.now - self.session.open) / self.length) - 1
        usual = self._profile[place, row]
        return float(self.volume[row] / usual) if usual > 0 else float("nan")
