"""What a look of the monitors costs: the same queries for many positions as for one, a call for every 500 of their
orders, and little time.

    python -m pytest tests/positions/test_many_positions.py -m slow -s
"""

import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from django.db import connection
from django.test.utils import CaptureQueriesContext

from positions import leases
from positions.broker.alpaca import AlpacaBroker, TradeUpdates, TradingAccess
from positions.instruction_taker import InstructionTaker
from positions.isolation import Isolation
from positions.journaled_store import JournaledStore, TradeJournal
from positions.leases import Tenure
from positions.loop import TradingLoop
from positions.market.bars import BarHistory
from positions.models import Trade, WorkerLease
from positions.reconcile import Reconciler
from positions.store import OrmStore
from positions.trader import LeasedBroker, Trader
from positions.words import Feed, TradeStatus
from tests.positions.desk_over_http import StandInClock
from tests.positions.stand_in import MINUTE, OPEN, DrawnMarket, StandIn
from tests.positions.world import trade_plan
from tradingsite.replaying import wire
from tradingsite.trading import LiveOptions

pytestmark = pytest.mark.django_db(transaction=True)

BOOK = "paper:tests"
LEASE = timedelta(hours=1)
MANY, MOST_SECONDS, ROUNDS = 1000, 0.1, 20
#: Alpaca lists at most 500 orders a call: what a thousand stops take.
PAGES_OF_STOPS = 2


class Crowd:
    """Open trades at the simulated Alpaca, each with its stop, and the trading process that watches them."""

    def __init__(self, alpaca: StandIn, positions: int, folder: Path) -> None:
        alpaca.reset(others=positions, cash=10_000_000)
        self.alpaca, self.clock = alpaca, StandInClock(alpaca, OPEN)
        market = DrawnMarket(others=positions)
        (friday, _), (monday, _), *_ = market.sessions()
        self._bars, self.session = list(monday.batches()), monday.session
        access = TradingAccess("key", "secret", origin=alpaca.origin)
        self.broker = AlpacaBroker(access, self.clock, requests_a_minute=1_000_000)
        tenure = Tenure(leases.acquire(BOOK, leases.TRADING, datetime.now(UTC), LEASE), LEASE)
        leased = LeasedBroker(self.broker, tenure)
        store, options = (
            JournaledStore(OrmStore(BOOK), TradeJournal(folder)),
            LiveOptions("positions.strategy.OnlyWatching"),
        )
        isolation = Isolation(BOOK, self.clock)
        desk = wire(
            BOOK, Feed.SIMULATED, market.universe, options, leased, store, self.clock, isolate=isolation.of
        ).desk
        reconciler = Reconciler(
            Feed.SIMULATED, leased, store, desk.execution, desk.bank, options.external, lambda: options.exits
        )
        self.desk, self.loop, self.isolation = desk, TradingLoop(desk), isolation
        self.trader = Trader(
            desk, self.loop, self.broker, self.clock, tenure, SimpleNamespace(stored=None),
            TradeUpdates(access, Event()), isolation, reconciler.reconcile,
            InstructionTaker(desk, self.loop).carry_out,
        )  # fmt: skip
        past = BarHistory()
        past.append(friday)
        self.loop.open_session(self.session, MINUTE, past)
        self.trader._session = self.session
        for number in range(positions):
            desk.execution.enter(trade_plan(f"T{number}", book=BOOK, at=OPEN))
            self.clock.sleep_until(self.clock.now() + timedelta(milliseconds=20))
        for _ in range(6):
            self.clock.sleep_until(self.clock.now() + timedelta(seconds=5))
            self.loop.settle()
        assert [mine.trade.status for mine in store.live.values()] == [TradeStatus.OPEN] * positions
        assert desk.execution.owed == set()
        self.minute = 2

    def bar(self) -> None:
        """A minute passes in which prices rise, ever faster: every rule is asked, and none acts."""
        batch = self._bars[self.minute]
        self.minute += 1
        self.clock.sleep_until(batch.end)
        risen = batch.close + 0.0002 * self.minute**2
        self.desk.bank.update(replace(batch, high=risen, close=risen))

    def look(self) -> None:
        self.trader._tick(self.clock.now())

    def breakeven(self) -> None:
        self.loop.tick_breakeven()

    def heartbeat(self) -> None:
        self.trader._tell_state(self.clock.now())


def forget() -> None:
    Trade.objects.all().delete()
    WorkerLease.objects.all().delete()


def costs(crowd: Crowd) -> dict[str, tuple[int, int]]:
    """Calls and queries of each thing that is done by the clock."""
    told = {}
    for what in (crowd.look, crowd.breakeven, crowd.heartbeat):
        crowd.bar()
        calls = sum(crowd.alpaca.server.requests.values())
        with CaptureQueriesContext(connection) as queries:
            what()
        told[what.__name__] = (sum(crowd.alpaca.server.requests.values()) - calls, len(queries))
    assert crowd.isolation.last_error == ""
    return told


def test_sixty_positions_cost_as_many_calls_and_queries_as_one(alpaca: StandIn, tmp_path: Path) -> None:
    one = costs(Crowd(alpaca, 1, tmp_path / "one"))
    forget()
    assert costs(Crowd(alpaca, 60, tmp_path / "many")) == one
    assert one["look"][0] <= 4


def without_the_broker(crowd: Crowd, what: Callable[[], None]) -> list[float]:
    """Seconds of a look at a new bar, less those that its requests took."""
    waited, session, taken = Counter[str](), crowd.broker._client._session, []
    send = session.request

    def request(*args: Any, **options: Any) -> requests.Response:
        began = time.perf_counter()
        try:
            return send(*args, **options)
        finally:
            waited["seconds"] += time.perf_counter() - began

    session.request = request
    try:
        for _ in range(ROUNDS):
            crowd.bar()
            waited.clear()
            began = time.perf_counter()
            what()
            taken.append(time.perf_counter() - began - waited["seconds"])
    finally:
        session.request = send
    return taken


@pytest.mark.slow
def test_a_thousand_positions_are_looked_at_within_a_tenth_of_a_second(
    alpaca: StandIn,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    told: dict[int, dict[str, list[float]]] = {}
    cost = {}
    for positions in (1, MANY):
        forget()
        crowd = Crowd(alpaca, positions, tmp_path / str(positions))
        cost[positions] = costs(crowd)
        told[positions] = {
            what.__name__: without_the_broker(crowd, what) for what in (crowd.look, crowd.breakeven, crowd.heartbeat)
        }
        assert len(crowd.desk.store.live) == positions
    with capsys.disabled():
        for what in told[MANY]:
            one, many = (statistics.median(told[positions][what]) * 1e3 for positions in (1, MANY))
            most = max(told[MANY][what]) * 1e3
            sys.stdout.write(
                f"\n{what} on {connection.vendor}: {many:.1f} ms in the median and {most:.1f} ms at most at {MANY} "
                f"positions, {one:.1f} ms at one (n={ROUNDS}); calls and queries "
                f"{cost[MANY][what]}, {cost[1][what]} at one "
            )
    for what in cost[1]:
        assert cost[MANY][what][1] == cost[1][what][1]
    assert cost[MANY]["look"][0] == PAGES_OF_STOPS
    assert statistics.median(told[MANY]["look"]) <= MOST_SECONDS
