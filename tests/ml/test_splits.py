"""Walk-forward windows over any set of trades: in time order, tiling, purged."""

from datetime import date, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml.splits import WINDOWS, NotEnoughData, inner_window, rolling_windows

MINUTE = np.timedelta64(1, "m")


@st.composite
def trades(draw, least=11, most=70):
    """Sessions with gaps between them and 1 to 6 trades each, some held for days, in no order."""
    count = draw(st.integers(least, most))
    gaps = draw(st.lists(st.integers(1, 4), min_size=count, max_size=count))
    days = [date(2024, 1, 1) + timedelta(days=int(n)) for n in np.cumsum(gaps)]
    sizes = draw(st.lists(st.integers(1, 6), min_size=count, max_size=count))
    session = np.repeat(np.array(days, dtype="datetime64[D]"), sizes)
    total = len(session)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    start = session.astype("datetime64[us]") + (14 * 60 + 30 + rng.integers(0, 390, total)) * MINUTE
    held = np.where(rng.random(total) < 0.2, rng.integers(0, 4 * 24 * 60, total), rng.integers(0, 30, total))
    order = rng.permutation(total)
    return session[order], start[order], (start + held * MINUTE)[order]


@given(trades())
def test_no_training_trade_lives_into_a_later_part(drawn):
    session, start, end = drawn
    for window in rolling_windows(session, end):
        train, validation, test = window.train, window.validation, window.test
        for before, after in ((train, validation), (train, test), (validation, test)):
            if len(before.rows) and len(after.rows):
                assert end[before.rows].max() < start[after.rows].min()


@given(trades())
def test_a_purged_trade_was_still_open_on_the_day_the_next_part_began(drawn):
    session, _, end = drawn
    for window in rolling_windows(session, end):
        for part, following in ((window.train, window.validation), (window.validation, window.test)):
            inside = np.flatnonzero((session >= part.first) & (session <= part.last))
            purged = np.setdiff1d(inside, part.rows)
            assert len(purged) == part.purged
            assert (end[purged] >= following.first.astype("datetime64[us]")).all()
        assert window.test.purged == 0


@given(trades())
def test_the_inner_window_lies_in_the_training_part_and_tests_on_the_validation_part(drawn):
    session, start, end = drawn
    for window in rolling_windows(session, end):
        inner = inner_window(window, session, end)
        fitted, held_out = inner.train, inner.validation
        assert inner.test == window.validation
        assert np.isin(np.concatenate([fitted.rows, held_out.rows]), window.train.rows).all()
        assert (fitted.first, held_out.last) == (window.train.first, window.train.last)
        assert fitted.last < held_out.first
        between = [
            (part.first <= (days := np.unique(session))) & (days <= part.last) for part in (held_out, inner.test)
        ]
        assert between[0].sum() == between[1].sum()
        for before, after in ((fitted, held_out), (held_out, window.validation), (held_out, window.test)):
            if len(before.rows) and len(after.rows):
                assert end[before.rows].max() < start[after.rows].min()


@given(trades())
def test_parts_hold_whole_sessions_in_time_order(drawn):
    session, _, end = drawn
    for window in rolling_windows(session, end):
        assert window.train.first <= window.train.last < window.validation.first
        assert window.validation.last < window.test.first
        np.testing.assert_array_equal(
            window.test.rows, np.flatnonzero((session >= window.test.first) & (session <= window.test.last))
        )


@given(trades())
def test_test_parts_tile_the_latest_sessions_without_a_gap(drawn):
    session, _, end = drawn
    windows = rolling_windows(session, end)
    tested = np.concatenate([window.test.rows for window in windows])
    assert len(windows) == WINDOWS
    assert len(np.unique(tested)) == len(tested)
    assert set(tested) == set(np.flatnonzero(session >= windows[0].test.first))


@pytest.mark.parametrize(
    ("sessions", "parts"), [(11, (5, 1, 1)), (30, (9, 2, 2)), (64, (28, 6, 6)), (200, (84, 18, 18))]
)
def test_each_window_is_split_70_15_15_by_session(sessions, parts):
    days = np.datetime64("2024-01-01") + np.arange(sessions)
    for window in rolling_windows(days, days.astype("datetime64[us]") + 15 * 60 * MINUTE):
        assert tuple(len(part.rows) for part in (window.train, window.validation, window.test)) == parts


def test_the_day_of_the_embargo_begins_at_midnight_in_new_york():
    days = np.datetime64("2024-01-02") + np.arange(11)
    end = days.astype("datetime64[us]") + 15 * 60 * MINUTE
    first_validation_day = rolling_windows(days, end)[0].validation.first
    last_training_row = int(np.flatnonzero(days < first_validation_day)[-1])
    end[last_training_row] = first_validation_day.astype("datetime64[us]") + (5 * 60 - 1) * MINUTE
    assert rolling_windows(days, end)[0].train.purged == 0
    end[last_training_row] += MINUTE
    assert rolling_windows(days, end)[0].train.purged == 1


@pytest.mark.parametrize("sessions", [0, 1, 10])
def test_too_few_sessions_are_refused_with_how_many_are_needed(sessions):
    days = np.datetime64("2024-01-01") + np.arange(sessions)
    with pytest.raises(NotEnoughData, match=rf"^{sessions} sessions .* need 11$"):
        rolling_windows(days, days.astype("datetime64[us]"))
