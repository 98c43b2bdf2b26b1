"""A whole session traded over HTTP and WebSocket, by the real SDK, at a simulated Alpaca in another process."""

from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from alpaca.trading.client import TradingClient
from constance import config
from django.core.management import call_command
from structlog.testing import capture_logs

from ml.features import FEATURES, Group
from ml.models import TradeFeatures
from positions.market.calendar import session_of
from positions.market.feeds.file import FileFeed
from positions.market.feeds.simulated import SimulatedMarket
from positions.models import ExternalPosition, Instrument, PositionExit, Trade, WorkerLease
from positions.words import ExitStatus, Feed, TradeStatus
from tests.runs import run
from tests.site.test_alpaca_server_command import serving
from tradingsite.watchlist import watchlist

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]

BOOK = "paper:tests"
#: The first session of `alpaca_server`'s market: it closes at 13:00.
DAY = date(2024, 12, 24)
SPEED = "60"
#: Share of the bars that a busy machine may see too late at this speed; nothing is entered on them.
MOST_LATE = 0.25


@pytest.fixture
def listed() -> None:
    universe = SimulatedMarket(1, 7).universe
    rows = zip(universe.symbols, universe.sectors, universe.sector_etfs, universe.tradable, strict=True)
    Instrument.objects.bulk_create(
        Instrument(book=BOOK, symbol=symbol, sector=sector, sector_etf=etf, tradable=tradable)
        for symbol, sector, etf, tradable in rows
    )


def features(book: str) -> dict[str, dict[str, Any]]:
    names = [feature.name for feature in FEATURES if feature.group is not Group.HISTORICAL]
    rows = TradeFeatures.objects.filter(book=book).values_list("signal_key", *names)
    return {key: dict(zip(names, values, strict=True)) for key, *values in rows}


def signal_at(key: str) -> datetime:
    return datetime.strptime(key.split("-")[1], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)


def test_a_session_over_http_is_that_of_a_replay_of_its_bars(listed: None, settings: Any, tmp_path: Path) -> None:
    """Signals and plans are equal to the last digit. Fills are not: over the wire an order meets its market seconds
    after the bar, in a replay at the next bar's open. The session is a short one, and nothing outlives it."""
    config.MAX_OPEN_POSITIONS, config.COOLDOWN_LOSSES, config.MAX_NOTIONAL = 1000, 0, 0.02
    with serving(tmp_path, "--speed", SPEED, "--seed", "7") as (_, origin), capture_logs() as logs:
        settings.BOOK, settings.ALPACA_API_KEY, settings.ALPACA_SECRET_KEY = BOOK, "key", "secret"
        settings.ALPACA_TRADING_URL = settings.ALPACA_DATA_URL = origin
        settings.VAR_DIR = tmp_path / "live"
        call_command("trade", "--sessions", "1")
        client = TradingClient("key", "secret", url_override=origin)
        assert client.get_all_positions() == []
        assert client.get_orders() == []
        made = Decimal(client.get_account().equity) - 100_000

    live = {trade.signal_key: trade for trade in Trade.objects.filter(book=BOOK)}
    closed = [trade for trade in live.values() if trade.status == TradeStatus.CLOSED]
    assert len(closed) >= 50
    assert {trade.status for trade in live.values()} <= {TradeStatus.CLOSED, TradeStatus.CANCELLED}
    assert not PositionExit.objects.filter(book=BOOK, status=ExitStatus.PENDING).exists()
    assert made == sum(trade.pnl + trade.fees for trade in closed)
    assert not ExternalPosition.objects.exists()
    assert not WorkerLease.objects.exists()

    session = session_of(DAY)
    assert session is not None
    assert max(trade.exited_at for trade in closed) < session.close

    bars = FileFeed(settings.VAR_DIR / "bars" / Feed.SIMULATED, first=DAY, universe=watchlist(BOOK))
    run(bars)
    replayed = {trade.signal_key: trade for trade in Trade.objects.filter(book="simulated")}
    late = {told["bar"] + bars.length for told in logs if told["event"] == "bar_too_late"}
    assert len(late) <= MOST_LATE * ((session.close - session.open) // bars.length)
    assert features(BOOK) == {key: row for key, row in features("simulated").items() if signal_at(key) not in late}
    replayed = {key: trade for key, trade in replayed.items() if signal_at(key) not in late}
    both = sorted(live.keys() & replayed.keys())
    print(  # noqa: T201  # the n
        f"{len(live)} trades over HTTP, {len(replayed)} in the replay, {len(both)} in both; {len(late)} bars too late"
    )
    assert len(both) >= 0.9 * len(live.keys() | replayed.keys())
    (values,) = [each.values for each, traded in bars.sessions() if traded]
    for key in both:
        ours, theirs = live[key], replayed[key]
        for plan in ("planned_entry", "initial_stop", "target", "signal_at", "entry_volume"):
            assert getattr(ours, plan) == getattr(theirs, plan), (key, plan)
        minute = (ours.entered_at - session.open) // bars.length
        row = bars.universe.symbols.index(ours.symbol)
        low, high = values[2, minute, row], values[1, minute, row]
        assert low - 0.02 <= float(ours.entry_price) <= high + 0.02, key
