"""Every fault at every call, every pair of them, and a second monitor at every call: of an exit, a stop move, an entry.

Nothing is sampled. What must hold is written in `fault_world.World.problems`.
"""

import sys
from collections.abc import Callable, Iterator

import pytest
import structlog

from positions import execution
from tests.positions.fault_world import FAULTS, Fault, Job, World

#: Makes a world of a job, faults by the number of a call, and the number of the call that a second monitor preempts.
Make = Callable[[Job, dict[int, Fault], int | None], World]


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    """What is logged tens of thousands of times is not written."""
    silent = structlog.wrap_logger(None, wrapper_class=structlog.make_filtering_bound_logger(50))
    monkeypatch.setattr(execution, "log", silent)


def real(job: Job, plan: dict[int, Fault], preempt_at: int | None) -> World:
    return World(job, plan, preempt_at=preempt_at)


def faults_of(call: type, left_out: frozenset[Fault]) -> list[Fault]:
    return [fault for fault in FAULTS.get(call, ()) if fault not in left_out]


def singles(job: Job, make: Make, left_out: frozenset[Fault] = frozenset()) -> Iterator[World]:
    """One fault, or one second monitor, at each call of a run without any."""
    clean = make(job, {}, None)
    clean.run()
    yield clean
    for number, call in enumerate(clean.calls):
        preempted = make(job, {}, number)
        preempted.run()
        yield preempted
        for fault in faults_of(call, left_out):
            world = make(job, {number: fault}, None)
            world.run()
            yield world


def pairs(job: Job, make: Make, left_out: frozenset[Fault] = frozenset()) -> Iterator[World]:
    """After each single fault, or second monitor, each second fault at each call that then follows."""
    for first in singles(job, make, left_out):
        for number in range(max([*first.plan, first.preempt_at or 0]) + 1, len(first.calls)):
            for fault in faults_of(first.calls[number], left_out) if first.plan or first.preempt_at else ():
                world = make(job, {**first.plan, number: fault}, first.preempt_at)
                world.run()
                yield world


def told(world: World) -> str:
    faults = ", ".join(
        f"{fault} at call {number} ({world.calls[number].__name__})" for number, fault in world.plan.items()
    )
    second = "" if world.preempt_at is None else f", a second monitor at call {world.preempt_at}"
    return f"{world.job}: {faults}{second}: {world.problems()} {world.untraceable()}"


@pytest.mark.parametrize("job", Job)
def test_no_fault_and_no_pair_of_faults_at_any_call_does_harm(job, capsys):
    schedules = 0
    wrong = []
    for world in (*singles(job, real), *pairs(job, real)):
        schedules += 1
        if world.problems() or world.untraceable():
            wrong.append(told(world))
    with capsys.disabled():
        sys.stdout.write(f"\n{job}: {schedules:,} schedules, {len(wrong)} violations ")
    assert not wrong, wrong[:5]
    assert schedules > 5_000
