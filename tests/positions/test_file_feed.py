import csv
import gzip
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from positions.market.bars import FIELDS, SessionBars
from positions.market.calendar import session_of
from positions.market.feeds import ReplayFeed, VixReading
from positions.market.feeds.file import INDEX, BadBars, FileFeed
from positions.words import Feed

COLUMNS = ("symbol", "timestamp", "open", "high", "low", "close", "volume")
OPEN = datetime(2018, 3, 12, 13, 30, tzinfo=UTC)  # the Monday after the clocks changed
Row = dict[str, Any]


def bar(symbol: str = "AAA", minute: int = 0, day_open: datetime = OPEN, **values: Any) -> Row:
    row = {"symbol": symbol, "timestamp": day_open + timedelta(minutes=minute)}
    return {**row, "open": 10.0, "high": 10.5, "low": 9.5, "close": 10.25, "volume": 100, **values}


def good_rows() -> list[Row]:
    return [bar(symbol, minute) for symbol in ("AAA", "BBB") for minute in range(4)]


def write_csv(path: Path, rows: list[Row], columns: tuple[str, ...] = COLUMNS) -> Path:
    opener: Callable[..., Any] = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for row in rows:
            values = (row[column] for column in columns)
            writer.writerow(value.isoformat() if isinstance(value, date) else value for value in values)
    return path


def write_parquet(path: Path, rows: list[Row], columns: tuple[str, ...] = COLUMNS) -> Path:
    pq.write_table(pa.table({column: [row[column] for row in rows] for column in columns}), path)
    return path


def changed(number: int, **values: Any) -> list[Row]:
    """Good rows, of which one (from 0) has other values."""
    rows = good_rows()
    rows[number] = {**rows[number], **values}
    return rows


def only_session(feed: FileFeed) -> SessionBars:
    [(bars, _)] = feed.sessions()
    return bars


def refusal(bars: Path, **files: Any) -> str:
    with pytest.raises(BadBars) as caught:
        FileFeed(bars, **files)
    message = str(caught.value)
    assert "\n" not in message
    return message


# What a good file becomes


def test_it_fulfils_the_protocol_of_a_replayed_feed(tmp_path: Path) -> None:
    feed: ReplayFeed = FileFeed(write_csv(tmp_path / "bars.csv", good_rows()))
    assert (feed.name, feed.length) == (Feed.FILE, timedelta(minutes=1))
    assert feed.vix is None


def test_bars_lie_at_their_minute_and_symbol_and_everything_else_is_nan(tmp_path: Path) -> None:
    rows = [bar("BBB", minute, open=20, high=22, low=19, close=21, volume=7) for minute in (2, 3)]
    bars = only_session(FileFeed(write_csv(tmp_path / "bars.csv", [bar(minute=0), *rows])))
    assert bars.universe.symbols == ("AAA", "BBB", INDEX)
    assert bars.values.shape == (len(FIELDS), 390, 3)
    assert bars.values.dtype == np.float64
    assert bars.values[:5, 0, 0].tolist() == [10.0, 10.5, 9.5, 10.25, 100.0]
    assert bars.values[:5, 3, 1].tolist() == [20.0, 22.0, 19.0, 21.0, 7.0]
    assert np.isfinite(bars.values[3, :, :2]).sum() == 3
    assert np.isnan(bars.values[5]).all()


@pytest.mark.parametrize("name", ["bars.csv", "bars.csv.gz", "bars.parquet"])
def test_csv_gzipped_csv_and_parquet_say_the_same(tmp_path: Path, name: str) -> None:
    rows = [{**row, "vwap": None if i == 2 else 10.125} for i, row in enumerate(good_rows())]
    write = write_parquet if name.endswith("parquet") else write_csv
    feed = FileFeed(write(tmp_path / name, rows, (*COLUMNS, "vwap")))
    reference = FileFeed(write_csv(tmp_path / "reference.csv", rows, (*COLUMNS, "vwap")))
    assert feed.universe == reference.universe
    np.testing.assert_array_equal(only_session(feed).values, only_session(reference).values)
    assert only_session(feed).values[5, :4, 0].tolist() == pytest.approx([10.125, 10.125, np.nan, 10.125], nan_ok=True)


def test_real_bars_are_the_same_from_csv(shared_data: Path, tmp_path: Path) -> None:
    from pyarrow import csv as arrow_csv

    days = pq.read_table(
        shared_data / "us_1min_2018.parquet", filters=[("timestamp", "<", datetime(2018, 2, 22, tzinfo=UTC))]
    )
    pq.write_table(days, tmp_path / "bars.parquet")
    arrow_csv.write_csv(days, tmp_path / "bars.csv")
    from_parquet, from_csv = (list(FileFeed(tmp_path / f"bars.{kind}").sessions()) for kind in ("parquet", "csv"))
    assert len(from_parquet) == len(from_csv) == 3
    for (one, _), (other, _) in zip(from_parquet, from_csv, strict=True):
        np.testing.assert_array_equal(one.values, other.values)


