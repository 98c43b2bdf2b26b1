"""Scores one signal with a stored model: from its features to a calibrated P(win) and a decision."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from time import perf_counter_ns
from typing import Any, TypedDict

import numpy as np
from django.conf import settings
from numpy.typing import NDArray

from ml.artifact import Artifact, ArtifactRefused, unseal
from ml.calibration import Calibrator, calibrator_from_dict
from ml.encoder import Columns, Encoder
from ml.evaluation import Rule
from ml.features import FEATURE_SET
from ml.learners import LearnsOn, Scorer, scorer_from
from ml.models import MLModel
from ml.payoff import Payoff
from ml.training_data import TrainingData
from ml.words import Algorithm, Decision

Floats = NDArray[np.float64]
FeatureRow = Mapping[str, float | str | None]

TOLD = 5  # features named in an explanation


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


class Contribution(TypedDict):
    """What a feature's `value` added to the log-odds of a score, before calibration."""

    feature: str
    value: float | str | None
    log_odds: float


def opened(model: MLModel) -> Artifact:
    """A model's artifact, checked against its fingerprint, its signature and the features this program computes; no
    library of learning is needed. Raises ModelUnusable."""
    try:
        artifact = unseal(
            model.artifact, key=settings.MODEL_SIGNING_KEY, sha256=model.artifact_sha256, feature_set=FEATURE_SET
        )
    except ArtifactRefused as refused:
        raise ModelUnusable(f"model {model}: {refused}") from refused
    if (artifact.algorithm, artifact.feature_set) != (model.algorithm, model.feature_set):
        raise ModelUnusable(
            f"model {model}: its row was altered: it says {model.algorithm} on feature set {model.feature_set}, the "
            f"signed artifact {artifact.algorithm} on {artifact.feature_set}"
        )
    return artifact


def why_silent(model: MLModel, now: datetime) -> str:
    """Why a promoted model must not speak at a moment (aware UTC), "" where it may."""
    if model.override_ended(now):
        return f"the override of model {model} has ended"
    try:
        opened(model)
    except ModelUnusable as error:
        return str(error)
    return ""


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
        except (KeyError, TypeError, ValueError) as error:
            raise _unreadable(error) from error
        raw = float(self.scorer.raw(encoded)[0])
        return raw, self.calibrator.apply_one(raw)


def _unreadable(error: Exception) -> ModelUnusable:
    if isinstance(error, KeyError):
        return ModelUnusable(f"feature {error} is missing from the row; the model cannot score it")
    return ModelUnusable(f"a feature of the row is not a number: {error}")


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
        self._told: set[str] = set()

    @cached_property
    def _loaded(self) -> _Loaded:
        artifact = opened(self.model)
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

    def exported(self) -> bytes:
        """The model in its own library's format. Raises ModelUnusable."""
        return self._loaded.scorer.exported()

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

    def probabilities(self, columns: Columns) -> Floats:
        """Calibrated P(win) of many signals at once, features by name as columns (n,). Raises ModelUnusable."""
        loaded = self._loaded
        return loaded.calibrator.apply(loaded.scorer.raw(loaded.encoder.encode(columns)))

    def rule(self, columns: Columns) -> Rule:
        """The same, with which of the signals it lets through. Raises ModelUnusable."""
        p, payoff = self.probabilities(columns), self._loaded.payoff
        if payoff is None:
            return Rule(p, np.ones(len(p), dtype=bool))
        return Rule(p, payoff.lets_through(p, np.asarray(columns["reward_to_risk"], dtype=np.float64)))

    def explain(self, rows: Sequence[FeatureRow]) -> list[list[Contribution]]:
        """What moved the score of each of n signals most: up to TOLD features, the largest first, those of a category's
        columns summed (exact TreeSHAP for trees). About a millisecond a row: not on a signal's path. Raises
        ModelUnusable."""
        if not rows:
            return []
        encoder = self._loaded.encoder
        features = [*encoder.names, *(name for name, _ in encoder.categories)]
        try:
            columns: dict[str, list[Any]] = {name: [row[name] for row in rows] for name in features}
            encoded = encoder.encode(columns)
        except (KeyError, TypeError, ValueError) as error:
            raise _unreadable(error) from error
        added = self._loaded.scorer.contributions(encoded)
        numbers, end = len(encoder.names), len(encoder.names)
        summed = [added[:, place] for place in range(numbers)]
        for _, categories in encoder.categories:
            start, end = end, end + len(categories)
            summed.append(added[:, start:end].sum(axis=1))
        return [_largest(row, features, log_odds) for row, log_odds in zip(rows, np.column_stack(summed), strict=True)]

    @property
    def learns_on(self) -> bool:
        return self.model.algorithm == Algorithm.RIVER

    @cached_property
    def trained_until(self) -> datetime:
        """When the last trade ended that it was trained on, aware UTC. Raises ModelUnusable."""
        ended = self.model.manifest.get("last_closed_at")
        if ended is None:
            raise ModelUnusable(f"model {self.model} does not say which trades it learned from; train a new one")
        return datetime.fromisoformat(ended).replace(tzinfo=UTC)

    @cached_property
    def learned_until(self) -> datetime:
        """When the newest trade ended that it has learned from since, aware UTC."""
        return self.trained_until

    def learn(self, trades: TrainingData) -> None:
        """Tell a model that learns on of closed trades, each once, in the order in which they ended. Raises
        ModelUnusable."""
        scorer = self._loaded.scorer
        if not isinstance(scorer, LearnsOn):
            raise ModelUnusable(f"model {self.model} does not learn on")
        encoded = self._loaded.encoder.encode(trades.columns)
        for place in np.argsort(trades.end, kind="stable"):
            key = str(trades.signal_key[place])
            if key not in self._told:
                scorer.learn(encoded[place], bool(trades.won[place]))
                self._told.add(key)
        if len(trades.end):
            ended = trades.end.max().astype("datetime64[us]").item().replace(tzinfo=UTC)
            self.learned_until = max(self.learned_until, ended)


def _largest(row: FeatureRow, features: Sequence[str], log_odds: Floats) -> list[Contribution]:
    largest = np.argsort(-np.abs(log_odds), kind="stable")[:TOLD]
    return [
        Contribution(feature=features[place], value=row[features[place]], log_odds=float(log_odds[place]))
        for place in largest
    ]
