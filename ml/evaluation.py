"""What a model is worth on rows it never saw: every figure with its n, its interval and its baselines.

Intervals are 95 %. They resample whole sessions, since the trades of one day are nearly one observation, and are the
estimate plus and minus Student's quantile times the resampled standard error. The AUC's is the wider of that and
DeLong's; average precision's is made on the scale of log-odds, and the calibration error's allows for the error that
chance alone shows. An undefined figure is None. Baselines stand on the same rows: the majority class and the base rate
*of these rows* (harder to beat than those of the training rows), geometry, risk / (risk + reward), and other rules.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml.statistics import CONFIDENCE, Interval

RESAMPLES = 1000
CALIBRATION_BINS = 10
NEAREST_CERTAIN = 1e-6  # log-loss of a certainty that was wrong is finite
DRAWS_AT_ONCE = 100
#: Of the resamples, that have a figure for which two sessions or more have rows. One session is missing from a quarter
#: of them at the least, and in the others the figure never moves.
KNOWN = 0.8
HALVINGS = 20  # of 0 to 1: to a millionth

#: Between what a figure lies, whatever its interval would say.
POSSIBLE = {
    **dict.fromkeys(("precision", "recall", "f1", "brier"), (0.0, 1.0)),
    "mcc": (-1.0, 1.0),
    "log_loss": (0.0, np.inf),
    "mean_r": (-np.inf, np.inf),
}

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
class Rule:
    """What a rule says of n rows: P(win) `p` (n,), and which of them it lets through, `taken` (n,)."""

    p: Floats
    taken: Flags


@dataclass(frozen=True)
class Estimate:
    value: float
    interval: Interval | None

    def turned(self) -> "Estimate":
        """The same difference, the other way round."""
        return Estimate(-self.value, Interval(-self.interval.high, -self.interval.low) if self.interval else None)


@dataclass(frozen=True)
class Scores:
    """What any rule that gives probabilities is compared by, on the same rows. `accuracy` at P >= 0.5 on all of them;
    `mean_r_taken` is the mean result of the `n_taken` trades that the rule lets through."""

    auc: float | None
    auc_interval: Interval | None
    accuracy: float
    accuracy_interval: Interval | None
    log_loss: float
    brier: float
    n_taken: int
    mean_r_taken: float | None
    mean_r_taken_interval: Interval | None


@dataclass(frozen=True)
class Decile:
    """A tenth of the rows by predicted P(win), the lowest first; `lift` is its win rate over that of all rows."""

    n: int
    mean_p: float
    win_rate: float
    lift: float | None
    mean_r: float | None


@dataclass(frozen=True)
class Evaluation:
    """Accuracy, precision, recall, F1, MCC and the confusion matrix at P >= 0.5 on all rows.

    `skill_*` is the improvement over geometry (positive is better), `taken_minus_all` the mean R of the trades that are
    not skipped minus that of all. `auc_bound` is the AUC's interval at 5 % / `attempts`. `intervals` has those of the
    point figures by name; `baselines` what other rules make of the same rows, and `worse_than` by how much the model's
    log-loss exceeds theirs (negative is better). `spiegelhalter_p` is small where probabilities are not what they say
    (Spiegelhalter 1986).
    """

    n: int
    wins: int
    losses: int
    sessions: int
    attempts: int
    accuracy: float
    precision: float | None
    recall: float | None
    f1: float | None
    mcc: float | None
    true_positives: int
    false_positives: int
    true_negatives: int
    false_negatives: int
    auc: float | None
    auc_interval: Interval | None
    auc_bound: Interval | None
    average_precision: float | None
    brier: float
    log_loss: float
    calibration_error: float
    spiegelhalter_p: float | None
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
    intervals: Mapping[str, Interval | None] = field(default_factory=dict)
    deciles: list[Decile] = field(default_factory=list)
    baselines: Mapping[str, Scores] = field(default_factory=dict)
    worse_than: Mapping[str, Estimate] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class ShuffledControl:
    """AUC on the last window's test part of models whose training outcomes were shuffled: what a
    sound pipeline makes of nothing. `passed` where 0.5 lies within three standard errors of the mean."""

    n: int
    mean_auc: float
    standard_error: float

    @property
    def passed(self) -> bool:
        return abs(self.mean_auc - 0.5) <= 3 * self.standard_error


def log_losses(won: Flags, p: Floats) -> Floats:
    """-log of the probability given to what happened, a row each."""
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


def delong_interval(won: Flags, p: Floats, alpha: float = 1 - CONFIDENCE) -> Interval | None:
    """DeLong, DeLong & Clarke-Pearson 1988; None with fewer than two of a class."""
    wins, losses = p[won], p[~won]
    if min(len(wins), len(losses)) < 2:
        return None
    from scipy.special import ndtri

    above = _below(wins, losses) / len(losses)
    below = 1 - _below(losses, wins) / len(wins)
    error = float(np.sqrt(above.var(ddof=1) / len(wins) + below.var(ddof=1) / len(losses)))
    middle, z = float(above.mean()), float(ndtri(1 - alpha / 2))
    return Interval(middle - z * error, middle + z * error).within(0.0, 1.0)


def _bins(p: Floats) -> list[NDArray[np.intp]]:
    """Rows by predicted P(win) in ten bins of equal count, the lowest first; empty ones left out."""
    return [rows for rows in np.array_split(np.argsort(p, kind="stable"), CALIBRATION_BINS) if len(rows)]


def calibration_error(won: Flags, p: Floats) -> float:
    """Expected calibration error over ten bins of equal count."""
    return float(sum(abs(p[rows].mean() - won[rows].mean()) * len(rows) for rows in _bins(p)) / len(p))


def spiegelhalter_p(won: Flags, p: Floats) -> float | None:
    """Two-sided p-value of the claim that P(win) is p; None where every p is certain or a half."""
    from scipy.special import ndtr

    spread = float(((1 - 2 * p) ** 2 * p * (1 - p)).sum())
    if spread <= 0:
        return None
    z = float(((won - p) * (1 - 2 * p)).sum()) / float(np.sqrt(spread))
    return float(2 * ndtr(-abs(z)))


def _ratios(part: Floats, whole: Floats) -> Floats:
    ratios: Floats = np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)
    return ratios


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

    def means(self, values: NDArray[Any], where: NDArray[Any] | None = None) -> Floats:
        """The mean over the rows `where` (n,) holds, all by default; NaN in a resample without one."""
        held = np.ones(len(self.place)) if where is None else where
        return _ratios(self.sums(np.where(held, values, 0.0)), self.sums(held))

    def aucs(self, won: Flags, p: Floats) -> Floats:
        """The AUC in each resample, NaN where it lacks a class: pairs are counted once for each pair of sessions."""
        win_place, loss_place = self.place[won], self.place[~won]
        pairs = np.zeros((self.sessions, self.sessions))
        for column in np.unique(loss_place):
            beaten = _below(p[won], p[~won][loss_place == column])
            pairs[:, column] = np.bincount(win_place, weights=beaten, minlength=self.sessions)
        ranked = ((self.draws @ pairs) * self.draws).sum(axis=1)
        return _ratios(ranked, self.sums(won) * self.sums(~won))

    def average_precisions(self, won: Flags, p: Floats) -> Floats:
        """Average precision in each resample; equal probabilities are one threshold."""
        order = np.argsort(-p, kind="stable")
        ends = np.flatnonzero(np.append(np.diff(p[order]) != 0, True))
        hit, place = won[order], self.place[order]
        found = []
        for start in range(0, RESAMPLES, DRAWS_AT_ONCE):
            count = self.draws[start : start + DRAWS_AT_ONCE, place].astype(np.float64)
            said, right = np.cumsum(count, axis=1)[:, ends], np.cumsum(count * hit, axis=1)[:, ends]
            precision = np.divide(right, said, out=np.zeros_like(right), where=said > 0)
            gained = np.diff(right, axis=1, prepend=0.0)
            found.append(_ratios((precision * gained).sum(axis=1), right[:, -1]))
        return np.concatenate(found)

    def calibration_interval(self, won: Flags, p: Floats) -> Interval | None:
        """Between which calibration errors ours would be seen in 95 of 100 samples; None with a single session.

        Chance alone shows an error: honest probabilities are off in every bin, and an interval around the estimate
        would leave their 0 out. So the resampled chance is added to what is supposed to be wrong: at the lower end
        errors in proportion to those seen, at the upper end the same in every bin, which hides best behind chance.
        """
        if self.sessions < 2:
            return None
        off = np.zeros((len(p), CALIBRATION_BINS))
        for column, rows in enumerate(_bins(p)):
            off[rows, column] = p[rows] - won[rows]
        seen = off.mean(axis=0)
        resampled = np.column_stack([self.means(each) for each in off.T])
        chance = (resampled - seen) * np.sqrt(self.sessions / (self.sessions - 1))
        error, tail = float(np.abs(seen).sum()), (1 - CONFIDENCE) / 2

        def shown(pattern: Floats, quantile: float) -> Callable[[float], bool]:
            return lambda wrong: np.quantile(np.abs(wrong * pattern + chance).sum(axis=1), quantile) >= error

        low = _least(shown(seen / error if error else seen, 1 - tail))
        return Interval(low, max(low, _least(shown(np.sign(seen) / CALIBRATION_BINS, tail))))

    def interval(self, value: float | None, resampled: Floats, alpha: float = 1 - CONFIDENCE) -> Interval | None:
        """value +- t(sessions - 1) * the resampled standard error, made unbiased; None with a single session, and for
        a figure that rests on the rows of a single one."""
        known = resampled[np.isfinite(resampled)]
        if value is None or self.sessions < 2 or len(known) < KNOWN * len(resampled):
            return None
        from scipy.special import stdtrit

        error = float(known.std()) * float(np.sqrt(self.sessions / (self.sessions - 1)))
        half = float(stdtrit(self.sessions - 1, 1 - alpha / 2)) * error
        return Interval(value - half, value + half)

    def share_interval(self, value: float | None, resampled: Floats) -> Interval | None:
        """The same on the scale of log-odds, for a value from 0 to 1 whose samples are skewed."""
        from scipy.special import expit, logit

        def odds(share: Any) -> Any:
            return logit(np.clip(share, NEAREST_CERTAIN, 1 - NEAREST_CERTAIN))

        found = None if value is None else self.interval(float(odds(value)), odds(resampled))
        return found and Interval(float(expit(found.low)), float(expit(found.high)))


def _least(reaches: Callable[[float], bool]) -> float:
    """The least number from 0 to 1 that reaches, where all above it do."""
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if reaches(middle) else (middle, high)
    return low


def _wider(first: Interval | None, second: Interval | None) -> Interval | None:
    return max((each for each in (first, second) if each is not None), key=lambda each: each.width, default=None)


def _auc_interval(
    rows: Rows, p: Floats, resampled: Floats, bootstrap: SessionBootstrap, alpha: float = 1 - CONFIDENCE
) -> Interval | None:
    return _wider(delong_interval(rows.won, p, alpha), bootstrap.interval(auc(rows.won, p), resampled, alpha))


def _mean(values: Floats) -> float | None:
    return float(values.mean()) if len(values) else None


def scores(rows: Rows, rule: Rule, bootstrap: SessionBootstrap) -> Scores:
    """Figures of any rule on the rows."""
    correct = (rule.p >= 0.5) == rows.won
    earned = rule.taken & np.isfinite(rows.r)
    mean_r = _mean(rows.r[earned])
    return Scores(
        auc=auc(rows.won, rule.p),
        auc_interval=_auc_interval(rows, rule.p, bootstrap.aucs(rows.won, rule.p), bootstrap),
        accuracy=float(correct.mean()),
        accuracy_interval=bootstrap.interval(float(correct.mean()), bootstrap.means(correct)),
        log_loss=float(log_losses(rows.won, rule.p).mean()),
        brier=float(((rule.p - rows.won) ** 2).mean()),
        n_taken=int(rule.taken.sum()),
        mean_r_taken=mean_r,
        mean_r_taken_interval=bootstrap.interval(mean_r, bootstrap.means(rows.r, earned)),
    )


def compared_log_loss(won: Flags, p: Floats, other: Floats, bootstrap: SessionBootstrap) -> Estimate:
    """By how much the log-loss of p exceeds that of another rule on the same rows, paired: negative is better."""
    difference = log_losses(won, p) - log_losses(won, other)
    return Estimate(float(difference.mean()), bootstrap.interval(float(difference.mean()), bootstrap.means(difference)))


def _deciles(rows: Rows, p: Floats) -> list[Decile]:
    base = float(rows.won.mean())
    return [
        Decile(
            n=len(part),
            mean_p=float(p[part].mean()),
            win_rate=float(rows.won[part].mean()),
            lift=float(rows.won[part].mean()) / base if base else None,
            mean_r=_mean(rows.r[part][np.isfinite(rows.r[part])]),
        )
        for part in _bins(p)
    ]


def _confusion(won: Flags, said_win: Flags) -> dict[str, Flags]:
    """Which of n rows are in each cell of the confusion matrix."""
    return {
        "true_positives": said_win & won,
        "false_positives": said_win & ~won,
        "true_negatives": ~said_win & ~won,
        "false_negatives": ~said_win & won,
    }


def _of_confusion(tp: Floats, fp: Floats, tn: Floats, fn: Floats) -> dict[str, Floats]:
    """Figures of k confusion matrices by name (k,), NaN where undefined; MCC is Matthews' correlation."""
    return {
        "precision": _ratios(tp, tp + fp),
        "recall": _ratios(tp, tp + fn),
        "f1": _ratios(2 * tp, 2 * tp + fp + fn),
        "mcc": _ratios(tp * tn - fp * fn, np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))),
    }