def test_the_order_by_timestamp_and_symbol_is_as_good_as_by_symbol_and_timestamp(tmp_path: Path) -> None:
    by_time = sorted(good_rows(), key=lambda row: (row["timestamp"], row["symbol"]))
    one = FileFeed(write_csv(tmp_path / "one.csv", by_time))
    other = FileFeed(write_csv(tmp_path / "other.csv", good_rows()))
    np.testing.assert_array_equal(only_session(one).values, only_session(other).values)


def test_times_with_an_offset_are_the_same_moments_in_utc(tmp_path: Path) -> None:
    rows = good_rows()
    for row in rows:
        row["timestamp"] = row["timestamp"].isoformat().replace("T13:", "T09:").replace("+00:00", "-04:00")
    feed = FileFeed(write_csv(tmp_path / "bars.csv", rows))
    reference = FileFeed(write_csv(tmp_path / "reference.csv", good_rows()))
    np.testing.assert_array_equal(only_session(feed).values, only_session(reference).values)


def test_float32_prices_become_the_decimals_they_stood_for(tmp_path: Path) -> None:
    prices = [172.15, 1457.68]
    rows = [bar(minute=i, open=price, high=price, low=price, close=price) for i, price in enumerate(prices)]
    table = pq.read_table(write_parquet(tmp_path / "double.parquet", rows))
    for column in ("open", "high", "low", "close"):
        table = table.set_column(table.column_names.index(column), column, table[column].cast(pa.float32()))
    assert table["close"].to_pylist() != prices
    pq.write_table(table, tmp_path / "bars.parquet")
    assert only_session(FileFeed(tmp_path / "bars.parquet")).values[3, :2, 0].tolist() == prices


def test_doubles_that_were_float32_become_the_decimals_they_stood_for(tmp_path: Path) -> None:
    price = 172.14999389648438
    rows = [bar(minute=i, open=price, high=price, low=price, close=price) for i in range(2)]
    assert only_session(FileFeed(write_csv(tmp_path / "bars.csv", rows))).values[:4, 0, 0].tolist() == [172.15] * 4


def test_an_open_outside_its_bar_by_float32_rounding_is_accepted(tmp_path: Path) -> None:
    rows = changed(1, open=1000.0003, high=1000.0, low=999.0, close=999.5)
    assert only_session(FileFeed(write_csv(tmp_path / "bars.csv", rows))).values[0, 1, 0] == 1000.0003


def test_five_minute_bars_are_recognised(tmp_path: Path) -> None:
    rows = [bar(minute=minute) for minute in (0, 5, 10, 20, 385)]
    feed = FileFeed(write_csv(tmp_path / "bars.csv", rows))
    assert feed.length == timedelta(minutes=5)
    assert np.flatnonzero(np.isfinite(only_session(feed).values[3, :, 0])).tolist() == [0, 1, 2, 4, 77]


def test_a_missing_minute_stays_missing(tmp_path: Path) -> None:
    rows = [bar(minute=minute) for minute in (0, 1, 3, 4)]
    bars = only_session(FileFeed(write_csv(tmp_path / "bars.csv", rows)))
    assert np.isnan(bars.values[:, 2]).all()


def test_blank_lines_are_no_rows(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "bars.csv", good_rows())
    path.write_text(path.read_text().replace("\nBBB", "\n\nBBB", 1) + "\n\n")
    feed = FileFeed(path)
    assert only_session(feed).values[3, :4, 1].tolist() == [10.25] * 4
    assert feed.skipped_rows == 0


# Sessions


def test_the_first_bar_opens_at_half_past_nine_in_new_york_before_and_after_the_clocks_change(tmp_path: Path) -> None:
    before = datetime(2018, 3, 9, 14, 30, tzinfo=UTC)
    rows = [bar(minute=minute, day_open=day_open) for day_open in (before, OPEN) for minute in (0, 1, 389)]
    feed = FileFeed(write_csv(tmp_path / "bars.csv", rows))
    assert feed.outside_session == 0
    for bars, _ in feed.sessions():
        assert np.flatnonzero(np.isfinite(bars.values[3, :, 0])).tolist() == [0, 1, 389]


@pytest.mark.parametrize("day", [date(2018, 7, 3), date(2018, 11, 23)])
def test_a_half_day_ends_at_one_and_what_comes_later_is_outside_the_session(tmp_path: Path, day: date) -> None:
    session = session_of(day)
    assert session is not None
    rows = [bar(minute=minute, day_open=session.open) for minute in (0, 1, 209, 210, 389)]
    feed = FileFeed(write_csv(tmp_path / "bars.csv", rows))
    bars = only_session(feed)
    assert bars.values.shape[1] == 210
    assert np.flatnonzero(np.isfinite(bars.values[3, :, 0])).tolist() == [0, 1, 209]
    assert feed.outside_session == 2


