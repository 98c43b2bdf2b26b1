"""What journaling, claiming and re-reading cost an entry and an exit, over the same work done with the bare SDK.

    python -m pytest tests/benchmarks/test_execution_benchmark.py -m slow -s

Both run in turns against the same simulated Alpaca in another process, so that a busy machine slows both. The bound is
asserted of requests that take as long as the quickest that was captured from Alpaca. Without that delay the ratio says
how long this machine's disk takes to make an intent durable, which an order must wait for, and is printed beside it.
"""

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import requests
from alpaca.trading.client import TradingClient
from alpaca.trading.enums import OrderSide, QueryOrderStatus
from alpaca.trading.requests import GetOrdersRequest

from positions.broker.alpaca import AlpacaBroker, TradingAccess
from positions.execution import Execution
from positions.journaled_store import JournaledStore, TradeJournal
from positions.models import OrderIntent, PositionExit, Trade
from positions.store import OrmStore
from positions.words import TradeStatus
from tests.positions.stand_in import market, stop
from tests.positions.world import LEAVE, trade_plan
from tests.site.test_alpaca_server_command import serving

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]

ROUNDS, WARM = 60, 5
MOST = 1.5
#: The quickest answer captured from Alpaca's paper account: a cancellation. Orders took some ten times as long.
LATENCY, FAR_ROUNDS = 0.009, 30
OPEN = datetime.fromisoformat("2024-01-03T14:30:00+00:00")


class RemoteClock:
    """The clock of a stand-in in lockstep, in another process; counts what moving it took, which nobody pays live."""

    def __init__(self, origin: str) -> None:
        self._session, self._url, self._now, self.seconds = requests.Session(), f"{origin}/control/clock", OPEN, 0.0
        self.sleep_until(OPEN + timedelta(seconds=1))

    def now(self) -> datetime:
        return self._now

    def sleep_until(self, moment: datetime) -> None:
        began = time.perf_counter()
        self._now = moment
        self._session.post(self._url, json={"to": moment.isoformat()}, timeout=5).raise_for_status()
        self.seconds += time.perf_counter() - began

    def go(self, seconds: float) -> None:
        self.sleep_until(self._now + timedelta(seconds=seconds))


@pytest.fixture
def origin(tmp_path: Path) -> Iterator[str]:
    bars = tmp_path / "bars.csv"
    starts = (OPEN + timedelta(minutes=minute) for minute in range(390))
    rows = [f"KO,{start:%Y-%m-%dT%H:%M:%SZ},100,100,100,100,1000" for start in starts]
    bars.write_text("\n".join(["symbol,timestamp,open,high,low,close,volume", *rows]) + "\n")
    rules = ("--rule", "rate_limit=0", "--rule", "spread=0")
    with serving(tmp_path, "--bars", str(bars), "--lockstep", *rules) as (_, origin):
        yield origin


class Ours:
    def __init__(self, origin: str, clock: RemoteClock, folder: Path) -> None:
        self.clock = clock
        broker = AlpacaBroker(TradingAccess("key", "secret", origin=origin), clock, requests_a_minute=1_000_000)
        self.store = JournaledStore(OrmStore("simulated"), TradeJournal(folder))
        self.execution = Execution(broker, self.store, clock, uuid4().hex[:8], 0.01)
        self.session = broker._client._session

    def enter(self) -> None:
        self.execution.enter(trade_plan(at=self.clock.now()))

    def protect(self) -> None:
        self.execution.take_events()

    def leave(self) -> None:
        self.execution.exit(self.store.live["KO"], LEAVE, 100.0)

    def close(self) -> None:
        self.execution.take_events()


class Bare:
    """Order, fill and stop; cancellation, its end, the shares that are free, sale and fill: by somebody who looks at
    nothing else and writes nothing down."""

    def __init__(self, origin: str, clock: RemoteClock) -> None:
        self.clock = clock
        self.client = TradingClient("key", "secret", raw_data=True, url_override=origin)
        self.session = self.client._session

    def enter(self) -> None:
        self.client.submit_order(market("KO", 10))

    def protect(self) -> None:
        self._list()
        self.stop = self.client.submit_order(stop("KO", 10, 99))

    def leave(self) -> None:
        self.client.cancel_order_by_id(self.stop["id"])
        self.client.get_order_by_client_id(self.stop["client_order_id"])
        self.clock.go(0.2)
        self.client.get_order_by_client_id(self.stop["client_order_id"])
        self.client.get_all_positions()
        self.client.submit_order(market("KO", 10, OrderSide.SELL, position_intent="sell_to_close"))

    def close(self) -> None:
        self._list()

    def _list(self) -> None:
        after = self.clock.now() - timedelta(seconds=20)
        every = QueryOrderStatus.ALL
        self.client.get_orders(GetOrdersRequest(status=every, after=after, direction="asc", symbols=["KO"], limit=500))


def timed(clock: RemoteClock, *acts: Callable[[], None]) -> float:
    """Seconds that these took, each with a second of the market after it; moving the clock is not counted."""
    total = 0.0
    for act in acts:
        began, moved = time.perf_counter(), clock.seconds
        act()
        total += time.perf_counter() - began - (clock.seconds - moved)
        clock.go(1)
    return total


def in_turns(clock: RemoteClock, traders: dict[str, Ours | Bare], rounds: int) -> dict[str, dict[str, list[float]]]:
    times = {what: {name: list[float]() for name in traders} for what in ("entry", "exit")}
    for _ in range(rounds):
        for name, trader in traders.items():
            times["entry"][name].append(timed(clock, trader.enter, trader.protect))
            times["exit"][name].append(timed(clock, trader.leave, trader.close))
    return times


def go_far_away(session: requests.Session) -> None:
    near = session.request

    def request(*args: Any, **options: Any) -> requests.Response:
        time.sleep(LATENCY)
        return near(*args, **options)

    session.request = request


def compared(times: dict[str, list[float]], capsys: pytest.CaptureFixture[str], what: str) -> float:
    ours, bare = (statistics.median(times[name]) * 1e3 for name in ("ours", "bare"))
    with capsys.disabled():
        sys.stdout.write(
            f"\n{what}: {ours:.1f} ms, bare {bare:.1f} ms, {ours / bare:.2f} times (n={len(times['ours'])}) "
        )
    return ours / bare


def test_an_entry_and_an_exit_take_little_longer_than_their_bare_requests(origin, tmp_path, capsys):
    clock = RemoteClock(origin)
    traders = {"ours": Ours(origin, clock, tmp_path / "trades"), "bare": Bare(origin, clock)}
    in_turns(clock, traders, WARM)
    near = in_turns(clock, traders, ROUNDS)
    for trader in traders.values():
        go_far_away(trader.session)
    far = in_turns(clock, traders, FAR_ROUNDS)
    trades = WARM + ROUNDS + FAR_ROUNDS
    assert Trade.objects.filter(status=TradeStatus.CLOSED).count() == trades
    assert PositionExit.objects.count() == trades
    assert OrderIntent.objects.count() == 3 * trades
    for what, times in near.items():
        compared(times, capsys, f"{what}, no way to the broker")
    ratios = {
        what: compared(times, capsys, f"{what}, {LATENCY * 1e3:.0f} ms to the broker") for what, times in far.items()
    }
    assert max(ratios.values()) <= MOST, ratios
