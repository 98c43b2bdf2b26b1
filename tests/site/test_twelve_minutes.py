"""Twelve minutes of trading over HTTP and WebSocket by processes of their own, one of them killed in the middle: by the
broker's own orders and fills nothing was flipped, doubled, loosened, lost or left without a stop.

    python -m pytest tests/site/test_twelve_minutes.py -m slow -s

At this speed twelve minutes of the wall are a whole short session, its close and its bell. MINUTES=3 looks at less.
"""

import os
import signal
import statistics
import subprocess
import sys
import time
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from alpaca.trading.client import TradingClient
from constance import config
from django.conf import settings as site

from positions.market.feeds.simulated import SimulatedMarket
from positions.models import ExternalPosition, Instrument, Trade, WorkerLease
from positions.words import TradeStatus
from tests.positions.broker_history import exits_of, read, trades_of, untraceable
from tests.site.test_alpaca_server_command import serving
from tests.site.test_trade_command import BOOK, environment
from tests.site.test_trade_killed import protected, until

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]

MINUTES = float(os.environ.get("MINUTES") or 12)
SPEED = 20
#: In seconds of the wall, which is what a process is held up by: without a fault, and while nobody trades.
LONGEST_GAP, LONGEST_TAKEOVER = 10, 15


def test_a_long_run_with_a_kill_in_the_middle_keeps_every_promise(tmp_path: Path) -> None:
    config.MAX_OPEN_POSITIONS, config.COOLDOWN_LOSSES, config.MAX_NOTIONAL = 1000, 0, 0.02
    universe = SimulatedMarket(1, 7).universe
    rows = zip(universe.symbols, universe.sectors, universe.sector_etfs, universe.tradable, strict=True)
    Instrument.objects.bulk_create(
        Instrument(book=BOOK, symbol=symbol, sector=sector, sector_etf=etf, tradable=tradable)
        for symbol, sector, etf, tradable in rows
    )
    with serving(tmp_path, "--speed", str(SPEED), "--seed", "7") as (_, origin):
        inherited = {**os.environ, **environment(origin, tmp_path / "live")}
        client = TradingClient("key", "secret", url_override=origin)
        command = [sys.executable, str(site.BASE_DIR / "manage.py"), "trade"]
        log = (tmp_path / "log").open("w")
        active = subprocess.Popen(command, env=inherited, stdout=log, stderr=log)
        standby = None
        try:
            holder = until(60, lambda: WorkerLease.objects.first()).holder
            standby = subprocess.Popen(command, env=inherited, stdout=log, stderr=log)
            time.sleep(MINUTES * 30)
            until(240, lambda: exits_of(BOOK) and client.get_all_positions())
            killed_at = client.get_clock().timestamp
            active.kill()
            killed = time.monotonic()
            until(LONGEST_TAKEOVER, lambda: WorkerLease.objects.exclude(holder=holder).exists())
            takeover = time.monotonic() - killed
            time.sleep(MINUTES * 30)
            until(60, lambda: protected(client))
            standby.send_signal(signal.SIGTERM)
            assert standby.wait(15) == 0
        finally:
            for process in filter(None, (active, standby)):
                process.kill()
                process.wait()
            log.close()
        assert protected(client)
        history = read(client)
        made = Decimal(client.get_account().equity) - 100_000

    trades = trades_of(BOOK)
    told = [history.of(trade) for trade in trades]
    gaps = [gap for each in told for gap in each.gaps()]
    taken_over_at = killed_at + timedelta(seconds=LONGEST_TAKEOVER * SPEED)
    over_the_kill = [gap for gap in gaps if gap.ended >= killed_at and gap.began <= taken_over_at]
    others = [gap.seconds / SPEED for gap in gaps if gap not in over_the_kill]
    before, after = exits_of(BOOK, before=killed_at), exits_of(BOOK, after=killed_at)
    print(  # noqa: T201  # the figures
        f"\n{len(trades)} trades, {len(history.orders)} orders, {len(history.fills)} fills; "
        f"{before} exits of ours before the kill, {after} after it, taken over after {takeover:.1f} s; "
        f"without a stop {len(others)} times, median {statistics.median(others):.3f} s, "
        f"longest {max(others):.2f} s of the wall; over the kill "
        f"{[round(gap.seconds / SPEED, 1) for gap in over_the_kill]}"
    )
    assert [wrong for each in told for wrong in each.wrong()] == []
    assert untraceable(history, BOOK) == []
    assert [gap for gap in gaps if gap not in over_the_kill and gap.seconds > LONGEST_GAP * SPEED] == []
    assert [gap for gap in over_the_kill if gap.seconds > (LONGEST_GAP + LONGEST_TAKEOVER) * SPEED] == []
    assert min(before, after) >= 1
    assert not ExternalPosition.objects.exists()
    if all(trade.status in (TradeStatus.CLOSED, TradeStatus.CANCELLED) for trade in trades):
        assert made == sum(trade.pnl + trade.fees for trade in Trade.objects.filter(book=BOOK, pnl__isnull=False))