def test_bars_before_the_open_after_the_close_on_weekends_and_holidays_are_left_out_and_counted(tmp_path: Path) -> None:
    holiday, saturday = datetime(2018, 3, 30, 13, 30, tzinfo=UTC), datetime(2018, 3, 31, 13, 30, tzinfo=UTC)
    rows = [bar(minute=minute) for minute in (-1, 0, 1, 389, 390)]
    rows += [bar(day_open=holiday), bar(day_open=saturday)]
    feed = FileFeed(write_csv(tmp_path / "bars.csv", rows))
    assert feed.outside_session == 4
    assert only_session(feed).bar_count == 3


def test_without_a_first_day_every_session_is_traded(tmp_path: Path) -> None:
    rows = [bar(minute=minute, day_open=OPEN + timedelta(days=day)) for day in range(3) for minute in range(2)]
    feed = FileFeed(write_csv(tmp_path / "bars.csv", rows))
    assert [traded for _, traded in feed.sessions()] == [True, True, True]


def test_sessions_before_the_first_day_warm_up_and_those_after_the_last_are_not_replayed(tmp_path: Path) -> None:
    rows = [bar(minute=minute, day_open=OPEN + timedelta(days=day)) for day in range(4) for minute in range(2)]
    path = write_csv(tmp_path / "bars.csv", rows)
    feed = FileFeed(path, first=date(2018, 3, 13), last=date(2018, 3, 14))
    walked = [(bars.session.day.day, traded) for bars, traded in feed.sessions()]
    assert walked == [(12, False), (13, True), (14, True)]
    assert feed.session_count == 2
    assert "from 2018-03-16" in refusal(path, first=date(2018, 3, 16))
    assert "to 2018-03-11" in refusal(path, last=date(2018, 3, 11))


def test_a_symbol_that_appears_late_is_missing_until_then(tmp_path: Path) -> None:
    rows = [bar(minute=minute, day_open=OPEN + timedelta(days=day)) for day in range(2) for minute in range(2)]
    rows += [bar("NEW", minute, day_open=OPEN + timedelta(days=1)) for minute in range(2)]
    first, second = (bars for bars, _ in FileFeed(write_csv(tmp_path / "bars.csv", rows)).sessions())
    assert first.universe.symbols == ("AAA", "NEW", INDEX)
    assert np.isnan(first.values[:, :, 1]).all()
    assert second.values[3, :2, 1].tolist() == [10.25, 10.25]


def test_sessions_can_be_walked_twice_with_the_same_result(tmp_path: Path) -> None:
    feed = FileFeed(write_csv(tmp_path / "bars.csv", good_rows()))
    np.testing.assert_array_equal(only_session(feed).values, only_session(feed).values)


# Bad rows

BAD_ROWS: dict[str, tuple[dict[str, Any], str, str]] = {
    "a naive timestamp": ({"timestamp": "2018-03-12T13:32:00"}, "timestamp", "must have a time zone"),
    "a timestamp that is none": ({"timestamp": "yesterday"}, "timestamp", "must be a time"),
    "a date that does not exist": ({"timestamp": "2018-02-30T13:32:00Z"}, "timestamp", "must be a time"),
    "no timestamp": ({"timestamp": ""}, "timestamp", "must be a time (ISO 8601), is empty"),
    "a timestamp before the calendar": ({"timestamp": "1970-01-18T13:32:00Z"}, "timestamp", "exchange calendar"),
    "a timestamp off the grid": ({"timestamp": "2018-03-12T13:32:30Z"}, "timestamp", "must lie on the 1-minute grid"),
    "an earlier timestamp": ({"timestamp": "2018-03-12T13:29:00Z"}, "timestamp", "must be sorted"),
    "a duplicate": ({"timestamp": "2018-03-12T13:31:00Z"}, "timestamp", "must not be a duplicate"),
    "no symbol": ({"symbol": ""}, "symbol", "1 to 16 characters"),
    "a symbol longer than the tables hold": ({"symbol": "A" * 17}, "symbol", "1 to 16 characters"),
    "the name of the index": ({"symbol": INDEX}, "symbol", "not be ^INDEX"),
    "a price that is NaN": ({"close": "nan"}, "close", "must be a finite number, is nan"),
    "no price": ({"open": ""}, "open", "must be a finite number, is empty"),
    "a price that is text": ({"low": "n/a"}, "low", "must be a finite number, is n/a"),
    "an infinite price": ({"high": "inf"}, "high", "must be a finite number, is inf"),
    "a price of zero": ({"low": 0}, "low", "must be a price above 0"),
    "a negative price": ({"open": -1}, "open", "must be a price above 0"),
    "a price beyond the tables": ({"high": 1e9}, "high", "below 100 million"),
    "a high below the low": ({"high": 9.0, "open": 9.5, "close": 9.5}, "high", "must not be below low, is 9.0"),
    "an open above the high": ({"open": 11}, "open", "must lie between low and high"),
    "a close below the low": ({"close": 9}, "close", "must lie between low and high"),
    "a negative volume": ({"volume": -1}, "volume", "must not be negative"),
    "no volume": ({"volume": ""}, "volume", "must be a finite number"),
}


