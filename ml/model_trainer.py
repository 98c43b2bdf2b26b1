"""Trains WIN/LOSS models on one book's closed trades and judges them on sessions they never saw."""

import hashlib
import json
import platform
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from django.conf import settings
from django.db.models import Q
from django.utils import timezone
from numpy.typing import NDArray

from ml.artifact import Artifact, fingerprint, seal
from ml.calibration import Calibrator, fit_calibrator
from ml.drift import reference_of
from ml.encoder import Encoder
from ml.evaluation import Evaluation, Rows, evaluate, scores
from ml.features import FEATURE_SET, MODEL_FEATURES, Kind
from ml.gate import gate, may_filter
from ml.models import MLModel, TradeFeatures
from ml.registry import disposable
from ml.splits import WINDOWS, NotEnoughData, Part, Window, rolling_windows
from ml.words import Gate
from positions.models import Trade
from positions.words import Outcome, TradeStatus

if TYPE_CHECKING:
    from xgboost import Booster

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Progress = Callable[[int, int], None]

ROUNDS = 100
PATIENCE = 10  # rounds without a better validation log-loss
PARAMETERS: dict[str, Any] = {
    "objective": "binary:logistic",
    "eval_metric": "logloss",
    "tree_method": "hist",
    "max_depth": 6,
    "learning_rate": 0.1,
    "subsample": 0.8,  # with columns sampled too, the better of both on planted edges (AUC +0.006 over 10 seeds)
    "colsample_bytree": 0.8,
    "nthread": 1,
}

NAMES = tuple(feature.name for feature in MODEL_FEATURES)


@dataclass(frozen=True)
class TrainingData:
    """The n closed trades of a book whose features are complete, by signal time.

    `columns` hold each model feature (n,), NaN or None where unknown; `won` (n,); `r` the net result in R, NaN where
    unknown; `start` and `end` signal and exit in UTC; `missing` how many rows lack a feature; `n_incomplete` and
    `n_other_feature_set` the closed trades left out; `exit_settings` how many trades each set of exit rules closed.
    """

    columns: Mapping[str, NDArray[Any]]
    won: Flags
    signal_key: NDArray[np.str_]
    session: NDArray[np.datetime64]
    start: NDArray[np.datetime64]
    end: NDArray[np.datetime64]
    r: Floats
    p_geometry: Floats
    data_hash: str
    n_incomplete: int
    n_other_feature_set: int
    missing: Mapping[str, int]
    exit_settings: Mapping[str, int]

    def columns_of(self, rows: NDArray[np.intp]) -> dict[str, NDArray[Any]]:
        return {name: values[rows] for name, values in self.columns.items()}

    def results_of(self, rows: NDArray[np.intp]) -> Rows:
        return Rows(self.won[rows], self.p_geometry[rows], self.r[rows], self.session[rows])


@dataclass(frozen=True)
class Examples:
    """Encoded rows `X` (n, k) float32 under their column names, and whether each was won (n,)."""

    X: NDArray[np.float32]
    won: Flags
    columns: Sequence[str]


@dataclass(frozen=True)
class Fold:
    """One window: what was fitted on its training and validation parts, and what that says of its test part."""

    window: Window
    booster: "Booster"
    encoder: Encoder
    calibrator: Calibrator
    threshold: float | None
    p: Floats
    p_logistic: Floats
    taken: Flags


@dataclass(frozen=True)
class WalkForward:
    """The windows that could be fitted, oldest first, and a sentence for each that could not."""

    folds: list[Fold]
    unfitted: list[str]

    @property
    def test_rows(self) -> NDArray[np.intp]:
        return np.concatenate([fold.window.test.rows for fold in self.folds])

    def pooled(self, name: str) -> NDArray[Any]:
        return np.concatenate([getattr(fold, name) for fold in self.folds])


@dataclass(frozen=True)
class TrainingResult:
    """`model` and `evaluation` are None where there was too little to fit; `reasons` then says what is missing."""

    model: MLModel | None
    gate: Gate
    reasons: list[str]
    evaluation: dict[str, Any] | None


