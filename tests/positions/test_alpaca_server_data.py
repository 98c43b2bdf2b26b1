"""The real SDK reads market data of the simulated Alpaca."""

from datetime import UTC, datetime, timedelta

import pytest
from alpaca.common.exceptions import APIError
from alpaca.data.enums import DataFeed
from alpaca.data.historical import StockHistoricalDataClient
from alpaca.data.requests import (
    StockBarsRequest,
    StockLatestBarRequest,
    StockLatestQuoteRequest,
    StockLatestTradeRequest,
    StockSnapshotRequest,
)
from alpaca.data.timeframe import TimeFrame, TimeFrameUnit

from tests.positions.stand_in import MINUTE, OPEN

SECOND = timedelta(seconds=1)
FRIDAY = datetime(2025, 5, 9, 13, 30, tzinfo=UTC)


@pytest.fixture
def data(alpaca):
    client = StockHistoricalDataClient("key", "secret", url_override=alpaca.origin)
    client._retry = 0
    return client


def wanted(*symbols: str, start: datetime, end: datetime | None = None, **more: object) -> StockBarsRequest:
    options = {"timeframe": TimeFrame.Minute, "feed": DataFeed.IEX, **more}
    return StockBarsRequest(symbol_or_symbols=list(symbols), start=start, end=end, **options)


def test_a_bar_is_known_a_second_after_its_end(alpaca, data):
    alpaca.go(to=OPEN + 2 * MINUTE)
    assert [bar.timestamp for bar in data.get_stock_bars(wanted("KO", start=OPEN))["KO"]] == [OPEN]
    alpaca.go(1)
    known = data.get_stock_bars(wanted("KO", start=OPEN))["KO"]
    assert [bar.timestamp for bar in known] == [OPEN, OPEN + MINUTE]
    assert data.get_stock_latest_bar(StockLatestBarRequest(symbol_or_symbols="KO"))["KO"] == known[-1]


def test_bars_of_many_symbols_come_in_pages_sorted_by_symbol_and_time(alpaca, data, monkeypatch):
    alpaca.go(to=OPEN + 10 * MINUTE + SECOND)
    found = data.get_stock_bars(wanted("SPY", "KO", "NOPE", start=FRIDAY, end=OPEN + 5 * MINUTE)).data
    assert list(found) == ["KO", "SPY"]
    assert [len(bars) for bars in found.values()] == [396, 396]
    first = data.get("/stocks/bars", {"symbols": "SPY,KO", "timeframe": "1Min", "feed": "iex", "limit": 7})
    assert [list(first["bars"]), len(first["bars"]["KO"])] == [["KO"], 7]
    rest = {"symbols": "SPY,KO", "timeframe": "1Min", "feed": "iex", "page_token": first["next_page_token"]}
    rest = data.get("/stocks/bars", rest)
    assert [len(bars) for bars in rest["bars"].values()] == [3, 10]
    assert rest["next_page_token"] is None


def test_the_newest_bars_may_come_first(alpaca, data):
    alpaca.go(to=OPEN + 3 * MINUTE + SECOND)
    bars = data.get_stock_bars(wanted("KO", start=FRIDAY, sort="desc", limit=2))["KO"]
    assert [bar.timestamp for bar in bars] == [OPEN + 2 * MINUTE, OPEN + MINUTE]


def test_bars_may_be_wider_and_days_begin_at_midnight_in_new_york(alpaca, data):
    alpaca.reset(ko=[(100, 101, 99, 100), (100, 104, 100, 103)])
    alpaca.go(to=OPEN + 20 * MINUTE + SECOND)
    quarter = TimeFrame(15, TimeFrameUnit.Minute)
    [first, second] = data.get_stock_bars(wanted("KO", start=OPEN, timeframe=quarter))["KO"]
    assert (first.open, first.high, first.low, first.close, first.volume) == (100, 104, 99, 100, 15_000)
    assert (second.timestamp, second.volume) == (OPEN + 15 * MINUTE, 5000)
    friday, today = data.get_stock_bars(wanted("KO", start=FRIDAY - timedelta(days=1), timeframe=TimeFrame.Day))["KO"]
    assert friday.timestamp == datetime(2025, 5, 9, 4, tzinfo=UTC)
    assert (friday.volume, today.volume) == (390_000, 20_000)


