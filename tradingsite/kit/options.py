"""What the options of several commands share."""

from argparse import ArgumentTypeError
from datetime import date

from django.core.management.base import CommandError

from positions.books import is_book

#: Exit status of a command that was given bad input or a bad configuration.
BAD_CONFIGURATION = 2
#: Of one whose database cannot be reached.
NO_DATABASE = 3
#: Of one that was interrupted.
INTERRUPTED = 130
SEEDS = 2**31
YEARS = range(1900, 3000)


def bad_input(message: str) -> CommandError:
    """The error by which a command ends with one line and BAD_CONFIGURATION."""
    return CommandError(message, returncode=BAD_CONFIGURATION)


def book_name(text: str) -> str:
    if not is_book(text):
        raise ArgumentTypeError(
            f"{text!r} is not a book; use simulated, replay:<hash>, paper:<account> or live:<account>"
        )
    return text


def seed(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or int(text) >= SEEDS:
        raise ArgumentTypeError(f"{text!r} is not a whole number from 0 to {SEEDS - 1}")
    return int(text)


def number_of_sessions(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or not 1 <= int(text) <= 250:
        raise ArgumentTypeError(f"{text!r} is not a number of sessions from 1 to 250")
    return int(text)


def new_york_date(text: str) -> date:
    try:
        day = date.fromisoformat(text)
    except ValueError as error:
        raise ArgumentTypeError(f"{text!r} is not a date like 2024-01-31") from error
    if day.year not in YEARS:
        raise ArgumentTypeError(f"{text!r} is not a date from {YEARS[0]} to {YEARS[-1]}")
    return day
