"""Walk forward: five windows in time order; everything is fitted inside a window and judged on its unseen test part.

The model and its challengers see the same rows; each is calibrated on the validation part, and what a trade pays is
learned from training and validation together. Nothing here looks at a test part but to score it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml.calibration import Calibrator, fit_calibrator, fit_platt
from ml.encoder import Encoder
from ml.evaluation import Evaluation, Rule, ShuffledControl, auc, evaluate
from ml.gate import is_worse
from ml.learners import Examples, Learner, LightGBM, Linear, Logistic, Matrix, Scorer, XGBoost
from ml.online import ONLINE_STEPS, Prequential, prequential
from ml.payoff import Payoff, fit_payoff
from ml.progress import Progress, quiet
from ml.splits import WINDOWS, Part, Window, rolling_windows
from ml.training_data import TrainingData
from ml.uniqueness import weights
from ml.words import Algorithm

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Rows = NDArray[np.intp]

SHUFFLES = 20
#: Of a walk with the online learner, as `progress` hears of them; all last about as long.
WALK_STEPS = ONLINE_STEPS + WINDOWS


@dataclass(frozen=True)
class Fit:
    """A learner on one window: what was fitted on its training and validation parts, `rule`, what that says of its
    test part, and the learner's `parameters`."""

    encoder: Encoder
    scorer: Scorer
    calibrator: Calibrator
    rule: Rule
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Fold:
    """One window: the fits by algorithm, what trades paid before its test part, and simpler rules on that part."""

    window: Window
    payoff: Payoff | None
    fits: Mapping[Algorithm, Fit]
    simple: Mapping[str, Rule]


@dataclass(frozen=True)
class WalkForward:
    """The windows that could be fitted, oldest first, and a sentence for each that could not."""

    folds: list[Fold]
    unfitted: list[str]

    @property
    def test_rows(self) -> Rows:
        return np.concatenate([fold.window.test.rows for fold in self.folds])

    def rule(self, algorithm: Algorithm) -> Rule:
        """What a learner says of all test rows, each scored by its own window's fit."""
        return _pooled([fold.fits[algorithm].rule for fold in self.folds])

    def simple(self, name: str) -> Rule:
        return _pooled([fold.simple[name] for fold in self.folds])


def _pooled(rules: Sequence[Rule]) -> Rule:
    return Rule(np.concatenate([rule.p for rule in rules]), np.concatenate([rule.taken for rule in rules]))


@dataclass(frozen=True)
class Encoded:
    """A window's parts as a learner sees them."""

    encoder: Encoder
    train: Examples
    validation: Examples
    test: Matrix


def encoded(data: TrainingData, window: Window) -> Encoded:
    """The encoder is fitted on the training part alone; weights are uniqueness within each part."""
    encoder = Encoder.fit(data.columns_of(window.train.rows))

    def examples(part: Part) -> Examples:
        rows = part.rows
        return Examples(
            encoder.encode(data.columns_of(rows)), data.won[rows], weights(data.start[rows], data.end[rows])
        )

    test = encoder.encode(data.columns_of(window.test.rows))
    return Encoded(encoder, examples(window.train), examples(window.validation), test)


def reward_to_risk(data: TrainingData, rows: Rows) -> Floats:
    """Of the plans of some rows; NaN where unknown."""
    reward: Floats = np.asarray(data.columns["reward_to_risk"][rows], dtype=np.float64)
    return reward


def seen(window: Window) -> Rows:
    """Training and validation rows: what may be known before the test part begins."""
    return np.concatenate([window.train.rows, window.validation.rows])


def payoff_of(data: TrainingData, window: Window, seed: int) -> Payoff | None:
    """What trades paid before the window's test part."""
    rows = seen(window)
    return fit_payoff(data.won[rows], data.r[rows], reward_to_risk(data, rows), data.session[rows], seed)


def let_through(payoff: Payoff | None, p: Floats, reward: Floats) -> Flags:
    return np.ones(len(p), dtype=bool) if payoff is None else payoff.lets_through(p, reward)


def _best_feature(parts: Encoded) -> Floats:
    """P(win) of the test rows by the single encoded column that ranked the training part best, made a probability."""
    ranked = []
    for column in range(parts.train.X.shape[1]):
        area = auc(parts.train.won, np.nan_to_num(parts.train.X[:, column], nan=0.0).astype(np.float64))
        ranked.append(0.0 if area is None else abs(area - 0.5))
    best = int(np.argmax(ranked))
    alone = Examples(parts.train.X[:, [best]], parts.train.won, parts.train.weight)
    fitted: Linear = Logistic().fit(alone, parts.validation, [parts.encoder.columns[best]])
    return fitted.raw(parts.test[:, [best]])


def _calibrated_geometry(data: TrainingData, window: Window) -> Floats:
    """The plan's own odds, drawn to how trades really ended before the test part: what costs nothing to know."""
    rows = seen(window)
    calibrator: Calibrator = fit_platt(data.p_geometry[rows], data.won[rows])
    return calibrator.apply(data.p_geometry[window.test.rows])


