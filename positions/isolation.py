"""Each position by itself: what goes wrong with one does not keep the others from being served, and is counted."""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import date, datetime, timedelta
from typing import NamedTuple

import structlog

from positions.clock import Clock
from positions.leases import LeaseTaken
from positions.market.calendar import NEW_YORK, sessions_between
from positions.models import ErrorNote

log = structlog.get_logger(__name__)


class Work(NamedTuple):
    """What is being done: by which job, on which symbol, and on what of it (a signal's key, a bar's time)."""

    job: str
    symbol: str = ""
    subject: str = ""

    def __str__(self) -> str:
        return " of ".join(filter(None, (self.job, self.subject or self.symbol)))


#: Wraps a piece of work. `contextlib.nullcontext` lets every error through.
Isolate = Callable[[Work], AbstractContextManager[object]]

#: Unexpected failures within so long are a fault of the program, which then ends: stops stay at the broker.
MOST_FAILURES, FAILURES_WITHIN = 30, timedelta(minutes=10)


class TooManyFailures(Exception):
    """The program fails again and again; the message has the last error."""


class Isolation:
    """Logs what goes wrong and goes on, until too much went wrong in a short time; `last_error` is the last of it.

    `errors` are all of it that whoever stores them has not taken away yet. `without_secrets` cleans their messages.
    """

    def __init__(self, book: str, clock: Clock, without_secrets: Callable[[str], str] = str) -> None:
        self._book, self._clock, self._without_secrets = book, clock, without_secrets
        self._failed_at: deque[datetime] = deque(maxlen=MOST_FAILURES)
        self.errors: dict[tuple[object, ...], ErrorNote] = {}
        self.last_error = ""

    @contextmanager
    def of(self, work: Work) -> Iterator[None]:
        """Raises LeaseTaken and TooManyFailures, nothing else."""
        try:
            yield
        except (LeaseTaken, TooManyFailures):
            raise
        except Exception as error:  # whatever it is, the other positions go on
            log.exception("failed", what=str(work), about=work.symbol or work.job)
            now = self._clock.now()
            message = self.count(work, error)
            self.last_error = f"{work}: {message}"[:300]
            self._failed_at.append(now)
            if len(self._failed_at) == MOST_FAILURES and now - self._failed_at[0] <= FAILURES_WITHIN:
                minutes = FAILURES_WITHIN // timedelta(minutes=1)
                raise TooManyFailures(
                    f"{MOST_FAILURES} failures within {minutes} minutes, the last at {self.last_error}"
                ) from error

    def count(self, work: Work, error: Exception) -> str:
        """One more of its kind; returns its message."""
        now = self._clock.now()
        printable = "".join(each if each.isprintable() else " " for each in repr(error))
        note = ErrorNote(
            book=self._book,
            session=_session_at(now),
            job=work.job,
            symbol=work.symbol,
            error=type(error).__name__[:64],
            subject=work.subject[:64],
            message=self._without_secrets(printable)[:300],
            count=1,
            first_at=now,
            last_at=now,
        )
        self.errors[note.kind] = note.after(self.errors.get(note.kind))
        return note.message


def _session_at(now: datetime) -> date:
    """The session of that New York day, or the last one before a day without any."""
    day = now.astimezone(NEW_YORK).date()
    return sessions_between(day - timedelta(days=14), day)[-1].day
