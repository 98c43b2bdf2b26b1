import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from io import StringIO
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from structlog.testing import capture_logs

from positions.broker.alpaca import TradingAccess
from positions.clock import ReplayClock
from positions.market.bar_files import StoredBars
from positions.market.bars import BarBatch, Universe
from positions.market.calendar import session_of
from positions.market.feeds.alpaca.access import AlpacaAccess
from positions.market.feeds.alpaca.errors import AlpacaError, AlpacaRefused, AlpacaUnreachable
from positions.market.feeds.alpaca.feed import GRACE, REST_PATIENCE, AlpacaFeed
from positions.market.feeds.alpaca.history import AlpacaBars
from positions.market.feeds.alpaca.wire import bar_rows
from positions.market.quarantine import PriceMemory
from positions.words import Feed
from tests.positions.alpaca_data_server import KEY, SECRET, AlpacaDataServer, Reply, bar
from tests.positions.alpaca_replies import Recorded, recorded
from tradingsite.trading import AlpacaMarket, Venue

DAY = date(2025, 5, 12)
SESSION = session_of(DAY)
assert SESSION is not None
OPEN = SESSION.open
MINUTE = timedelta(minutes=1)
UNIVERSE = Universe(("KO", "F", "^INDEX"), ("",) * 3, ("",) * 3, (True, True, False), index=2)


def minute(number: int) -> datetime:
    return OPEN + number * MINUTE


@pytest.fixture
def clock() -> ReplayClock:
    return ReplayClock(datetime(2025, 5, 13, 12, 0, tzinfo=UTC))


@pytest.fixture
def server(clock: ReplayClock) -> Iterator[AlpacaDataServer]:
    with AlpacaDataServer(clock.now) as server:
        yield server


def source(server: AlpacaDataServer, clock: ReplayClock, feed: Feed = Feed.IEX, **more: Any) -> AlpacaBars:
    return AlpacaBars(AlpacaAccess(KEY, SECRET, feed, server.origin), clock, **{"timeouts": (1.0, 2.0), **more})


# History over REST


def test_all_pages_of_all_symbols_are_fetched_and_every_request_names_the_feed(
    server: AlpacaDataServer, clock: ReplayClock
) -> None:
    server.page_limit = 4
    for symbol, price in (("KO", 70.0), ("F", 10.0)):
        server.add(symbol, *(bar(minute(i), price + i) for i in range(5)))
    rows = source(server, clock).bars(["KO", "F", "NONE"], OPEN, minute(5))
    assert rows.symbols == ("F", "KO")
    assert rows.values[3].tolist() == [10.0, 11.0, 12.0, 13.0, 14.0, 70.0, 71.0, 72.0, 73.0, 74.0]
    assert rows.values[5, 0] == 10.123456
    assert rows.trade_count.tolist() == [7.0] * 10
    assert [query["feed"] for _, query in server.requests] == ["iex"] * 3
    assert [query.get("page_token") for _, query in server.requests] == [None, "4", "8"]


def test_the_end_is_not_part_of_what_is_asked_for(server: AlpacaDataServer, clock: ReplayClock) -> None:
    server.add("KO", *(bar(minute(i), 70.0) for i in range(5)))
    assert len(source(server, clock).bars(["KO"], minute(1), minute(3))) == 2


def test_a_bar_whose_minute_has_not_passed_is_dropped(server: AlpacaDataServer) -> None:
    clock = ReplayClock(minute(3) - timedelta(milliseconds=1))
    server.add("KO", *(bar(minute(i), 70.0) for i in range(3)))
    assert len(source(server, clock).bars(["KO"], OPEN, minute(9))) == 2
    clock.sleep_until(minute(3))
    assert len(source(server, clock).bars(["KO"], OPEN, minute(9))) == 3


