"""Bars as Alpaca sends them, over REST and in its stream, read into rows."""

import logging
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import numpy as np

from positions.market.bar_files import BarRows, microseconds
from positions.market.bars import FIELDS

logger = logging.getLogger(__name__)

_QUANTITIES = ("o", "h", "l", "c", "v", "vw")


def bar_rows(bars: Iterable[tuple[str, Any, int]]) -> BarRows:
    """Alpaca's bars, of REST or stream, as rows: symbol, bar and the microsecond it was seen.

    Unknown fields are ignored, absent ones are NaN; what has no time is left out.
    """
    names: list[str] = []
    starts: list[int] = []
    values: list[list[float]] = []
    trades: list[float] = []
    seen_at: list[int] = []
    for symbol, bar, seen in bars:
        start = _time(bar.get("t")) if isinstance(bar, dict) else None
        if start is None:
            logger.warning("a bar of %s without a time was left out: %.200r", symbol, bar)
            continue
        names.append(symbol)
        starts.append(start)
        values.append([_number(bar.get(quantity)) for quantity in _QUANTITIES])
        trades.append(_number(bar.get("n")))
        seen_at.append(seen)
    return BarRows.of(
        names,
        np.array(starts, dtype=np.int64),
        np.array(values, dtype=np.float64).reshape(len(names), len(FIELDS)).T,
        np.array(trades, dtype=np.float64),
        np.array(seen_at, dtype=np.int64),
    )


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")


def _time(value: Any) -> int | None:
    """Microseconds since 1970 of RFC 3339 text (REST) or a msgpack timestamp (stream)."""
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            return None
        return microseconds(moment) if moment.tzinfo else None
    to_unix_nano = getattr(value, "to_unix_nano", None)
    return None if to_unix_nano is None else int(to_unix_nano()) // 1000
