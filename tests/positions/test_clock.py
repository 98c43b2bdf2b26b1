import time
from datetime import UTC, datetime, timedelta

from positions.clock import FastClock, ReplayClock

START = datetime(2025, 5, 12, 13, 30, tzinfo=UTC)


def test_a_fast_clock_runs_so_many_times_as_fast_as_the_walls():
    clock = FastClock(START, speed=3600)
    began = time.monotonic()
    clock.sleep_until(START + timedelta(minutes=10))
    assert 0.16 < time.monotonic() - began < 5
    assert START + timedelta(minutes=10) <= clock.now() < START + timedelta(hours=5)


def test_a_fast_clock_jumps_ahead_and_never_back():
    clock = FastClock(START, speed=1)
    clock.jump(START + timedelta(hours=17))
    clock.jump(START)
    assert timedelta(0) <= clock.now() - START - timedelta(hours=17) < timedelta(seconds=5)


def test_a_replays_clock_stands_still_until_it_is_told_to_move():
    clock = ReplayClock(START)
    clock.sleep_until(START + timedelta(seconds=10))
    clock.sleep_until(START)
    assert clock.now() == START + timedelta(seconds=10)
