from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from positions.market.bar_files import BarRows, StoredBars, joined, microseconds, tidy
from positions.market.bars import FIELDS, BarBatch, Universe
from positions.market.calendar import session_of
from positions.market.feeds.file import INDEX, BadBars, FileFeed
from positions.market.quarantine import PriceMemory, quarantine
from positions.words import Feed

MINUTE = timedelta(minutes=1)
SESSION = session_of(date(2025, 5, 12))
assert SESSION is not None
UNIVERSE = Universe(("KO", "F"), ("", ""), ("", ""), (True, True), None)

Seen = tuple[str, int, float, int]  # symbol, minute of the session, close, second at which it was seen


def rows(*seen: Seen, day: date = SESSION.day) -> BarRows:
    session = session_of(day)
    assert session is not None
    closes = np.array([close for _, _, close, _ in seen])
    return BarRows.of(
        [symbol for symbol, _, _, _ in seen],
        np.array([microseconds(session.open + minute * MINUTE) for _, minute, _, _ in seen], dtype=np.int64),
        np.stack([closes, closes + 1, closes - 1, closes, closes * 10, closes + 0.1]),
        np.full(len(seen), 3.0),
        np.array([microseconds(session.open + timedelta(seconds=second)) for _, _, _, second in seen], dtype=np.int64),
    )


def content(found: BarRows) -> list[tuple[str, int, float, int]]:
    """Symbol, minute, close and revision of each row."""
    minutes = (found.starts - microseconds(SESSION.open)) // 60_000_000
    symbols = [found.symbols[code] for code in found.codes]
    return list(zip(symbols, minutes.tolist(), found.values[3].tolist(), found.revisions().tolist(), strict=True))


@pytest.fixture
def stored(tmp_path: Path) -> StoredBars:
    return StoredBars(tmp_path / "bars", Feed.IEX)


# What is stored


def test_a_file_has_the_columns_that_are_promised(stored: StoredBars) -> None:
    stored.merge(SESSION, rows(("KO", 0, 70.0, 61), ("KO", 0, 71.0, 95)))
    assert stored.path(SESSION.day) == stored.folder / "2025-05-12.parquet"
    table = pq.read_table(stored.path(SESSION.day))
    assert table.column_names == ["symbol", "start", *FIELDS, "trade_count", "seen_at", "revision"]
    assert table.slice(1).to_pylist() == [
        {
            "symbol": "KO",
            "start": datetime(2025, 5, 12, 13, 30, tzinfo=UTC),
            **dict(zip(FIELDS, (71.0, 72.0, 70.0, 71.0, 710.0, 71.1), strict=True)),
            "trade_count": 3,
            "seen_at": datetime(2025, 5, 12, 13, 31, 35, tzinfo=UTC),
            "revision": 1,
        }
    ]


def test_every_double_comes_back_as_it_was(stored: StoredBars) -> None:
    rng = np.random.default_rng(1)
    values = rng.random((len(FIELDS), 300)) * 10 ** rng.integers(-5, 9, 300).astype(float)
    values[5, ::7] = np.nan
    starts = microseconds(SESSION.open) + np.arange(300) * 60_000_000
    given_rows = BarRows.of(["KO"] * 300, starts, values, np.full(300, np.nan), starts + 61_000_000)
    stored.merge(SESSION, given_rows)
    found = stored.rows(SESSION.day)
    assert found.values.tobytes() == values.tobytes()
    np.testing.assert_array_equal(found.seen_at, given_rows.seen_at)
    assert np.isnan(found.trade_count).all()


def test_the_first_value_and_the_corrections_stand_beside_each_other(stored: StoredBars) -> None:
    stored.merge(SESSION, rows(("KO", 0, 70.0, 61), ("F", 0, 10.0, 61)))
    assert stored.merge(SESSION, rows(("KO", 0, 70.5, 95))) == 1
    assert content(stored.rows(SESSION.day)) == [("F", 0, 10.0, 0), ("KO", 0, 70.0, 0), ("KO", 0, 70.5, 1)]
    first, revised = (stored.session_bars(SESSION, UNIVERSE, revised=which) for which in (False, True))
    assert first.values.shape == (6, 390, 2)
    assert first.values[3, 0].tolist() == [70.0, 10.0]
    assert revised.values[3, 0].tolist() == [70.5, 10.0]
    assert np.isfinite(first.values[3]).sum() == 2


