"""Scores one signal with a stored model: from its features to a calibrated P(win) and a decision."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from time import perf_counter_ns
from typing import TYPE_CHECKING, Self

import numpy as np
from django.conf import settings

from ml.artifact import ArtifactRefused, unseal
from ml.calibration import Calibrator, calibrator_from_dict
from ml.encoder import Encoder
from ml.features import FEATURE_SET
from ml.models import MLModel
from ml.registry import champion
from ml.words import Decision

if TYPE_CHECKING:
    from xgboost import Booster

FeatureRow = Mapping[str, float | str | None]


class ModelUnusable(Exception):
    """The model must not score: refused artifact, other features, or a row that lacks one. Never answered by a 0.5."""


@dataclass(frozen=True, slots=True)
class Score:
    """`p_raw` is the booster's, `p_win` the calibrated probability; `latency_us` from features to decision."""

    p_raw: float
    p_win: float
    p_geometry: float
    threshold: float | None
    decision: Decision
    reason: str
    latency_us: float


@dataclass(frozen=True)
class _Loaded:
    booster: "Booster"
    encoder: Encoder
    calibrator: Calibrator
    threshold: float | None

    def probabilities(self, features: FeatureRow) -> tuple[float, float]:
        """Raw and calibrated P(win). Raises ModelUnusable for a missing feature or an unreadable value."""
        try:
            encoded = self.encoder.encode_one(features)
        except KeyError as error:
            raise ModelUnusable(f"feature {error} is missing from the row; the model cannot score it") from error
        except (TypeError, ValueError) as error:
            raise ModelUnusable(f"a feature of the row is not a number: {error}") from error
        raw = self.booster.inplace_predict(encoded).astype(np.float64)
        return float(raw[0]), float(self.calibrator.apply(raw)[0])


def _decide(p_win: float, threshold: float | None) -> tuple[Decision, str]:
    if threshold is None:
        return Decision.ABSTAIN, "no threshold: the mean win and loss in R were unknown at training"
    if p_win > threshold:
        return Decision.TAKE, f"P(win) {p_win:.3f} above {threshold:.3f}, where a trade pays"
    return Decision.SKIP, f"P(win) {p_win:.3f} not above {threshold:.3f}, where a trade pays"


class Predictor:
    """A model ready to score. Loaded and warmed up on first use; afterwards safe to call from several threads."""

    def __init__(self, model: MLModel) -> None:
        self.model = model

    @classmethod
    def champion_of(cls, book: str) -> Self | None:
        """The predictor of a book's champion, None where no model serves it."""
        model = champion(book)
        return cls(model) if model else None

    @cached_property
    def _loaded(self) -> _Loaded:
        try:
            artifact = unseal(
                self.model.artifact,
                key=settings.MODEL_SIGNING_KEY,
                sha256=self.model.artifact_sha256,
                feature_set=FEATURE_SET,
            )
        except ArtifactRefused as refused:
            raise ModelUnusable(f"model {self.model}: {refused}") from refused

        from xgboost import Booster

        booster = Booster()
        booster.load_model(bytearray(artifact.booster))
        booster.set_param({"nthread": 1})
        encoder = Encoder.from_dict(artifact.encoder)
        if booster.feature_names != list(encoder.columns):
            raise ModelUnusable(f"model {self.model}: its trees were grown on other columns than its encoder makes")
        loaded = _Loaded(booster, encoder, calibrator_from_dict(artifact.calibrator), artifact.threshold)
        loaded.probabilities(dict.fromkeys((*encoder.names, *(name for name, _ in encoder.categories))))
        return loaded

    def load(self) -> None:
        """Load and warm up now rather than at the first signal. Raises ModelUnusable."""
        _ = self._loaded

    def predict(self, features: FeatureRow, p_geometry: float) -> Score:
        """Score a signal's features, by name, None where unknown. Raises ModelUnusable."""
        loaded = self._loaded
        began = perf_counter_ns()
        p_raw, p_win = loaded.probabilities(features)
        decision, reason = _decide(p_win, loaded.threshold)
        return Score(
            p_raw=p_raw,
            p_win=p_win,
            p_geometry=p_geometry,
            threshold=loaded.threshold,
            decision=decision,
            reason=reason,
            latency_us=(perf_counter_ns() - began) / 1000,
        )