def test_hundreds_of_symbols_are_asked_for_in_several_requests(server: AlpacaDataServer, clock: ReplayClock) -> None:
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    symbols = [a + b for a in letters for b in letters[:9]]
    for symbol in symbols:
        server.add(symbol, bar(OPEN, 10.0))
    assert source(server, clock).bars(symbols, OPEN, minute(1)).symbols == tuple(sorted(symbols))
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    "body",
    ['{"bars": null, "next_page_token": null}', '{"bars": {"KO": null}, "x": 1}', '{"bars": {}}'],
)
def test_replies_without_bars_are_no_bars(server: AlpacaDataServer, clock: ReplayClock, body: str) -> None:
    server.replies.append(Reply(body=body))
    assert len(source(server, clock).bars(["KO"], OPEN, minute(5))) == 0


def test_unknown_fields_and_missing_ones_do_no_harm(server: AlpacaDataServer, clock: ReplayClock) -> None:
    strange = bar(OPEN, 70.0, mood="good", t="2025-05-12T13:30:00.000000000Z")
    del strange["vw"], strange["n"]
    server.replies.append(Reply(body=json.dumps({"bars": {"KO": [strange]}, "next_page_token": None, "news": []})))
    rows = source(server, clock).bars(["KO"], OPEN, minute(5))
    assert rows.values[:5, 0].tolist() == [70.0, 70.5, 69.5, 70.0, 100.0]
    assert np.isnan(rows.values[5, 0])
    assert np.isnan(rows.trade_count[0])


def test_after_too_many_requests_it_waits_for_the_reset_that_alpaca_names(
    server: AlpacaDataServer, clock: ReplayClock
) -> None:
    server.add("KO", bar(OPEN, 70.0))
    reset = clock.now() + timedelta(seconds=37)
    headers = {
        "X-RateLimit-Limit": "200",
        "X-RateLimit-Remaining": "0",
        "X-RateLimit-Reset": str(int(reset.timestamp())),
    }
    server.replies.append(Reply(429, '{"message": "too many requests."}', headers))
    assert len(source(server, clock).bars(["KO"], OPEN, minute(5))) == 1
    assert len(server.requests) == 2
    assert reset < clock.now() < reset + timedelta(seconds=1)


def test_a_429_without_a_reset_and_a_proxys_500_are_tried_again_soon(
    server: AlpacaDataServer, clock: ReplayClock
) -> None:
    server.add("KO", bar(OPEN, 70.0))
    server.replies += [Reply(429, ""), Reply(500, "<html><h1>Sorry</h1></html>"), Reply(200, "<html>not JSON</html>")]
    before = clock.now()
    assert len(source(server, clock).bars(["KO"], OPEN, minute(5))) == 1
    assert timedelta(seconds=1.7) < clock.now() - before < timedelta(seconds=4)


def test_an_endless_500_is_told_in_one_line(server: AlpacaDataServer, clock: ReplayClock) -> None:
    server.replies += [Reply(500, "<html>\n<h1>Sorry</h1>\n</html>")] * 3
    with pytest.raises(AlpacaUnreachable) as caught:
        source(server, clock, attempts=3).bars(["KO"], OPEN, minute(5))
    assert str(caught.value) == (
        "Alpaca answered 500: <html> <h1>Sorry</h1> </html>, 3 times for /stocks/bars; "
        "check the connection and status.alpaca.markets, then try again"
    )


def test_a_server_that_hangs_is_given_up_after_the_read_timeout(server: AlpacaDataServer, clock: ReplayClock) -> None:
    server.replies += [Reply(after=1.0)] * 2
    began = time.monotonic()
    with pytest.raises(AlpacaUnreachable, match=r"did not answer \(ReadTimeout\), 2 times"):
        source(server, clock, attempts=2, timeouts=(1.0, 0.2)).bars(["KO"], OPEN, minute(5))
    assert time.monotonic() - began < 0.9


def test_nobody_there_is_unreachable(clock: ReplayClock) -> None:
    nobody = AlpacaBars(AlpacaAccess(KEY, SECRET, Feed.IEX, "http://127.0.0.1:9"), clock, attempts=2)
    with pytest.raises(AlpacaUnreachable, match=r"did not answer \(ConnectionError\)"):
        nobody.bars(["KO"], OPEN, minute(5))


