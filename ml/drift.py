"""Whether what a model is asked about still looks like what it learned from, and whether its errors have grown.

The population stability index of a feature is the sum over bins of (p - q) ln(p / q), p the live and q the training
shares. Thresholds of 0.1 and 0.25 depend on the number of rows; without drift PSI is about chi-squared(bins - 1) times
(1/n + 1/m), which says what to expect of n training and m live rows that are independent. Rows of one session are not,
so n and m are effective numbers here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ml.features import BY_NAME, MODEL_FEATURES, Kind
from ml.statistics import mean

Floats = NDArray[np.float64]
Days = NDArray[np.datetime64]
Columns = Mapping[str, ArrayLike]

BINS = 10
FALSE_ALARMS = 0.01  # the chance of any alarm in one check without drift, shared equally by the features (Bonferroni)
LEAST_ROWS = 300
LAGS = 5  # sessions after which one has forgotten another: a week
ADWIN_DELTA = 0.002

#: Sums over all of a symbol's trades: they change as a book grows older, whatever the market does. Shown, not judged.
GROW_WITH_THE_BOOK = frozenset({"symbol_win_rate", "symbol_mean_r", "symbol_trades"})


@dataclass(frozen=True, slots=True)
class Comparison:
    """A feature then and now. `effective` is what its live rows are worth in independent ones; `bound` is what PSI
    stays below without drift, None for a feature that is not judged."""

    psi: float
    bound: float | None
    effective: float

    @property
    def alarm(self) -> bool:
        return self.bound is not None and self.psi > self.bound


@dataclass(frozen=True, slots=True)
class Errors:
    """The mean of the newest `n` errors, and of the `n_before` ahead of the last change; None where nothing changed."""

    mean: float | None
    n: int
    mean_before: float | None = None
    n_before: int = 0

    @property
    def alarm(self) -> bool:
        return self.mean is not None and self.mean_before is not None and self.mean > self.mean_before


def reference_of(columns: Columns, session: Days) -> dict[str, Any]:
    """What a model must remember of its training rows to be compared with later ones: plain numbers, ready for JSON.

    `columns` hold each model feature (n,), NaN or None where unknown; `session` is each row's New York day. A
    continuous feature has ten bins of equally many rows, fewer where quantiles tie, a categorical one its categories;
    what is unknown is one more bin, the last.
    """
    names = [feature.name for feature in MODEL_FEATURES]
    return {**_sizes(session), "features": {name: _remember(name, columns[name], session) for name in names}}


def compare(reference: Mapping[str, Any], columns: Columns, session: Days) -> dict[str, Comparison]:
    """Live rows beside those of a model's `reference_of`; `columns` and `session` as there."""
    judged = sum(name not in GROW_WITH_THE_BOOK for name in reference["features"])
    live = _sizes(session)
    found = {}
    for name, remembered in reference["features"].items():
        n, m = (_effective(rows, remembered["session_correlation"]) for rows in (reference, live))
        shares = _shares(_bin_of(remembered["bins"], columns[name], name), len(remembered["shares"]))
        value, bins = psi(np.array(remembered["shares"]), n, shares, m)
        bound = None if name in GROW_WITH_THE_BOOK or bins < 2 else psi_bound(bins, n, m, FALSE_ALARMS / judged)
        found[name] = Comparison(value, bound, m)
    return found


def psi(training: Floats, n: float, live: Floats, m: float) -> tuple[float, int]:
    """The index of two distributions over the same bins, and how many of these are not empty in both.

    `n` and `m` are the effective rows behind the shares. Each bin gets half an effective row, or an empty one would be
    infinitely far away.
    """
    filled = (training > 0) | (live > 0)
    bins = int(filled.sum())
    q, p = ((share[filled] * rows + 0.5) / (rows + 0.5 * bins) for share, rows in ((training, n), (live, m)))
    return float(np.sum((p - q) * np.log(p / q))), bins


def psi_bound(bins: int, n: float, m: float, chance: float) -> float:
    """What PSI exceeds with this chance without drift: chi-squared quantile (bins - 1) times (1/n + 1/m)."""
    from scipy.special import chdtri

    return float(chdtri(bins - 1, chance)) * (1 / n + 1 / m)


def excess_errors(p_win: Floats, won: NDArray[np.bool_]) -> Floats:
    """The squared error of each prediction beyond what it expects of itself: (p - won)^2 - p (1 - p).

    Its mean is 0 where the odds are right, whichever signals are asked about (Spiegelhalter 1986), so that it does not
    move when a model begins to skip those with low odds; the plain squared error does.
    """
    return (p_win - won) ** 2 - p_win * (1 - p_win)


