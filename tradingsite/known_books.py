"""Which books there are here, so that a slip in a name is noticed."""

import django.db
from django.conf import settings

from ml.models import Performance
from positions.books import is_book
from positions.halting import halted
from positions.models import Trade, WorkerLease
from tradingsite.kit.admin import distinct
from tradingsite.kit.options import bad_input

NOT_CHECKED = "No database says whether there is such a book: see that its name is written right."


def stored_books() -> set[str]:
    """Books with a session, a trade or a lease, without the drafts of runs that are going on: three queries."""
    stored = {*distinct(Performance, "book"), *distinct(Trade, "book"), *distinct(WorkerLease, "book")}
    return set(filter(is_book, stored))


def why_not_known(book: str) -> str:
    """Why a book cannot be meant, or "": it is that of the BOOK setting, is stored, or is halted. Raises
    django.db.Error where only a database could say and none does."""
    if book == settings.BOOK or halted(book):
        return ""
    stored = stored_books()
    if book in stored:
        return ""
    return f"There is no book {book} here; there are: {', '.join(sorted({settings.BOOK, *stored}))}."


def was_checked(book: str) -> bool:
    """For a command that must work without a database: False where none says whether there is such a book. Raises
    CommandError where there is none."""
    try:
        why_not = why_not_known(book)
    except django.db.Error:
        return False
    if why_not:
        raise bad_input(why_not)
    return True