def expected_value_threshold(won: Flags, r: Floats) -> float | None:
    """The probability above which a trade is expected to earn: L / (W + L) with the mean winning and losing R.

    Results are net, so costs are in both. None without a win and a loss whose R is known.
    """
    known = np.isfinite(r)
    if not (known & won).any() or not (known & ~won).any():
        return None
    win, loss = float(r[known & won].mean()), -float(r[known & ~won].mean())
    return loss / (win + loss)


def logistic_probabilities(train: Examples, X: NDArray[np.float32]) -> Floats:
    """The linear baseline: logistic regression on the encoded features, NaN at the training mean."""
    from sklearn.linear_model import LogisticRegression

    fitted = LogisticRegression(max_iter=1000).fit(np.nan_to_num(train.X, nan=0.0), train.won)
    probabilities: Floats = fitted.predict_proba(np.nan_to_num(X, nan=0.0))[:, 1].astype(np.float64)
    return probabilities


def _utc(times: Sequence[datetime]) -> NDArray[np.datetime64]:
    return np.array([each.astimezone(UTC).replace(tzinfo=None) for each in times], dtype="datetime64[us]")


def _column(kind: Kind, values: Sequence[Any]) -> NDArray[Any]:
    return np.array(values, dtype=np.float64 if kind is Kind.CONTINUOUS else object)


def _hash(rows: Sequence[tuple[Any, ...]]) -> str:
    digest = hashlib.sha256(json.dumps([FEATURE_SET, NAMES]).encode())
    for row in rows:
        digest.update(json.dumps(row, default=str).encode())
    return digest.hexdigest()


def _part_dict(part: Part) -> dict[str, Any]:
    return {"from": str(part.first), "to": str(part.last), "n": len(part.rows), "purged": part.purged}


def gain_importance(fold: Fold) -> dict[str, float]:
    """Mean gain of the splits on each encoded column, largest first; 0 for a column that no tree splits on."""
    gain: Any = fold.booster.get_score(importance_type="gain")
    return {
        column: float(gain.get(column, 0))
        for column in sorted(fold.encoder.columns, key=lambda name: -gain.get(name, 0))
    }


