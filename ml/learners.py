"""Learners behind one small interface: `fit` turns encoded examples into a `Scorer`, which is stored as bytes.

XGBoost is the model; LightGBM and logistic regression are its challengers, fitted on the same rows. The online learner
is in ml/online.py. One thread throughout: on small data more threads are slower, and bytes must not depend on them.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ml.words import Algorithm

if TYPE_CHECKING:
    import lightgbm
    import xgboost

Floats = NDArray[np.float64]
Matrix = NDArray[np.float32]

ROUNDS = 100
PATIENCE = 10  # rounds without a better validation log-loss
XGBOOST: Mapping[str, Any] = {
    "objective": "binary:logistic",
    "eval_metric": "logloss",
    "tree_method": "hist",
    "max_depth": 6,
    "learning_rate": 0.1,
    "subsample": 0.8,  # with columns sampled too, the better of both on planted edges (AUC +0.006 over 10 seeds)
    "colsample_bytree": 0.8,
    "nthread": 1,
}
LIGHTGBM: Mapping[str, Any] = {
    "objective": "binary",
    "metric": "binary_logloss",
    "max_depth": 6,
    "learning_rate": 0.1,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "feature_fraction": 0.8,
    "num_threads": 1,
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}


@dataclass(frozen=True)
class Examples:
    """Encoded rows `X` (n, k), whether each was won (n,), and how much each counts (n,), one on average."""

    X: Matrix
    won: NDArray[np.bool_]
    weight: Floats


class Scorer(Protocol):
    """A fitted model: raw scores of encoded rows, before calibration."""

    def raw(self, X: Matrix) -> Floats:
        """P(win) of rows (n, k), uncalibrated: (n,) in [0, 1]."""
        ...

    def contributions(self, X: Matrix) -> Floats:
        """What each column adds to the log-odds of each row: (n, k + 1), the last column the same for all rows."""
        ...

    def gain(self) -> Floats:
        """How much each column is worth to the model (k,): mean gain of its splits, or the size of its weight."""
        ...

    def to_bytes(self) -> bytes: ...

    def exported(self) -> bytes:
        """The model in its library's own format, for other programs."""
        ...


@runtime_checkable
class LearnsOn(Protocol):
    """A scorer that learns after it was stored."""

    def learn(self, row: NDArray[np.float32], won: bool) -> None:
        """A trade has closed: encoded row (k,) is what was known at its signal."""
        ...


class Learner(Protocol):
    @property
    def algorithm(self) -> Algorithm: ...

    @property
    def parameters(self) -> Mapping[str, Any]: ...

    def fit(self, train: Examples, validation: Examples, columns: Sequence[str]) -> Scorer:
        """Learn from `train`; `validation` only says when to stop."""
        ...


@dataclass(frozen=True)
class XGBoostScorer:
    booster: "xgboost.Booster"

    def raw(self, X: Matrix) -> Floats:
        scores: Floats = self.booster.inplace_predict(X).astype(np.float64)
        return scores

    def contributions(self, X: Matrix) -> Floats:
        from xgboost import DMatrix

        rows = DMatrix(X, feature_names=self.booster.feature_names, nthread=1)
        return np.asarray(self.booster.predict(rows, pred_contribs=True), dtype=np.float64)

    def gain(self) -> Floats:
        gains: Mapping[str, Any] = self.booster.get_score(importance_type="gain")
        return np.array([gains.get(name, 0.0) for name in self.booster.feature_names or []])

    def to_bytes(self) -> bytes:
        return bytes(self.booster.save_raw("ubj"))

    def exported(self) -> bytes:
        """XGBoost's JSON, as its save_model writes it."""
        return bytes(self.booster.save_raw("json"))


@dataclass(frozen=True)
class XGBoost:
    """Boosts until the validation log-loss stops falling; the booster kept *is* the best iteration."""

    seed: int
    parameters: Mapping[str, Any] = field(default_factory=lambda: XGBOOST)
    algorithm = Algorithm.XGBOOST

    def fit(
        self,
        train: Examples,
        validation: Examples,
        columns: Sequence[str],
        callbacks: Sequence["xgboost.callback.TrainingCallback"] = (),
    ) -> XGBoostScorer:
        import xgboost

        def matrix(examples: Examples) -> "xgboost.DMatrix":
            return xgboost.DMatrix(
                examples.X, label=examples.won, weight=examples.weight, feature_names=list(columns), nthread=1
            )

        booster = xgboost.train(
            {**self.parameters, "seed": self.seed},
            matrix(train),
            num_boost_round=ROUNDS,
            evals=[(matrix(validation), "validation")],
            callbacks=[xgboost.callback.EarlyStopping(rounds=PATIENCE, save_best=True), *callbacks],
            verbose_eval=False,
        )
        return XGBoostScorer(booster)


