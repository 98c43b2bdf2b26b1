"""The exit protocol as it trades live: Execution, the adapter and the real SDK over HTTP to the simulated Alpaca.

Its clock is the stand-in's, which moves only when something waits. A request that times out waits a fraction of a
second here and is charged to the clock as the seconds that it takes live.
"""

import time
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import accumulate
from typing import Any

from positions.broker.alpaca import TIMEOUTS, AlpacaBroker, TradingAccess
from positions.broker.port import OrderSide
from positions.broker.standin.account import Fill
from positions.broker.standin.orders import FINAL, OrderType, Status, VenueOrder
from positions.execution import Execution
from positions.models import OrderIntent, PositionExit, StopMove, Trade
from positions.store import OrmStore, Store
from positions.words import ExitReason, ExitStatus, Side, StopMoveStatus, TradeStatus
from tests.positions.stand_in import MINUTE, OPEN, StandIn
from tests.positions.world import BREAKEVEN, LEAVE, trade_plan

HURRY = 0.3
#: What ends a trade without an exit of ours.
BY_OTHERS = (ExitReason.STOP, ExitReason.BREAKEVEN_STOP, ExitReason.MANUAL)
LIVE = [TradeStatus.ENTERING, TradeStatus.OPEN, TradeStatus.EXITING]
#: KO at 100 for two minutes, then at 101.50 for an hour.
RISEN = [(100, 100, 100, 100)] * 2 + [(101.5, 101.5, 101.5, 101.5)] * 60


class StandInClock:
    """The time of a stand-in in lockstep. Implements the Clock protocol."""

    def __init__(self, alpaca: StandIn, start: datetime) -> None:
        self._alpaca, self._now = alpaca, start

    def now(self) -> datetime:
        return self._now

    def sleep_until(self, moment: datetime) -> None:
        if moment > self._now:
            self._now = moment
            self._alpaca.go(to=moment)


