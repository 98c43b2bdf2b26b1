"""How much each trade says that no other says: trades that live at the same time share one market."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Times = NDArray[np.datetime64]


def uniqueness(start: Times, end: Times) -> Floats:
    """The mean, over each trade's life, of 1 / (trades alive); (n,) in (0, 1].

    `start` and `end` (n,) are moments, both included; their sum is the number of independent trades these are worth
    (Lopez de Prado, Advances in Financial Machine Learning, 4.4).
    """
    first, last = start.astype(np.int64), end.astype(np.int64) + 1
    moments = np.unique(np.concatenate([first, last]))
    born, dead = np.searchsorted(moments, first), np.searchsorted(moments, last)
    change = np.bincount(born, minlength=len(moments)) - np.bincount(dead, minlength=len(moments))
    alive = np.cumsum(change)[:-1]
    share = np.divide(np.diff(moments), alive, out=np.zeros(len(alive)), where=alive > 0)
    shared = np.concatenate(([0.0], np.cumsum(share)))
    unique: Floats = (shared[dead] - shared[born]) / (last - first)
    return unique


def weights(start: Times, end: Times) -> Floats:
    """Uniqueness scaled to a mean of one, so that a learner's own settings keep their meaning."""
    unique = uniqueness(start, end)
    scaled: Floats = unique / unique.mean() if len(unique) else unique
    return scaled
