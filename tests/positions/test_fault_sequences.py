"""Random sequences of faults, people, processes and time over the world of the enumeration: more than two at once."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.positions.fault_world import Fault, Job, World

#: An exit makes six attempts, and each of these may cost one.
MOST_FAULTS = 5


class AnyFaultsAtAnyTime(RuleBasedStateMachine):
    @initialize(job=st.sampled_from(Job))
    def begin(self, job: Job) -> None:
        self.world = World(job, {})
        self.faults = 0

    @precondition(lambda self: self.faults < MOST_FAULTS)
    @rule(fault=st.sampled_from(Fault), calls_from_now=st.integers(0, 12))
    def something_will_go_wrong(self, fault: Fault, calls_from_now: int) -> None:
        self.faults += 1
        self.world.plan[len(self.world.calls) + calls_from_now] = fault

    @rule()
    def a_second_passes(self) -> None:
        self.world.turn(seconds=1)

    @rule()
    def ten_seconds_pass(self) -> None:
        self.world.turn(seconds=10)

    @precondition(lambda self: len(self.world.processes) < 3)
    @rule()
    def another_monitor_starts(self) -> None:
        self.world.start_another()

    @invariant()
    def nothing_is_short_doubled_or_loosened(self) -> None:
        assert self.world.broker.problems == []

    def teardown(self) -> None:
        self.world.run()
        assert self.world.problems() + self.world.untraceable() == []


AnyFaultsAtAnyTime.TestCase.settings = settings(max_examples=300, stateful_step_count=25, deadline=None)


@pytest.mark.usefixtures("quiet")
class TestAnyFaultsAtAnyTime(AnyFaultsAtAnyTime.TestCase): ...