def watch_errors(errors: Floats) -> Errors:
    """Where a series of errors, oldest first, last changed its mean (ADWIN: Bifet and Gavalda 2007). No two of them may
    be more than 1 apart."""
    from river.drift import ADWIN

    adwin: Any = ADWIN(delta=ADWIN_DELTA)
    kept = changed = 0  # where ADWIN's window begins, and where it began before the last change
    for seen, error in enumerate(errors, start=1):
        adwin.update(float(error))
        if adwin.drift_detected:
            changed, kept = kept, seen - int(adwin.width)
    before, since = errors[changed:kept], errors[kept:]
    return Errors(mean(since), len(since), mean(before), len(before))


def _sizes(session: Days) -> dict[str, Any]:
    """`rows_per_session` as a row sees it: the mean over rows, not over sessions."""
    _, counts = np.unique(session, return_counts=True)
    return {
        "rows": len(session),
        "sessions": len(counts),
        "rows_per_session": float(np.sum(counts**2) / len(session)) if len(session) else 0.0,
    }


def _effective(rows: Mapping[str, Any], session_correlation: float) -> float:
    """Rows over Kish's design effect, 1 + (rows a session - 1) * correlation (Survey Sampling, 1965, 5.4)."""
    return float(rows["rows"] / (1 + (rows["rows_per_session"] - 1) * session_correlation))


def _remember(name: str, column: ArrayLike, session: Days) -> dict[str, Any]:
    bins: list[Any] = _edges(column) if BY_NAME[name].kind is Kind.CONTINUOUS else list(BY_NAME[name].categories)
    bin_of = _bin_of(bins, column, name)
    count = len(bins) + (2 if BY_NAME[name].kind is Kind.CONTINUOUS else 1)
    return {
        "bins": bins,
        "shares": _shares(bin_of, count).tolist(),
        "session_correlation": _session_correlation(bin_of, session),
    }


def _edges(column: ArrayLike) -> list[float]:
    values = np.asarray(column, dtype=np.float64)
    known = values[np.isfinite(values)]
    return np.unique(np.quantile(known, np.arange(1, BINS) / BINS)).tolist() if len(known) else []


def _bin_of(bins: Sequence[Any], column: ArrayLike, name: str) -> NDArray[np.intp]:
    """Each row's bin: between `bins` as edges for a continuous feature, one of `bins` for a categorical one."""
    if BY_NAME[name].kind is Kind.CONTINUOUS:
        values = np.asarray(column, dtype=np.float64)
        return np.where(np.isnan(values), len(bins) + 1, np.searchsorted(bins, values))
    place = {category: index for index, category in enumerate(bins)}
    return np.array([place.get(value, len(bins)) for value in np.asarray(column, dtype=object)], dtype=np.intp)


def _shares(bin_of: NDArray[np.intp], bins: int) -> Floats:
    return np.bincount(bin_of, minlength=bins) / len(bin_of)


def _session_correlation(bin_of: NDArray[np.intp], session: Days) -> float:
    """How alike the rows of a session are, as an intraclass correlation: 0 independent, 1 one value a session, more
    where sessions also resemble their neighbours, as those of VIX do.

    It is taken in the direction in which sessions differ most: the largest of the generalised design effects of the
    bins' shares (Rao and Scott 1981), from session totals whose covariances with those of the LAGS sessions before
    count too (Newey and West 1987). Bounds that rest on it are therefore kept rather than met.
    """
    _, day = np.unique(session, return_inverse=True)
    filled = np.unique(bin_of)
    per_session = _sizes(session)["rows_per_session"]
    if len(filled) < 2 or per_session <= 1:
        return 0.0
    totals = np.zeros((day.max() + 1, len(filled)))
    np.add.at(totals, (day, np.searchsorted(filled, bin_of)), 1.0)
    share = totals.sum(axis=0) / len(bin_of)
    apart = (totals - totals.sum(axis=1, keepdims=True) * share)[:, :-1]  # the last bin follows from the others
    covariance = apart.T @ apart
    for lag in range(1, LAGS + 1):
        shared = apart[lag:].T @ apart[:-lag]
        covariance += (1 - lag / (LAGS + 1)) * (shared + shared.T)
    independent = (np.diag(share) - np.outer(share, share))[:-1, :-1] * len(bin_of)
    effect = np.linalg.eigvals(np.linalg.solve(independent, covariance)).real.max()
    return float(max(0.0, (effect - 1) / (per_session - 1)))
