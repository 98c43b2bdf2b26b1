"""The bars that a book's trades were made on, for people to look at: an account's lie where its feed stores them, those
of a replay or a simulation are kept beside its book, the symbols it traded alone."""

import shutil
from pathlib import Path

import numpy as np
from django.conf import settings

from positions.books import folder_name, is_at_alpaca
from positions.market.bar_files import BarRows, StoredBars, microseconds, session_files
from positions.market.bars import SessionBars
from positions.models import Trade
from positions.words import Feed

MICROSECONDS = 1_000_000


def folder(book: str) -> Path:
    """Where the folders of a book's feeds lie."""
    root = Path(settings.VAR_DIR)
    return root / "bars" if is_at_alpaca(book) else root / "books" / folder_name(book)


def keep(book: str, feed: Feed, bars: SessionBars) -> None:
    """Store a session's bars of the symbols that the book traded in it."""
    traded = set(Trade.objects.filter(book=book, session=bars.session.day).order_by().values_list("symbol", flat=True))
    columns = [row for row, symbol in enumerate(bars.universe.symbols) if symbol in traded]
    if not columns:
        return
    values = bars.values[:, :, columns]
    known = np.isfinite(values[3])  # a bar has a close
    bar, column = known.nonzero()
    starts = microseconds(bars.session.open) + bar * round(bars.length.total_seconds() * MICROSECONDS)
    names = [bars.universe.symbols[columns[place]] for place in column]
    rows = BarRows.of(names, starts, values[:, known], np.full(len(bar), np.nan), bars.session.close)
    StoredBars(folder(book), feed, bars.length).merge(bars.session, rows)


def put_in_place(draft: str, book: str) -> None:
    """What was kept for a draft becomes the book's."""
    remove(book)
    if folder(draft).exists():
        folder(draft).rename(folder(book))


def remove(book: str) -> None:
    """Forget what was kept for a book that is not an account's; nothing kept is no error."""
    if not is_at_alpaca(book):
        shutil.rmtree(folder(book), ignore_errors=True)


def file_of(trade: Trade) -> Path | None:
    """The file that has the bars of a trade's session; None where nothing was stored."""
    place = folder(trade.book)
    for name in sorted(place.glob(f"{trade.feed}*")):
        for path in session_files(name):
            if path.stem == trade.session.isoformat():
                return path
    return None
