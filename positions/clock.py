"""Time as the program sees it. A decision takes `now`; only the clock knows whose time that is."""

import time
from datetime import UTC, datetime, timedelta
from threading import Event
from typing import Protocol


class Clock(Protocol):
    def now(self) -> datetime:
        """Aware UTC."""
        ...

    def sleep_until(self, moment: datetime) -> None: ...

    def wait(self, event: Event, until: datetime) -> None:
        """Until the event is set, at most until the moment."""
        ...


class SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)

    def sleep_until(self, moment: datetime) -> None:
        time.sleep(max(0.0, (moment - self.now()).total_seconds()))

    def wait(self, event: Event, until: datetime) -> None:
        event.wait(max(0.0, (until - self.now()).total_seconds()))


class ReplayClock:
    """The time of a replay: it stands still until it is told to move, and never goes back."""

    def __init__(self, start: datetime) -> None:
        self._now = start

    def now(self) -> datetime:
        return self._now

    def sleep_until(self, moment: datetime) -> None:
        self._now = max(self._now, moment)

    def wait(self, event: Event, until: datetime) -> None:
        if not event.is_set():
            self.sleep_until(until)


class FastClock:
    """Runs `speed` times as fast as the system's clock from a moment on; can jump ahead, never back."""

    def __init__(self, start: datetime, speed: float) -> None:
        self.speed = speed
        self._set(start)

    def _set(self, moment: datetime) -> None:
        self._from, self._since = moment, time.monotonic()

    def now(self) -> datetime:
        return self._from + timedelta(seconds=(time.monotonic() - self._since) * self.speed)

    def sleep_until(self, moment: datetime) -> None:
        time.sleep(max(0.0, (moment - self.now()).total_seconds() / self.speed))

    def wait(self, event: Event, until: datetime) -> None:
        event.wait(max(0.0, (until - self.now()).total_seconds() / self.speed))

    def jump(self, moment: datetime) -> None:
        """Skip what lies between, a night for instance."""
        self._set(max(moment, self.now()))
