"""Every fault at every call, every pair of them, and a second monitor at every call: of an exit, a stop move, an entry.

Nothing is sampled. What must hold is written in `fault_world.World.problems`.
"""

import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from datetime import timedelta
from itertools import chain, count
from typing import Any

import pytest

from positions.broker.port import BrokerError, OrderKind, OrderRequest, OrderSide, PositionIntent
from positions.execution import Cancel, Execution, Insert, Send, Step, Steps, Update
from positions.models import OrderIntent, PositionExit
from positions.rules import ExitDecision
from positions.store import LiveTrade
from positions.words import ExitStatus, IntentStatus, IntentStep, Outcome, TradeStatus
from tests.positions.fault_world import BY_OUTSIDERS, FAULTS, PRICE, Fault, Job, World

#: Makes a world of a job, faults by the number of a call, and the number of the call that a second monitor preempts.
Make = Callable[[Job, dict[int, Fault], int | None], World]

pytestmark = pytest.mark.usefixtures("quiet")


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
    what = [f"{fault} at call {number} ({world.calls[number].__name__})" for number, fault in world.plan.items()]
    if world.preempt_at is not None:
        what.append(f"a second monitor at call {world.preempt_at} ({world.calls[world.preempt_at].__name__})")
    return f"{world.job}: {', '.join(what)}: {'; '.join(world.problems() + world.untraceable())}"


@pytest.mark.parametrize("job", Job)
def test_no_fault_and_no_pair_of_faults_at_any_call_does_harm(job, capsys):
    schedules = 0
    wrong = []
    for world in chain(singles(job, real), pairs(job, real)):
        schedules += 1
        if world.problems() or world.untraceable():
            wrong.append(told(world))
    with capsys.disabled():
        sys.stdout.write(f"\n{job}: {schedules:,} schedules, {len(wrong)} violations ")
    assert not wrong, wrong[:5]
    assert schedules > 4_000


@pytest.mark.parametrize("job", Job)
def test_shares_stand_without_a_stop_or_a_closing_order_for_a_moment_only(job):
    clean, *broken = singles(job, real)
    assert clean.longest_naked <= timedelta(seconds=1)
    longest = max(broken, key=lambda world: world.longest_naked)
    assert longest.longest_naked <= timedelta(seconds=10), told(longest)


def test_a_stop_refused_while_its_entry_still_works_waits_for_the_end_of_that():
    world = World(Job.ENTRY, {2: Fault.PARTIAL})
    world.run()
    assert world.calls[2] is Send
    assert world.problems() == []
    stops = [each for each in world.tables.of(OrderIntent) if each["step"] == IntentStep.STOP]
    assert [each["status"] for each in stops] == [IntentStatus.REJECTED, IntentStatus.WORKING]
    assert "wash trade" in stops[0]["error"]


# -- each rule of the protocol carries weight


_FRESH = count(1)


class WithoutFixedIds(Execution):
    """A new id for each request, also where an earlier one may be on its way."""

    def _send(self, mine: LiveTrade, intent: OrderIntent) -> Steps:
        intent.client_order_id = f"fresh{next(_FRESH)}"
        yield from super()._send(mine, intent)


class WithoutFills(Execution):
    """Sells what was bought, whatever its own orders have sold of it since."""

    def _free_shares(self, mine: LiveTrade) -> Generator[Step, Any, int]:
        held, _ = yield from self._held(mine)
        return mine.trade.quantity if held else 0


class WithoutRereading(Execution):
    """Takes a cancellation for granted once it was asked for."""

    def _end_orders(self, mine: LiveTrade) -> Steps:
        for intent in [each for each in mine.intents if each.status == IntentStatus.WORKING]:
            yield from self._cancel(mine, intent)
            self._note_failure(mine, intent, IntentStatus.CANCELLED, "")


class WithoutLookingUp(Execution):
    """Takes an order for lost when no answer came, and makes the next attempt."""

    def _look_up(self, mine: LiveTrade, intent: OrderIntent) -> Steps:
        if intent.status in (IntentStatus.INTENDED, IntentStatus.UNKNOWN):
            self._note_failure(mine, intent, IntentStatus.REJECTED, "no answer")
        else:
            yield from super()._look_up(mine, intent)


def unguarded(executor: type[Execution], *, one_exit_a_trade: bool = True) -> Make:
    def make(job: Job, plan: dict[int, Fault], preempt_at: int | None) -> World:
        return World(
            job, plan, guard=False, preempt_at=preempt_at, executor=executor, one_exit_a_trade=one_exit_a_trade
        )

    return make