def test_the_same_bar_again_is_one_bar_however_late(stored: StoredBars) -> None:
    stored.merge(SESSION, rows(("KO", 0, 70.0, 61)))
    assert stored.merge(SESSION, rows(("KO", 0, 70.0, 61), ("KO", 0, 70.0, 9999))) == 0
    assert len(stored.rows(SESSION.day)) == 1


def test_a_correction_back_to_the_first_value_is_the_last_word(stored: StoredBars) -> None:
    stored.merge(SESSION, rows(("KO", 0, 70.0, 61), ("KO", 0, 71.0, 95), ("KO", 0, 70.0, 99)))
    assert stored.rows(SESSION.day).revised().values[3].tolist() == [70.0]
    assert len(stored.rows(SESSION.day)) == 3


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["KO", "F"]), st.integers(0, 2), st.sampled_from([5.0, 6.0, 7.0]), st.integers(61, 64)
        ),
        max_size=12,
    ),
    st.randoms(use_true_random=False),
)
def test_the_order_of_arrival_changes_nothing_and_merging_again_changes_nothing(seen: list[Seen], random) -> None:
    everything = tidy(rows(*seen)) if seen else BarRows.empty()
    shuffled = list(seen)
    random.shuffle(shuffled)
    for other in (
        tidy(rows(*shuffled)) if seen else BarRows.empty(),
        tidy(joined([everything, everything])),
        tidy(joined([everything, rows(*seen)])) if seen else tidy(everything),
    ):
        assert content(other) == content(everything)
        np.testing.assert_array_equal(other.seen_at, everything.seen_at)


def test_other_symbols_and_sessions_are_left_alone(stored: StoredBars) -> None:
    other = date(2025, 5, 13)
    stored.merge(SESSION, rows(("KO", 0, 70.0, 61)))
    stored.merge(session_of(other), rows(("F", 5, 10.0, 400), day=other))
    stored.merge(SESSION, rows(("F", 389, 11.0, 23401)))
    assert stored.days() == [SESSION.day, other]
    assert content(stored.rows(SESSION.day)) == [("F", 389, 11.0, 0), ("KO", 0, 70.0, 0)]


def test_a_feed_and_a_length_have_folders_of_their_own(tmp_path: Path) -> None:
    folders = {
        StoredBars(tmp_path, feed, minutes * MINUTE).folder for feed in (Feed.IEX, Feed.SIP) for minutes in (1, 5)
    }
    assert {folder.name for folder in folders} == {"iex", "sip", "iex-5min", "sip-5min"}


@pytest.mark.parametrize("minute", [-1, 390, 0.5])
def test_a_bar_off_the_sessions_grid_is_refused(stored: StoredBars, minute: float) -> None:
    with pytest.raises(ValueError, match="outside the session of 2025-05-12 or off its grid"):
        stored.merge(SESSION, rows(("KO", minute, 70.0, 61)))
    assert stored.days() == []


def test_what_was_fetched_whole_is_remembered_with_or_without_bars(stored: StoredBars) -> None:
    assert stored.fetched(SESSION.day) == frozenset()
    stored.merge(SESSION, rows(("KO", 0, 70.0, 61)), fetched=["KO"])
    stored.merge(SESSION, BarRows.empty(), fetched=["NONE"])
    assert stored.fetched(SESSION.day) == {"KO", "NONE"}
    assert len(stored.rows(SESSION.day)) == 1


def test_a_day_without_a_file_has_no_bars(stored: StoredBars) -> None:
    assert len(stored.rows(SESSION.day)) == 0
    assert np.isnan(stored.session_bars(SESSION, UNIVERSE).values).all()
    assert stored.days() == []


