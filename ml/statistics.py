"""Figures of a series of trades or sessions, as pure functions of arrays.

A value that is undefined (too few observations, no variance, nothing lost) is None, never 0 or infinity. A WIN is a
result above zero after fees; exactly zero is a LOSS. r is a trade's result in R: dollars after fees over the dollars
risked between entry and initial stop.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

CONFIDENCE = 0.95
SESSIONS_A_YEAR = 252


@dataclass(frozen=True, slots=True)
class Interval:
    """A two-sided confidence interval at CONFIDENCE."""

    low: float
    high: float

    @property
    def width(self) -> float:
        return self.high - self.low

    def contains(self, value: float) -> bool:
        return self.low <= value <= self.high

    def within(self, least: float, most: float) -> "Interval":
        """The part of it that lies between two limits of the figure."""
        return Interval(max(least, self.low), min(most, self.high))


def mean(values: Floats) -> float | None:
    """sum(x) / n; over r this is the expectancy. None without values."""
    return float(np.mean(values)) if len(values) else None


def win_rate(pnl: Floats) -> float | None:
    """count(pnl > 0) / n. None without trades."""
    return mean((pnl > 0).astype(np.float64))


def profit_factor(pnl: Floats) -> float | None:
    """sum of gains / |sum of losses|. None where nothing was lost."""
    lost = float(-pnl[pnl < 0].sum())
    return float(pnl[pnl > 0].sum()) / lost if lost > 0 else None


def sharpe_per_trade(r: Floats) -> float | None:
    """mean(r) / sd(r), sd with n - 1; never annualised. None below two trades or without variance."""
    return None if _constant(r) else float(np.mean(r) / np.std(r, ddof=1))


def daily_sharpe(returns: Floats) -> float | None:
    """mean(x) / sd(x) * sqrt(252), sd with n - 1, risk-free rate 0.

    `returns` holds one fraction of equity for every session of the exchange, 0 for those without a trade.
    """
    ratio = sharpe_per_trade(returns)
    return None if ratio is None else ratio * float(np.sqrt(SESSIONS_A_YEAR))


def daily_sharpe_interval(returns: Floats) -> Interval | None:
    """Around daily_sharpe, with the standard error sqrt(252 (1 + SR^2 / 2) / n), SR a session's ratio (Lo 2002).

    None where that is None.
    """
    ratio = sharpe_per_trade(returns)
    if ratio is None:
        return None
    from scipy.special import ndtri

    error = float(np.sqrt(SESSIONS_A_YEAR * (1 + ratio**2 / 2) / len(returns)))
    half = float(ndtri((1 + CONFIDENCE) / 2)) * error
    centre = ratio * float(np.sqrt(SESSIONS_A_YEAR))
    return Interval(centre - half, centre + half)


def sortino(returns: Floats) -> float | None:
    """mean(x) / sqrt(mean(min(x, 0)^2)) * sqrt(252), the mean of squares over all sessions. None without a loss.

    `returns` as for daily_sharpe.
    """
    if not (returns < 0).any():
        return None
    downside = np.sqrt(np.mean(np.minimum(returns, 0.0) ** 2))
    return float(np.mean(returns) / downside * np.sqrt(SESSIONS_A_YEAR))


def max_drawdown_r(r: Floats) -> float | None:
    """Largest fall, in R, of the running sum of r from its highest point so far; the sum starts at 0.

    `r` in the order in which the trades closed. Not negative; None without trades.
    """
    if not len(r):
        return None
    total = np.concatenate(([0.0], np.cumsum(r)))
    return float(np.max(np.maximum.accumulate(total) - total))


def max_drawdown(returns: Floats) -> float | None:
    """Largest fall as a fraction of the highest equity so far, which starts at 1 and grows by each session's return.

    `returns` as for daily_sharpe. Not negative; None without sessions.
    """
    if not len(returns):
        return None
    values = np.concatenate(([1.0], np.cumprod(1 + returns)))
    peak = np.maximum.accumulate(values)
    return float(np.max((peak - values) / peak))


def share_interval(hits: int, n: int) -> Interval | None:
    """Wilson's interval for a share of independent observations (Wilson 1927). None without observations."""
    if n == 0:
        return None
    from scipy.special import ndtri

    z2 = float(ndtri((1 + CONFIDENCE) / 2)) ** 2
    share = hits / n
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = float(np.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n * n)))) / (1 + z2 / n)
    return Interval(max(0.0, centre - half), min(1.0, centre + half))


def clustered_interval(values: Floats, sessions: Sequence[object]) -> Interval | None:
    """t-interval for the mean over trades, with a standard error that lets the trades of one session move together.

    The error is `clustered_error`'s, the quantile Student's with as many degrees of freedom as there are sessions less
    one. Where every session has as many trades this is the t-interval over session means; where every trade is a
    session of its own, the plain t-interval. None below two sessions or without variance.
    """
    error = clustered_error(values, sessions)
    return None if error is None else student_interval(float(np.mean(values)), error, len(set(sessions)))


