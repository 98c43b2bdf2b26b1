"""Which model serves which book: one champion a book, put there by somebody for a reason."""

from django.db import IntegrityError, transaction
from django.db.models import Exists, OuterRef, QuerySet
from django.utils import timezone

from ml.features import FEATURE_SET
from ml.models import MLModel, Prediction
from ml.words import Gate, ModelStatus


class PromotionRefused(Exception):
    """The model must not serve the book; the message says why and what to do."""


def disposable() -> QuerySet[MLModel]:
    """Models that nothing rests on: never promoted, and without predictions in books other than their own."""
    elsewhere = Prediction.objects.filter(model=OuterRef("pk")).exclude(book=OuterRef("book"))
    return MLModel.objects.filter(promoted_at__isnull=True).exclude(Exists(elsewhere)).order_by()


def champion(book: str) -> MLModel | None:
    """The model that serves a book."""
    return MLModel.objects.filter(serving_book=book, status=ModelStatus.CHAMPION).first()


def _refusal(model: MLModel, serving_book: str, foreign: bool) -> str | None:
    if model.status == ModelStatus.CHAMPION:
        return f"Model {model} already serves {model.serving_book}."
    if model.status != ModelStatus.CANDIDATE:
        return f"Model {model} is {model.status}; only a candidate can be promoted. Train a new one."
    if model.gate != Gate.PASS:
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


def promote(model: MLModel, serving_book: str, who: str, why: str, *, foreign: bool = False) -> MLModel:
    """Make a candidate the champion of a book and archive the one before; `foreign` allows a model of another book.

    Of two at once, the database lets one win. Raises PromotionRefused.
    """
    if not who.strip() or not why.strip():
        raise PromotionRefused("A promotion needs a name and a reason.")
    if len(who) > 150 or len(why) > 300:
        raise PromotionRefused("The name has at most 150 characters, the reason at most 300.")
    try:
        with transaction.atomic():
            candidate = MLModel.objects.select_for_update().get(pk=model.pk)
            refusal = _refusal(candidate, serving_book, foreign)
            if refusal:
                raise PromotionRefused(refusal)
            MLModel.objects.filter(serving_book=serving_book, status=ModelStatus.CHAMPION).update(
                status=ModelStatus.ARCHIVED, serving_book=None
            )
            candidate.status = ModelStatus.CHAMPION
            candidate.serving_book = serving_book
            candidate.promoted_at = timezone.now()
            candidate.promoted_by = who
            candidate.promotion_reason = why
            candidate.save()
    except IntegrityError as error:
        raise PromotionRefused(
            f"Another model was promoted to {serving_book} at the same moment; look at it, then promote again."
        ) from error
    return candidate