class DeskOverHttp:
    """One process's execution, for ten shares of KO on one side. `look` after every step of it notes what must never
    be, and how long shares stood without a stop or a closing order."""

    def __init__(self, alpaca: StandIn, side: Side = Side.LONG, clock: StandInClock | None = None) -> None:
        self.alpaca, self.side, self.sign = alpaca, side, 1 if side is Side.LONG else -1
        self.closing = OrderSide.SELL if side is Side.LONG else OrderSide.BUY
        self.clock = clock or StandInClock(alpaca, OPEN)
        self.problems: list[str] = []
        self.longest_naked = timedelta(0)
        self._naked_since: datetime | None = None
        self._tightest: Decimal | None = None
        self.closed: list[Trade] = []
        self.start(OrmStore("simulated"))

    def start(self, store: Store) -> None:
        """A new process: broker, database and disk are all that is left."""
        access = TradingAccess("key", "secret", origin=self.alpaca.origin)
        self.broker = AlpacaBroker(access, self.clock, timeouts=(HURRY, HURRY))
        self.store = store
        self.execution = Execution(self.broker, store, self.clock, "test", 0.01)
        self.execution.closed_listeners.append(self.closed.append)
        honest = self.execution._perform

        def perform(step: Any) -> Any:
            began = time.monotonic()
            try:
                return honest(step)
            finally:
                hung = int((time.monotonic() - began) / HURRY)
                self.clock.sleep_until(self.clock.now() + hung * timedelta(seconds=TIMEOUTS[1]))
                self.look()

        self.execution._perform = perform  # type: ignore[method-assign]

    # -- what it does

    def tick(self) -> None:
        self.execution.take_events()
        self.execution.resume()
        self.look()

    def run(self, seconds: float) -> None:
        """Tick every ten seconds, every second while shares stand unprotected."""
        until = self.clock.now() + timedelta(seconds=seconds)
        while self.clock.now() < until:
            self.tick()
            pause = timedelta(seconds=1 if self.execution.urgent else 10)
            self.clock.sleep_until(min(until, self.clock.now() + pause))
            self.look()

    def enter(self) -> bool:
        return self.execution.enter(trade_plan(side=self.side, at=self.clock.now()))

    def hold(self) -> None:
        """Ten shares of KO with their stop at 99."""
        self.enter()
        self.run(3)
        self.run(20)
        assert (self.held, self.covered, self.problems) == (10, 10, [])

    def rise(self) -> None:
        """Wait until KO is at 101.50."""
        self.clock.sleep_until(OPEN + 2.5 * MINUTE)

    def move(self) -> bool:
        return self.execution.move_to_breakeven(self.store.live["KO"], BREAKEVEN, {"profit_r": 1.5})

    def leave(self) -> bool:
        return self.execution.exit(self.store.live["KO"], LEAVE, 100.0)

    # -- what is so at the broker

    @property
    def orders(self) -> list[VenueOrder]:
        return list(self.alpaca.server.venue.orders.values())

    @property
    def working(self) -> list[VenueOrder]:
        return [order for order in self.orders if order.status not in FINAL]

    @property
    def held(self) -> int:
        holding = self.alpaca.server.venue.account.held.get("KO")
        return self.sign * int(holding.quantity) if holding else 0

    @property
    def covered(self) -> int:
        return int(sum(each.quantity - each.filled_quantity for each in self.working if each.side is self.closing))

    @property
    def stop_price(self) -> Decimal | None:
        return next((each.stop_price for each in self.working if each.type is OrderType.STOP), None)

    def look(self) -> None:
        now = self.clock.now()
        if not 0 <= self.held <= 10:
            self.problems.append(f"{self.held} shares are held")
        exits = [each for each in self.working if each.type is OrderType.MARKET and each.side is self.closing]
        if len(exits) > 1:
            self.problems.append("two exits work")
        stops = [self.sign * each.stop_price for each in self.working if each.stop_price is not None]
        if stops and self._tightest is not None and max(stops) < self._tightest:
            self.problems.append(f"the stop was loosened to {abs(max(stops))} from {abs(self._tightest)}")
        self._tightest = max([*stops, *([self._tightest] if self._tightest is not None else [])], default=None)
        if self.held <= self.covered:
            self._naked_since = None
        else:
            self._naked_since = self._naked_since or now
            self.longest_naked = max(self.longest_naked, now - self._naked_since)

    # -- what must hold in the end

    def wrong(self) -> list[str]:
        """Invariants that do not hold now that all has come to rest."""
        found = [*self.problems, *self._short_or_doubled()]
        live = list(Trade.objects.filter(status__in=LIVE))
        if not live and (self.held or self.working):
            found.append(f"{self.held} shares and {len(self.working)} orders are left, and no trade is open")
        if live and self.covered != self.held:
            found.append(f"{self.held} shares are held, {self.covered} are covered")
        if live and self.stop_price not in (None, live[0].stop_price):
            found.append(f"the stop is {self.stop_price}, {live[0].stop_price} in the database")
        for trade in Trade.objects.filter(status=TradeStatus.CLOSED):
            done = PositionExit.objects.filter(trade=trade, status=ExitStatus.DONE).count()
            if done != (trade.exit_reason not in BY_OTHERS):
                found.append(f"{done} final exits of a trade that ended by {trade.exit_reason}")
            if PositionExit.objects.filter(trade=trade, status=ExitStatus.PENDING).exists():
                found.append("an exit of a trade that is over is pending")
            if StopMove.objects.filter(trade=trade, status=StopMoveStatus.OWED).exists():
                found.append("a stop move of a trade that is over is owed")
        return found + self._untraceable()

    def _short_or_doubled(self) -> list[str]:
        """By every fill there was."""
        fills = [each for each in self.alpaca.server.venue.account.activities if isinstance(each, Fill)]
        signed = [-each.quantity if each.order.side is self.closing else each.quantity for each in fills]
        return [f"{held} shares were held" for held in accumulate(signed) if not 0 <= held <= 10]

    def _untraceable(self) -> list[str]:
        journal = {intent.client_order_id: intent for intent in OrderIntent.objects.all()}
        found = []
        for order in self.orders:
            if not order.client_order_id.startswith("test."):
                continue  # somebody else's
            intent = journal.get(order.client_order_id)
            if intent is None:
                found.append(f"{order.client_order_id} is in no journal")
            elif order.status is not Status.REPLACED and intent.filled_quantity != order.filled_quantity:
                found.append(f"{order.client_order_id} filled {order.filled_quantity}, not {intent.filled_quantity}")
        return found
