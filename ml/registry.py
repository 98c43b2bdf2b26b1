"""Which model serves which book: one champion a book, put there by somebody for a reason, and a candidate on trial."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db import IntegrityError, transaction
from django.db.models import Count, Exists, IntegerField, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.utils import timezone

from ml.features import FEATURE_SET
from ml.models import MLModel, Prediction
from ml.words import Gate, ModelStatus, PredictionMode

#: Columns that nobody needs to know who serves.
HEAVY = ("artifact", "gate_reasons", "metrics", "folds", "importance", "manifest")
#: Columns that say where a model serves, since when and for what reason, and how its service ended.
SERVICE = (
    "status",
    "serving_book",
    "promoted_at",
    "promoted_by",
    "promotion_reason",
    "override_until",
    "archived_at",
    "archived_by",
    "archive_reason",
)
TRIAL = 200  # closed trades whose signals a candidate has scored in shadow, before anybody judges it by them
LONGEST_NAME, LONGEST_REASON = 150, 300
WHOEVER = 0  # the key of no model


class PromotionRefused(Exception):
    """The model must not serve the book; the message says why and what to do."""


def disposable() -> QuerySet[MLModel]:
    """Models that nothing rests on: never promoted, and without predictions in books other than their own."""
    elsewhere = Prediction.objects.filter(model=OuterRef("pk")).exclude(book=OuterRef("book"))
    return MLModel.objects.filter(promoted_at__isnull=True).exclude(Exists(elsewhere)).order_by()


def champion(book: str) -> MLModel | None:
    """The model that serves a book."""
    return MLModel.objects.filter(serving_book=book, status=ModelStatus.CHAMPION).first()


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that passed its gate. It has `scored` so many signals in shadow; the trades of `closed` of them ended."""

    model: MLModel
    scored: int
    closed: int


@dataclass(frozen=True, slots=True)
class OnDuty:
    """Who speaks of a book's signals, without their HEAVY columns; `candidates` are newer than the champion, newest
    first."""

    champion: MLModel | None
    candidates: Sequence[Candidate]

    @property
    def on_trial(self) -> Candidate | None:
        """The candidate that shadows: the one whose trial has begun, until TRIAL of its signals have ended, then the
        newest. Were it always the newest, nightly training would end every trial after a day."""
        waiting = [each for each in self.candidates if each.closed < TRIAL]
        return next((each for each in waiting if each.scored), waiting[0] if waiting else None)


def on_duty(book: str) -> OnDuty:
    """One query."""
    shadow = Prediction.objects.filter(model=OuterRef("pk"), book=book, mode=PredictionMode.SHADOW).order_by()
    counted = shadow.values("model").annotate(n=Count("pk")).values("n")
    rows = (
        MLModel.objects.filter(
            Q(serving_book=book, status=ModelStatus.CHAMPION)
            | Q(book=book, status=ModelStatus.CANDIDATE, gate=Gate.PASS, feature_set=FEATURE_SET)
        )
        .defer(*HEAVY)
        .annotate(
            scored=Coalesce(Subquery(counted, IntegerField()), 0),
            closed=Coalesce(Subquery(counted.filter(outcome__isnull=False), IntegerField()), 0),
        )
        .order_by("-created_at", "-id")
    )
    newer: list[Candidate] = []
    for model in rows:
        if model.status == ModelStatus.CHAMPION:
            return OnDuty(model, newer)
        newer.append(Candidate(model, model.scored, model.closed))
    return OnDuty(None, newer)


def _refusal(
    model: MLModel, serving_book: str, foreign: bool, override_until: datetime | None, now: datetime
) -> str | None:
    if model.status == ModelStatus.CHAMPION:
        return f"Model {model} already serves {model.serving_book}."
    if model.status != ModelStatus.CANDIDATE:
        return f"Model {model} is {model.status}; only a candidate can be promoted. Train a new one."
    if override_until is not None and model.gate == Gate.PASS:
        return f"Model {model} passed its gate; it needs no override. Promote it without --override."
    if override_until is not None and override_until <= now:
        ended = timezone.localtime(override_until)
        return f"The override would have ended at {ended:%Y-%m-%d %H:%M} in New York; give a time to come."
    if override_until is None and model.gate != Gate.PASS:
        return (
            f"Model {model} did not pass its gate ({model.gate}): {' '.join(model.gate_reasons) or 'no reason stored.'}"
        )
    if model.feature_set != FEATURE_SET:
        return (
            f"Model {model} was trained on feature set {model.feature_set}, this program computes {FEATURE_SET}. "
            "Train a new one."
        )
    if model.book != serving_book and not foreign:
        return (
            f"Model {model} was trained on book {model.book}, not on {serving_book}. "
            "If it is to serve there all the same, promote it as foreign (--foreign)."
        )
    return None


