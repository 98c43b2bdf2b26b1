"""Scores one signal with a stored model: from its features to a calibrated P(win) and a decision."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from time import perf_counter_ns
from typing import Self

import numpy as np
from django.conf import settings
from numpy.typing import NDArray

from ml.artifact import ArtifactRefused, unseal
from ml.calibration import Calibrator, calibrator_from_dict
from ml.encoder import Columns, Encoder
from ml.features import FEATURE_SET
from ml.learners import Scorer, scorer_from
from ml.models import MLModel
from ml.payoff import Payoff
from ml.registry import champion
from ml.words import Algorithm, Decision

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
    scorer: Scorer
    encoder: Encoder
    calibrator: Calibrator
    payoff: Payoff | None

    def probabilities(self, features: FeatureRow) -> tuple[float, float]:
        """Raw and calibrated P(win). Raises ModelUnusable for a missing feature or an unreadable value."""
        try:
            encoded = self.encoder.encode_one(features)
        except KeyError as error:
            raise ModelUnusable(f"feature {error} is missing from the row; the model cannot score it") from error
        except (TypeError, ValueError) as error:
            raise ModelUnusable(f"a feature of the row is not a number: {error}") from error
        raw = self.scorer.raw(encoded)
        return float(raw[0]), float(self.calibrator.apply(raw)[0])


_BECAUSE = {
    Decision.TAKE: "above {:.3f}, where a trade of this plan pays",
    Decision.SKIP: "below {:.3f}, where a trade of this plan pays",
    Decision.ABSTAIN: "too near {:.3f}, where a trade of this plan pays, to say",
}


def _decide(p_win: float, payoff: Payoff | None, reward: float | str | None) -> tuple[Decision, float | None, str]:
    if payoff is None:
        return Decision.ABSTAIN, None, "too few wins and losses in R were known at training to say where a trade pays"
    if not isinstance(reward, float):
        return Decision.ABSTAIN, None, "the plan's reward to risk is not known"
    decision, threshold = payoff.decide(p_win, reward), payoff.threshold(reward)
    return decision, threshold, f"P(win) {p_win:.3f} {_BECAUSE[decision].format(threshold)}"


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

        encoder = Encoder.from_dict(artifact.encoder)
        try:
            scorer = scorer_from(Algorithm(artifact.algorithm), artifact.scorer, encoder.columns)
        except ValueError as error:
            raise ModelUnusable(f"model {self.model}: {error}") from error
        payoff = Payoff.from_dict(artifact.payoff) if artifact.payoff else None
        loaded = _Loaded(scorer, encoder, calibrator_from_dict(artifact.calibrator), payoff)
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
        decision, threshold, reason = _decide(p_win, loaded.payoff, features.get("reward_to_risk"))
        return Score(
            p_raw=p_raw,
            p_win=p_win,
            p_geometry=p_geometry,
            threshold=threshold,
            decision=decision,
            reason=reason,
            latency_us=(perf_counter_ns() - began) / 1000,
        )

    def probabilities(self, columns: Columns) -> NDArray[np.float64]:
        """Calibrated P(win) of many signals at once, features by name as columns (n,). Raises ModelUnusable."""
        loaded = self._loaded
        return loaded.calibrator.apply(loaded.scorer.raw(loaded.encoder.encode(columns)))