def test_recent_sip_bars_without_a_subscription_are_refused_in_one_line(server: AlpacaDataServer) -> None:
    clock = ReplayClock(minute(10))
    server.now = clock.now
    with pytest.raises(AlpacaRefused) as caught:
        source(server, clock, Feed.SIP).bars(["KO"], OPEN, minute(10))
    assert str(caught.value) == (
        "Alpaca refused (403): subscription does not permit querying recent SIP data; "
        "use the iex feed, or end 15 minutes before now"
    )
    assert len(server.requests) == 1


def test_wrong_keys_are_refused_in_one_line_without_the_secret(server: AlpacaDataServer, clock: ReplayClock) -> None:
    access = AlpacaAccess(KEY, "not-this-one", Feed.IEX, server.origin)
    with pytest.raises(AlpacaRefused, match=r"refused \(401\): unauthorized.; check ALPACA_API_KEY") as caught:
        AlpacaBars(access, clock).bars(["KO"], OPEN, minute(5))
    assert "not-this-one" not in f"{caught.value} {access}"


def test_a_malformed_symbol_costs_the_others_nothing(server: AlpacaDataServer, clock: ReplayClock) -> None:
    server.add("KO", bar(OPEN, 70.0))
    bars = source(server, clock)
    assert bars.bars(["KO", "NO-SUCH", "K0"], OPEN, minute(5)).symbols == ("KO",)
    assert bars.bad_symbols == {"NO-SUCH", "K0"}


def test_symbols_of_which_the_history_has_no_bar_are_named_on_the_screen_and_in_the_log(
    server: AlpacaDataServer, clock: ReplayClock, settings: Any, tmp_path: Path
) -> None:
    settings.VAR_DIR = tmp_path
    server.add("KO", bar(OPEN, 70.0))
    access = AlpacaAccess(KEY, SECRET, Feed.IEX, server.origin)
    venue = Venue(TradingAccess(KEY, SECRET, live=False), access, clock, Feed.IEX)
    universe = Universe(("NONE", "KO", "NO-SUCH"), ("",) * 3, ("",) * 3, (True,) * 3, index=None)
    today = session_of(clock.now().date())
    assert today is not None
    with capture_logs() as logs:
        AlpacaMarket(venue, universe, Event(), Console(file=(told := StringIO()), width=80)).history(today)
        only_ko = Universe(("KO",), ("",), ("",), (True,), index=None)
        AlpacaMarket(venue, only_ko, Event(), Console(file=told)).history(today)
    assert told.getvalue() == "No bars in the last 10 sessions of NO-SUCH, NONE: check the watchlist.\n"
    assert [each["symbols"] for each in logs if each["event"] == "symbols_without_bars"] == [["NO-SUCH", "NONE"]]


# The live feed


class Live:
    """A feed whose stream runs, while the test moves the clock and does the rounds of the other thread."""

    def __init__(self, server: AlpacaDataServer, clock: ReplayClock, **more: Any) -> None:
        self.server, self.clock = server, clock
        rest = source(server, clock, attempts=1, timeouts=(1.0, 0.3))
        access = AlpacaAccess(KEY, SECRET, Feed.IEX, server.origin)
        self.feed = AlpacaFeed(access, UNIVERSE, SESSION, clock, rest, **more)
        self.heard = 0

    def connect(self) -> None:
        self.feed.connect()
        until(lambda: bool(self.server.subscribed) and self.feed.is_connected)

    def send(self, symbol: str, bar: dict[str, Any], kind: str = "b") -> None:
        before = self.feed._messages.qsize()
        self.server.send(symbol, bar, kind)
        until(lambda: self.feed._messages.qsize() > before)

    def at(self, moment: datetime) -> list[BarBatch]:
        """What is released at a moment, revisions too."""
        self.clock.sleep_until(moment)
        self.feed.step()
        batches = []
        while (arrival := self.feed.take(0.001)) is not None:
            batches.append(arrival.batch)
        return batches


