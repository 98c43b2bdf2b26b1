"""A whole session traded over HTTP and WebSocket, by the real SDK, at a simulated Alpaca in another process."""

from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import requests
from alpaca.trading.client import TradingClient
from django.core.management import call_command

from ml.models import TradeFeatures
from positions.market.bar_files import StoredBars
from positions.market.bars import SessionBars
from positions.market.calendar import session_of
from positions.market.feeds.simulated import SimulatedMarket
from positions.models import Instrument, PositionExit, Trade, WorkerLease
from positions.words import ExitStatus, Feed, TradeStatus
from tests.runs import run
from tests.site.test_alpaca_server_command import serving
from tradingsite.trading import watchlist

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]

BOOK = "paper:tests"
#: The first session of `alpaca_server`'s market: it closes at 13:00.
DAY = date(2024, 12, 24)
SPEED = "60"


class AsStored:
    """The bars that live trading stored, as it first saw them (a ReplayFeed)."""

    name, vix = Feed.SIMULATED, None

    def __init__(self, folder: Path) -> None:
        self._stored = StoredBars(folder, Feed.SIMULATED)
        self.length, self.universe = self._stored.length, watchlist(BOOK)

    def sessions(self) -> Iterator[tuple[SessionBars, bool]]:
        for day in self._stored.days():
            session = session_of(day)
            assert session is not None
            yield self._stored.session_bars(session, self.universe), day == DAY


@pytest.fixture
def listed() -> None:
    universe = SimulatedMarket(1, 7).universe
    rows = zip(universe.symbols, universe.sectors, universe.sector_etfs, universe.tradable, strict=True)
    Instrument.objects.bulk_create(
        Instrument(book=BOOK, symbol=symbol, sector=sector, sector_etf=etf, tradable=tradable)
        for symbol, sector, etf, tradable in rows
    )


def test_a_session_over_http_is_that_of_a_replay_of_its_bars(listed: None, settings: Any, tmp_path: Path) -> None:
    with serving(tmp_path, "--speed", SPEED, "--seed", "7") as (_, origin):
        settings.BOOK, settings.ALPACA_API_KEY, settings.ALPACA_SECRET_KEY = BOOK, "key", "secret"
        settings.ALPACA_TRADING_URL = settings.ALPACA_DATA_URL = origin
        settings.VAR_DIR = tmp_path / "live"
        call_command("trade", "--sessions", "1")
        client = TradingClient("key", "secret", url_override=origin)
        assert client.get_all_positions() == []
        assert client.get_orders() == []
        made = Decimal(client.get_account().equity) - 100_000
        calls = requests.get(f"{origin}/control", timeout=5).json()["requests"]

    live = {trade.signal_key: trade for trade in Trade.objects.filter(book=BOOK)}
    closed = [trade for trade in live.values() if trade.status == TradeStatus.CLOSED]
    assert len(closed) >= 10
    assert {trade.status for trade in live.values()} <= {TradeStatus.CLOSED, TradeStatus.CANCELLED}
    assert not PositionExit.objects.filter(book=BOOK, status=ExitStatus.PENDING).exists()
    assert made == sum(trade.pnl + trade.fees for trade in closed)
    assert WorkerLease.objects.count() == 0

    run(AsStored(settings.VAR_DIR / "bars"))
    replayed = {trade.signal_key: trade for trade in Trade.objects.filter(book="simulated")}
    signals = {
        book: set(TradeFeatures.objects.filter(book=book).values_list("signal_key", flat=True))
        for book in (BOOK, "simulated")
    }
    print(
        len(signals[BOOK]),
        sorted(k.split("-")[1] for k in signals["simulated"] - signals[BOOK]),
        signals[BOOK] - signals["simulated"],
    )
    assert signals[BOOK] == signals["simulated"]
    both = live.keys() & replayed.keys()
    print(f"{len(live)} trades live, {len(replayed)} in the replay, {len(both)} in both; calls {calls}")  # noqa: T201
    for key in both:
        ours, theirs = live[key], replayed[key]
        for plan in ("planned_entry", "initial_stop", "target", "signal_at", "entry_volume"):
            assert getattr(ours, plan) == getattr(theirs, plan), (key, plan)