def test_history_has_the_last_sessions_before_the_day_and_not_the_day(stored: StoredBars) -> None:
    days = [date(2025, 5, day) for day in (7, 8, 9, 12)]
    for number, day in enumerate(days):
        stored.merge(session_of(day), rows(("KO", 0, 70.0 + number, 61), day=day))
    history = stored.history(date(2025, 5, 12), UNIVERSE, sessions=2)
    assert history.recent(0, 800)[3].tolist() == [71.0, 72.0]
    assert history.recent(1, 800).shape == (6, 0)


def test_a_damaged_file_is_told_in_one_line_with_what_to_do(stored: StoredBars) -> None:
    stored.merge(SESSION, rows(("KO", 0, 70.0, 61)))
    path = stored.path(SESSION.day)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(
        BadBars, match=r"2025-05-12.parquet: not a session of stored bars; remove it and fetch"
    ) as caught:
        stored.rows(SESSION.day)
    assert "\n" not in str(caught.value)


def test_two_writers_at_once_lose_nothing(stored: StoredBars) -> None:
    def write(symbol: str) -> None:
        for minute in range(15):
            stored.merge(SESSION, rows((symbol, minute, 70.0, 61 + minute)))

    with ThreadPoolExecutor(2) as writers:
        list(writers.map(write, ("KO", "F")))
    assert len(stored.rows(SESSION.day)) == 30
    assert [path.name for path in stored.folder.iterdir() if not path.name.startswith(".")] == ["2025-05-12.parquet"]


# Replaying what is stored


def test_a_folder_of_sessions_is_replayed_as_it_was_first_seen(stored: StoredBars) -> None:
    stored.merge(SESSION, rows(("KO", 0, 70.0000012, 61), ("KO", 0, 99.0, 95), ("F", 389, 10.0, 23401)))
    other = date(2025, 5, 13)
    stored.merge(session_of(other), rows(("KO", 1, 71.0, 121), day=other))
    feed = FileFeed(stored.folder)
    assert (feed.name, feed.length, feed.universe.symbols) == (Feed.IEX, MINUTE, ("F", "KO", INDEX))
    one, two = (bars for bars, _ in feed.sessions())
    assert (one.session.day, two.session.day) == (SESSION.day, other)
    assert one.values[3, 0, 1] == 70.0000012
    assert (one.values[3, 389, 0], two.values[3, 1, 1]) == (10.0, 71.0)
    assert np.isfinite(one.values[3, :, :2]).sum() == 2


def test_real_bars_are_the_same_from_stored_sessions(shared_data: Path, stored: StoredBars) -> None:
    file = FileFeed(shared_data / "us_1min_2018.parquet", last=date(2018, 2, 21))
    sessions = [bars for bars, _ in file.sessions()]
    for bars in sessions:
        minute, column = np.nonzero(np.isfinite(bars.values[3, :, :-1]))
        starts = microseconds(bars.session.open) + minute * 60_000_000
        names = [bars.universe.symbols[each] for each in column]
        values, unknown = bars.values[:, minute, column], np.full(len(names), np.nan)
        stored.merge(bars.session, BarRows.of(names, starts, values, unknown, starts + 61_000_000))
    replayed = FileFeed(stored.folder)
    assert replayed.universe == file.universe
    for (bars, _), reference in zip(replayed.sessions(), sessions, strict=True):
        np.testing.assert_array_equal(bars.values, reference.values)


def test_a_replay_of_a_folder_is_named_by_what_was_first_seen(stored: StoredBars) -> None:
    stored.merge(SESSION, rows(("KO", 0, 70.0, 61)))
    name = FileFeed(stored.folder).inputs_sha256
    stored.merge(SESSION, rows(("KO", 0, 70.5, 95)), fetched=["KO"])
    assert FileFeed(stored.folder).inputs_sha256 == name
    stored.merge(SESSION, rows(("KO", 1, 70.5, 121)))
    assert FileFeed(stored.folder).inputs_sha256 != name