@dataclass(frozen=True)
class LightGBMScorer:
    booster: "lightgbm.Booster"

    def raw(self, X: Matrix) -> Floats:
        return np.asarray(self.booster.predict(X, num_threads=1), dtype=np.float64)

    def contributions(self, X: Matrix) -> Floats:
        return np.asarray(self.booster.predict(X, pred_contrib=True, num_threads=1), dtype=np.float64)

    def gain(self) -> Floats:
        gains, splits = (self.booster.feature_importance(kind) for kind in ("gain", "split"))
        mean: Floats = np.divide(gains, splits, out=np.zeros(len(gains)), where=splits > 0)
        return mean

    def to_bytes(self) -> bytes:
        return self.booster.model_to_string(num_iteration=self.booster.best_iteration).encode()

    def exported(self) -> bytes:
        """LightGBM's text, as its save_model writes it."""
        return self.to_bytes()


@dataclass(frozen=True)
class LightGBM:
    seed: int
    algorithm = Algorithm.LIGHTGBM
    parameters = LIGHTGBM

    def fit(self, train: Examples, validation: Examples, columns: Sequence[str]) -> LightGBMScorer:
        import lightgbm

        # Its names may not hold what JSON gives a meaning; the encoder knows the columns anyway.
        names = [f"column{place}" for place in range(len(columns))]
        rows = lightgbm.Dataset(train.X, label=train.won, weight=train.weight, feature_name=names)
        held_out = lightgbm.Dataset(validation.X, label=validation.won, weight=validation.weight, reference=rows)
        booster = lightgbm.train(
            {**self.parameters, "seed": self.seed},
            rows,
            num_boost_round=ROUNDS,
            valid_sets=[held_out],
            callbacks=[lightgbm.early_stopping(PATIENCE, verbose=False)],
        )
        # What is scored from here on is what is stored: the best iteration.
        return LightGBMScorer(_lightgbm(booster.model_to_string(num_iteration=booster.best_iteration)))


@dataclass(frozen=True)
class Linear:
    """Log-odds as a weighted sum of the encoded columns; an unknown value counts as the training mean, which is 0."""

    weights: Floats
    intercept: float

    def raw(self, X: Matrix) -> Floats:
        scores: Floats = 1 / (1 + np.exp(-(np.nan_to_num(X, nan=0.0) @ self.weights + self.intercept)))
        return scores

    def contributions(self, X: Matrix) -> Floats:
        weighted = np.nan_to_num(X, nan=0.0) * self.weights
        return np.column_stack([weighted, np.full(len(X), self.intercept)])

    def gain(self) -> Floats:
        return np.abs(self.weights)

    def to_bytes(self) -> bytes:
        return json.dumps({"weights": self.weights.tolist(), "intercept": self.intercept}).encode()

    def exported(self) -> bytes:
        return self.to_bytes()


@dataclass(frozen=True)
class Logistic:
    """The linear baseline, which a learner must not be worse than."""

    algorithm = Algorithm.LOGISTIC
    parameters: ClassVar[Mapping[str, Any]] = {"max_iter": 1000}

    def fit(self, train: Examples, validation: Examples, columns: Sequence[str]) -> Linear:
        from sklearn.linear_model import LogisticRegression

        fitted = LogisticRegression(**self.parameters).fit(
            np.nan_to_num(train.X, nan=0.0), train.won, sample_weight=train.weight
        )
        return Linear(fitted.coef_[0].astype(np.float64), float(fitted.intercept_[0]))


def _lightgbm(text: str) -> "lightgbm.Booster":
    import lightgbm

    return lightgbm.Booster(model_str=text)


def scorer_from(algorithm: Algorithm, stored: bytes, columns: Sequence[str]) -> Scorer:
    """What `to_bytes` of a scorer of that algorithm stored. Raises ValueError where it does not fit the columns."""
    if algorithm is Algorithm.XGBOOST:
        from xgboost import Booster

        booster = Booster()
        booster.load_model(bytearray(stored))
        booster.set_param({"nthread": 1})
        if booster.feature_names != list(columns):
            raise ValueError("its trees were grown on other columns than its encoder makes")
        return XGBoostScorer(booster)
    if algorithm is Algorithm.RIVER:
        from ml.online import OnlineScorer

        return OnlineScorer.from_bytes(stored, columns)
    scorer: Scorer
    if algorithm is Algorithm.LIGHTGBM:
        light = LightGBMScorer(_lightgbm(stored.decode()))
        scorer, width = light, light.booster.num_feature()
    else:
        values = json.loads(stored)
        linear = Linear(np.array(values["weights"], dtype=np.float64), values["intercept"])
        scorer, width = linear, len(linear.weights)
    if width != len(columns):
        raise ValueError(f"it was fitted on {width} columns, its encoder makes {len(columns)}")
    return scorer
