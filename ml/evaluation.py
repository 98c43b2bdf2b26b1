"""What a model is worth on rows it never saw: every figure with its n, its interval and its baseline.

Intervals are 95 % and resample whole sessions, since the trades of one day are nearly one observation; the AUC's is
the wider of that and DeLong's. An undefined figure is None. Baselines stand on the same rows: the majority class and
the base rate *of these rows* (harder to beat than those of the training rows), and geometry, risk / (risk + reward).
"""

from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml.statistics import CONFIDENCE, Interval

RESAMPLES = 1000
Z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
CALIBRATION_BINS = 10
NEAREST_CERTAIN = 1e-6  # log-loss of a certainty that was wrong is finite

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Rows:
    """What happened on n test rows: `won` (n,), `p_geometry` (n,), net result `r` in R (n,), NaN where it is unknown,
    and `session` (n,) as a day."""

    won: Flags
    p_geometry: Floats
    r: Floats
    session: NDArray[np.datetime64]


@dataclass(frozen=True)
class Estimate:
    value: float
    interval: Interval | None


@dataclass(frozen=True)
class Scores:
    """What any rule that gives probabilities is compared by."""

    auc: float | None
    accuracy: float
    log_loss: float
    brier: float


@dataclass(frozen=True)
class Evaluation:
    """Accuracy, precision, recall, F1 and the confusion matrix at P >= 0.5 on all rows.

    `skill_*` is the improvement over geometry (positive is better), `taken_minus_all` the mean R of the trades above
    the threshold minus that of all.
    """

    n: int
    wins: int
    losses: int
    sessions: int
    accuracy: float
    precision: float | None
    recall: float | None
    f1: float | None
    true_positives: int
    false_positives: int
    true_negatives: int
    false_negatives: int
    auc: float | None
    auc_interval: Interval | None
    brier: float
    log_loss: float
    calibration_error: float
    base_rate: float
    base_rate_brier: float
    base_rate_log_loss: float
    majority_accuracy: float
    accuracy_over_majority: Estimate
    geometry: Scores
    skill_log_loss: Estimate
    skill_auc: Estimate | None
    n_r: int
    mean_r: float | None
    n_taken: int
    mean_r_taken: float | None
    taken_minus_all: Estimate | None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def _log_losses(won: Flags, p: Floats) -> Floats:
    p = np.clip(p, NEAREST_CERTAIN, 1 - NEAREST_CERTAIN)
    return -np.log(np.where(won, p, 1 - p))


def _below(p: Floats, others: Floats) -> Floats:
    """For each p, how many of `others` lie below it, a tie counting half."""
    ordered = np.sort(others)
    return (np.searchsorted(ordered, p, "left") + np.searchsorted(ordered, p, "right")) / 2


def auc(won: Flags, p: Floats) -> float | None:
    """Probability that a win is ranked above a loss (Mann-Whitney); None without both."""
    if won.all() or not won.any():
        return None
    return float(_below(p[won], p[~won]).mean() / (~won).sum())


def scores(won: Flags, p: Floats) -> Scores:
    """Figures of a baseline's probabilities p (n,)."""
    return Scores(
        auc=auc(won, p),
        accuracy=float(((p >= 0.5) == won).mean()),
        log_loss=float(_log_losses(won, p).mean()),
        brier=float(((p - won) ** 2).mean()),
    )


def delong_interval(won: Flags, p: Floats) -> Interval | None:
    """DeLong, DeLong & Clarke-Pearson 1988; None with fewer than two of a class."""
    wins, losses = p[won], p[~won]
    if min(len(wins), len(losses)) < 2:
        return None
    above = _below(wins, losses) / len(losses)
    below = 1 - _below(losses, wins) / len(wins)
    error = float(np.sqrt(above.var(ddof=1) / len(wins) + below.var(ddof=1) / len(losses)))
    middle = float(above.mean())
    return Interval(max(0.0, middle - Z * error), min(1.0, middle + Z * error))


def calibration_error(won: Flags, p: Floats) -> float:
    """Expected calibration error over ten bins of equal count."""
    bins = np.array_split(np.argsort(p, kind="stable"), CALIBRATION_BINS)
    return float(sum(abs(p[rows].mean() - won[rows].mean()) * len(rows) for rows in bins if len(rows)) / len(p))


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