def fit_window(
    data: TrainingData, window: Window, learners: Sequence[Learner], seed: int, online: Prequential | None = None
) -> Fold:
    """Fit every learner on one window; `online` is what the online learner made of all of `data`."""
    parts, payoff = encoded(data, window), payoff_of(data, window, seed)
    reward = reward_to_risk(data, window.test.rows)

    def judged(p: Floats) -> Rule:
        return Rule(p, let_through(payoff, p, reward))

    fits = {}
    for learner in learners:
        scorer = learner.fit(parts.train, parts.validation, parts.encoder.columns)
        calibrator = fit_calibrator(scorer.raw(parts.validation.X), parts.validation.won)
        rule = judged(calibrator.apply(scorer.raw(parts.test)))
        fits[learner.algorithm] = Fit(parts.encoder, scorer, calibrator, rule, learner.parameters)
    if online is not None:
        calibrator = fit_calibrator(online.p[window.validation.rows], parts.validation.won)
        p = calibrator.apply(online.p[window.test.rows])
        fits[Algorithm.RIVER] = Fit(Encoder.plain(), online.scorer, calibrator, judged(p))
    base = np.full(len(parts.test), data.won[seen(window)].mean())
    simple = {
        "majority_class": Rule(base, np.ones(len(base), dtype=bool)),
        "geometry": judged(data.p_geometry[window.test.rows]),
        "geometry_calibrated": judged(_calibrated_geometry(data, window)),
        "best_feature": judged(_best_feature(parts)),
    }
    return Fold(window, payoff, fits, simple)


def walk_forward(
    data: TrainingData,
    learners: Sequence[Learner],
    seed: int,
    *,
    tuned: Sequence[Learner] = (),
    online: bool = False,
    progress: Progress = quiet,
) -> WalkForward:
    """Fit and score five rolling windows. Raises NotEnoughData where there are too few sessions for them. `progress`
    hears of each window, and of the online learner's steps before them.

    `tuned` has a learner for each window, which takes the place of the first of `learners` there.
    """
    windows = rolling_windows(data.session, data.end)
    told = prequential(data.columns, data.won, data.start, data.end, progress) if online else None
    folds, unfitted = [], []
    for done, window in enumerate(windows, start=1):
        won, held_out = data.won[window.train.rows], window.validation.rows
        if won.all() or not won.any() or not len(held_out):
            unfitted.append(
                f"Window {done} of {WINDOWS} could not be fitted: its training part has {int(won.sum())} wins and "
                f"{int((~won).sum())} losses, its validation part {len(held_out)} trades."
            )
        else:
            used = [tuned[done - 1], *learners[1:]] if tuned else learners
            folds.append(fit_window(data, window, used, seed, told))
        progress(1)
    return WalkForward(folds, unfitted)


def learners_of(seed: int, parameters: Mapping[str, Any] | None = None) -> tuple[Learner, ...]:
    """The model first, then its challengers."""
    model = XGBoost(seed) if parameters is None else XGBoost(seed, parameters)
    return model, LightGBM(seed), Logistic()


def judge(data: TrainingData, walk: WalkForward, algorithm: Algorithm, seed: int, attempts: int = 1) -> Evaluation:
    """Pooled figures of one learner over every window's test part, beside the others' on the same rows."""
    others = {str(name): walk.rule(name) for name in walk.folds[0].fits if name is not algorithm}
    others |= {name: walk.simple(name) for name in ("geometry_calibrated", "best_feature", "majority_class")}
    return evaluate(
        data.results_of(walk.test_rows),
        walk.rule(algorithm),
        seed,
        attempts=attempts,
        geometry_taken=walk.simple("geometry").taken,
        others=others,
    )


def candidate(data: TrainingData, walk: WalkForward, seed: int, attempts: int = 1) -> tuple[Algorithm, Evaluation]:
    """Which learner is to be judged, with its figures: XGBoost, or the linear baseline where that is shown to be
    better on the same rows."""
    boosted = judge(data, walk, Algorithm.XGBOOST, seed, attempts)
    if is_worse(boosted.worse_than[Algorithm.LOGISTIC]):
        return Algorithm.LOGISTIC, judge(data, walk, Algorithm.LOGISTIC, seed, attempts)
    return Algorithm.XGBOOST, boosted


def shuffled_control(
    data: TrainingData,
    window: Window,
    learner: Learner,
    seed: int,
    times: int = SHUFFLES,
    progress: Progress = quiet,
) -> ShuffledControl | None:
    """Refit a window `times` times on outcomes dealt out anew over each part. None where the test part has one class.

    Not within sessions: a session's share of wins would stay, and an honest model learns from that.
    """
    parts, won = encoded(data, window), data.won[window.test.rows]
    rng = np.random.default_rng(seed)
    areas = []
    for _ in range(times):
        train, validation = (
            replace(examples, won=rng.permutation(examples.won)) for examples in (parts.train, parts.validation)
        )
        area = auc(won, learner.fit(train, validation, parts.encoder.columns).raw(parts.test))
        if area is not None:
            areas.append(area)
        progress(1)
    if len(areas) < 2:
        return None
    found = np.array(areas)
    return ShuffledControl(len(found), float(found.mean()), float(found.std(ddof=1) / np.sqrt(len(found))))