def test_the_dates_of_a_replay_choose_sessions_of_the_folder(stored: StoredBars) -> None:
    for day in (date(2025, 5, 8), date(2025, 5, 9), SESSION.day):
        stored.merge(session_of(day), rows(("KO", 0, 70.0, 61), day=day))
    feed = FileFeed(stored.folder, first=date(2025, 5, 9), last=date(2025, 5, 9))
    assert [(bars.session.day.day, trading) for bars, trading in feed.sessions()] == [(8, False), (9, True)]
    with pytest.raises(BadBars, match=r"no stored session .* with bars from 2026-01-01 to the end; see fetch_bars"):
        FileFeed(stored.folder, first=date(2026, 1, 1))


def test_an_empty_folder_and_a_mixed_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadBars, match="no stored session"):
        FileFeed(tmp_path)
    for feed, day in ((Feed.IEX, date(2025, 5, 9)), (Feed.SIP, SESSION.day)):
        stored = StoredBars(tmp_path, feed)
        stored.merge(session_of(day), rows(("KO", 0, 70.0, 61), day=day))
        stored.path(day).rename(tmp_path / f"{day}.parquet")
    with pytest.raises(BadBars, match="sessions of several feeds"):
        FileFeed(tmp_path)


# Bad prints


def batch(*closes: float, **changes: object) -> BarBatch:
    close = np.array(closes, dtype=float)
    values = {"open": close, "high": close + 0.5, "low": close - 0.5, "close": close, "volume": close * 0 + 100}
    values = {name: np.where(np.isnan(close), np.nan, array) for name, array in values.items()}
    for name, value in changes.items():
        values[name] = np.array([value] * len(close), dtype=float)
    return BarBatch(SESSION.open, MINUTE, **values, vwap=np.full(len(close), np.nan))


@pytest.mark.parametrize(
    "changes",
    [
        {"close": np.nan},
        {"open": np.inf},
        {"low": 0.0},
        {"low": -1.0},
        {"high": 68.0},
        {"volume": -1.0},
        {"volume": np.nan},
        {"open": 75.0},
    ],
)
def test_a_bar_that_cannot_be_true_is_refused_and_becomes_no_bar(changes: dict[str, float]) -> None:
    clean, memory, refused = quarantine(batch(70.0, **changes), PriceMemory.empty(1))
    assert refused.tolist() == [True]
    assert np.isnan([clean.open[0], clean.close[0], clean.volume[0]]).all()
    assert np.isnan(memory.last_good[0])


def test_a_symbol_without_a_trade_is_not_refused_and_a_good_bar_is_untouched() -> None:
    given_batch = batch(70.0, np.nan)
    clean, memory, refused = quarantine(given_batch, PriceMemory.empty(2))
    assert refused.tolist() == [False, False]
    assert clean is given_batch
    assert memory.last_good[0] == 70.0


def judged(*closes: float) -> list[bool]:
    """Which of one symbol's bars are believed."""
    memory, believed = PriceMemory.empty(1), []
    for close in closes:
        clean, memory, _ = quarantine(batch(close), memory)
        believed.append(bool(np.isfinite(clean.close[0])))
    return believed


def test_one_print_far_away_is_refused_and_the_next_is_judged_by_the_last_good_one() -> None:
    assert judged(70.0, 700.0, 70.5, 71.0) == [True, False, True, True]
    assert judged(70.0, 7.0, 700.0, 70.5) == [True, False, False, True]


def test_a_real_jump_is_believed_at_its_second_bar() -> None:
    assert judged(70.0, 140.0, 141.0, 142.0) == [True, False, True, True]
    assert judged(70.0, 30.0, np.nan, 31.0) == [True, False, False, True]


def test_a_spike_in_the_high_alone_is_refused_too() -> None:
    _, memory, _ = quarantine(batch(70.0), PriceMemory.empty(1))
    _, memory, refused = quarantine(batch(70.0, high=7000.0), memory)
    assert refused.tolist() == [True]
    assert memory.last_good.tolist() == [70.0]


def test_each_symbol_is_judged_by_itself() -> None:
    _, memory, _ = quarantine(batch(70.0, 10.0, 5.0), PriceMemory.empty(3))
    clean, _, refused = quarantine(batch(71.0, 100.0, np.nan), memory)
    assert refused.tolist() == [False, True, False]
    assert clean.close[0] == 71.0