@pytest.mark.parametrize("fault", BAD_ROWS)
def test_a_csv_file_is_refused_naming_its_line_and_column_for(fault: str, tmp_path: Path) -> None:
    values, column, problem = BAD_ROWS[fault]
    path = write_csv(tmp_path / "bars.csv", changed(2, **values))
    message = refusal(path)
    assert message.startswith(f"{path}: line 4, column {column}: ")
    assert problem in message
    assert message.endswith("; correct the file or pass --skip-bad-rows")


@pytest.mark.parametrize("fault", BAD_ROWS)
def test_the_rest_is_replayed_and_the_row_counted_when_bad_rows_are_skipped_for(fault: str, tmp_path: Path) -> None:
    values, _, _ = BAD_ROWS[fault]
    feed = FileFeed(write_csv(tmp_path / "bars.csv", changed(2, **values)), skip_bad_rows=True)
    rest = [row for number, row in enumerate(good_rows()) if number != 2]
    expected = FileFeed(write_csv(tmp_path / "rest.csv", rest))
    assert feed.skipped_rows == 1
    np.testing.assert_array_equal(only_session(feed).values, only_session(expected).values)


@pytest.mark.parametrize(
    ("values", "column"),
    [({"close": float("nan")}, "close"), ({"open": None}, "open"), ({"low": -3.0}, "low"), ({"volume": -1}, "volume")],
)
def test_a_parquet_file_is_refused_naming_its_row_and_column(
    values: dict[str, Any], column: str, tmp_path: Path
) -> None:
    path = write_parquet(tmp_path / "bars.parquet", changed(2, **values))
    assert refusal(path).startswith(f"{path}: row 3, column {column}: ")
    assert FileFeed(path, skip_bad_rows=True).skipped_rows == 1


def test_the_bad_row_that_comes_first_in_the_file_is_the_one_that_is_named(tmp_path: Path) -> None:
    rows = changed(6, open=-1)
    rows[3]["volume"] = -5
    path = write_csv(tmp_path / "bars.csv", rows)
    assert "line 5, column volume" in refusal(path)
    assert FileFeed(path, skip_bad_rows=True).skipped_rows == 2


def test_a_line_with_too_few_values_is_refused_by_its_number_and_can_be_skipped(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "bars.csv", changed(6, close="oops"))
    lines = path.read_text().splitlines()
    lines[3] = "AAA,2018-03-12T13:32:00Z,10.0"
    path.write_text("\n".join([*lines[:2], "", *lines[2:]]) + "\n")
    assert "line 5, all columns: 3 values instead of 7" in refusal(path)
    path.write_text(path.read_text().replace("AAA,2018-03-12T13:32:00Z,10.0\n", "\n"))
    assert "line 9, column close" in refusal(path)


def test_skipping_counts_lines_with_too_few_values(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "bars.csv", good_rows())
    path.write_text(path.read_text() + "AAA,oops\n")
    feed = FileFeed(path, skip_bad_rows=True)
    assert feed.skipped_rows == 1
    assert only_session(feed).bar_count == 8


def test_a_row_behind_a_bad_one_of_the_same_minute_takes_its_place_when_skipping(tmp_path: Path) -> None:
    rows = good_rows()
    rows.insert(2, {**rows[2], "close": -1})
    feed = FileFeed(write_csv(tmp_path / "bars.csv", rows), skip_bad_rows=True)
    assert feed.skipped_rows == 1
    assert only_session(feed).values[3, 2, 0] == 10.25


def test_a_file_without_one_good_row_is_refused_even_when_skipping(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "bars.csv", [{**row, "volume": -1} for row in good_rows()])
    told = refusal(path, skip_bad_rows=True)
    assert "not one good row" in told
    assert "--skip-bad-rows" not in told  # it was passed


# Files that are bad as a whole


