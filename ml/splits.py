"""Walk-forward windows: parts of whole sessions in time order, purged of trades that live on into the next part."""

from dataclasses import dataclass
from datetime import UTC, datetime, time

import numpy as np
from numpy.typing import NDArray

from positions.market.calendar import NEW_YORK

WINDOWS = 5
TEST_SHARE = 0.15  # and as much for validation; the rest, 0.70, is training

Days = NDArray[np.datetime64]
Times = NDArray[np.datetime64]
Rows = NDArray[np.intp]


class NotEnoughData(Exception):
    """Too few sessions for the windows; the message says how many there are and how many are needed."""


@dataclass(frozen=True)
class Part:
    """Rows of consecutive sessions; `first` and `last` session included, `purged` rows left out."""

    rows: Rows
    first: np.datetime64
    last: np.datetime64
    purged: int


@dataclass(frozen=True)
class Window:
    train: Part
    validation: Part
    test: Part


def _window_length(test_sessions: int) -> int:
    return round(test_sessions / TEST_SHARE)


def _sessions_needed(test_sessions: int) -> int:
    return _window_length(test_sessions) + (WINDOWS - 1) * test_sessions


def test_sessions_for(sessions: int) -> int:
    """The most test sessions a window can have. Raises NotEnoughData below one."""
    if sessions < _sessions_needed(1):
        raise NotEnoughData(
            f"{sessions} sessions with closed trades and complete features; "
            f"{WINDOWS} walk-forward windows need {_sessions_needed(1)}"
        )
    test_sessions = 1
    while _sessions_needed(test_sessions + 1) <= sessions:
        test_sessions += 1
    return test_sessions


def _midnight(day: np.datetime64) -> np.datetime64:
    """When a New York day begins, in UTC."""
    begins = datetime.combine(day.astype("datetime64[D]").item(), time(), tzinfo=NEW_YORK)
    return np.datetime64(begins.astimezone(UTC).replace(tzinfo=None), "us")


def _part(session: Days, end: Times, days: Days, next_day: np.datetime64 | None) -> Part:
    inside = (session >= days[0]) & (session <= days[-1])
    kept = inside if next_day is None else inside & (end < _midnight(next_day))
    return Part(np.flatnonzero(kept), days[0], days[-1], int(inside.sum() - kept.sum()))


def rolling_windows(session: Days, end: Times) -> list[Window]:
    """Five windows over n trades, each 70/15/15 by session; their test parts tile the latest sessions.

    `session` is each trade's New York day, `end` (UTC) when it was closed. A trade still open when the New York day
    of the next part begins is purged: overlap and the embargo to the next session's open in one rule (Lopez de Prado,
    Advances in Financial Machine Learning, ch. 7). Raises NotEnoughData.
    """
    days = np.unique(session)
    test_sessions = test_sessions_for(len(days))
    length = _window_length(test_sessions)
    windows = []
    for back in range(WINDOWS - 1, -1, -1):
        stop = len(days) - back * test_sessions
        window = days[stop - length : stop]
        validation, test = window[-2 * test_sessions : -test_sessions], window[-test_sessions:]
        windows.append(
            Window(
                train=_part(session, end, window[: -2 * test_sessions], validation[0]),
                validation=_part(session, end, validation, test[0]),
                test=_part(session, end, test, None),
            )
        )
    return windows


def inner_window(window: Window, session: Days, end: Times) -> Window:
    """What may be known of a window while its parameters are chosen: its training part, split once more.

    The last sessions of the training part, as many as the validation part has, stand in the place of validation; the
    validation part stands in the place of the test part, and the test part is not there. Purged like the window.
    """
    days = np.unique(session)

    def days_of(part: Part) -> Days:
        inside: Days = days[(days >= part.first) & (days <= part.last)]
        return inside

    training, following = days_of(window.train), days_of(window.validation)
    held_out = training[-len(following) :]
    return Window(
        train=_part(session, end, training[: -len(following)], held_out[0]),
        validation=_part(session, end, held_out, following[0]),
        test=window.validation,
    )
