"""Trains WIN/LOSS models on one book's closed trades and judges them on sessions they never saw."""

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from importlib.metadata import version
from typing import Any

import numpy as np
from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Q
from django.utils import timezone
from numpy.typing import NDArray

from ml.artifact import Artifact, fingerprint, seal
from ml.curves import curves
from ml.drift import reference_of
from ml.evaluation import Estimate, Evaluation, SessionBootstrap, ShuffledControl, compared_log_loss
from ml.features import FEATURE_SET
from ml.gate import Evidence, gate, in_one_sentence, may_filter
from ml.learners import PATIENCE, ROUNDS, XGBOOST, Examples, XGBoost, XGBoostScorer
from ml.models import LeakageCheck, MLModel
from ml.predictor import ModelUnusable, Predictor
from ml.progress import Progress, quiet
from ml.registry import champion, disposable
from ml.splits import NotEnoughData, Part
from ml.statistics import best_of_nothing, probabilistic_sharpe, sharpe_per_trade
from ml.training_data import TrainingData
from ml.training_rows import load_training_data
from ml.uniqueness import uniqueness
from ml.walk_forward import (
    SHUFFLES,
    WALK_STEPS,
    Fit,
    Fold,
    WalkForward,
    candidate,
    judge,
    learners_of,
    shuffled_control,
    walk_forward,
)
from ml.words import Algorithm, Gate, Label

#: Of a training, as `progress` hears of them.
TRAINING_STEPS = WALK_STEPS + SHUFFLES


@dataclass(frozen=True)
class Judgement:
    """One learner's evidence, its figures beside what else stands in `metrics`, and the two verdicts."""

    algorithm: Algorithm
    evidence: Evidence
    gate: Gate
    reasons: list[str]
    may_filter: bool
    may_filter_reasons: list[str]
    deflated: dict[str, Any]
    curves: dict[str, Any]

    def metrics(self) -> dict[str, Any]:
        evidence = self.evidence
        return {
            "in_one_sentence": in_one_sentence(evidence),
            **evidence.evaluation.to_dict(),
            "shuffled_labels": asdict(evidence.shuffled) if evidence.shuffled else None,
            "worse_than_champion": asdict(evidence.worse_than_champion) if evidence.worse_than_champion else None,
            "deflated_sharpe": self.deflated,
            "curves": self.curves,
            "may_filter_reasons": self.may_filter_reasons,
        }


#: Of what moves a model's predictions, as many dots as a figure can show and a row of the table can bear.
SAMPLE_ROWS, SAMPLE_COLUMNS = 200, 15


@dataclass(frozen=True)
class TrainingResult:
    """`model` and `evaluation` are None where there was too little to fit; `reasons` then says what is missing."""

    model: MLModel | None
    gate: Gate
    reasons: list[str]
    evaluation: dict[str, Any] | None


def _part_dict(part: Part) -> dict[str, Any]:
    return {"from": str(part.first), "to": str(part.last), "n": len(part.rows), "purged": part.purged}


def gain_importance(fit: Fit) -> dict[str, float]:
    """What each encoded column is worth to a fit, largest first: mean gain of its splits, or the size of its weight."""
    return _largest_first(fit.encoder.columns, fit.scorer.gain())


def shap_importance(fit: Fit, data: TrainingData, rows: NDArray[np.intp]) -> dict[str, Any]:
    """What each encoded column adds to the log-odds of some rows (exact TreeSHAP). `shap`: its mean size, largest
    first; `sample`: the SAMPLE_COLUMNS largest on at most SAMPLE_ROWS rows, evenly spaced in time, each row's value
    (None where it is unknown) and what that adds."""
    columns = data.columns_of(rows)
    encoded = fit.encoder.encode(columns)
    added = fit.scorer.contributions(encoded)[:, :-1]
    worth = _largest_first(fit.encoder.columns, np.abs(added).mean(axis=0))
    picked = np.unique(np.linspace(0, len(rows) - 1, SAMPLE_ROWS).round().astype(int))
    place = {name: index for index, name in enumerate(fit.encoder.columns)}

    def values(name: str) -> NDArray[np.float64]:
        given = columns[name] if name in fit.encoder.names else encoded[:, place[name]]
        taken: NDArray[np.float64] = np.asarray(given, dtype=np.float64)[picked]
        return taken

    return {
        "shap": worth,
        "sample": [
            {
                "column": name,
                "values": [float(f"{value:.4g}") if np.isfinite(value) else None for value in values(name)],
                "log_odds": added[picked, place[name]].round(4).tolist(),
            }
            for name in list(worth)[:SAMPLE_COLUMNS]
            if worth[name] > 0
        ],
    }