def every_way_to_spoil_a_file(folder: Path) -> dict[str, tuple[Path, str]]:
    naive = [{**row, "timestamp": row["timestamp"].replace(tzinfo=None)} for row in good_rows()]
    numbered = [{**row, "timestamp": i} for i, row in enumerate(good_rows())]
    without_close = tuple(column for column in COLUMNS if column != "close")
    hourly = [bar(minute=minute) for minute in (0, 60, 120)]
    seconds = [bar(day_open=OPEN + timedelta(seconds=10 * i)) for i in range(9)]
    empty, corrupt, torn = folder / "empty.csv", folder / "corrupt.parquet", folder / "torn.csv.gz"
    latin = folder / "latin.csv"
    latin.write_bytes(b"symbol,timestamp,open,high,low,close,volume\nM\xdcV2,oops\n")
    empty.touch()
    corrupt.write_bytes(b"PAR1 and nothing else")
    torn.write_bytes(gzip.compress(b"symbol,timestamp\n" * 1000)[:40])
    text = folder / "bars.txt"
    text.write_text("symbol")
    return {
        "no such file": (folder / "absent.csv", "no such file"),
        "a folder": (folder, "no stored session"),
        "an unknown extension": (text, "unknown extension"),
        "an empty file": (empty, "is empty"),
        "a header alone": (write_csv(folder / "header.csv", []), "no rows"),
        "an empty table": (write_parquet(folder / "header.parquet", []), "no rows"),
        "a corrupt Parquet file": (corrupt, "cannot be read"),
        "a torn gzip file": (torn, "cannot be read"),
        "a text that is not UTF-8": (latin, "cannot be read"),
        "a missing column": (write_csv(folder / "less.csv", good_rows(), without_close), "column close is missing"),
        "a missing Parquet column": (
            write_parquet(folder / "less.parquet", good_rows(), without_close),
            "column close is missing",
        ),
        "a column twice": (write_csv(folder / "twice.csv", good_rows(), (*COLUMNS, "close")), "there 2 times"),
        "naive CSV times": (write_csv(folder / "naive.csv", naive), "line 2, column timestamp"),
        "naive Parquet times": (write_parquet(folder / "naive.parquet", naive), "row 1, column timestamp"),
        "times as numbers": (write_parquet(folder / "numbers.parquet", numbered), "must hold times, not int64"),
        "hourly bars": (write_csv(folder / "hourly.csv", hourly), "only 1- and 5-minute bars"),
        "ten-second bars": (write_csv(folder / "seconds.csv", seconds), "only 1- and 5-minute bars"),
        "a single bar": (write_csv(folder / "single.csv", [bar()]), "too little to tell the length"),
        "nothing within a session": (
            write_csv(folder / "night.csv", [bar(minute=minute) for minute in (-60, -59)]),
            "no bar within a regular session",
        ),
    }


@pytest.mark.parametrize("skip", [False, True], ids=["strict", "skipping bad rows"])
@pytest.mark.parametrize(
    "fault",
    [
        "no such file",
        "a folder",
        "an unknown extension",
        "an empty file",
        "a header alone",
        "an empty table",
        "a corrupt Parquet file",
        "a torn gzip file",
        "a text that is not UTF-8",
        "a missing column",
        "a missing Parquet column",
        "a column twice",
        "naive CSV times",
        "naive Parquet times",
        "times as numbers",
        "hourly bars",
        "ten-second bars",
        "a single bar",
        "nothing within a session",
    ],
)
def test_a_whole_file_is_refused_in_one_line_for(fault: str, skip: bool, tmp_path: Path) -> None:
    path, problem = every_way_to_spoil_a_file(tmp_path)[fault]
    message = refusal(path, skip_bad_rows=skip)
    assert message.startswith(f"{path}: ")
    assert problem in message


# The index


def test_spy_is_the_index_else_qqq(tmp_path: Path) -> None:
    both = [bar(symbol, minute) for symbol in ("AAA", "QQQ", "SPY") for minute in range(2)]
    universe = FileFeed(write_csv(tmp_path / "both.csv", both)).universe
    assert universe.index == universe.symbols.index("SPY")
    assert INDEX not in universe.symbols
    universe = FileFeed(write_csv(tmp_path / "qqq.csv", both[:4])).universe
    assert universe.index == universe.symbols.index("QQQ")


def test_without_spy_and_qqq_the_index_is_the_mean_return_of_the_tradable_symbols_from_1000(tmp_path: Path) -> None:
    next_day = OPEN + timedelta(days=1)
    closes = [
        ("AAA", OPEN, 0, 100.0),
        ("AAA", OPEN, 1, 110.0),
        ("AAA", next_day, 0, 110.0),
        ("AAA", next_day, 2, 121.0),
    ]
    closes += [("BBB", OPEN, 1, 50.0), ("BBB", next_day, 0, 60.0)]
    rows = [
        bar(symbol, minute, day_open=day, open=close, high=close, low=close, close=close)
        for symbol, day, minute, close in closes
    ]
    rows = sorted([*rows, bar("ETF", 0), bar("ETF", 1, close=9.5)], key=lambda row: row["symbol"])
    listed = write_csv(
        tmp_path / "symbols.csv",
        [{"symbol": "ETF", "kind": "etf", "gics_sector": "", "sector_etf": ""}],
        ("symbol", "kind", "gics_sector", "sector_etf"),
    )
    feed = FileFeed(write_csv(tmp_path / "bars.csv", rows), symbols=listed)
    first, second = (bars.values[:, :, feed.universe.index] for bars, _ in feed.sessions())
    assert feed.universe.tradable == (True, True, False, False)
    assert first[3, :2].tolist() == pytest.approx([1000.0, 1100.0])
    assert second[3, :3].tolist() == pytest.approx([1210.0, np.nan, 1331.0], nan_ok=True)
    assert first[4, :2].tolist() == [0.0, 0.0]
    np.testing.assert_array_equal(first[:4, :2], np.repeat(first[3:4, :2], 4, axis=0))