def _check_signed(what: str, who: str, why: str) -> None:
    if not who.strip() or not why.strip():
        raise PromotionRefused(f"A {what} needs a name and a reason.")
    if len(who) > LONGEST_NAME or len(why) > LONGEST_REASON:
        raise PromotionRefused(f"The name has at most {LONGEST_NAME} characters, the reason at most {LONGEST_REASON}.")


def _check_seen(book: str, serving: MLModel | None, seen: int | None) -> None:
    if seen not in (WHOEVER, serving.pk if serving else None):
        who = f"Model {serving.version}" if serving else "No model"
        raise PromotionRefused(f"{who} serves {book} since you looked; look again.")


def _archive(model: MLModel, who: str, why: str, now: datetime) -> None:
    model.status = ModelStatus.ARCHIVED
    model.archived_at, model.archived_by, model.archive_reason = now, who, why[:LONGEST_REASON]
    model.save(update_fields=["status", "archived_at", "archived_by", "archive_reason"])


def promote(
    model: MLModel,
    serving_book: str,
    who: str,
    why: str,
    *,
    foreign: bool = False,
    override_until: datetime | None = None,
    seen: int | None = WHOEVER,
) -> MLModel:
    """Make a candidate the champion of a book and archive the one before; `foreign` allows a model of another book,
    `override_until` (aware) one that did not pass its gate, for so long. `seen` is the key of the only model that may
    be archived for it, None where none served when somebody looked.

    Of two at once, the database lets one win. Raises PromotionRefused.
    """
    _check_signed("promotion", who, why)
    now = timezone.now()
    try:
        with transaction.atomic():
            candidate = MLModel.objects.select_for_update().get(pk=model.pk)
            refusal = _refusal(candidate, serving_book, foreign, override_until, now)
            if refusal:
                raise PromotionRefused(refusal)
            before = champion(serving_book)
            _check_seen(serving_book, before, seen)
            if before is not None:
                _archive(before, who, f"{candidate.version} was promoted: {why}", now)
            candidate.status = ModelStatus.CHAMPION
            candidate.serving_book = serving_book
            candidate.promoted_at, candidate.promoted_by, candidate.promotion_reason = now, who, why
            candidate.override_until = override_until
            candidate.save()
    except IntegrityError as error:
        raise PromotionRefused(
            f"Another model was promoted to {serving_book} at the same moment; look at it, then promote again."
        ) from error
    return candidate


@dataclass(frozen=True, slots=True)
class RolledBack:
    """`withdrawn` was the champion, `restored` is again."""

    withdrawn: MLModel
    restored: MLModel


def rollback(book: str, who: str, why: str, *, seen: int = WHOEVER) -> RolledBack:
    """Withdraw a book's champion, the model of key `seen` or none; the one that it had replaced serves again.

    Who, when and why stand on the one withdrawn; rolling back twice goes back twice. Raises PromotionRefused.
    """
    _check_signed("rollback", who, why)
    now = timezone.now()
    try:
        with transaction.atomic():
            withdrawn = champion(book)
            _check_seen(book, withdrawn, seen)
            if withdrawn is None:
                raise PromotionRefused(f"No model serves {book}; there is nothing to roll back.")
            restored = replaced_by(withdrawn)
            refusal = _too_old(restored, now) if restored else f"No model served {book} before {withdrawn.version}."
            if restored is None or refusal:
                raise PromotionRefused(f"{refusal} To do without a model set PREDICTION_MODE to off.")
            _archive(withdrawn, who, f"rolled back to {restored.version}: {why}", now)
            restored.status = ModelStatus.CHAMPION
            restored.archived_at, restored.archived_by, restored.archive_reason = None, "", ""
            restored.save(update_fields=["status", "archived_at", "archived_by", "archive_reason"])
    except IntegrityError as error:
        raise PromotionRefused(
            f"Another model was promoted to {book} at the same moment; look at it, then roll back again."
        ) from error
    return RolledBack(withdrawn, restored)


def replaced_by(model: MLModel) -> MLModel | None:
    """The model that was archived in the very moment in which this one was promoted."""
    served = MLModel.objects.filter(serving_book=model.serving_book, status=ModelStatus.ARCHIVED)
    return served.filter(archived_at=model.promoted_at).defer(*HEAVY).first()


def _too_old(model: MLModel, now: datetime) -> str | None:
    if model.override_ended(now):
        return f"The override of model {model}, which served before, has ended."
    if model.feature_set != FEATURE_SET:
        return f"Model {model}, which served before, was trained on another feature set than this program computes."
    return None
