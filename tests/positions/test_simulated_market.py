import time
from datetime import date, timedelta
from itertools import islice

import numpy as np
import pytest

from positions.market.bars import SessionBars
from positions.market.calendar import sessions_between
from positions.market.feeds import ReplayFeed, VixReading
from positions.market.feeds.simulated import SimulatedMarket
from positions.words import Feed

SEED = 11


@pytest.fixture(scope="module")
def market() -> SimulatedMarket:
    return SimulatedMarket(30, SEED)


@pytest.fixture(scope="module")
def month(market: SimulatedMarket) -> list[SessionBars]:
    return [bars for bars, _ in market.sessions()]


@pytest.fixture(scope="module")
def full_days(month: list[SessionBars]) -> np.ndarray:
    """All sessions of full length: (6, sessions, 390, symbols)."""
    return np.stack([bars.values for bars in month if not bars.session.is_early_close], axis=1)


def silences(column: np.ndarray) -> list[tuple[int, int]]:
    """Runs of missing bars as (first, length)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], np.isnan(column), [False]])))
    return [(int(a), int(b - a)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def bytes_of(market: SimulatedMarket, count: int | None = None) -> list[bytes]:
    return [bars.values.tobytes() for bars, _ in islice(market.sessions(), count)]


def test_the_same_arguments_give_the_same_bytes() -> None:
    assert bytes_of(SimulatedMarket(4, SEED)) == bytes_of(SimulatedMarket(4, SEED))


def test_a_feed_can_be_walked_twice_with_the_same_result() -> None:
    market = SimulatedMarket(2, SEED)
    assert bytes_of(market) == bytes_of(market)


def test_another_seed_gives_another_market() -> None:
    assert bytes_of(SimulatedMarket(1, 1), 1) != bytes_of(SimulatedMarket(1, 2), 1)


def test_sessions_are_made_one_at_a_time_when_they_are_asked_for() -> None:
    sessions = SimulatedMarket(2_000, SEED).sessions()
    began = time.process_time()
    first, second = next(sessions), next(sessions)
    assert time.process_time() - began < 0.5
    assert first[0].session.day < second[0].session.day
    assert first[0].values is not second[0].values


def test_it_fulfils_the_protocol_of_a_replayed_feed(market: SimulatedMarket) -> None:
    feed: ReplayFeed = market
    assert (feed.name, feed.length) == (Feed.SIMULATED, timedelta(minutes=1))


def test_the_universe_has_forty_stocks_in_eight_sectors_whose_etfs_and_index_are_not_tradable(
    market: SimulatedMarket,
) -> None:
    universe = market.universe
    stocks = [i for i in range(len(universe)) if universe.tradable[i]]
    assert len(stocks) >= 40
    assert len({universe.sectors[i] for i in stocks}) >= 8
    assert len(set(universe.symbols)) == len(universe)
    for i in stocks:
        etf = universe.symbols.index(universe.sector_etfs[i])
        assert not universe.tradable[etf]
        assert universe.sectors[etf] == universe.sectors[i]
    assert universe.index is not None
    assert not universe.tradable[universe.index]


def test_the_sessions_are_real_ones_with_early_closes_and_end_on_the_default_day(month: list[SessionBars]) -> None:
    expected = sessions_between(date(2024, 11, 13), date(2024, 12, 31))
    assert [bars.session for bars in month] == expected
    assert {bars.session.day for bars in month if bars.values.shape[1] == 210} == {
        date(2024, 11, 29),
        date(2024, 12, 24),
    }
    assert {bars.values.shape[1] for bars in month} == {210, 390}


def test_another_last_day_moves_the_window() -> None:
    last = [bars.session.day for bars, _ in SimulatedMarket(2, SEED, last_day=date(2025, 7, 6)).sessions()][-2:]
    assert last == [date(2025, 7, 2), date(2025, 7, 3)]


def test_warm_up_sessions_come_first_and_hold_enough_bars_for_the_indicators() -> None:
    walked = list(SimulatedMarket(1, SEED).sessions())
    assert [traded for _, traded in walked] == [False, False, False, True]
    assert sum(bars.values.shape[1] for bars, traded in walked if not traded) >= 800


@pytest.mark.parametrize(("sessions", "warm_up"), [(0, 3), (-1, 3), (5, -1)])
def test_numbers_of_sessions_that_make_no_sense_are_refused(sessions: int, warm_up: int) -> None:
    with pytest.raises(ValueError, match="at least 1 session"):
        SimulatedMarket(sessions, SEED, warm_up=warm_up)


def test_every_bar_keeps_its_prices_in_order_and_its_volume_whole(month: list[SessionBars]) -> None:
    for bars in month:
        known = np.isfinite(bars.values[3])
        assert (np.isfinite(bars.values) == known).all(), "a bar is there with all its quantities or not at all"
        open_, high, low, close, volume, vwap = bars.values[:, known]
        assert (low > 0).all()
        assert (low <= np.minimum(open_, close)).all()
        assert (high >= np.maximum(open_, close)).all()
        assert ((low <= vwap) & (vwap <= high)).all()
        assert (volume >= 1).all()
        assert (volume == np.round(volume)).all()
        assert (bars.values[:4, known] == np.round(bars.values[:4, known], 2)).all()


def test_volume_and_volatility_are_u_shaped_over_the_session(full_days: np.ndarray) -> None:
    volume = np.nanmean(full_days[4], axis=(0, 2))
    move = np.nanmean(np.abs(full_days[3] / full_days[0] - 1), axis=(0, 2))
    noon, first, last = slice(165, 225), slice(0, 15), slice(375, 390)
    for shape in (volume, move):
        assert shape[first].mean() > 1.5 * shape[noon].mean()
        assert shape[last].mean() > 1.15 * shape[noon].mean()


def test_large_moves_come_with_volume(market: SimulatedMarket, full_days: np.ndarray) -> None:
    index = full_days[:, :, 60:330, market.universe.index]
    move, volume = np.abs(index[3] / index[0] - 1), np.log(index[4])
    # From minute to minute, so that neither the hour nor the day explains it.
    assert np.corrcoef(np.diff(move).ravel(), np.diff(volume).ravel())[0, 1] > 0.15


def test_within_a_day_large_moves_follow_large_moves(market: SimulatedMarket, full_days: np.ndarray) -> None:
    index = full_days[:, :, 60:330, market.universe.index]  # away from open and close, whose shape would do it too
    move = np.abs(index[3] / index[0] - 1)
    move /= move.mean(axis=1, keepdims=True)
    assert np.corrcoef(move[:, 1:].ravel(), move[:, :-1].ravel())[0, 1] > 0.04


def test_the_sign_of_a_move_says_nothing_about_the_next(market: SimulatedMarket, full_days: np.ndarray) -> None:
    stocks = full_days[3][:, :, np.array(market.universe.tradable)]
    signs = np.sign(np.diff(stocks, axis=1))
    before, after = signs[:, :-1].ravel(), signs[:, 1:].ravel()
    known = np.isfinite(before) & np.isfinite(after)
    assert abs(np.corrcoef(before[known], after[known])[0, 1]) < 0.02


def test_stocks_move_with_the_market_and_more_with_their_sector(market: SimulatedMarket, full_days: np.ndarray) -> None:
    returns = np.diff(np.log(full_days[3]), axis=1).reshape(-1, len(market.universe))
    returns = returns[np.isfinite(returns).all(axis=1)]
    correlation = np.corrcoef(returns.T)
    stocks = np.flatnonzero(market.universe.tradable)
    sectors = np.array(market.universe.sectors)
    together = sectors[stocks][:, None] == sectors[stocks][None, :]
    off_diagonal = ~np.eye(len(stocks), dtype=bool)
    among = correlation[np.ix_(stocks, stocks)]
    assert among[~together].mean() > 0.1
    assert among[together & off_diagonal].mean() > among[~together].mean() + 0.05


def test_sessions_open_with_gaps_from_the_close_before(market: SimulatedMarket, full_days: np.ndarray) -> None:
    stocks = full_days[:, :, :, np.array(market.universe.tradable)]
    gap = stocks[0][1:, 0] / stocks[3][:-1, -1] - 1
    assert 0.003 < np.nanmedian(np.abs(gap)) < 0.02
    before = stocks[3][:-1, -1] / stocks[0][:-1, 0] - 1
    known = np.isfinite(gap).all(axis=0) & np.isfinite(before).all(axis=0)
    own_gap, own_before = (x[:, known] - x[:, known].mean(axis=1, keepdims=True) for x in (gap, before))
    assert abs(np.corrcoef(own_gap.ravel(), own_before.ravel())[0, 1]) < 0.15, "a gap undoes the day before it"


def test_halted_stocks_are_silent_for_5_to_15_minutes_and_reopen_with_a_jump(
    market: SimulatedMarket, full_days: np.ndarray
) -> None:
    # Among liquid stocks, which otherwise trade every minute, a long silence is a halt.
    liquid = np.array(market.universe.tradable) & (np.nanmedian(full_days[4], axis=(0, 1)) > 2_000)
    halts = [
        (run, day[0, run[0] + run[1]] / day[3, run[0] - 1] - 1)
        for day in np.moveaxis(full_days[:, :, :, liquid], (1, 3), (0, 1)).reshape(-1, 6, 390)
        for run in silences(day[3])
        if run[1] > 2
    ]
    assert len(halts) >= 3
    assert all(5 <= length <= 15 for (_, length), _ in halts)
    assert np.median([abs(jump) for _, jump in halts]) > 0.008


def test_only_thin_stocks_miss_minutes_often(market: SimulatedMarket, full_days: np.ndarray) -> None:
    missing = np.isnan(full_days[3]).mean(axis=(0, 1))
    shares = np.nanmean(full_days[4], axis=(0, 1))
    assert missing[shares < 400].max() > 0.02
    assert missing[shares > 2_000].max() < 0.01
    assert missing[market.universe.index] == 0


def test_calm_and_stormy_days_differ_and_vix_goes_with_them(market: SimulatedMarket, month: list[SessionBars]) -> None:
    index = market.universe.index
    swing = np.array([np.std(np.diff(np.log(bars.values[3, :, index]))) for bars in month])
    after = [market.vix.before(bars.session.day + timedelta(days=1)) for bars in month]
    vix = np.array([reading.level for reading in after if reading is not None])
    assert swing.max() > 2 * swing.min()
    assert np.corrcoef(swing, vix)[0, 1] > 0.5
    assert (vix > 5).all()
    assert (vix < 100).all()


def test_the_vix_of_a_session_is_the_close_before_it(market: SimulatedMarket) -> None:
    friday = date(2024, 11, 15)
    of_friday, of_saturday, of_sunday, of_monday, of_tuesday = (
        market.vix.before(friday + timedelta(days=days)) for days in range(5)
    )
    assert isinstance(of_friday, VixReading)
    assert of_friday.source == "simulated"
    assert of_friday != of_saturday
    assert of_saturday == of_sunday == of_monday != of_tuesday


def test_the_first_session_has_a_vix_too(market: SimulatedMarket, month: list[SessionBars]) -> None:
    assert market.vix.before(month[0].session.day) is not None


def test_thirty_sessions_take_less_than_four_seconds() -> None:
    began = time.process_time()
    for _ in SimulatedMarket(30, SEED).sessions():
        pass
    assert time.process_time() - began < 4.0
