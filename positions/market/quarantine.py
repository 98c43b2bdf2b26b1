"""Bad prints are kept out: one of them would stay in a symbol's averages for ever."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from positions.market.bars import FIELDS, BarBatch, Floats

Mask = NDArray[np.bool_]

#: A price this far from the symbol's last good close, as a fraction of it, is not believed until a second bar agrees.
FARTHEST = 0.5
#: How far, relative, an open or close may lie outside its bar's range by rounding.
ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class PriceMemory:
    """What bars are judged by, arrays of shape (symbols,), NaN where there is none yet.

    `last_good`: the last close that was believed. `suspect`: the close of the bar before, where it was too far away.
    """

    last_good: Floats
    suspect: Floats

    @classmethod
    def empty(cls, symbols: int) -> "PriceMemory":
        return cls.of(np.full(symbols, np.nan))

    @classmethod
    def of(cls, closes: Floats) -> "PriceMemory":
        """Of the last known closes, (symbols,), as they are now."""
        return cls(closes.copy(), np.full(len(closes), np.nan))


def is_sane(values: Floats) -> Mask:
    """Which bars can be true by themselves; `values` is (6, n) in the order of FIELDS, the result (n,).

    Prices are finite, positive and within low and high, volume is not negative; a vwap may be absent (NaN).
    """
    opened, high, low, close, volume, vwap = values
    with np.errstate(invalid="ignore"):
        return np.asarray(
            np.isfinite(values[:5]).all(axis=0)
            & (values[:4] > 0).all(axis=0)
            & (volume >= 0)
            & (high >= low)
            & (np.fmax(opened, close) <= high * (1 + ROUNDING))
            & (np.fmin(opened, close) >= low * (1 - ROUNDING))
            & (np.isnan(vwap) | (np.isfinite(vwap) & (vwap > 0)))
        )


def is_far(values: Floats, reference: Floats) -> Mask:
    """Which bars (6, n) reach farther than FARTHEST from a price (n,); False where there is no such price."""
    _, high, low, _, _, vwap = values
    with np.errstate(invalid="ignore"):
        return np.asarray(
            (np.fmax(high, vwap) > reference * (1 + FARTHEST)) | (np.fmin(low, vwap) < reference * (1 - FARTHEST))
        )


def quarantine(batch: BarBatch, memory: PriceMemory) -> tuple[BarBatch, PriceMemory, Mask]:
    """The batch without its bad prints (NaN, as if not traded), the memory after it, and which symbols were refused.

    A bar is refused if it is not sane, or far from the symbol's last good close; the next bar is believed if it is sane
    and near the refused one's close, so that a real jump (a halt, a split) costs one bar.
    """
    values = np.stack([getattr(batch, field) for field in FIELDS])
    present = ~np.isnan(values[:5]).all(axis=0)
    sane = present & is_sane(values)
    far = sane & is_far(values, memory.last_good)
    confirmed = far & np.isfinite(memory.suspect) & ~is_far(values, memory.suspect)
    refused = present & (~sane | (far & ~confirmed))
    accepted = present & ~refused
    close = values[3]
    after = PriceMemory(
        last_good=np.where(accepted, close, memory.last_good),
        suspect=np.where(accepted, np.nan, np.where(sane & refused, close, memory.suspect)),
    )
    if refused.any():
        values[:, refused] = np.nan
        batch = replace(batch, **dict(zip(FIELDS, values, strict=True)))
    return batch, after, refused