class ModelTrainer:
    """One book's trainer. Same data and seed give the same model, to the byte."""

    def __init__(self, book: str, seed: int = 7) -> None:
        self.book = book
        self.seed = seed

    @property
    def parameters(self) -> dict[str, Any]:
        return {**PARAMETERS, "seed": self.seed}

    def load_training_data(self) -> TrainingData:
        """Closed trades with an outcome, joined with their complete feature rows; two queries."""
        closed = Trade.objects.filter(book=self.book, status=TradeStatus.CLOSED, outcome__isnull=False)
        features = {
            key: (complete, feature_set, values)
            for key, complete, feature_set, *values in TradeFeatures.objects.filter(
                book=self.book, signal_key__in=closed.order_by().values("signal_key")
            )
            .order_by()
            .values_list("signal_key", "complete", "feature_set", *NAMES)
        }
        trades = sorted(  # here, not in the database: engines collate text differently
            closed.order_by().values_list(
                "signal_at", "signal_key", "session", "exited_at", "outcome", "r_multiple", "exit_settings_hash"
            ),
            key=lambda trade: (trade[0], trade[1]),
        )
        used, n_other = [], 0
        for trade in trades:
            complete, feature_set, values = features.get(trade[1], (False, FEATURE_SET, []))
            if feature_set != FEATURE_SET:
                n_other += 1
            elif complete:
                used.append((trade, values))
        start, key, session, end, outcome, r, exit_settings = (
            zip(*(trade for trade, _ in used), strict=True) if used else ((),) * 7
        )
        table = list(zip(*(values for _, values in used), strict=True)) if used else [()] * len(NAMES)
        columns = {
            feature.name: _column(feature.kind, values) for feature, values in zip(MODEL_FEATURES, table, strict=True)
        }
        return TrainingData(
            columns=columns,
            won=np.array([each == Outcome.WIN for each in outcome], dtype=bool),
            signal_key=np.array(key, dtype=np.str_),
            session=np.array(session, dtype="datetime64[D]"),
            start=_utc(start),
            end=_utc(end),
            r=np.array(r, dtype=np.float64),
            p_geometry=columns["p_geometry"],
            data_hash=_hash([(*trade, *values) for trade, values in used]),
            n_incomplete=len(trades) - len(used) - n_other,
            n_other_feature_set=n_other,
            missing={
                name: n for name, values in zip(NAMES, table, strict=True) if (n := sum(v is None for v in values))
            },
            exit_settings=Counter(exit_settings),
        )

    def train_xgboost_model(self, train: Examples, validation: Examples) -> "Booster":
        """Boost until the validation log-loss stops falling; the booster returned *is* the best iteration."""
        import xgboost

        def matrix(examples: Examples) -> "xgboost.DMatrix":
            return xgboost.DMatrix(
                examples.X, label=examples.won, feature_names=list(examples.columns), nthread=PARAMETERS["nthread"]
            )

        return xgboost.train(
            self.parameters,
            matrix(train),
            num_boost_round=ROUNDS,
            evals=[(matrix(validation), "validation")],
            callbacks=[xgboost.callback.EarlyStopping(rounds=PATIENCE, save_best=True)],
            verbose_eval=False,
        )

    def walk_forward_validation(self, data: TrainingData, progress: Progress | None = None) -> WalkForward:
        """Fit and score five rolling windows. Raises NotEnoughData where there are too few sessions for them."""
        folds, unfitted = [], []
        for done, window in enumerate(rolling_windows(data.session, data.end), start=1):
            won = data.won[window.train.rows]
            if won.all() or not won.any() or not len(window.validation.rows):
                unfitted.append(
                    f"Window {done} of {WINDOWS} could not be fitted: its training part has {int(won.sum())} wins and "
                    f"{int((~won).sum())} losses, its validation part {len(window.validation.rows)} trades."
                )
            else:
                folds.append(self._fit(data, window))
            if progress:
                progress(done, WINDOWS)
        return WalkForward(folds, unfitted)

    def _fit(self, data: TrainingData, window: Window) -> Fold:
        encoder = Encoder.fit(data.columns_of(window.train.rows))
        train, validation, test = (
            Examples(encoder.encode(data.columns_of(part.rows)), data.won[part.rows], encoder.columns)
            for part in (window.train, window.validation, window.test)
        )
        booster = self.train_xgboost_model(train, validation)
        calibrator = fit_calibrator(booster.inplace_predict(validation.X).astype(np.float64), validation.won)
        seen = np.concatenate([window.train.rows, window.validation.rows])
        threshold = expected_value_threshold(data.won[seen], data.r[seen])
        p = calibrator.apply(booster.inplace_predict(test.X).astype(np.float64))
        return Fold(
            window=window,
            booster=booster,
            encoder=encoder,
            calibrator=calibrator,
            threshold=threshold,
            p=p,
            p_logistic=logistic_probabilities(train, test.X),
            taken=p > threshold if threshold is not None else np.zeros(len(p), dtype=bool),
        )

    def evaluate_model(self, data: TrainingData, walk: WalkForward) -> Evaluation:
        """Pooled figures over every window's test part."""
        return evaluate(data.results_of(walk.test_rows), walk.pooled("p"), walk.pooled("taken"), self.seed)

    def save_model(self, data: TrainingData, walk: WalkForward, evaluation: Evaluation) -> MLModel:
        """Store the last window's model as a candidate, with its figures and verdicts. Activates nothing."""
        last = walk.folds[-1]
        verdict, reasons = gate(evaluation)
        if walk.unfitted:
            verdict, reasons = Gate.INSUFFICIENT_DATA, [*walk.unfitted, *reasons]
        filters, filter_reasons = may_filter(evaluation)
        artifact = seal(
            Artifact(
                feature_set=FEATURE_SET,
                booster=bytes(last.booster.save_raw("ubj")),
                encoder=last.encoder.to_dict(),
                calibrator=last.calibrator.to_dict(),
                threshold=last.threshold,
            ),
            settings.MODEL_SIGNING_KEY,
        )
        test_from, test_to = (date.fromisoformat(str(day)) for day in (last.window.test.first, last.window.test.last))
        return MLModel.objects.create(
            book=self.book,
            version=self._free_version(test_to),
            algorithm="xgboost",
            gate=verdict,
            gate_reasons=reasons,
            may_filter=filters and verdict is Gate.PASS,
            feature_set=FEATURE_SET,
            artifact=artifact,
            artifact_sha256=fingerprint(artifact),
            data_hash=data.data_hash,
            seed=self.seed,
            n_train=len(last.window.train.rows),
            n_validation=len(last.window.validation.rows),
            n_test=evaluation.n,
            test_from=test_from,
            test_to=test_to,
            threshold=last.threshold,
            metrics={
                **evaluation.to_dict(),
                "logistic_regression": asdict(scores(data.won[walk.test_rows], walk.pooled("p_logistic"))),
                "may_filter_reasons": filter_reasons,
            },
            folds=[self._fold_dict(data, fold) for fold in walk.folds],
            importance=gain_importance(last),
            manifest=self._manifest(data, last),
            created_at=timezone.now(),
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

    def _fold_dict(self, data: TrainingData, fold: Fold) -> dict[str, Any]:
        return {
            "train": _part_dict(fold.window.train),
            "validation": _part_dict(fold.window.validation),
            "test": _part_dict(fold.window.test),
            "best_iteration": fold.booster.best_iteration,
            "threshold": fold.threshold,
            "metrics": evaluate(data.results_of(fold.window.test.rows), fold.p, fold.taken, self.seed).to_dict(),
        }

    def _manifest(self, data: TrainingData, last: Fold) -> dict[str, Any]:
        import sklearn
        import xgboost

        trained = last.window.train.rows
        return {
            "parameters": self.parameters,
            "rounds": ROUNDS,
            "early_stopping_rounds": PATIENCE,
            "seed": self.seed,
            "feature_set": FEATURE_SET,
            "columns": list(last.encoder.columns),
            "encoder": last.encoder.to_dict(),
            "calibrator": last.calibrator.to_dict(),
            "train": _part_dict(last.window.train),
            "validation": _part_dict(last.window.validation),
            "test": _part_dict(last.window.test),
            "reference": reference_of(data.columns_of(trained), data.session[trained]),
            "data_hash": data.data_hash,
            "n_trades": len(data.won),
            "n_incomplete": data.n_incomplete,
            "n_other_feature_set": data.n_other_feature_set,
            "missing": dict(data.missing),
            "exit_settings": dict(data.exit_settings),
            "libraries": {
                "python": platform.python_version(),
                "numpy": np.__version__,
                "scikit-learn": sklearn.__version__,
                "xgboost": xgboost.__version__,
            },
        }

    def load_latest_model(self) -> MLModel | None:
        """The newest model of the book, whatever its status."""
        return MLModel.objects.filter(book=self.book).order_by("-created_at", "-id").first()

    def train(self, progress: Progress | None = None) -> TrainingResult:
        """Load, walk forward, evaluate, save. Too little data is an answer, INSUFFICIENT_DATA, not an error."""
        data = self.load_training_data()
        left_out = [
            f"{n} closed trades were left out: {why}."
            for n, why in (
                (data.n_incomplete, "they have no complete feature row"),
                (data.n_other_feature_set, "their features were computed by other definitions"),
            )
            if n
        ]
        try:
            walk = self.walk_forward_validation(data, progress)
        except NotEnoughData as shortage:
            return TrainingResult(None, Gate.INSUFFICIENT_DATA, [f"Too little data: {shortage}.", *left_out], None)
        if not walk.folds or walk.folds[-1].window.test.rows[-1] != len(data.won) - 1:
            return TrainingResult(None, Gate.INSUFFICIENT_DATA, [*walk.unfitted, *left_out], None)
        model = self.save_model(data, walk, self.evaluate_model(data, walk))
        reasons = model.gate_reasons if model.gate == "PASS" else [*model.gate_reasons, *left_out]
        return TrainingResult(model, Gate(model.gate), reasons, model.metrics)