def test_late_prints_are_in_a_bar_half_a_minute_later(alpaca, data):
    alpaca.reset(corrected_bars=1.0)
    request = StockLatestBarRequest(symbol_or_symbols="KO")
    alpaca.go(to=OPEN + MINUTE + SECOND)
    assert data.get_stock_latest_bar(request)["KO"].volume == 900
    alpaca.go(30)
    assert data.get_stock_latest_bar(request)["KO"].volume == 1000


def test_the_latest_trade_and_quote_follow_the_price_inside_the_bar(alpaca, data):
    alpaca.reset(ko=[(100, 103, 100, 101)], spread=0.02)
    alpaca.go(to=OPEN + 30 * SECOND)
    trade = data.get_stock_latest_trade(StockLatestTradeRequest(symbol_or_symbols="KO"))["KO"]
    quote = data.get_stock_latest_quote(StockLatestQuoteRequest(symbol_or_symbols="KO"))["KO"]
    assert (trade.price, quote.bid_price, quote.ask_price) == (101.5, 101.49, 101.51)


def test_a_snapshot_has_it_all_and_nothing_for_what_does_not_exist(alpaca, data):
    alpaca.go(to=OPEN + 2 * MINUTE + SECOND)
    found = data.get_stock_snapshot(StockSnapshotRequest(symbol_or_symbols=["KO", "F"]))
    assert (found["KO"].minute_bar.timestamp, found["KO"].daily_bar.volume) == (OPEN + MINUTE, 2000)
    assert (found["F"].previous_daily_bar.close, found["F"].latest_trade.price) == (10, 10)
    assert data.get("/stocks/snapshots", {"symbols": "NOPE"}) == {"NOPE": None}


def test_recent_sip_data_needs_the_subscription(alpaca, data):
    alpaca.go(to=OPEN + 30 * MINUTE + SECOND)
    recent = wanted("KO", start=OPEN, end=OPEN + 30 * MINUTE, feed=DataFeed.SIP)
    with pytest.raises(APIError, match="subscription does not permit querying recent SIP data") as refused:
        data.get_stock_bars(recent)
    assert refused.value.status_code == 403
    assert len(data.get_stock_bars(wanted("KO", start=OPEN, feed=DataFeed.SIP))["KO"]) == 16
    with pytest.raises(APIError, match="subscription does not permit"):
        data.get_stock_latest_bar(StockLatestBarRequest(symbol_or_symbols="KO", feed=DataFeed.SIP))
    alpaca.set(recent_sip=True)
    assert len(data.get_stock_bars(recent)["KO"]) == 30


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"symbols": "KO,ko"}, "invalid symbol: ko"),
        ({"symbols": "KO", "limit": 10_001}, "invalid limit: larger than the allowed maximum of 10000"),
        ({"symbols": "KO", "timeframe": "7Moons"}, "invalid timeframe: 7Moons"),
        ({"symbols": "KO", "feed": "moon"}, "invalid feed: moon"),
        ({"symbols": "KO", "page_token": "moon"}, "invalid page_token"),
        ({"symbols": "KO", "start": "noon"}, "invalid start: noon"),
        ({"symbols": "KO", "limit": "all"}, "invalid limit: all"),
        ({}, "symbols is required"),
    ],
)
def test_bad_questions_are_refused_whole_without_a_code(data, query, message):
    with pytest.raises(APIError) as refused:
        data.get("/stocks/bars", {"timeframe": "1Min", "feed": "iex", **query})
    assert (refused.value.status_code, str(refused.value)) == (400, f'{{"message":"{message}"}}')


def test_data_has_a_rate_of_its_own(alpaca, data):
    alpaca.set(rate_limit=1)
    alpaca.client().get_clock()
    data.get("/stocks/bars/latest", {"symbols": "KO"})
    with pytest.raises(APIError, match="too many requests"):
        data.get("/stocks/bars/latest", {"symbols": "KO"})
