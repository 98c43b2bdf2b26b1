"""From a model's raw score to a probability, in plain numbers that need no library to apply."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import exp, log
from typing import Any

import numpy as np
from numpy.typing import NDArray

ISOTONIC_FROM_ROWS = 2000  # below, Platt was better at every measured size: isotonic overfits and ties ranks
WEAKEST_PENALTY = 1e6  # changes no figure, but keeps the slope of constant scores defined
GRADIENT = 1e-6  # of the summed log-loss, at which a fit is done

Floats = NDArray[np.float64]


def _logit(p: Floats) -> Floats:
    clipped = np.clip(p, 1e-7, 1 - 1e-7)
    return np.log(clipped / (1 - clipped))


def _sigmoid(z: Floats) -> Floats:
    return 1 / (1 + np.exp(-z))


@dataclass(frozen=True)
class Platt:
    """sigmoid(slope * logit(p) + intercept)."""

    slope: float
    intercept: float

    def apply(self, p: Floats) -> Floats:
        return _sigmoid(self.slope * _logit(p) + self.intercept)

    def apply_one(self, p: float) -> float:
        """The same without arrays, which cost a score more than all else but the trees."""
        clipped = min(max(p, 1e-7), 1 - 1e-7)
        z = self.slope * log(clipped / (1 - clipped)) + self.intercept
        odds = exp(-abs(z))  # never above 1, which math.exp refuses to overflow
        return 1 / (1 + odds) if z >= 0 else odds / (1 + odds)

    def to_dict(self) -> dict[str, Any]:
        return {"method": "platt", "slope": self.slope, "intercept": self.intercept}


@dataclass(frozen=True)
class Isotonic:
    """A rising line through the knots (x, y), level outside them."""

    x: tuple[float, ...]
    y: tuple[float, ...]

    def apply(self, p: Floats) -> Floats:
        return np.interp(p, *self._knots)

    def apply_one(self, p: float) -> float:
        return float(np.interp(p, *self._knots))

    @cached_property
    def _knots(self) -> tuple[Floats, Floats]:
        return np.array(self.x), np.array(self.y)

    def to_dict(self) -> dict[str, Any]:
        return {"method": "isotonic", "x": list(self.x), "y": list(self.y)}


Calibrator = Platt | Isotonic


def calibrator_from_dict(stored: Mapping[str, Any]) -> Calibrator:
    if stored["method"] == "platt":
        return Platt(stored["slope"], stored["intercept"])
    return Isotonic(tuple(stored["x"]), tuple(stored["y"]))


def fit_platt(p: Floats, won: NDArray[np.bool_]) -> Platt:
    """Logistic regression on Platt's smoothed targets, which are finite for one class too (Platt 1999, sec. 2.2).

    A falling line would turn the model's ranking round; then the level alone is fitted.
    """
    from scipy.optimize import minimize
    from scipy.special import expit

    wins, losses = int(won.sum()), int((~won).sum())
    target = np.where(won, (wins + 1) / (wins + 2), 1 / (losses + 2))
    x, penalty = _logit(p), np.array([1 / WEAKEST_PENALTY, 0.0])

    def loss(line: Floats) -> tuple[float, Floats]:
        z = line[0] * x + line[1]
        off = expit(z) - target
        return (
            float((np.logaddexp(0, z) - target * z).sum() + (penalty * line**2).sum() / 2),
            np.array([off @ x, off.sum()]) + penalty * line,
        )

    def curvature(line: Floats) -> Floats:
        said = expit(line[0] * x + line[1])
        weight = said * (1 - said)
        slant = (weight * x).sum()
        return np.array([[(weight * x * x).sum() + penalty[0], slant], [slant, weight.sum()]])

    level = float(_logit(target.mean()))
    fitted = minimize(loss, (0.0, level), jac=True, hess=curvature, method="trust-exact", options={"gtol": GRADIENT})
    slope, intercept = map(float, fitted.x)
    return Platt(slope, intercept) if slope > 0 else Platt(0.0, level)


def fit_isotonic(p: Floats, won: NDArray[np.bool_]) -> Isotonic:
    """scikit-learn's knots, kept off 0 and 1, which no finite sample can assert."""
    from sklearn.isotonic import IsotonicRegression

    certain = 1 / (len(p) + 2)
    fitted = IsotonicRegression(y_min=certain, y_max=1 - certain, out_of_bounds="clip").fit(p, won.astype(np.float64))
    return Isotonic(tuple(map(float, fitted.X_thresholds_)), tuple(map(float, fitted.y_thresholds_)))


def _log_loss(calibrator: Calibrator, p: Floats, won: NDArray[np.bool_]) -> float:
    said = calibrator.apply(p)
    return float(-np.log(np.where(won, said, 1 - said)).mean())


def fit_calibrator(p: Floats, won: NDArray[np.bool_]) -> Calibrator:
    """Fitted on the validation part: raw scores p (n,) and whether the trade was won (n,), in order of time.

    Platt where rows are few; from ISOTONIC_FROM_ROWS on, whichever of both, fitted on the first half, says the second
    half better.
    """
    platt = fit_platt(p, won)
    if len(p) < ISOTONIC_FROM_ROWS:
        return platt
    first, second = np.array_split(np.arange(len(p)), 2)
    one, other = fit_platt(p[first], won[first]), fit_isotonic(p[first], won[first])
    if _log_loss(one, p[second], won[second]) <= _log_loss(other, p[second], won[second]):
        return platt
    return fit_isotonic(p, won)
