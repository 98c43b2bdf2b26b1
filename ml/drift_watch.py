"""Checks a book's champion for drift, records what was found, and on an alarm takes the power to skip trades away."""

from datetime import date, datetime
from typing import Any

import numpy as np
import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import OuterRef, Subquery
from numpy.typing import NDArray

from ml.drift import ADWIN_DELTA, LEAST_ROWS, Comparison, Errors, compare, excess_errors, watch_errors
from ml.features import FEATURE_SET, MODEL_FEATURES, Kind
from ml.models import DriftCheck, MLModel, Prediction, TradeFeatures
from ml.registry import champion
from ml.words import MODEL_SKIPS, PredictionMode
from positions import live_settings
from positions.models import Trade
from positions.words import Outcome

log = structlog.get_logger(__name__)

NEWEST_SIGNALS = 2_000
NEWEST_ERRORS = 10_000


def check_drift(book: str, now: datetime) -> DriftCheck | None:
    """Compare, record, and step down where there is cause; None where no model serves the book.

    Signals: the newest complete ones that the model was asked about and that were taken or skipped for its sake, after
    the last session it was fitted or tested on (all of them where it comes from another book). Errors: those of its
    closed predictions in order of closing, its test sessions included where they were scored. Neither changes by
    itself when the mode does. Only the BOOK setting's champion steps the mode down: an invented market decides nothing
    real. A constant number of queries.
    """
    model = champion(book)
    if model is None:
        return None
    session, columns = _live_signals(model, book)
    features, not_judged = _compare(model, session, columns)
    errors = watch_errors(_errors(model, book))
    if errors.n == 0:
        not_judged.append("Errors: no signal that the model scored has closed yet.")
    alarms = _alarms(features, errors, len(session), model)
    with transaction.atomic():
        stepped_down, reason = _step_down(book) if alarms else (False, "")
        check = DriftCheck.objects.create(
            book=book,
            model=model,
            checked_at=now,
            rows=len(session),
            sessions=len(np.unique(session)),
            features={name: _stored(comparison) for name, comparison in features.items()},
            errors=errors.n,
            mean_error=errors.mean,
            errors_before=errors.n_before,
            mean_error_before=errors.mean_before,
            alarms=alarms,
            not_judged=not_judged,
            stepped_down=stepped_down,
            reason=reason,
        )
    if stepped_down:
        log.warning("stepped_down", book=book, model=model.version, alarms=alarms, reason=reason)
    return check


def _live_signals(model: MLModel, book: str) -> tuple[NDArray[np.datetime64], dict[str, NDArray[Any]]]:
    names = [feature.name for feature in MODEL_FEATURES]
    seen_until = model.test_to if model.book == book else date.min
    asked = TradeFeatures.objects.filter(
        book=book,
        session__gt=seen_until,
        complete=True,
        feature_set=FEATURE_SET,
        not_taken_reason__in=("", MODEL_SKIPS),
    )
    rows = list(asked.values_list("session", *names)[:NEWEST_SIGNALS])
    session, *table = zip(*rows, strict=True) if rows else [()] * (len(names) + 1)
    columns = {
        feature.name: np.array(values, dtype=np.float64 if feature.kind is Kind.CONTINUOUS else object)
        for feature, values in zip(MODEL_FEATURES, table, strict=True)
    }
    return np.array(session, dtype="datetime64[D]"), columns


def _compare(
    model: MLModel, session: NDArray[np.datetime64], columns: dict[str, NDArray[Any]]
) -> tuple[dict[str, Comparison], list[str]]:
    if model.feature_set != FEATURE_SET:
        return {}, [f"Features: this program computes others ({FEATURE_SET}) than the model's; train a new one."]
    reference = model.manifest.get("reference")
    if reference is None:
        return {}, ["Features: the model remembers nothing of its training rows; train and promote a new one."]
    if len(session) < LEAST_ROWS:
        return {}, [f"Features: {len(session)} complete signals since its test sessions; {LEAST_ROWS} are needed."]
    return compare(reference, columns, session), []


def _errors(model: MLModel, book: str) -> NDArray[np.float64]:
    """Those of the newest closed predictions, oldest closing first."""
    exited_at = Trade.objects.filter(book=OuterRef("book"), signal_key=OuterRef("signal_key")).values("exited_at")
    closed = (
        Prediction.objects.filter(model=model, book=book, outcome__isnull=False)
        .annotate(exited_at=Subquery(exited_at))
        .order_by("-exited_at", "-signal_key")
    )
    newest = list(closed.values_list("p_win", "outcome")[:NEWEST_ERRORS])[::-1]
    p_win = np.array([p_win for p_win, _ in newest], dtype=np.float64)
    return excess_errors(p_win, np.array([outcome == Outcome.WIN for _, outcome in newest], dtype=bool))


def _alarms(features: dict[str, Comparison], errors: Errors, rows: int, model: MLModel) -> list[str]:
    drifted = sorted((name for name in features if features[name].alarm), key=lambda name: -features[name].psi)
    alarms = [
        f"{name}: PSI {features[name].psi:.3f} of {rows:,} signals (worth {features[name].effective:,.0f} independent "
        f"ones) against {model.manifest['reference']['rows']:,} of training; without drift it stays below "
        f"{features[name].bound:.3f}."
        for name in drifted
    ]
    if errors.alarm:
        alarms.append(
            f"The squared error beyond what its odds imply rose from {errors.mean_before:+.3f} on {errors.n_before:,} "
            f"closed predictions to {errors.mean:+.3f} on the {errors.n:,} since (ADWIN, delta {ADWIN_DELTA})."
        )
    return alarms


def _step_down(book: str) -> tuple[bool, str]:
    mode = live_settings.prediction_mode()
    if mode != PredictionMode.FILTER:
        return False, f"PREDICTION_MODE is {mode}: the model skips no trade, so there is nothing to step down."
    if book != settings.BOOK:
        return False, f"PREDICTION_MODE stays filter: it is that of book {settings.BOOK}, not of {book}."
    live_settings.set_prediction_mode(PredictionMode.SHADOW)
    return True, "PREDICTION_MODE went from filter to shadow: the model still predicts and no longer skips trades."


def _stored(comparison: Comparison) -> dict[str, Any]:
    return {
        "psi": comparison.psi,
        "bound": comparison.bound,
        "worth": comparison.effective,
        "alarm": comparison.alarm,
    }
