"""What a rule does as its threshold moves, on out-of-sample rows: the curves that a page draws."""

from dataclasses import asdict
from typing import Any

import numpy as np

from ml.evaluation import Flags, Floats, Rows, SessionBootstrap

POINTS = 101
THRESHOLDS = tuple(step / 20 for step in range(1, 20))


def roc(won: Flags, p: Floats) -> list[list[float]]:
    """Share of losses and of wins whose P(win) reaches a threshold, as that falls: at most POINTS, from (0, 0) to
    (1, 1). Empty without both outcomes."""
    if won.all() or not won.any():
        return []
    order = np.argsort(-p, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(p[order]) != 0, True))  # equal probabilities are one threshold
    wins, losses = np.cumsum(won[order])[ends], np.cumsum(~won[order])[ends]
    x = np.concatenate([[0.0], losses / losses[-1]])
    y = np.concatenate([[0.0], wins / wins[-1]])
    kept = np.unique(np.linspace(0, len(x) - 1, POINTS).round().astype(int))
    return [[float(one), float(other)] for one, other in zip(x[kept], y[kept], strict=True)]


def value_by_threshold(rows: Rows, p: Floats, seed: int) -> list[dict[str, Any]]:
    """Mean net R, its 95 % interval by session and n of the rows whose P(win) reaches a threshold, for each that
    any row reaches."""
    bootstrap = SessionBootstrap(rows.session, seed)
    steps = []
    for threshold in THRESHOLDS:
        reached = (p >= threshold) & np.isfinite(rows.r)
        if reached.any():
            value = float(rows.r[reached].mean())
            interval = bootstrap.interval(value, bootstrap.means(rows.r, reached))
            steps.append(
                {"threshold": threshold, "n": int(reached.sum()), "mean_r": value}
                | {"interval": asdict(interval) if interval else None}
            )
    return steps


def curves(rows: Rows, p: Floats, seed: int) -> dict[str, Any]:
    """Of P(win) `p` (n,) on n rows, ready for JSON."""
    return {
        "roc": roc(rows.won, p),
        "roc_geometry": roc(rows.won, rows.p_geometry),
        "value_by_threshold": value_by_threshold(rows, p, seed),
    }
