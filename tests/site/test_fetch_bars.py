import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as site
from django.core.management import CommandError, call_command

from positions.market.bar_files import StoredBars
from positions.market.calendar import sessions_between
from positions.market.feeds.file import FileFeed
from positions.models import Instrument
from positions.words import Feed
from tests.positions.alpaca_data_server import KEY, SECRET, AlpacaDataServer, Reply, bar

FIRST, LAST = date(2025, 5, 12), date(2025, 5, 14)
SESSIONS = sessions_between(FIRST, LAST)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def server() -> Iterator[AlpacaDataServer]:
    with AlpacaDataServer(lambda: datetime.now(UTC)) as server:
        for session in SESSIONS:
            for symbol, price in (("KO", 70.0), ("F", 10.0)):
                server.add(symbol, *(bar(session.open + i * MINUTE, price) for i in range(5)))
                server.add(symbol, bar(session.close, price), bar(session.open - MINUTE, price))  # extended hours
        yield server


@pytest.fixture
def bars(server: AlpacaDataServer, settings: Any, tmp_path: Path) -> Path:
    settings.VAR_DIR = tmp_path
    settings.ALPACA_API_KEY, settings.ALPACA_SECRET_KEY, settings.ALPACA_FEED = KEY, SECRET, "iex"
    settings.ALPACA_DATA_URL = server.origin
    return tmp_path / "bars"


def fetch(*more: str, symbols: str = "KO,F", first: date = FIRST, last: date = LAST) -> None:
    call_command("fetch_bars", "--symbols", symbols, "--from", str(first), "--to", str(last), *more)


def refusal(*more: str, status: int = 2, **what: Any) -> str:
    with pytest.raises(CommandError) as caught:
        fetch(*more, **what)
    assert caught.value.returncode == status
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_regular_sessions_are_stored_one_file_each_and_can_be_replayed(bars: Path, capsys: Any) -> None:
    fetch()
    assert "3 sessions downloaded, 0 were there: 30 new iex bars" in capsys.readouterr().out
    assert StoredBars(bars, Feed.IEX).days() == [session.day for session in SESSIONS]
    feed = FileFeed(bars / "iex")
    assert feed.session_count == 3
    assert sum(session.bar_count for session, _ in feed.sessions()) == 30


def test_what_is_there_is_not_fetched_again_and_a_new_symbol_alone_is(
    server: AlpacaDataServer, bars: Path, capsys: Any
) -> None:
    fetch(symbols="KO", last=date(2025, 5, 13))
    server.requests.clear()
    fetch()
    assert [query["symbols"] for _, query in server.requests] == ["F", "F", "F,KO"]
    server.requests.clear()
    fetch()
    assert server.requests == []
    assert "0 sessions downloaded, 3 were there: 0 new iex bars" in capsys.readouterr().out


def test_each_feed_and_length_is_asked_for_by_name_and_kept_apart(server: AlpacaDataServer, bars: Path) -> None:
    server.bars["KO"] = [bar(SESSIONS[0].open + 5 * i * MINUTE, 70.0) for i in range(3)]
    fetch("--feed", "sip", "--timeframe", "5", symbols="KO", last=FIRST)
    assert len(StoredBars(bars, Feed.SIP, 5 * MINUTE).rows(FIRST)) == 3
    assert {(query["feed"], query["timeframe"]) for _, query in server.requests} == {("sip", "5Min")}
    assert [path.name for path in bars.iterdir()] == ["sip-5min"]


