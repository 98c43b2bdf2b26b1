import os
import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from positions import leases
from positions.leases import LeaseTaken
from positions.models import WorkerLease

pytestmark = pytest.mark.django_db

NOW, HOUR = datetime(2025, 5, 12, 14, tzinfo=UTC), timedelta(hours=1)


def held_by(holder: str, expires_in: timedelta = HOUR) -> WorkerLease:
    return WorkerLease.objects.create(
        book="simulated",
        name="replay",
        holder=holder,
        epoch=3,
        acquired_at=NOW,
        heartbeat_at=NOW,
        expires_at=NOW + expires_in,
    )


def living_process() -> str:
    return f"{socket.gethostname()}:{os.getppid()}"


def test_a_job_is_done_by_one_process_at_a_time():
    held_by(living_process())
    with pytest.raises(LeaseTaken, match=r"replay of simulated is being done already: .* holds it; try again"):
        leases.acquire("simulated", "replay", NOW, HOUR)
    assert leases.acquire("paper:x", "replay", NOW, HOUR).epoch == 1


def test_a_lease_that_has_run_out_is_taken_over_in_a_new_epoch():
    held_by(living_process(), expires_in=timedelta(0))
    lease = leases.acquire("simulated", "replay", NOW, HOUR)
    assert (lease.epoch, lease.holder) == (4, leases.this_process())


def test_who_takes_a_lease_over_has_seen_no_trade_yet():
    lease = held_by(living_process(), expires_in=timedelta(0))
    lease.watched = [{"signal_key": "AAPL-20250512T133000Z-long", "unprotected_since": None}]
    lease.save()
    assert leases.acquire("simulated", "replay", NOW, HOUR).watched == []


def test_a_lease_of_a_dead_process_of_this_machine_is_taken_over_at_once():
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    held_by(f"{socket.gethostname()}:{dead.pid}")
    assert leases.acquire("simulated", "replay", NOW, HOUR).epoch == 4


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="nothing here tells a zombie from a living process")
def test_a_process_that_has_ended_and_whose_parent_has_not_noticed_is_dead_too():
    zombie = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and stays where it is
    held_by(f"{socket.gethostname()}:{zombie.pid}")
    try:
        os.kill(zombie.pid, 0)
        assert leases.acquire("simulated", "replay", NOW, HOUR).epoch == 4
    finally:
        zombie.wait()


def test_a_lease_of_another_machine_is_never_thought_dead():
    held_by("elsewhere:999999999")
    with pytest.raises(LeaseTaken):
        leases.acquire("simulated", "replay", NOW, HOUR)


def test_who_was_overtaken_learns_it_at_the_next_sign_of_life_and_cannot_release_the_other_s():
    mine = held_by("sleeper:1", expires_in=timedelta(0))
    theirs = leases.acquire("simulated", "replay", NOW, HOUR)
    with pytest.raises(LeaseTaken, match="taken over"):
        leases.renew(mine, NOW, HOUR)
    leases.release(mine)
    assert WorkerLease.objects.get() == theirs


def test_a_lease_is_released_when_its_block_ends_however_it_ends():
    seen = []

    def interrupted() -> None:
        with leases.held("simulated", "replay", HOUR):
            seen.append(WorkerLease.objects.count())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert seen == [1]
    assert WorkerLease.objects.count() == 0