def _taken_minus_all(r: Floats, taken: Flags, bootstrap: SessionBootstrap) -> Estimate | None:
    known = np.isfinite(r)
    chosen = known & taken
    if not chosen.any():
        return None
    value = float(r[chosen].mean() - r[known].mean())
    return Estimate(value, bootstrap.interval(value, bootstrap.means(r, chosen) - bootstrap.means(r, known)))


def _accuracy_over_majority(correct: Flags, won: Flags, bootstrap: SessionBootstrap) -> Estimate:
    """Over always saying what is commoner on these rows; that outcome stays the same in every resample."""
    gained = correct.astype(np.float64) - (won == (won.mean() > 0.5))
    return Estimate(float(gained.mean()), bootstrap.interval(float(gained.mean()), bootstrap.means(gained)))


def _skill_auc(rows: Rows, own: Scores, geometry: Scores, aucs: Floats, bootstrap: SessionBootstrap) -> Estimate | None:
    if own.auc is None or geometry.auc is None:
        return None
    value = own.auc - geometry.auc
    return Estimate(value, bootstrap.interval(value, aucs - bootstrap.aucs(rows.won, rows.p_geometry)))


def _own_figures(rows: Rows, p: Floats, bootstrap: SessionBootstrap) -> dict[str, tuple[float | None, Interval | None]]:
    """The figures of a model by itself, each with its interval."""
    won, said_win, known_r = rows.won, p >= 0.5, np.isfinite(rows.r)
    cells = _confusion(won, said_win).values()
    counted = _of_confusion(*(np.array([cell.sum()], dtype=np.float64) for cell in cells))
    resampled = _of_confusion(*(bootstrap.sums(cell) for cell in cells))
    figures: dict[str, tuple[float | None, Floats]] = {
        **{name: (None if np.isnan(value[0]) else float(value[0]), resampled[name]) for name, value in counted.items()},
        "brier": (float(((p - won) ** 2).mean()), bootstrap.means((p - won) ** 2)),
        "log_loss": (float(log_losses(won, p).mean()), bootstrap.means(log_losses(won, p))),
        "mean_r": (_mean(rows.r[known_r]), bootstrap.means(rows.r, known_r)),
    }
    precision = average_precision(won, p)

    def bounded(name: str, value: float | None, draws: Floats) -> Interval | None:
        interval = bootstrap.interval(value, draws)
        return interval and interval.within(*POSSIBLE[name])

    return {
        **{name: (value, bounded(name, value, draws)) for name, (value, draws) in figures.items()},
        "average_precision": (precision, bootstrap.share_interval(precision, bootstrap.average_precisions(won, p))),
        "calibration_error": (calibration_error(won, p), bootstrap.calibration_interval(won, p)),
    }


