"""A whole trade with one fault at each step in turn: whatever breaks, the account ends where it should."""

from decimal import Decimal

import pytest

from positions.broker.port import OutcomeUnknown, Unavailable
from positions.execution import Cancel, FindOrder, ReadOrders, ReadPositions, Replace, Send
from positions.models import OrderIntent, PositionExit, StopMove, Trade
from positions.rules import ExitDecision
from positions.store import OrmStore
from positions.words import ExitReason, ExitStatus, TradeStatus
from tests.positions.world import World, trade_plan

pytestmark = pytest.mark.django_db

READS, WRITES = (ReadOrders, ReadPositions, FindOrder), (Send, Cancel, Replace)
QUIET, UP = (100.0, 100.2, 99.8, 100.0), (101.5, 101.6, 101.4, 101.5)


class Killed(BaseException):
    """The process is gone: nothing after this line of it runs."""


class Saboteur:
    """Performs steps, and one of them badly."""

    def __init__(self, world: World, kind: str, number: int) -> None:
        self.world, self.kind, self.number = world, kind, number
        self.done = 0
        self.struck = False
        self._honest = world.execution._perform
        world.execution._perform = self.perform

    def perform(self, step):
        self.done += 1
        if self.struck or self.done <= self.number:
            return self._honest(step)
        if self.kind == "unreachable" and isinstance(step, READS + WRITES):
            self.struck = True
            raise Unavailable("connection refused")
        if self.kind == "answer lost" and isinstance(step, WRITES):
            self.struck = True
            self._honest(step)
            raise OutcomeUnknown("timed out")
        if self.kind == "killed before":
            self.struck = True
            raise Killed
        if self.kind == "killed after":
            self.struck = True
            self._honest(step)
            raise Killed
        return self._honest(step)


def restarted(world: World) -> World:
    """A new process: the database and the broker are all that is left."""
    fresh = World(OrmStore("simulated"), now=world.now)
    fresh.exchange = world.exchange
    fresh.execution._broker = world.exchange
    fresh.closed = world.closed
    fresh.execution.closed_listeners[:] = [world.closed.append]
    return fresh


def a_trade(kind: str, number: int) -> tuple[World, Saboteur, list[int], list[Decimal]]:
    """Enter, move the stop to breakeven, leave; each is asked for again until it has happened, as monitors do."""
    world = World(OrmStore("simulated"))
    saboteur = Saboteur(world, kind, number)
    held, stops = [], []
    plan = trade_plan()

    def attempt(action) -> None:
        nonlocal world
        try:
            action()
        except Killed:
            world = restarted(world)

    def look() -> None:
        held.append(world.held())
        stops.extend(o.stop_price for o in world.exchange.open_orders().values() if o.stop_price is not None)

    attempt(lambda: world.execution.enter(plan))
    for prices in (QUIET, UP, UP, UP):
        attempt(lambda prices=prices: world.bar(prices))
        look()
        mine = world.store.live.get("KO")
        if mine is not None and mine.trade.status == TradeStatus.OPEN and not mine.trade.breakeven_set:
            attempt(lambda mine=mine: world.execution.move_to_breakeven(mine, Decimal("100.02"), {}))
            look()
    for _ in range(8):
        mine = world.store.live.get("KO")
        if mine is not None and mine.trade.status == TradeStatus.OPEN:
            decision = ExitDecision(ExitReason.TIME_LIMIT, {})
            attempt(lambda mine=mine, decision=decision: world.execution.exit(mine, decision, 101.5))
        attempt(lambda: world.bar(UP))
        look()
    return world, saboteur, held, stops


KINDS = ["unreachable", "answer lost", "killed before", "killed after"]


@pytest.mark.parametrize("kind", KINDS)
def test_one_fault_at_any_step_leaves_no_shares_no_orders_and_one_record(kind):
    world, saboteur, *_ = a_trade("none", 0)
    steps = saboteur.done
    assert steps > 20
    assert len(world.closed) == 1
    struck = 0
    for number in range(steps):
        for table in (StopMove, PositionExit, OrderIntent, Trade):
            table.objects.all().delete()
        world, saboteur, held, stops = a_trade(kind, number)
        where = f"{kind} at step {number + 1} of {steps}"
        struck += saboteur.struck
        assert min(held) >= 0, f"{where}: went short"
        assert max(held) <= 10, f"{where}: bought twice"
        assert held[-1] == 0, f"{where}: shares are left"
        assert world.exchange.open_orders() == {}, f"{where}: orders are left"
        assert sorted(stops) == stops, f"{where}: a stop was loosened"
        trade = Trade.objects.first()
        if trade is None:
            assert (kind, number) == ("killed before", 0), f"{where}: the trade is gone"
            continue
        assert trade.status in (TradeStatus.CLOSED, TradeStatus.CANCELLED), f"{where}: {trade.status}"
        bought = OrderIntent.objects.filter(step="entry", filled_quantity__gt=0).exists()
        assert (trade.status == TradeStatus.CLOSED) is bought, where
        done = PositionExit.objects.filter(status=ExitStatus.DONE).count()
        assert done == (1 if trade.status == TradeStatus.CLOSED else 0), f"{where}: {done} exits recorded"
        assert not PositionExit.objects.filter(status=ExitStatus.PENDING).exists(), where
    assert struck >= 5


def test_a_failed_read_in_one_position_does_not_keep_the_others_waiting():
    world = World(OrmStore("simulated"))
    for symbol in ("KO", "F"):
        world.execution.enter(trade_plan(symbol))
    world.bar(QUIET, QUIET)
    Saboteur(world, "unreachable", 0)
    decision = ExitDecision(ExitReason.TIME_LIMIT, {})
    world.execution.exit(world.store.live["KO"], decision, 100.0)
    world.execution.exit(world.store.live["F"], decision, 100.0)
    world.bar(QUIET, QUIET)
    assert world.held("F") == 0
    world.bar(QUIET, QUIET)
    assert world.held("KO") == 0
