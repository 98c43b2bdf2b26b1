"""Each position by itself: what goes wrong with one does not keep the others from being served."""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime, timedelta

import structlog

from positions.clock import Clock
from positions.leases import LeaseTaken

log = structlog.get_logger(__name__)

#: Wraps the work on one thing, which it is given the name of. `contextlib.nullcontext` lets every error through.
Isolate = Callable[[str], AbstractContextManager[object]]

#: Unexpected failures within so long are a fault of the program, which then ends: stops stay at the broker.
MOST_FAILURES, FAILURES_WITHIN = 30, timedelta(minutes=10)


class TooManyFailures(Exception):
    """The program fails again and again; the message has the last error."""


class Isolation:
    """Logs what goes wrong and goes on, until too much went wrong in a short time; `last_error` is the last of it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failed_at: deque[datetime] = deque(maxlen=MOST_FAILURES)
        self.last_error = ""

    @contextmanager
    def of(self, what: str) -> Iterator[None]:
        """Raises LeaseTaken and TooManyFailures, nothing else."""
        try:
            yield
        except (LeaseTaken, TooManyFailures):
            raise
        except Exception as error:  # whatever it is, the other positions go on
            self.last_error = f"{what}: {error!r}"[:300]
            log.exception("failed", what=what)
            now = self._clock.now()
            self._failed_at.append(now)
            if len(self._failed_at) == MOST_FAILURES and now - self._failed_at[0] <= FAILURES_WITHIN:
                minutes = FAILURES_WITHIN // timedelta(minutes=1)
                raise TooManyFailures(
                    f"{MOST_FAILURES} failures within {minutes} minutes, the last at {self.last_error}"
                ) from error