def _without_learning(won: Flags) -> dict[str, float]:
    """What always saying the base rate of these rows, or their commoner outcome, is worth on them."""
    base_rate = float(won.mean())
    return {
        "base_rate": base_rate,
        "base_rate_brier": base_rate * (1 - base_rate),
        "base_rate_log_loss": float(log_losses(won, np.full(len(won), base_rate)).mean()),
        "majority_accuracy": max(base_rate, 1 - base_rate),
    }


def evaluate(
    rows: Rows,
    model: Rule,
    seed: int,
    *,
    attempts: int = 1,
    geometry_taken: Flags | None = None,
    others: Mapping[str, Rule] | None = None,
) -> Evaluation:
    """Judge a model on n >= 1 out-of-sample rows, beside geometry and `others` by name.

    `attempts` says how many candidates were tried on these rows, this one included; `geometry_taken` (n,) which trades
    geometry lets through (all by default).
    """
    won, p = rows.won, model.p
    n, wins, said_win, others = len(won), int(won.sum()), p >= 0.5, others or {}
    bootstrap = SessionBootstrap(rows.session, seed)
    geometry_rule = Rule(rows.p_geometry, np.ones(n, dtype=bool) if geometry_taken is None else geometry_taken)
    own, geometry = scores(rows, model, bootstrap), scores(rows, geometry_rule, bootstrap)
    figures, aucs = _own_figures(rows, p, bootstrap), bootstrap.aucs(won, p)
    named: dict[str, Any] = {
        **{name: int(cell.sum()) for name, cell in _confusion(won, said_win).items()},
        **{name: value for name, (value, _) in figures.items()},
        **_without_learning(won),
    }
    return Evaluation(
        **named,
        n=n,
        wins=wins,
        losses=n - wins,
        sessions=bootstrap.sessions,
        attempts=attempts,
        auc=own.auc,
        auc_interval=own.auc_interval,
        auc_bound=_auc_interval(rows, p, aucs, bootstrap, (1 - CONFIDENCE) / attempts),
        accuracy=own.accuracy,
        spiegelhalter_p=spiegelhalter_p(won, p),
        accuracy_over_majority=_accuracy_over_majority(said_win == won, won, bootstrap),
        geometry=geometry,
        skill_log_loss=compared_log_loss(won, rows.p_geometry, p, bootstrap),
        skill_auc=_skill_auc(rows, own, geometry, aucs, bootstrap),
        n_r=int(np.isfinite(rows.r).sum()),
        n_taken=own.n_taken,
        mean_r_taken=own.mean_r_taken,
        taken_minus_all=_taken_minus_all(rows.r, model.taken, bootstrap),
        intervals={
            "accuracy": own.accuracy_interval,
            "mean_r_taken": own.mean_r_taken_interval,
            **{name: interval for name, (_, interval) in figures.items()},
        },
        deciles=_deciles(rows, p),
        baselines={name: scores(rows, rule, bootstrap) for name, rule in others.items()},
        worse_than={name: compared_log_loss(won, p, rule.p, bootstrap) for name, rule in others.items()},
    )


def average_precision(won: Flags, p: Floats) -> float | None:
    """Sum over thresholds of (recall gained) * precision; None without a win."""
    if not won.any():
        return None
    order = np.argsort(-p, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(p[order]) != 0, True))
    right = np.cumsum(won[order])[ends]
    return float((np.diff(right, prepend=0) * right / (ends + 1)).sum() / won.sum())