@given(minute=st.integers(1, 29), factor=st.sampled_from([0.5, 0.9, 1.1, 2.0]))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_index_never_looks_ahead(tmp_path: Path, minute: int, factor: float) -> None:
    rows = [bar(symbol, i) for symbol in ("AAA", "BBB") for i in range(30)]
    before = only_session(FileFeed(write_csv(tmp_path / "bars.csv", rows)))
    prices = ("open", "high", "low", "close")
    later = [
        row if row["timestamp"] < OPEN + timedelta(minutes=minute) else {**row, **{p: row[p] * factor for p in prices}}
        for row in rows
    ]
    after = only_session(FileFeed(write_csv(tmp_path / "bars.csv", later)))
    np.testing.assert_array_equal(before.values[:, :minute], after.values[:, :minute])
    assert before.values[3, minute, -1] != after.values[3, minute, -1]


# The market file

MARKET = ("timestamp", "ew_index", "pct_above_vwap")


def level(minute: int, ew_index: Any = 1000.0, share: Any = 0.5) -> Row:
    return {"timestamp": OPEN + timedelta(minutes=minute), "ew_index": ew_index, "pct_above_vwap": share}


def test_the_market_file_gives_the_index_and_the_share_above_vwap(tmp_path: Path) -> None:
    market = write_csv(
        tmp_path / "market.csv", [level(0, 1000, 0.25), level(1, 1001.5, 0.75), level(3, 999, "")], MARKET
    )
    spy = [bar("SPY", minute) for minute in range(4)]
    feed = FileFeed(write_csv(tmp_path / "bars.csv", [*good_rows(), *spy]), market=market)
    assert feed.universe.symbols[-1] == INDEX
    assert feed.universe.index == 3
    assert feed.universe.tradable == (True, True, True, False)
    bars = only_session(feed)
    assert bars.values[:, 1, -1].tolist() == pytest.approx([1001.5, 1001.5, 1001.5, 1001.5, 0.0, np.nan], nan_ok=True)
    assert np.isnan(bars.values[:, 2, -1]).all()
    shares = [batch.share_above_vwap for batch in bars.batches()]
    assert shares[:5] == [0.25, 0.75, None, None, None]


def test_five_minute_bars_take_the_level_that_is_known_at_their_end(tmp_path: Path) -> None:
    market = write_csv(tmp_path / "market.csv", [level(minute, 1000 + minute) for minute in range(9)], MARKET)
    rows = [bar(minute=minute) for minute in (0, 5, 10)]
    bars = only_session(FileFeed(write_csv(tmp_path / "bars.csv", rows), market=market))
    assert bars.values[3, :3, -1].tolist() == pytest.approx([1004.0, 1008.0, np.nan], nan_ok=True)


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([level(0), level(1, 0)], "line 3, column ew_index"),
        ([level(0), level(1, "x")], "line 3, column ew_index"),
        ([level(0), level(1, share=1.5)], "line 3, column pct_above_vwap"),
        ([level(0), level(1), level(1)], "line 4, column timestamp: must not be a duplicate"),
        ([level(1), level(2), level(0)], "line 4, column timestamp: must be sorted"),
        ([level(5), level(10), level(15)], "levels are 0:05:00 apart"),
        ([level(390), level(391)], "no level within the sessions of the bars"),
    ],
)
def test_a_bad_market_file_is_refused_in_one_line(rows: list[Row], problem: str, tmp_path: Path) -> None:
    market = write_csv(tmp_path / "market.csv", rows, MARKET)
    message = refusal(write_csv(tmp_path / "bars.csv", good_rows()), market=market)
    assert message.startswith(f"{market}: ")
    assert problem in message


# VIX

VIX = ("symbol", "date", "open", "high", "low", "close")


def vix_close(day: int, close: Any) -> Row:
    return {"symbol": "VIX", "date": date(2018, 3, day), "open": 1, "high": 1, "low": 1, "close": close}


