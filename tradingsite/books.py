"""Books as a whole: replacing one at once, so that nobody ever sees half of it."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta

from django.apps import apps
from django.db import models, transaction

from ml.models import MLModel
from ml.registry import disposable
from positions import leases
from positions.models import WorkerLease
from tradingsite import book_bars

#: How long a run may go without a sign of life before another may take its book over.
LEASE = timedelta(minutes=2)


def held(book: str) -> AbstractContextManager[WorkerLease]:
    """The right to replace a book, for a block. Raises LeaseTaken."""
    return leases.held(book, "replay", LEASE)


def keep(lease: WorkerLease) -> None:
    """A sign of life. Raises LeaseTaken if another process has taken over."""
    leases.renew(lease, datetime.now(UTC), LEASE)


def _tables() -> Iterator[type[models.Model]]:
    """The tables that have a book, children before parents."""
    for model in reversed(list(apps.get_models())):
        if model is not WorkerLease and any(field.name == "book" for field in model._meta.fields):
            yield model


def clear(book: str) -> None:
    """Delete a book, but for models that something rests on; their predictions of its signals go with the signals."""
    with transaction.atomic():
        for table in _tables():
            rows = (disposable() if table is MLModel else table._default_manager.order_by()).filter(book=book)
            # Children come first and every child is of its parent's book, so nothing need be collected row by row.
            rows._raw_delete(rows.db)


@contextmanager
def rewritten(book: str, lease: WorkerLease) -> Iterator[str]:
    """Yield the name of a draft to write into; on success it takes the book's place in one transaction.

    If the block fails the draft is removed and the book stays as it was; what a killed run left is removed by the next.
    The draft is named by the lease's epoch, and only who still holds the lease may put it in place: of two runs, one
    of which slept while the other took over, the sleeper's is thrown away. Raises LeaseTaken.
    """
    _discard(_draft(book, lease.epoch - 1))
    draft = _draft(book, lease.epoch)
    try:
        yield draft
        with transaction.atomic():
            keep(lease)
            clear(book)
            for table in _tables():
                table._default_manager.filter(book=draft).update(book=book)
        book_bars.put_in_place(draft, book)
    except BaseException:
        _discard(draft)
        raise


def _discard(draft: str) -> None:
    clear(draft)
    book_bars.remove(draft)


def _draft(book: str, epoch: int) -> str:
    return f"{book}~{epoch}"
