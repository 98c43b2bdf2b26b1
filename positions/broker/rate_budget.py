"""How many requests the broker may be asked in a minute, some of which are kept for getting out."""

from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from positions.clock import Clock

MINUTE = timedelta(minutes=1)
#: The part of the budget that only closing orders, stops and cancellations may use.
RESERVED = 0.2
#: After a refusal for the rate that names no time of its own.
PAUSE = timedelta(seconds=1)
_NEVER = datetime.min.replace(tzinfo=UTC)


class RateBudget:
    """Requests in any minute stay within `per_minute`; those that are not urgent leave the reserve alone.

    What replies say of the limit (X-RateLimit-*, Retry-After) is obeyed too: others may use the same account. After a
    refusal, urgent requests wait for Retry-After or a second, the others until the limit is lifted.
    """

    def __init__(self, clock: Clock, per_minute: int) -> None:
        self._clock, self._limit = clock, per_minute
        self._reserve = int(per_minute * RESERVED)
        self._sent: deque[datetime] = deque(maxlen=per_minute)
        self._closed_until = _NEVER
        self._ordinary_closed_until = _NEVER

    def earliest(self, urgent: bool) -> datetime:
        """When the next request may be sent; not after now if it may be sent at once."""
        now = self._clock.now()
        if self._sent and self._sent[-1] > now:
            self._sent.clear()  # the clock was set back: moments that were noted say nothing any more
            self._closed_until = self._ordinary_closed_until = _NEVER
        room = self._limit if urgent else self._limit - self._reserve
        free = self._sent[-room] + MINUTE if len(self._sent) >= room else now
        return max(free, self._closed_until if urgent else self._ordinary_closed_until)

    def spend(self) -> None:
        self._sent.append(self._clock.now())

    def heard(self, status: int, headers: Mapping[str, str]) -> None:
        """Take note of a reply."""
        now = self._clock.now()
        reset = _moment(headers.get("X-RateLimit-Reset"))
        if status == 429:
            self._closed_until = min(_after(headers.get("Retry-After"), now) or now + PAUSE, now + MINUTE)
            self._ordinary_closed_until = max(self._closed_until, min(reset or now, now + MINUTE))
        elif reset is not None and _left(headers.get("X-RateLimit-Remaining")) <= self._reserve:
            self._ordinary_closed_until = min(reset, now + MINUTE)


def _left(raw: str | None) -> float:
    return int(raw) if raw is not None and raw.isdecimal() else float("inf")


def _moment(raw: str | None) -> datetime | None:
    """Seconds since 1970."""
    return datetime.fromtimestamp(int(raw), UTC) if raw is not None and raw.isdecimal() and len(raw) < 12 else None


def _after(raw: str | None, now: datetime) -> datetime | None:
    """Seconds from now, or an HTTP date."""
    if raw is None:
        return None
    if raw.isdecimal():
        return now + timedelta(seconds=min(int(raw), 60))
    try:
        date = parsedate_to_datetime(raw)
    except ValueError:
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)
