"""`qcluster` alone, with no `trade` and no `run_monitors` beside it, in the wall's own time: it looks at the positions
every ten seconds and leaves them by a rule; killed in the middle of that, and started again, it leaves none twice.

    python -m pytest tests/site/test_qcluster_alone.py -m slow -s
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from threading import Event, Thread

import pytest
from alpaca.trading.client import TradingClient
from alpaca.trading.enums import OrderSide, QueryOrderStatus
from alpaca.trading.requests import GetOrdersRequest
from constance import config
from django.conf import settings as site
from django.core.management import call_command
from django.utils import timezone
from django_q.models import Schedule

from positions.broker.server import AlpacaServer
from positions.broker.standin.rules import Rules
from positions.market.feeds.simulated import SimulatedMarket
from positions.models import ErrorNote, Instrument, PositionExit, Trade, WorkerLease
from positions.words import ExitReason, ExitStatus, TradeStatus
from tests.positions.server_thread import ServerThread
from tests.site.test_trade_command import BOOK, environment, hold
from tests.site.test_trade_killed import protected, until

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]

SYMBOLS = ("XTA", "XFA", "XX")
#: Seconds between two looks: as it should be, and where one run takes over from another, which starts afresh.
CADENCE, TAKEOVER = 11.5, 20.0


class Alpaca(ServerThread):
    """Simulated, a minute after the open; its clock is as fast as the wall's."""

    def __init__(self) -> None:
        super().__init__()
        self.server = AlpacaServer(lambda: SimulatedMarket(1, 7), Rules(), speed=1.0)
        session = self.server.venue.session
        assert session is not None
        self.server.clock.jump(session.open + timedelta(minutes=1))

    async def _start(self) -> int:
        return await self.server.start("127.0.0.1", 0)

    async def _stop(self) -> None:
        await self.server.stop()


@contextmanager
def looks_at(alpaca: Alpaca) -> Iterator[list[float]]:
    """The moments at which the orders were asked for, which each look does."""
    moments, over = list[float](), Event()

    def watch() -> None:
        known = alpaca.server.requests["GET /v2/orders"]
        while not over.wait(0.05):
            asked = alpaca.server.requests["GET /v2/orders"]
            if asked > known:
                moments.append(time.monotonic())
            known = asked

    thread = Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield moments
    finally:
        over.set()
        thread.join()


@contextmanager
def qcluster(folder: Path, origin: str) -> Iterator[subprocess.Popen[bytes]]:
    """Working the schedule `monitors`, which is due. It is killed with all that it started."""
    Schedule.objects.update(next_run=timezone.now())
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, str(site.BASE_DIR / "manage.py"), "qcluster"],
            env={**os.environ, **environment(origin, folder / "live")},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def test_qcluster_alone_looks_every_ten_seconds_and_killed_while_it_leaves_leaves_nothing_twice(tmp_path: Path) -> None:
    config.EXTERNAL_POSITIONS, config.TIME_LIMIT_MINUTES, config.COST_PER_SHARE = "manage", 3.0, 5.0
    config.MOMENTUM_EXIT = config.LOW_VOLUME_EXIT = False
    Instrument.objects.bulk_create(Instrument(book=BOOK, symbol=symbol) for symbol in SYMBOLS)
    call_command("setup_schedules")
    Schedule.objects.exclude(name="monitors").delete()
    with Alpaca() as alpaca, looks_at(alpaca) as looks:
        client = TradingClient("key", "secret", url_override=alpaca.origin)
        for symbol in SYMBOLS:
            hold(client, symbol, 5)
        with qcluster(tmp_path, alpaca.origin):
            until(90, lambda: Trade.objects.filter(status=TradeStatus.OPEN).count() == 3 and protected(client))
            began, first = time.monotonic(), WorkerLease.objects.get().holder
            until(120, lambda: WorkerLease.objects.exclude(holder=first).exists())
            until(240, PositionExit.objects.exists)
        killed = time.monotonic()
        left = len(client.get_all_positions())
        with qcluster(tmp_path, alpaca.origin):
            until(150, lambda: Trade.objects.filter(status=TradeStatus.CLOSED).count() == 3)
            again = time.monotonic() - killed
        held, orders = client.get_all_positions(), client.get_orders(GetOrdersRequest(status=QueryOrderStatus.ALL))

    gaps = [after - before for before, after in pairwise(looks) if began <= before and after <= killed]
    longest = [round(gap, 1) for gap in sorted(gaps)[-5:]]
    print(  # noqa: T201  # the figures
        f"\n{len(gaps) + 1} looks in {killed - began:.0f} s, longest gaps {longest} s; "
        f"{left} of 3 positions held at the kill, all closed {again:.0f} s after it"
    )
    handovers = int((killed - began) / 60) + 1
    assert sum(gap > CADENCE for gap in gaps) <= handovers
    assert max(gaps) <= TAKEOVER
    assert (held, [order for order in orders if order.status.value in ("new", "accepted")]) == ([], [])
    sales = [order for order in orders if order.side is OrderSide.SELL and order.filled_at]
    assert sorted((order.symbol, order.filled_qty) for order in sales) == [(name, "5") for name in sorted(SYMBOLS)]
    assert set(Trade.objects.values_list("exit_reason", flat=True)) == {ExitReason.TIME_LIMIT}
    assert list(PositionExit.objects.values_list("status", flat=True)) == [ExitStatus.DONE] * 3
    assert not ErrorNote.objects.exists()
