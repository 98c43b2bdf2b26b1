"""The online learner: River's logistic regression over running means, which learns on after every closed trade."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ml.encoder import Columns, Encoder
from ml.learners import Linear, Matrix
from ml.progress import Progress, quiet
from ml.words import Algorithm

Floats = NDArray[np.float64]
Times = NDArray[np.datetime64]

#: In which a book's trades are learned from, as `progress` hears of them.
ONLINE_STEPS = 20


class OnlineScorer:
    """Knows what the trades it was told of taught, in the order in which they closed. Unknown values count as the mean.

    Its encoder scales nothing (`Encoder.plain`): the running means and deviations are its own.
    """

    algorithm = Algorithm.RIVER

    def __init__(self, columns: Sequence[str]) -> None:
        from river.linear_model import LogisticRegression
        from river.preprocessing import StandardScaler

        self._columns = tuple(columns)
        self._scaler = StandardScaler()
        self._regression = LogisticRegression()
        self._lock = Lock()  # it learns in one thread while others score

    def _known(self, row: NDArray[np.float32]) -> dict[str, float]:
        return {name: float(value) for name, value in zip(self._columns, row, strict=True) if value == value}

    def score(self, row: NDArray[np.float32]) -> float:
        """P(win) of one encoded row (k,)."""
        with self._lock:
            scaled = self._scaler.transform_one(self._known(row))
            return float(self._regression.predict_proba_one(scaled)[True])

    def learn(self, row: NDArray[np.float32], won: bool) -> None:
        """A trade has closed: row (k,) is what was known at its signal."""
        known = self._known(row)
        with self._lock:
            self._scaler.learn_one(known)
            self._regression.learn_one(self._scaler.transform_one(known), won)

    def raw(self, X: Matrix) -> Floats:
        return np.array([self.score(row) for row in X])

    def _linear(self) -> Linear:
        weights = np.array([self._regression.weights.get(name, 0.0) for name in self._columns], dtype=np.float64)
        return Linear(weights, float(self._regression.intercept))

    def contributions(self, X: Matrix) -> Floats:
        scaled = np.full(X.shape, np.nan, dtype=np.float32)
        with self._lock:
            for place, row in enumerate(X):
                for name, value in self._scaler.transform_one(self._known(row)).items():
                    scaled[place, self._columns.index(name)] = value
            return self._linear().contributions(scaled)

    def gain(self) -> Floats:
        return self._linear().gain()

    def to_bytes(self) -> bytes:
        scaler, regression = self._scaler, self._regression
        state = {
            "counts": dict(scaler.counts),
            "means": dict(scaler.means),
            "vars": dict(scaler.vars),
            "weights": {name: float(weight) for name, weight in regression.weights.items()},
            "intercept": float(regression.intercept),
            "steps": regression.optimizer.n_iterations,
        }
        return json.dumps(state, sort_keys=True).encode()

    def exported(self) -> bytes:
        return self.to_bytes()

    @classmethod
    def from_bytes(cls, stored: bytes, columns: Sequence[str]) -> Self:
        """Raises ValueError for a state of other columns."""
        state: dict[str, Any] = json.loads(stored)
        if not state["weights"].keys() <= set(columns):
            raise ValueError("it learned from other columns than its encoder makes")
        scorer = cls(columns)
        scorer._scaler.counts = Counter(state["counts"])
        scorer._scaler.means.update(state["means"])
        scorer._scaler.vars.update(state["vars"])
        scorer._regression._weights.update(state["weights"])
        scorer._regression.intercept = state["intercept"]
        scorer._regression.optimizer.n_iterations = state["steps"]
        return scorer


@dataclass(frozen=True)
class Prequential:
    """`p` (n,): what was said of each trade at its signal; `scorer`: as it stands after the last trade has closed."""

    p: Floats
    scorer: OnlineScorer


def prequential(
    columns: Columns, won: NDArray[np.bool_], start: Times, end: Times, progress: Progress = quiet
) -> Prequential:
    """Score each of n trades when its signal comes, having learned from those that had closed by then and no others;
    `progress` hears of each of ONLINE_STEPS."""
    encoder = Encoder.plain()
    X, scorer = encoder.encode(columns), OnlineScorer(encoder.columns)
    p = np.empty(len(X))
    closing = np.argsort(end, kind="stable")
    told = 0
    for part in np.array_split(np.argsort(start, kind="stable"), ONLINE_STEPS):
        for row in part:
            while told < len(closing) and end[closing[told]] < start[row]:
                scorer.learn(X[closing[told]], bool(won[closing[told]]))
                told += 1
            p[row] = scorer.score(X[row])
        progress(1)
    for row in closing[told:]:
        scorer.learn(X[row], bool(won[row]))
    return Prequential(p, scorer)
