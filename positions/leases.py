"""Jobs that only one process may do at a time. A lease saves work; what must not happen twice, constraints prevent."""

import os
import socket
from datetime import datetime, timedelta

from django.db import IntegrityError, transaction
from django.db.models import F

from positions.models import WorkerLease


class LeaseTaken(Exception):
    """Another process holds the lease and its time has not run out."""


def this_process() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


def acquire(book: str, name: str, now: datetime, duration: timedelta) -> WorkerLease:
    """Take a lease that is free or has run out; the epoch grows. Raises LeaseTaken."""
    mine = {"holder": this_process(), "acquired_at": now, "heartbeat_at": now, "expires_at": now + duration}
    try:
        with transaction.atomic():
            return WorkerLease.objects.create(book=book, name=name, **mine)
    except IntegrityError:
        pass  # It exists: taken over below if its time has run out.
    free = WorkerLease.objects.filter(book=book, name=name, expires_at__lte=now)
    if not free.update(epoch=F("epoch") + 1, **mine):
        held = WorkerLease.objects.filter(book=book, name=name).first()
        holder = f"{held.holder} holds it until {held.expires_at:%H:%M:%S} UTC" if held else "it was just released"
        raise LeaseTaken(f"{name} of {book} is being done already: {holder}; try again then")
    return WorkerLease.objects.get(book=book, name=name, holder=mine["holder"])


def renew(lease: WorkerLease, now: datetime, duration: timedelta) -> None:
    """Raises LeaseTaken if somebody else holds it by now."""
    held = WorkerLease.objects.filter(pk=lease.pk, epoch=lease.epoch)
    if not held.update(heartbeat_at=now, expires_at=now + duration):
        raise LeaseTaken(f"{lease.name} of {lease.book} was taken over by another process; this one stops")


def release(lease: WorkerLease) -> None:
    WorkerLease.objects.filter(pk=lease.pk, epoch=lease.epoch).delete()