def clustered_share_interval(hits: Floats, sessions: Sequence[object]) -> Interval | None:
    """The same for a share: the mean of zeros and ones."""
    found = clustered_interval(hits, sessions)
    return found and found.within(0.0, 1.0)


def student_interval(estimate: float, error: float, sessions: int) -> Interval:
    """Estimate plus and minus its standard error times Student's quantile, `sessions` less one degrees of freedom."""
    from scipy.special import stdtrit

    half = float(stdtrit(sessions - 1, (1 + CONFIDENCE) / 2)) * error
    return Interval(estimate - half, estimate + half)


def difference_interval(
    values: Floats, sessions: Sequence[object], others: Floats, other_sessions: Sequence[object]
) -> Interval | None:
    """t-interval for mean(values) - mean(others), two sets of trades of different sessions, each error clustered.

    Degrees of freedom by Welch and Satterthwaite, from each side's sessions less one (Welch 1947). None where either
    side has no error.
    """
    error, other_error = clustered_error(values, sessions), clustered_error(others, other_sessions)
    if error is None or other_error is None:
        return None
    from scipy.special import stdtrit

    variance = error**2 + other_error**2
    freedom = variance**2 / (error**4 / (len(set(sessions)) - 1) + other_error**4 / (len(set(other_sessions)) - 1))
    half = float(stdtrit(freedom, (1 + CONFIDENCE) / 2)) * variance**0.5
    centre = float(np.mean(values) - np.mean(others))
    return Interval(centre - half, centre + half)


def clustered_error(values: Floats, sessions: Sequence[object]) -> float | None:
    """Standard error of the mean over trades, where those of one session may move together.

    `sessions[i]` names the session of `values[i]`. With G sessions, n trades and e_g the sum of x - mean in session g,
    SE^2 = G / (G - 1) * sum(e_g^2) / n^2 (Cochran 1977, Sampling Techniques, 6.3). None below two sessions or without
    variance.
    """
    groups, members = np.unique(np.asarray(sessions), return_inverse=True)
    if len(groups) < 2 or _constant(values):
        return None
    residuals = np.bincount(members, weights=values - np.mean(values))
    if np.allclose(residuals, 0.0, atol=1e-12 * float(np.ptp(values))):
        return None
    return session_error(residuals / len(values))


def summed_error(counts: Floats, totals: Floats) -> float | None:
    """`clustered_error` of trades of which only each session's number, above 0, and total are known, both (G,)."""
    n = float(counts.sum())
    residuals = totals - counts * (totals.sum() / n)
    if len(counts) < 2 or np.allclose(residuals, 0.0, atol=1e-12 * float(np.abs(totals).max())):
        return None
    return session_error(residuals / n)


def summed_interval(counts: Floats, totals: Floats) -> Interval | None:
    """`clustered_interval` of the same."""
    error = summed_error(counts, totals)
    return None if error is None else student_interval(float(totals.sum() / counts.sum()), error, len(counts))


def session_error(parts: Floats) -> float:
    """Standard error of an estimate of G >= 2 sessions, from what each of them adds to its deviation, (G,):
    SE^2 = G / (G - 1) * sum(parts^2)."""
    count = len(parts)
    return float(np.sqrt(count / (count - 1) * np.sum(parts**2)))


def _constant(values: Floats) -> bool:
    return len(values) < 2 or float(np.ptp(values)) == 0.0


def probabilistic_sharpe(returns: Floats, benchmark: float = 0.0) -> float | None:
    """Probability that the true Sharpe ratio a period exceeds `benchmark`, skew and fat tails considered.

    Phi((SR - SR*) sqrt(n - 1) / sqrt(1 - g3 SR + (g4 - 1) / 4 SR^2)), SR not annualised, g3 and g4 the sample's
    skewness and raw kurtosis (Bailey & Lopez de Prado 2012). None below three periods or without variance.
    """
    sharpe = sharpe_per_trade(returns)
    if sharpe is None or len(returns) < 3:
        return None
    from scipy.special import ndtr

    z = (returns - np.mean(returns)) / np.std(returns)
    skewness, kurtosis = float(np.mean(z**3)), float(np.mean(z**4))
    spread = 1 - skewness * sharpe + (kurtosis - 1) / 4 * sharpe**2
    return float(ndtr((sharpe - benchmark) * np.sqrt(len(returns) - 1) / np.sqrt(spread))) if spread > 0 else None


def best_of_nothing(trials: Sequence[float]) -> float:
    """The Sharpe ratio that the best of so many worthless trials is expected to show, 0 for a single one.

    sd(SR) [(1 - g) Phi^-1(1 - 1/N) + g Phi^-1(1 - 1/(N e))], g Euler's constant (Bailey & Lopez de Prado 2014).
    """
    if len(trials) < 2:
        return 0.0
    from scipy.special import ndtri

    n, euler = len(trials), float(np.euler_gamma)
    return float(np.std(trials, ddof=1)) * float((1 - euler) * ndtri(1 - 1 / n) + euler * ndtri(1 - 1 / (n * np.e)))