def _largest_first(columns: Sequence[str], worth: NDArray[np.float64]) -> dict[str, float]:
    return {columns[place]: float(worth[place]) for place in np.argsort(-worth, kind="stable")}


class ModelTrainer:
    """One book's trainer. Same data, label, seed and parameters give the same model, to the byte.

    `tuned` are the parameters of each window where tuning chose them; the last are those of the model that is kept.
    """

    def __init__(
        self,
        book: str,
        seed: int = 7,
        label: Label = Label.NET,
        parameters: Mapping[str, Any] = XGBOOST,
        *,
        tuned: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self.book = book
        self.seed = seed
        self.label = label
        self.parameters = dict(tuned[-1] if tuned else parameters)
        self.tuned = tuned

    def load_training_data(self) -> TrainingData:
        """The book's closed trades that can be learned from; two queries. See ml/training_rows.py."""
        return load_training_data(self.book, self.label)

    def train_xgboost_model(self, train: Examples, validation: Examples, columns: Sequence[str]) -> XGBoostScorer:
        """Boost until the validation log-loss stops falling; what is returned *is* the best iteration."""
        return XGBoost(self.seed, self.parameters).fit(train, validation, columns)

    def walk_forward_validation(self, data: TrainingData, progress: Progress = quiet) -> WalkForward:
        """Fit and score the model and its challengers in five rolling windows. Raises NotEnoughData."""
        return walk_forward(
            data,
            learners_of(self.seed, self.parameters),
            self.seed,
            tuned=[XGBoost(self.seed, parameters) for parameters in self.tuned],
            online=True,
            progress=progress,
        )

    def evaluate_model(
        self, data: TrainingData, walk: WalkForward, algorithm: Algorithm = Algorithm.XGBOOST, attempts: int = 1
    ) -> Evaluation:
        """Pooled figures over every window's test part, beside all baselines."""
        return judge(data, walk, algorithm, self.seed, attempts)

    def judge(
        self,
        data: TrainingData,
        walk: WalkForward,
        algorithm: Algorithm | None = None,
        progress: Progress = quiet,
    ) -> Judgement:
        """What is known of a learner, and both verdicts. Without a name it is XGBoost, or the linear baseline where
        that is shown to be better."""
        earlier = self._earlier_attempts(data, walk)
        attempts = len(earlier) + 1
        if algorithm is None:
            asked, evaluation = candidate(data, walk, self.seed, attempts)
        else:
            asked, evaluation = algorithm, self.evaluate_model(data, walk, algorithm, attempts)
        evidence = Evidence(
            evaluation,
            shuffled=self._shuffled(data, walk, asked, progress),
            leakage_free=leakage_free(),
            worse_than_champion=self._worse_than_champion(data, walk, asked),
        )
        verdict, reasons = gate(evidence)
        if walk.unfitted:
            verdict, reasons = Gate.INSUFFICIENT_DATA, [*walk.unfitted, *reasons]
        filters, filter_reasons = may_filter(evidence)
        return Judgement(
            asked,
            evidence,
            verdict,
            reasons,
            filters and verdict is Gate.PASS,
            filter_reasons,
            self._deflated(data, walk, asked, earlier),
            curves(data.results_of(walk.test_rows), walk.rule(asked).p, self.seed),
        )

    def _shuffled(
        self, data: TrainingData, walk: WalkForward, algorithm: Algorithm, progress: Progress
    ) -> ShuffledControl | None:
        learners = {learner.algorithm: learner for learner in learners_of(self.seed, self.parameters)}
        # The online learner has no fit of its own to repeat; the linear one stands for it.
        learner = learners.get(algorithm, learners[Algorithm.LOGISTIC])
        return shuffled_control(data, walk.folds[-1].window, learner, self.seed, progress=progress)

    def _earlier_attempts(self, data: TrainingData, walk: WalkForward) -> list[MLModel]:
        """Candidates of this label whose test sessions hold more than half of these test rows; a model of the very same
        data, seed and parameters is no further attempt."""
        session = data.session[walk.test_rows]
        asked = [dict(fold.fits[Algorithm.XGBOOST].parameters) for fold in walk.folds]
        others = MLModel.objects.filter(book=self.book, label=self.label).defer("artifact", "importance", "manifest")
        attempts: dict[tuple[str, int, str, str], MLModel] = {}
        for other in others:
            first, last = other.tested_from, other.test_to
            inside = (session >= np.datetime64(first)) & (session <= np.datetime64(last))
            parameters = [fold.get("parameters") for fold in other.folds]
            same = (other.data_hash, other.seed, parameters) == (data.data_hash, self.seed, asked)
            if inside.mean() > 0.5 and not same:
                attempts[(other.data_hash, other.seed, other.algorithm, json.dumps(parameters, sort_keys=True))] = other
        return list(attempts.values())

    def _deflated(
        self, data: TrainingData, walk: WalkForward, algorithm: Algorithm, earlier: Sequence[MLModel]
    ) -> dict[str, Any]:
        """The Sharpe ratio a session of what the model lets through, and the probability that it is above what the best
        of as many worthless candidates would show."""
        rows, taken = walk.test_rows, walk.rule(algorithm).taken
        session, r = data.session[rows], data.r[rows]
        earned = np.where(taken & np.isfinite(r), r, 0.0)
        days, place = np.unique(session, return_inverse=True)
        daily = np.bincount(place, weights=earned, minlength=len(days)).astype(np.float64)
        sharpe = sharpe_per_trade(daily)
        known = [other.metrics.get("deflated_sharpe", {}).get("sharpe_a_session") for other in earlier]
        trials = [each for each in (*known, sharpe) if each is not None]
        benchmark = best_of_nothing(trials)
        return {
            "sharpe_a_session": sharpe,
            "sessions": len(days),
            "trials": len(trials),
            "best_of_nothing": benchmark,
            "probability": probabilistic_sharpe(daily, benchmark),
        }

    def _worse_than_champion(self, data: TrainingData, walk: WalkForward, algorithm: Algorithm) -> Estimate | None:
        """On the test rows of sessions that the champion has not seen, so that neither model was fitted on them."""
        serving = champion(self.book)
        if serving is None:
            return None
        unseen = data.session[walk.test_rows] >= np.datetime64(serving.unseen_from)
        rows = walk.test_rows[unseen]
        if not len(rows):
            return None
        try:
            other = Predictor(serving).probabilities(data.columns_of(rows))
        except ModelUnusable:
            return None  # it serves nothing any more: there is nothing to be better than
        bootstrap = SessionBootstrap(data.session[rows], self.seed)
        return compared_log_loss(data.won[rows], walk.rule(algorithm).p[unseen], other, bootstrap)

    def save_model(self, data: TrainingData, walk: WalkForward, judgement: Judgement) -> MLModel:
        """Store the last window's model as a candidate, with its figures and verdicts. Activates nothing."""
        last, algorithm = walk.folds[-1], judgement.algorithm
        fit = last.fits[algorithm]
        artifact = self.artifact_of(last, algorithm)
        test_from, test_to = (date.fromisoformat(str(day)) for day in (last.window.test.first, last.window.test.last))
        reward = np.asarray(data.columns["reward_to_risk"], dtype=np.float64)
        model = MLModel(
            book=self.book,
            algorithm=algorithm,
            label=self.label,
            gate=judgement.gate,
            gate_reasons=judgement.reasons,
            may_filter=judgement.may_filter,
            feature_set=FEATURE_SET,
            artifact=artifact,
            artifact_sha256=fingerprint(artifact),
            data_hash=data.data_hash,
            seed=self.seed,
            n_train=len(last.window.train.rows),
            n_validation=len(last.window.validation.rows),
            n_test=judgement.evidence.evaluation.n,
            tested_from=date.fromisoformat(str(walk.folds[0].window.test.first)),
            test_from=test_from,
            test_to=test_to,
            threshold=last.payoff.threshold(float(np.nanmean(reward))) if last.payoff else None,
            metrics={**judgement.metrics(), "remarks": data.remarks()},
            folds=[self._fold_dict(data, fold, algorithm) for fold in walk.folds],
            importance={
                "gain": gain_importance(fit),
                **shap_importance(fit, data, last.window.test.rows),
            },
            manifest=self._manifest(data, last, algorithm),
            created_at=timezone.now(),
        )
        self._store(model)
        return model

    def _store(self, model: MLModel) -> None:
        """Under the next free version; two trainings that end at once take one each."""
        while model.pk is None:
            model.version = self._free_version(model.test_to)
            try:
                with transaction.atomic():
                    model.save(force_insert=True)
            except IntegrityError:
                if not MLModel.objects.filter(book=model.book, version=model.version).exists():
                    raise

    @staticmethod
    def artifact_of(fold: Fold, algorithm: Algorithm) -> str:
        """What serving needs of a window's fit, sealed."""
        fit = fold.fits[algorithm]
        return seal(
            Artifact(
                feature_set=FEATURE_SET,
                algorithm=algorithm.value,
                scorer=fit.scorer.to_bytes(),
                encoder=fit.encoder.to_dict(),
                calibrator=fit.calibrator.to_dict(),
                payoff=fold.payoff.to_dict() if fold.payoff else None,
            ),
            settings.MODEL_SIGNING_KEY,
        )

    def _free_version(self, last_session: date) -> str:
        that_day = MLModel.objects.filter(version__startswith=f"{last_session:%Y%m%d}-")
        # A version that something rests on is never given again: it may outlive its book.
        kept = Q(book=self.book) | ~Q(pk__in=disposable().values("pk"))
        taken = set(that_day.filter(kept).values_list("version", flat=True))
        number = 1
        while (version := f"{last_session:%Y%m%d}-{number}") in taken:
            number += 1
        return version

    def _fold_dict(self, data: TrainingData, fold: Fold, algorithm: Algorithm) -> dict[str, Any]:
        figures = judge(data, WalkForward([fold], []), algorithm, self.seed)
        left_out = ("deciles", "worse_than", "auc_bound", "attempts")
        return {
            "train": _part_dict(fold.window.train),
            "validation": _part_dict(fold.window.validation),
            "test": _part_dict(fold.window.test),
            "parameters": fold.fits[Algorithm.XGBOOST].parameters,
            "payoff": fold.payoff.to_dict() if fold.payoff else None,
            "calibrator": fold.fits[algorithm].calibrator.to_dict()["method"],
            "metrics": {name: value for name, value in figures.to_dict().items() if name not in left_out},
        }

    def _manifest(self, data: TrainingData, last: Fold, algorithm: Algorithm) -> dict[str, Any]:
        fit, train = last.fits[algorithm], last.window.train.rows
        return {
            "parameters": self.parameters,
            "rounds": ROUNDS,
            "early_stopping_rounds": PATIENCE,
            "seed": self.seed,
            "label": self.label,
            "algorithm": algorithm,
            "feature_set": FEATURE_SET,
            "columns": list(fit.encoder.columns),
            "encoder": fit.encoder.to_dict(),
            "calibrator": fit.calibrator.to_dict(),
            "payoff": last.payoff.to_dict() if last.payoff else None,
            "train": _part_dict(last.window.train),
            "validation": _part_dict(last.window.validation),
            "test": _part_dict(last.window.test),
            "last_closed_at": str(data.end.max()),
            "reference": reference_of(data.columns_of(train), data.session[train]),
            "data_hash": data.data_hash,
            "n_trades": len(data.won),
            "n_shadow": int(data.shadow.sum()),
            "effective_n_train": float(uniqueness(data.start[train], data.end[train]).sum()),
            "n_incomplete": data.n_incomplete,
            "n_other_feature_set": data.n_other_feature_set,
            "n_unlabelled": data.n_unlabelled,
            "missing": dict(data.missing),
            "exit_settings": dict(data.exit_settings),
            "feeds": dict(data.feeds),
            "libraries": {
                "python": platform.python_version(),
                **{name: version(name) for name in ("numpy", "scikit-learn", "xgboost-cpu", "lightgbm", "river")},
            },
        }

    def load_latest_model(self) -> MLModel | None:
        """The newest model of the book, whatever its status."""
        return MLModel.objects.filter(book=self.book).order_by("-created_at", "-id").first()

    def train(self, progress: Progress = quiet, algorithm: Algorithm | None = None) -> TrainingResult:
        """Load, walk forward, judge, save. Too little data is an answer, INSUFFICIENT_DATA, not an error.
        `progress` hears of each of TRAINING_STEPS."""
        return self.train_on(self.load_training_data(), progress, algorithm)

    def train_on(
        self, data: TrainingData, progress: Progress = quiet, algorithm: Algorithm | None = None
    ) -> TrainingResult:
        """`train` on data that is loaded already."""
        remarks = data.remarks()
        try:
            walk = self.walk_forward_validation(data, progress)
        except NotEnoughData as shortage:
            return TrainingResult(None, Gate.INSUFFICIENT_DATA, [f"Too little data: {shortage}.", *remarks], None)
        if not walk.folds or walk.folds[-1].window.test.rows[-1] != len(data.won) - 1:
            return TrainingResult(None, Gate.INSUFFICIENT_DATA, [*walk.unfitted, *remarks], None)
        model = self.save_model(data, walk, self.judge(data, walk, algorithm, progress))
        reasons = model.gate_reasons if model.gate == "PASS" else [*model.gate_reasons, *remarks]
        return TrainingResult(model, Gate(model.gate), reasons, model.metrics)

    def train_again(self, model: MLModel, progress: Progress = quiet) -> str:
        """The artifact that the model's manifest gives today: equal to the stored one, to the byte, where nothing has
        changed. Raises CannotRetrain where the book's data is not what it was."""
        stored = model.manifest
        if "last_closed_at" not in stored:
            raise CannotRetrain(f"Model {model.version} does not say which trades it learned from; train a new one.")
        until = datetime.fromisoformat(stored["last_closed_at"]).replace(tzinfo=UTC)
        again = ModelTrainer(model.book, stored["seed"], Label(stored["label"]), stored["parameters"])
        data = load_training_data(model.book, again.label, until)
        if data.data_hash != stored["data_hash"]:
            raise CannotRetrain(
                f"The trades of book {model.book} closed by {until:%Y-%m-%d %H:%M} UTC are not those that model "
                f"{model.version} was trained on: there are {len(data.won):,} now, there were {stored['n_trades']:,}."
            )
        walk = again.walk_forward_validation(data, progress)
        return self.artifact_of(walk.folds[-1], Algorithm(stored["algorithm"]))


class CannotRetrain(Exception):
    """A model cannot be trained again as it was; the message says why."""


def leakage_free() -> bool | None:
    """What the newest check_leakage of this feature set found; None where it was never run."""
    return LeakageCheck.objects.filter(feature_set=FEATURE_SET).values_list("is_clean", flat=True).first()
