"""Jobs that only one process may do at a time. A lease saves work; what must not happen twice, constraints prevent."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog
from django.db import IntegrityError, InterfaceError, OperationalError, connection, transaction
from django.db.models import F

from positions.models import WorkerLease

log = structlog.get_logger(__name__)

#: The lease that whoever trades or watches a book holds.
TRADING = "trade"


class LeaseTaken(Exception):
    """Another process holds the lease and its time has not run out; it has done so `since` then, as far as is known."""

    def __init__(self, message: str, since: datetime | None = None) -> None:
        super().__init__(message)
        self.since = since


def this_process() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


def _is_dead(holder: str) -> bool:
    """Whether the holder is known to have ended: a process of this machine that is no more, or whose parent alone has
    not noticed yet (a zombie, known where there is a /proc)."""
    host, _, process = holder.rpartition(":")
    if host != socket.gethostname():
        return False
    try:
        with suppress(PermissionError):  # it lives, and is another user's
            os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    try:
        about = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False
    return about.rpartition(")")[2].split()[0] == "Z"  # the name in parentheses may hold anything


@contextmanager
def held(book: str, name: str, duration: timedelta) -> Iterator[WorkerLease]:
    """Hold a lease for a block, which renews it while it works. Raises LeaseTaken."""
    lease = acquire(book, name, datetime.now(UTC), duration)
    try:
        yield lease
    finally:
        release(lease)


def acquire(book: str, name: str, now: datetime, duration: timedelta) -> WorkerLease:
    """Take a lease that is free, has run out or whose process is dead; the epoch grows, and what the one before saw of
    open trades is forgotten. Raises LeaseTaken."""
    mine = {
        "holder": this_process(),
        "acquired_at": now,
        "heartbeat_at": now,
        "expires_at": now + duration,
        "watched": [],
    }
    try:
        with transaction.atomic():
            return WorkerLease.objects.create(book=book, name=name, **mine)
    except IntegrityError:
        pass  # It exists: taken over below if its time has run out.
    free = WorkerLease.objects.filter(book=book, name=name)
    held = free.first()
    if held is not None and not _is_dead(held.holder):
        free = free.filter(expires_at__lte=now)
    if held is not None:
        free = free.filter(epoch=held.epoch)
    if not free.update(epoch=F("epoch") + 1, **mine):
        holder = f"{held.holder} holds it" if held else "it was just released"
        since = held.acquired_at if held else None
        raise LeaseTaken(f"{name} of {book} is being done already: {holder}; try again when it has ended", since)
    return WorkerLease.objects.get(book=book, name=name, holder=mine["holder"])


def renew(lease: WorkerLease, now: datetime, duration: timedelta, **told: object) -> None:
    """`told` are other columns that say how the work goes. Raises LeaseTaken if somebody else holds it by now."""
    held = WorkerLease.objects.filter(pk=lease.pk, epoch=lease.epoch)
    if not held.update(heartbeat_at=now, expires_at=now + duration, **told):
        raise LeaseTaken(f"{lease.name} of {lease.book} was taken over by another process; this one stops")


def release(lease: WorkerLease) -> None:
    WorkerLease.objects.filter(pk=lease.pk, epoch=lease.epoch).delete()


class Tenure:
    """A lease while its holder works, which may be interrupted for longer than the lease lasts. Times are the wall's.

    `check` before each write at the broker: whoever slept while another process took over stops there.
    """

    def __init__(self, lease: WorkerLease, duration: timedelta) -> None:
        self.lease = lease
        self._duration = duration
        self._renewed_at = lease.heartbeat_at

    def check(self) -> None:
        """Raises LeaseTaken where another process holds the lease; asks the database once half of the time is over."""
        if not timedelta(0) <= datetime.now(UTC) - self._renewed_at < self._duration / 2:
            self.renew()

    def renew(self, **told: object) -> None:
        """As `check`, and says how the work goes. While the database is away nobody can take over either."""
        now = datetime.now(UTC)
        try:
            renew(self.lease, now, self._duration, **told)
        except (OperationalError, InterfaceError) as error:
            connection.close()
            log.warning("lease_not_renewed", lease=str(self.lease), error=str(error))
        else:
            self._renewed_at = now