def until(happened: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


@pytest.fixture
def live(server: AlpacaDataServer) -> Iterator[Live]:
    live = Live(server, ReplayClock(OPEN))
    server.now = live.clock.now
    yield live
    live.feed.stop()


def closes(batch: BarBatch) -> list[float | None]:
    return [None if np.isnan(close) else float(close) for close in batch.close]


def test_a_minute_is_released_as_soon_as_every_symbol_has_a_bar(live: Live) -> None:
    live.connect()
    assert live.server.subscribed[0]["bars"] == live.server.subscribed[0]["updatedBars"] == ["KO", "F"]
    live.send("KO", bar(OPEN, 70.0))
    assert live.at(minute(1) + timedelta(seconds=1)) == []
    live.send("F", bar(OPEN, 10.0))
    [batch] = live.at(minute(1) + timedelta(seconds=1))
    assert (batch.start, batch.length, closes(batch)) == (OPEN, MINUTE, [70.0, 10.0, None])
    assert (batch.vwap[0], batch.volume[1]) == (70.123456, 100.0)
    assert live.server.requests == []


def test_no_minute_is_released_before_it_has_passed(live: Live) -> None:
    live.connect()
    live.send("KO", bar(OPEN, 70.0))
    live.send("F", bar(OPEN, 10.0))
    assert live.at(minute(1) - timedelta(milliseconds=1)) == []
    assert len(live.at(minute(1))) == 1


def test_a_symbol_without_a_bar_is_missing_when_the_grace_is_over_and_rest_is_not_asked(live: Live) -> None:
    live.connect()
    live.send("KO", bar(OPEN, 70.0))
    assert live.at(minute(1) + GRACE - timedelta(milliseconds=1)) == []
    [batch] = live.at(minute(1) + GRACE)
    assert closes(batch) == [70.0, None, None]
    assert np.isnan(batch.volume[1])
    assert live.server.requests == []


def test_bars_of_two_minutes_out_of_order_find_their_minutes(live: Live) -> None:
    live.connect()
    live.send("KO", bar(minute(1), 71.0))
    live.send("KO", bar(minute(0), 70.0))
    assert [closes(batch)[0] for batch in live.at(minute(2) + GRACE)] == [70.0, 71.0]


def test_the_same_bar_twice_is_one_bar(live: Live, tmp_path: Path) -> None:
    live.connect()
    for _ in range(2):
        live.send("KO", bar(OPEN, 70.0))
    assert len(live.at(minute(1) + GRACE)) == 1
    live.send("KO", bar(OPEN, 70.0))
    assert live.at(minute(1) + GRACE) == []
    assert (live.feed.counts.repeated, live.feed.counts.late) == (2, 0)
    assert StoredBars(tmp_path, Feed.IEX).merge(SESSION, live.feed.take_seen()) == 1


def test_a_bar_that_comes_late_is_handed_over_as_news_of_the_last_minute_and_counted(live: Live) -> None:
    live.connect()
    live.send("KO", bar(OPEN, 70.0))
    live.at(minute(1) + GRACE)
    live.send("F", bar(OPEN, 10.0))
    live.feed.step()
    arrival = live.feed.take(0.001)
    assert arrival is not None
    assert arrival.revises
    assert closes(arrival.batch) == [None, 10.0, None]
    assert (live.feed.counts.late, live.feed.counts.too_late) == (1, 0)


def test_a_corrected_bar_revises_the_last_minute_and_is_stored_beside_the_first(live: Live, tmp_path: Path) -> None:
    live.connect()
    live.send("KO", bar(OPEN, 70.0, volume=100))
    live.send("F", bar(OPEN, 10.0))
    live.at(minute(1) + GRACE)
    live.clock.sleep_until(minute(1) + timedelta(seconds=30))
    live.send("KO", bar(OPEN, 70.25, volume=150), kind="u")
    [revision] = live.at(minute(1) + timedelta(seconds=30))
    assert revision.start == OPEN
    assert closes(revision) == [70.25, None, None]
    assert live.feed.counts.revised == 1

    stored = StoredBars(tmp_path, Feed.IEX)
    stored.merge(SESSION, live.feed.take_seen())
    assert stored.session_bars(SESSION, UNIVERSE).values[3:5, 0, 0].tolist() == [70.0, 100.0]
    assert stored.session_bars(SESSION, UNIVERSE, revised=True).values[3:5, 0, 0].tolist() == [70.25, 150.0]


def test_a_correction_before_the_release_is_what_is_released_and_both_are_kept(live: Live) -> None:
    live.connect()
    live.send("KO", bar(OPEN, 70.0))
    live.at(minute(1))
    live.clock.sleep_until(minute(1) + timedelta(seconds=1))
    live.send("KO", bar(OPEN, 70.25), kind="u")
    [batch] = live.at(minute(1) + GRACE)
    assert closes(batch)[0] == 70.25
    assert live.feed.take_seen().values[3].tolist() == [70.0, 70.25]


def test_a_correction_of_an_older_minute_reaches_the_files_only(live: Live) -> None:
    live.connect()
    for number in range(2):
        live.send("KO", bar(minute(number), 70.0))
    live.at(minute(2) + GRACE)
    live.send("KO", bar(minute(0), 70.5), kind="u")
    assert live.at(minute(2) + GRACE) == []
    assert live.feed.counts.too_late == 1
    assert live.feed.take_seen().values[3].tolist() == [70.0, 70.0, 70.5]


def test_bad_prints_are_kept_out_and_counted(live: Live) -> None:
    live.connect()
    live.send("KO", bar(minute(0), 70.0))
    live.send("F", bar(minute(0), 10.0, c=None))
    [batch] = live.at(minute(1) + GRACE)
    assert closes(batch) == [70.0, None, None]
    with capture_logs() as logs:
        live.send("KO", bar(minute(1), 700.0))
        [batch] = live.at(minute(2) + GRACE)
        assert closes(batch) == [None, None, None]
        live.send("KO", bar(minute(1), 900.0), kind="u")
        assert live.at(minute(2) + GRACE) == []
    told = [(each["first"], each["symbols"], each["in_session"]) for each in logs]
    assert told == [(minute(1), ["KO"], 2), (minute(1), ["KO"], 3)]
    assert live.feed.counts.quarantined == 3
    assert live.feed.take_seen().values[3].tolist() == [70.0]


def test_a_wild_first_print_of_a_session_reaches_neither_indicators_nor_the_store(
    server: AlpacaDataServer, settings: Any, tmp_path: Path
) -> None:
    settings.VAR_DIR = tmp_path
    clock = ReplayClock(minute(2) + GRACE)
    access = AlpacaAccess(KEY, SECRET, Feed.IEX, server.origin)
    for number, price in enumerate((700.0, 71.0)):
        server.add("KO", bar(minute(number), price))
    venue = Venue(TradingAccess(KEY, SECRET, live=False), access, clock, Feed.IEX)
    feed = AlpacaMarket(venue, UNIVERSE, Event(), Console(quiet=True)).feed(
        SESSION, PriceMemory.of(np.array([70.0, np.nan, np.nan]))
    )
    feed.step()
    told = [closes(arrival.batch)[0] for arrival in (feed.take(0.001), feed.take(0.001)) if arrival]
    assert told == [None, 71.0]
    assert feed.take_seen().values[3].tolist() == [71.0]


def test_a_wild_print_that_is_corrected_before_its_minute_is_released_is_not_stored(live: Live) -> None:
    live.connect()
    live.send("KO", bar(minute(0), 70.0))
    live.at(minute(1) + GRACE)
    live.send("KO", bar(minute(1), 700.0))
    live.send("KO", bar(minute(1), 70.5), kind="u")
    [batch] = live.at(minute(2) + GRACE)
    assert closes(batch) == [70.5, None, None]
    assert live.feed.take_seen().values[3].tolist() == [70.0, 70.5]


def test_what_is_no_bar_of_ours_is_counted_and_left_out(live: Live) -> None:
    live.connect()
    live.send("KO", bar(OPEN - MINUTE, 70.0))
    live.send("KO", bar(OPEN + timedelta(seconds=7), 70.0))
    live.send("KO", {"t": OPEN.isoformat(), "surprise": 1})
    [batch] = live.at(minute(1) + GRACE)
    assert closes(batch) == [None, None, None]
    assert (live.feed.counts.foreign, live.feed.counts.quarantined) == (2, 1)


def test_a_silent_stream_is_replaced_by_polling_until_it_speaks_again(live: Live) -> None:
    live.connect()
    for number in range(3):
        live.server.add("KO", bar(minute(number), 70.0 + number))
    assert [closes(batch)[0] for batch in live.at(minute(1) + GRACE)] == [70.0]
    assert [closes(batch)[0] for batch in live.at(minute(2) + GRACE)] == [71.0]
    assert len(live.server.requests) == 2
    live.send("KO", bar(minute(2), 72.5))
    assert [closes(batch)[0] for batch in live.at(minute(3) + GRACE)] == [72.5]
    assert len(live.server.requests) == 2
    assert live.feed.counts.from_rest == 2


def test_the_minutes_of_a_lost_connection_are_filled_from_rest(live: Live) -> None:
    live.connect()
    for number in range(4):
        live.server.add("KO", bar(minute(number), 70.0 + number))
        live.server.add("F", bar(minute(number), 10.0 + number))
    live.send("KO", bar(minute(0), 70.5))  # what came first stays first
    live.server.disconnect()
    until(lambda: not live.feed.is_connected)
    live.clock.sleep_until(minute(3) + timedelta(seconds=10))
    until(lambda: live.feed.counts.connections == 2 and len(live.server.subscribed) == 2)
    batches = live.at(live.clock.now())
    assert [closes(batch)[:2] for batch in batches] == [[70.5, 10.0], [71.0, 11.0], [72.0, 12.0]]
    live.send("KO", bar(minute(3), 73.5))
    assert [closes(batch) for batch in live.at(minute(4) + GRACE)] == [[73.5, None, None]]
    assert live.feed.counts.from_rest == 5


def test_a_start_in_mid_session_catches_up_in_order(server: AlpacaDataServer) -> None:
    clock = ReplayClock(minute(5) + timedelta(seconds=20))
    server.now = clock.now
    server.add("KO", *(bar(minute(i), 70.0 + i) for i in range(6)))
    live = Live(server, clock, first=minute(2))
    assert [(batch.start, closes(batch)[0]) for batch in live.at(clock.now())] == [
        (minute(i), 70.0 + i) for i in (2, 3, 4)
    ]
    assert len(server.requests) == 1


def test_nothing_is_released_while_neither_stream_nor_rest_answers_and_all_of_it_afterwards(live: Live) -> None:
    live.server.replies += [Reply(500, "no")] * 2
    live.server.add("KO", *(bar(minute(i), 70.0 + i) for i in range(3)))
    assert live.at(minute(1) + GRACE) == []
    assert "answered 500" in live.feed.rest_problem
    assert live.at(minute(2) + GRACE) == []
    assert [closes(batch)[0] for batch in live.at(minute(3) + GRACE)] == [70.0, 71.0, 72.0]
    assert (live.feed.counts.rest_failures, live.feed.rest_problem) == (2, "")


def test_a_stream_that_is_back_does_not_wait_for_ever_for_a_dead_rest(live: Live) -> None:
    live.clock.sleep_until(minute(1) + timedelta(seconds=1))
    live.connect()
    live.server.replies += [Reply(500, "no")] * 9
    assert live.at(minute(1) + GRACE) == []
    live.send("KO", bar(minute(1), 71.0))
    batches = live.at(minute(2) + GRACE + REST_PATIENCE)
    assert [closes(batch)[0] for batch in batches] == [None, 71.0]
    assert live.feed.counts.gaps == 1


def test_a_second_connection_is_refused_told_and_replaced_by_polling(live: Live) -> None:
    live.server.connection_limit = 0
    live.server.add("KO", bar(OPEN, 70.0))
    live.feed.connect()
    until(lambda: live.feed.stream_problem == "connection limit exceeded")
    assert [closes(batch)[0] for batch in live.at(minute(1) + GRACE)] == [70.0]
    live.server.connection_limit = 1
    until(lambda: live.feed.is_connected)
    assert live.feed.stream_problem == ""


def test_a_stream_that_is_mute_is_connected_anew(server: AlpacaDataServer) -> None:
    live = Live(server, ReplayClock(OPEN), data_timeout=0.2)
    live.connect()
    until(lambda: live.feed.counts.connections >= 2)
    live.feed.stop()


def test_symbols_grow_stale_without_bars_each_by_itself(live: Live) -> None:
    live.connect()
    live.send("KO", bar(minute(0), 70.0))
    live.at(minute(1) + GRACE)
    assert live.feed.stale_symbols(minute(5)) == ()
    assert live.feed.stale_symbols(minute(5) + MINUTE) == ("F",)
    assert live.feed.stale_symbols(minute(7)) == ("KO", "F")


def test_both_threads_together_hand_over_minutes_and_end_with_the_session(server: AlpacaDataServer) -> None:
    clock = ReplayClock(SESSION.close - MINUTE)
    server.now = clock.now
    live = Live(server, clock, first=SESSION.close - MINUTE)
    live.feed.start()
    until(lambda: bool(server.subscribed))
    server.send("KO", bar(SESSION.close - MINUTE, 70.0))
    server.send("F", bar(SESSION.close - MINUTE, 10.0))
    clock.sleep_until(SESSION.close)
    arrival = live.feed.take(2.0)
    assert arrival is not None
    assert closes(arrival.batch) == [70.0, 10.0, None]
    until(lambda: live.feed.is_done)
    live.feed.stop()


def test_wrong_keys_end_the_feed_with_the_reason(server: AlpacaDataServer) -> None:
    clock = ReplayClock(minute(1) + GRACE)
    access = AlpacaAccess(KEY, "wrong", Feed.IEX, server.origin)
    feed = AlpacaFeed(access, UNIVERSE, SESSION, clock, AlpacaBars(access, clock))
    feed.start()
    with pytest.raises(AlpacaRefused, match="check ALPACA_API_KEY"):
        feed.take(2.0)
    until(lambda: feed.stream_problem == "auth failed")
    feed.stop()


def test_a_reply_that_nobody_thought_of_ends_the_feed_with_the_reason(server: AlpacaDataServer) -> None:
    server.replies.append(Reply(body='{"bars": {"KO": 7}}'))
    live = Live(server, ReplayClock(minute(1) + GRACE))
    live.feed.start()
    with pytest.raises(AlpacaError, match="TypeError"):
        live.feed.take(2.0)
    live.feed.stop()


def test_the_sdks_own_request_for_the_latest_bars_is_answered(server: AlpacaDataServer) -> None:
    from alpaca.data.historical.stock import StockHistoricalDataClient
    from alpaca.data.requests import StockLatestBarRequest

    server.add("KO", bar(minute(0), 70.0), bar(minute(1), 71.0))
    client = StockHistoricalDataClient(KEY, SECRET, url_override=server.origin)
    latest = client.get_stock_latest_bar(StockLatestBarRequest(symbol_or_symbols=["KO", "NONE"]))
    assert {symbol: each.close for symbol, each in latest.items()} == {"KO": 71.0}


@pytest.mark.parametrize("reply", recorded(("GET", "/v2/stocks/bars")))
def test_every_recorded_bar_is_read(reply: Recorded) -> None:
    bars = [(symbol, each) for symbol, listed in reply.body["bars"].items() for each in listed]
    rows = bar_rows((symbol, each, 0) for symbol, each in bars)
    assert [rows.symbols[code] for code in rows.codes] == [symbol for symbol, _ in bars]
    times = [datetime.fromtimestamp(start / 1e6, UTC) for start in rows.starts]
    assert times == [datetime.fromisoformat(each["t"]) for _, each in bars]
    for quantity, values in zip("ohlcv", rows.values, strict=False):
        assert values.tolist() == [each[quantity] for _, each in bars]