def harm_of(job: Job, make: Make, left_out: frozenset[Fault] = frozenset()) -> tuple[int, int]:
    """Schedules, and how many of them do harm."""
    schedules = harmful = 0
    for world in chain(singles(job, make, left_out), pairs(job, make, left_out)):
        schedules += 1
        harmful += bool(world.problems())
    return schedules, harmful


def test_without_the_brokers_guard_the_protocol_is_safe_as_long_as_nobody_else_sells(capsys):
    schedules, harmful = harm_of(Job.EXIT, unguarded(Execution), BY_OUTSIDERS)
    with capsys.disabled():
        sys.stdout.write(f"\nno guard: {schedules:,} schedules, {harmful} violations ")
    assert harmful == 0


RULES: list[tuple[str, Make, frozenset[Fault], str]] = [
    ("deterministic ids", unguarded(WithoutFixedIds), BY_OUTSIDERS, "short"),
    ("quantity from fills", unguarded(WithoutFills), BY_OUTSIDERS, "short"),
    ("re-reading after a cancellation", unguarded(WithoutRereading), BY_OUTSIDERS, "short"),
    ("looking up attempts", unguarded(WithoutLookingUp), BY_OUTSIDERS, "short"),
    ("one exit row a trade", unguarded(Execution, one_exit_a_trade=False), BY_OUTSIDERS, "exits are"),
    ("the guard", unguarded(Execution), frozenset(), "short"),
]


@pytest.mark.parametrize(("rule", "make", "left_out", "harm"), RULES, ids=[rule for rule, *_ in RULES])
def test_a_rule_that_is_taken_away_is_missed(rule, make, left_out, harm, capsys):
    clean = make(Job.EXIT, {}, None)
    clean.run()
    assert clean.problems() == [], "it does no harm as long as nothing goes wrong"
    schedules = chain(singles(Job.EXIT, make, left_out), pairs(Job.EXIT, make, left_out))
    caught = next((world for world in schedules if any(harm in each for each in world.problems())), None)
    assert caught is not None
    with capsys.disabled():
        sys.stdout.write(f"\nwithout {rule}: {told(caught)} ")


class Naive(Execution):
    """What is often written: cancel, sell with an id of the moment, three tries, write it down."""

    def take_events(self) -> bool:
        self._broker.changed_orders()
        return False

    def resume(self) -> None:
        self.owed.clear()

    def _claim_exit(self, mine: LiveTrade, decision: ExitDecision, price: float) -> Steps:
        trade = mine.trade
        for intent in mine.intents:
            if intent.step == IntentStep.STOP:
                with suppress(BrokerError):
                    yield Cancel(intent.broker_order_id)
        for _ in range(3):
            request = OrderRequest(
                f"naive{next(_FRESH)}",
                trade.symbol,
                OrderSide.SELL,
                OrderKind.MARKET,
                trade.quantity,
                PositionIntent.SELL_TO_CLOSE,
            )
            try:
                yield Send(request)
                break
            except BrokerError:
                continue
        trade.status, trade.outcome, trade.exit_reason = TradeStatus.CLOSED, Outcome.WIN, decision.rule
        yield Insert(
            (
                PositionExit(
                    book=trade.book,
                    trade=trade,
                    rule=decision.rule,
                    status=ExitStatus.DONE,
                    evidence={},
                    decided_at=self._clock.now(),
                    decided_price=PRICE,
                    quantity=trade.quantity,
                ),
            )
        )
        yield Update(((trade, ("status", "outcome", "exit_reason")),))


@pytest.mark.parametrize("guard", [True, False], ids=["with the guard", "without"])
def test_a_naive_exit_does_harm_in_one_schedule_of_twenty_or_more(guard, capsys):
    def make(job: Job, plan: dict[int, Fault], preempt_at: int | None) -> World:
        return World(job, plan, guard=guard, preempt_at=preempt_at, executor=Naive, journaled=False)

    clean = make(Job.EXIT, {}, None)
    clean.run()
    assert clean.problems() == []
    schedules, harmful = harm_of(Job.EXIT, make)
    with capsys.disabled():
        sys.stdout.write(f"\nnaive: {schedules:,} schedules, {harmful} violations ({harmful / schedules:.1%}) ")
    assert harmful >= 0.05 * schedules