def test_a_session_still_running_is_stored_as_far_as_it_goes_and_asked_for_again(
    server: AlpacaDataServer, bars: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = SESSIONS[0]
    now = session.open + timedelta(minutes=3, seconds=30)
    monkeypatch.setattr("positions.clock.SystemClock.now", lambda self: now)
    fetch(symbols="KO")
    stored = StoredBars(bars, Feed.IEX)
    assert stored.days() == [session.day]
    assert len(stored.rows(session.day)) == 3
    assert stored.fetched(session.day) == frozenset()
    now = session.close + timedelta(hours=1)
    fetch(symbols="KO")
    assert len(stored.rows(session.day)) == 5
    assert stored.fetched(session.day) == {"KO"}


def test_a_bar_that_was_corrected_since_is_kept_beside_the_first(
    server: AlpacaDataServer, bars: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("positions.clock.SystemClock.now", lambda self: SESSIONS[0].close)
    fetch(symbols="KO", last=FIRST)
    monkeypatch.undo()
    server.bars["KO"][0]["v"] = 101
    fetch(symbols="KO", last=FIRST)
    stored = StoredBars(bars, Feed.IEX).rows(FIRST)
    assert (stored.first_seen().values[4, 0], stored.revised().values[4, 0], len(stored)) == (100.0, 101.0, 6)


def test_bad_prints_are_left_out_and_counted(server: AlpacaDataServer, bars: Path, capsys: Any) -> None:
    server.bars["KO"][1].update(bar(SESSIONS[0].open + MINUTE, 700.0))
    server.bars["F"][2]["l"] = None
    fetch(last=FIRST)
    assert "2 bad prints were left out." in capsys.readouterr().out
    assert len(StoredBars(bars, Feed.IEX).rows(FIRST)) == 8


@pytest.mark.parametrize("first", [FIRST, date(2025, 5, 13)], ids=["asked for again", "not asked for"])
def test_a_wild_first_print_is_judged_by_the_session_that_is_stored_already(
    server: AlpacaDataServer, bars: Path, first: date
) -> None:
    fetch(symbols="KO", last=FIRST)
    [wild] = [each for each in server.bars["KO"] if each["t"] == bar(SESSIONS[1].open, 70.0)["t"]]
    wild.update(bar(SESSIONS[1].open, 700.0))
    fetch(first=first, last=date(2025, 5, 13))
    stored = StoredBars(bars, Feed.IEX).rows(date(2025, 5, 13))
    assert stored.values[3].tolist() == [10.0] * 5 + [70.0] * 4


def test_symbols_that_alpaca_does_not_know_are_named_and_the_others_fetched(
    server: AlpacaDataServer, bars: Path, capsys: Any, tmp_path: Path
) -> None:
    fetch("--json", str(tmp_path / "summary.json"), symbols="ko,NO-SUCH,NONE")
    told = capsys.readouterr().out
    assert "No symbols at Alpaca: NO-SUCH\n" in told
    assert "No bars: NONE\n" in told
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["bars"] == 15
    assert (summary["feed"], summary["bad_symbols"], summary["empty"]) == ("iex", ["NO-SUCH"], ["NONE"])


def test_only_unknown_symbols_are_a_failure(bars: Path) -> None:
    assert refusal(symbols="NONE", status=1).startswith("None of the symbols has bars")


@pytest.mark.django_db
def test_the_watchlist_of_the_book_is_fetched_without_its_computed_index(
    server: AlpacaDataServer, bars: Path, settings: Any
) -> None:
    arguments = ("fetch_bars", "--watchlist", "--from", str(FIRST), "--to", str(FIRST))
    settings.BOOK = "paper:1"
    with pytest.raises(CommandError, match="The watchlist of book paper:1 is empty"):
        call_command(*arguments)
    for book, symbol in (("paper:1", "F"), ("paper:1", "^INDEX"), ("simulated", "KO")):
        Instrument.objects.create(book=book, symbol=symbol)
    call_command(*arguments)
    assert [query["symbols"] for _, query in server.requests] == ["F"]


def test_missing_keys_wrong_dates_and_unknown_feeds_are_told_in_one_line(bars: Path, settings: Any) -> None:
    assert "--from 2025-05-14 lies after --to 2025-05-12" in refusal(first=LAST, last=FIRST)
    assert "No session has begun" in refusal(first=date(2025, 5, 10), last=date(2025, 5, 11))
    assert "the exchange calendar begins in 1990" in refusal(first=date(1980, 1, 1))
    settings.ALPACA_FEED = "otc"
    assert refusal() == "ALPACA_FEED=otc is not a feed; use sip or iex."
    settings.ALPACA_SECRET_KEY = ""
    assert "ALPACA_API_KEY and ALPACA_SECRET_KEY are not both set" in refusal()


def test_wrong_keys_and_missing_subscriptions_are_status_2(server: AlpacaDataServer, bars: Path, settings: Any) -> None:
    server.replies.append(Reply(403, '{"message":"subscription does not permit querying recent SIP data"}'))
    assert "use the iex feed, or end 15 minutes before now" in refusal("--feed", "sip")
    settings.ALPACA_SECRET_KEY = "wrong"
    assert "check ALPACA_API_KEY" in refusal()


def test_an_alpaca_that_cannot_be_reached_is_status_1_and_keeps_what_was_fetched(
    server: AlpacaDataServer, bars: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("positions.clock.SystemClock.sleep_until", lambda self, moment: None)
    fetch(last=FIRST)
    server.replies += [Reply(503, "<html>maintenance</html>")] * 6
    told = refusal(status=1)
    assert "answered 503: <html>maintenance</html>, 6 times" in told
    assert told.endswith("What was fetched stays.")
    assert StoredBars(bars, Feed.IEX).days() == [FIRST]


def test_a_killed_download_leaves_whole_sessions_and_goes_on_from_there(
    server: AlpacaDataServer, bars: Path, tmp_path: Path
) -> None:
    server.replies += [Reply(), Reply(), Reply(after=1.0)]
    arguments = ["fetch_bars", "--symbols", "KO,F", "--from", str(FIRST), "--to", str(LAST)]
    running = subprocess.Popen(
        [sys.executable, str(site.BASE_DIR / "manage.py"), *arguments],
        env={
            **os.environ,
            "VAR_DIR": str(tmp_path),
            "DATABASE_URL": f"sqlite:///{tmp_path / 'db.sqlite3'}",
            "ALPACA_API_KEY": KEY,
            "ALPACA_SECRET_KEY": SECRET,
            "ALPACA_DATA_URL": server.origin,
        },
    )
    deadline = time.monotonic() + 20
    while len(server.requests) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    running.wait(timeout=5)
    stored = StoredBars(bars, Feed.IEX)
    assert [len(stored.rows(day)) for day in stored.days()] == [10, 10]
    server.requests.clear()
    call_command(*arguments, stdout=StringIO())
    assert len(server.requests) == 1
    assert [len(stored.rows(day)) for day in stored.days()] == [10, 10, 10]


def test_a_malformed_address_is_told_before_anything_is_asked(bars: Path, settings: Any) -> None:
    settings.ALPACA_DATA_URL = "127.0.0.1:9000"
    assert "ALPACA_DATA_URL=127.0.0.1:9000 is not an origin" in refusal()