class SessionBootstrap:
    """Resamples whole sessions. A resample is how often each session is in it, so that the sum of anything over its
    rows is a product of matrices."""

    def __init__(self, session: NDArray[np.datetime64], seed: int) -> None:
        days, self.place = np.unique(session, return_inverse=True)
        self.sessions = len(days)
        self.draws = np.random.default_rng(seed).multinomial(
            self.sessions, np.full(self.sessions, 1 / self.sessions), size=RESAMPLES
        )

    def sums(self, values: NDArray[Any]) -> Floats:
        """The sum of a row figure (n,) in each resample (RESAMPLES,)."""
        by_session = np.bincount(self.place, weights=values, minlength=self.sessions)
        return np.asarray(self.draws @ by_session, dtype=np.float64)

    def means(self, values: NDArray[Any]) -> Floats:
        means: Floats = self.sums(values) / self.sums(np.ones(len(self.place)))
        return means

    def aucs(self, won: Flags, p: Floats) -> Floats:
        """The AUC in each resample, NaN where it lacks a class: pairs are counted once for each pair of sessions."""
        win_place, loss_place = self.place[won], self.place[~won]
        pairs = np.zeros((self.sessions, self.sessions))
        for column in np.unique(loss_place):
            beaten = _below(p[won], p[~won][loss_place == column])
            pairs[:, column] = np.bincount(win_place, weights=beaten, minlength=self.sessions)
        ranked = ((self.draws @ pairs) * self.draws).sum(axis=1)
        possible = self.sums(won) * self.sums(~won)
        aucs: Floats = np.divide(ranked, possible, out=np.full(RESAMPLES, np.nan), where=possible > 0)
        return aucs

    def interval(self, resampled: Floats) -> Interval | None:
        """The percentile interval; None with a single session."""
        known = resampled[np.isfinite(resampled)]
        if self.sessions < 2 or not known.size:
            return None
        low, high = np.quantile(known, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        return Interval(float(low), float(high))


def _wider(first: Interval | None, second: Interval | None) -> Interval | None:
    return max((each for each in (first, second) if each is not None), key=lambda each: each.width, default=None)


def _taken_minus_all(r: Floats, taken: Flags, bootstrap: SessionBootstrap) -> Estimate | None:
    known = np.isfinite(r)
    chosen = known & taken
    if not chosen.any():
        return None
    result = np.where(known, r, 0.0)
    n_taken, n_known = bootstrap.sums(chosen), bootstrap.sums(known)
    with np.errstate(invalid="ignore"):
        resampled = bootstrap.sums(result * chosen) / n_taken - bootstrap.sums(result) / n_known
    return Estimate(float(r[chosen].mean() - r[known].mean()), bootstrap.interval(resampled))


def evaluate(rows: Rows, p: Floats, taken: Flags, seed: int) -> Evaluation:
    """Judge calibrated probabilities p (n,) and decisions `taken` (n,) on n >= 1 out-of-sample rows."""
    won = rows.won
    n, wins = len(won), int(won.sum())
    losses = n - wins
    said_win = p >= 0.5
    correct = said_win == won
    base_rate = wins / n
    bootstrap = SessionBootstrap(rows.session, seed)
    own, geometry = scores(won, p), scores(won, rows.p_geometry)

    gain = _log_losses(won, rows.p_geometry) - _log_losses(won, p)
    majority = np.maximum(bootstrap.means(won), bootstrap.means(~won))
    aucs = bootstrap.aucs(won, p)
    skill_auc = None
    if own.auc is not None and geometry.auc is not None:
        over_geometry = bootstrap.interval(aucs - bootstrap.aucs(won, rows.p_geometry))
        skill_auc = Estimate(own.auc - geometry.auc, over_geometry)
    true_positives, said_wins = int((said_win & won).sum()), int(said_win.sum())
    known_r = np.isfinite(rows.r)
    chosen = known_r & taken
    return Evaluation(
        n=n,
        wins=wins,
        losses=losses,
        sessions=bootstrap.sessions,
        accuracy=own.accuracy,
        precision=_ratio(true_positives, said_wins),
        recall=_ratio(true_positives, wins),
        f1=_ratio(2 * true_positives, said_wins + wins),
        true_positives=true_positives,
        false_positives=said_wins - true_positives,
        true_negatives=losses - (said_wins - true_positives),
        false_negatives=wins - true_positives,
        auc=own.auc,
        auc_interval=_wider(delong_interval(won, p), bootstrap.interval(aucs)),
        brier=own.brier,
        log_loss=own.log_loss,
        calibration_error=calibration_error(won, p),
        base_rate=base_rate,
        base_rate_brier=base_rate * (1 - base_rate),
        base_rate_log_loss=float(_log_losses(won, np.full(n, base_rate)).mean()),
        majority_accuracy=max(base_rate, 1 - base_rate),
        accuracy_over_majority=Estimate(
            own.accuracy - max(base_rate, 1 - base_rate), bootstrap.interval(bootstrap.means(correct) - majority)
        ),
        geometry=geometry,
        skill_log_loss=Estimate(float(gain.mean()), bootstrap.interval(bootstrap.means(gain))),
        skill_auc=skill_auc,
        n_r=int(known_r.sum()),
        mean_r=float(rows.r[known_r].mean()) if known_r.any() else None,
        n_taken=int(taken.sum()),
        mean_r_taken=float(rows.r[chosen].mean()) if chosen.any() else None,
        taken_minus_all=_taken_minus_all(rows.r, taken, bootstrap),
    )
