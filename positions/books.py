"""The names of books: whose trades a row belongs to."""

import re

NAME = re.compile(r"simulated|replay:[0-9a-f]{12}|(?:paper|live):[A-Za-z0-9_-]{1,32}")


def is_at_alpaca(name: str) -> bool:
    """Whether the book is an account at Alpaca, paper or live."""
    return name.startswith(("paper:", "live:"))


def is_live(name: str) -> bool:
    """Whether the book is of real money."""
    return name.startswith("live:")


def is_book(name: str) -> bool:
    """Whether this names a book; the draft of a run that is going on does not."""
    return NAME.fullmatch(name) is not None


def folder_name(book: str) -> str:
    """A name that any file system takes; that of a folder's name is the same."""
    return re.sub(r"[^A-Za-z0-9_-]", "-", book) or "-"