@pytest.mark.parametrize("name", ["vix.csv", "vix.parquet"])
def test_the_vix_of_a_day_is_the_last_close_strictly_before_it(name: str, tmp_path: Path) -> None:
    write = write_parquet if name.endswith("parquet") else write_csv
    vix = write(tmp_path / name, [vix_close(8, 16.5), vix_close(9, 14.25), vix_close(12, 15.75)], VIX)
    feed = FileFeed(write_csv(tmp_path / "bars.csv", good_rows()), vix=vix)
    assert feed.vix.before(date(2018, 3, 8)) is None
    assert feed.vix.before(date(2018, 3, 9)) == VixReading(16.5, "cboe")
    assert feed.vix.before(date(2018, 3, 12)) == VixReading(14.25, "cboe")
    assert feed.vix.before(date(2018, 3, 13)) == VixReading(15.75, "cboe")
    assert feed.vix.before(date(2018, 3, 19)) == VixReading(15.75, "cboe")
    assert feed.vix.before(date(2018, 3, 20)) is None, "a file that has ended says nothing of later sessions"


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([vix_close(8, 16), vix_close(9, 0)], "line 3, column close"),
        ([vix_close(8, 16), {**vix_close(9, 15), "date": "9 March"}], "line 3, column date"),
        ([vix_close(8, 16), vix_close(8, 15)], "line 3, column date: must not be a duplicate"),
        ([vix_close(9, 16), vix_close(8, 15)], "line 3, column date: must be sorted"),
    ],
)
def test_a_bad_vix_file_is_refused_in_one_line(rows: list[Row], problem: str, tmp_path: Path) -> None:
    vix = write_csv(tmp_path / "vix.csv", rows, VIX)
    bars = write_csv(tmp_path / "bars.csv", good_rows())
    assert problem in refusal(bars, vix=vix)
    assert FileFeed(bars, vix=vix, skip_bad_rows=True).skipped_rows == 1


# Symbols

LISTING = ("symbol", "kind", "gics_sector", "sector_etf")


def listed(symbol: str, kind: str = "stock", sector: str = "Energy", etf: str = "XLE") -> Row:
    return dict(zip(LISTING, (symbol, kind, sector, etf), strict=True))


def test_sectors_come_from_the_symbols_file_and_only_stocks_are_tradable(tmp_path: Path) -> None:
    rows = [bar(symbol, minute) for symbol in ("AAA", "SPY", "XLE", "ZZZ") for minute in range(2)]
    listing = [listed("AAA"), listed("SPY", "etf", "", ""), listed("XLE", "etf", "Energy", ""), listed("NOTHERE")]
    symbols = write_csv(tmp_path / "symbols.csv", listing, LISTING)
    universe = FileFeed(write_csv(tmp_path / "bars.csv", rows), symbols=symbols).universe
    assert universe.symbols == ("AAA", "SPY", "XLE", "ZZZ")
    assert universe.sectors == ("Energy", "", "Energy", "")
    assert universe.sector_etfs == ("XLE", "", "", "")
    assert universe.tradable == (True, False, False, True)


def test_without_a_symbols_file_no_sector_is_known_and_every_symbol_is_tradable(tmp_path: Path) -> None:
    rows = [bar(symbol, minute) for symbol in ("AAA", "SPY") for minute in range(2)]
    universe = FileFeed(write_csv(tmp_path / "bars.csv", rows)).universe
    assert universe.sectors == ("", "")
    assert universe.tradable == (True, True)


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([listed("AAA"), listed("AAA")], "line 3, column symbol: must not be a duplicate"),
        ([listed("AAA"), listed("")], "line 3, column symbol"),
        ([listed("AAA"), listed("BBB", kind="")], "line 3, column kind"),
        ([listed("AAA"), listed("BBB", etf="X" * 17)], "line 3, column sector_etf"),
    ],
)
def test_a_bad_symbols_file_is_refused_in_one_line(rows: list[Row], problem: str, tmp_path: Path) -> None:
    symbols = write_csv(tmp_path / "symbols.csv", rows, LISTING)
    bars = write_csv(tmp_path / "bars.csv", good_rows())
    assert problem in refusal(bars, symbols=symbols)
    assert FileFeed(bars, symbols=symbols, skip_bad_rows=True).skipped_rows == 1


# What names the inputs


def test_the_hash_of_the_inputs_follows_their_contents_and_nothing_else(tmp_path: Path) -> None:
    bars = write_csv(tmp_path / "bars.csv", good_rows())
    copy = write_csv(tmp_path / "copy.csv", good_rows())
    other = write_csv(tmp_path / "other.csv", changed(0, volume=101))
    vix = write_csv(tmp_path / "vix.csv", [vix_close(8, 16)], VIX)
    name = FileFeed(bars).inputs_sha256
    assert len(name) == 64
    assert FileFeed(copy).inputs_sha256 == name
    assert FileFeed(other).inputs_sha256 != name
    assert FileFeed(bars, vix=vix).inputs_sha256 != name


# Real bars


