"""Books as a whole: replacing one at once, so that nobody ever sees half of it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from django.apps import apps
from django.db import models, transaction

from ml.models import MLModel
from positions.models import WorkerLease

NAME = re.compile(r"simulated|replay:[0-9a-f]{12}|(?:paper|live):[A-Za-z0-9_-]{1,32}")


def is_book(name: str) -> bool:
    return NAME.fullmatch(name) is not None


def _rows(book: str) -> Iterator["models.QuerySet[models.Model]"]:
    """Everything of a book, children before parents; without models that have served (their predictions stay true)."""
    for model in reversed(list(apps.get_models())):
        if model is WorkerLease or not any(field.name == "book" for field in model._meta.fields):
            continue
        rows = model._default_manager.filter(book=book)
        yield rows.filter(promoted_at__isnull=True) if model is MLModel else rows


def clear(book: str) -> None:
    with transaction.atomic():
        for rows in _rows(book):
            rows.delete()


@contextmanager
def rewritten(book: str) -> Iterator[str]:
    """Yield the name of a draft to write into; on success it takes the book's place in one transaction.

    If the block fails the draft is removed and the book stays as it was; what a killed run left is removed by the next.
    """
    draft = f"{book}~draft"
    clear(draft)
    try:
        yield draft
    except BaseException:
        clear(draft)
        raise
    with transaction.atomic():
        clear(book)
        for rows in _rows(draft):
            rows.update(book=book)