def test_the_real_minutes_of_2018_are_all_there(shared_data: Path) -> None:
    feed = FileFeed(
        shared_data / "us_1min_2018.parquet",
        market=shared_data / "us_1min_2018_market.parquet",
        vix=shared_data / "vix_daily.parquet",
        symbols=shared_data / "symbols.csv",
    )
    walked = [bars for bars, traded in feed.sessions() if traded]
    stocks = sum(int(np.isfinite(bars.values[3, :, :-1]).sum()) for bars in walked)
    assert (len(feed.universe) - 1, len(walked), stocks) == (61, 29, 689_352)
    assert (feed.skipped_rows, feed.outside_session) == (0, 0)
    assert sum(feed.universe.tradable) == 61
    assert "" not in feed.universe.sectors[:-1]
    assert all(np.isfinite(bars.values[3, :, -1]).all() for bars in walked)
    first_apple = walked[0].values[:5, 0, 0].tolist()
    assert first_apple == [172.2, 172.37, 171.77, 172.0, 210416.0]
    assert feed.vix.before(date(2018, 3, 12)) == VixReading(14.64, "cboe")


@pytest.mark.parametrize(
    ("name", "minutes", "rows"),
    [("us_5min_2025", 5, 770_256), ("us_5min_vwap_2023_2025", 5, 369_520), ("spy_1min_2024_2025", 1, 109_014)],
)
def test_other_real_files_are_read_without_a_complaint(name: str, minutes: int, rows: int, shared_data: Path) -> None:
    feed = FileFeed(shared_data / f"{name}.parquet")
    assert feed.length == timedelta(minutes=minutes)
    assert feed.universe.index == feed.universe.symbols.index("SPY")
    assert sum(bars.bar_count for bars, _ in feed.sessions()) + feed.outside_session == rows


# Any valid frame

cents = st.integers(100, 99_999).map(lambda price: price / 100)


@st.composite
def frames(draw: st.DrawFn) -> list[Row]:
    rows = []
    for symbol in draw(st.sets(st.sampled_from(["A", "BRK.B", "QQQ", "TÜV", "ZZZZ"]), min_size=1)):
        for day in draw(st.sets(st.integers(0, 4), min_size=1)):
            for minute in sorted({0, 1, *draw(st.sets(st.integers(2, 389), max_size=4))}):
                low, open_, close, high = sorted(draw(st.tuples(cents, cents, cents, cents)))
                if draw(st.booleans()):
                    open_, close = close, open_
                volume = draw(st.integers(0, 10**9))
                values = {"open": open_, "high": high, "low": low, "close": close, "volume": volume}
                rows.append(bar(symbol, minute, day_open=OPEN + timedelta(days=day), **values))
    return draw(
        st.sampled_from(
            [
                sorted(rows, key=lambda row: (row["symbol"], row["timestamp"])),
                sorted(rows, key=lambda row: (row["timestamp"], row["symbol"])),
            ]
        )
    )


@given(rows=frames(), as_csv=st.booleans())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_valid_frame_comes_back_bar_by_bar(tmp_path: Path, rows: list[Row], as_csv: bool) -> None:
    path = write_csv(tmp_path / "bars.csv", rows) if as_csv else write_parquet(tmp_path / "bars.parquet", rows)
    feed = FileFeed(path)
    found = set()
    for bars, _ in feed.sessions():
        for batch in bars.batches():
            for i in np.flatnonzero(np.isfinite(batch.close)):
                if (symbol := feed.universe.symbols[i]) != INDEX:
                    values = (batch.open[i], batch.high[i], batch.low[i], batch.close[i], batch.volume[i])
                    found.add((symbol, batch.start, *values))
    assert found == {tuple(row[column] for column in COLUMNS) for row in rows}


@given(
    name=st.sampled_from(["bars.csv", "bars.csv.gz", "bars.parquet"]),
    place=st.floats(0, 1, exclude_max=True),
    cut=st.integers(0, 8),
    put=st.one_of(st.binary(max_size=3), st.sampled_from([b",", b"\n", b'"', b"-", b"0", b"e9", b"nan", b"\x00"])),
    skip=st.booleans(),
)
@example(name="bars.parquet", place=0.361328125, cut=1, put=b"\n", skip=False)  # a line break in a column's name
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_happens_to_a_file_it_is_read_or_refused_in_one_line(
    tmp_path: Path, name: str, place: float, cut: int, put: bytes, skip: bool
) -> None:
    path = (write_parquet if name.endswith("parquet") else write_csv)(tmp_path / name, good_rows())
    whole = path.read_bytes()
    at = int(place * len(whole))
    path.write_bytes(whole[:at] + put + whole[at + cut :])
    refused, sessions = "", 0
    try:
        sessions = sum(1 for _ in FileFeed(path, skip_bad_rows=skip).sessions())
    except BadBars as error:
        refused = str(error)
    assert sessions or refused.startswith(str(path))
    assert "\n" not in refused
