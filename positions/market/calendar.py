"""Sessions of the New York Stock Exchange, with holidays and early closes, from exchange_calendars."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

if TYPE_CHECKING:
    from exchange_calendars import ExchangeCalendar

NEW_YORK = ZoneInfo("America/New_York")
FULL_DAY = timedelta(hours=6, minutes=30)


@dataclass(frozen=True, slots=True)
class Session:
    """A New York trading day; `open` and `close` are aware UTC."""

    day: date
    open: datetime
    close: datetime

    @property
    def is_early_close(self) -> bool:
        return self.close - self.open < FULL_DAY


@cache
def _exchange() -> "ExchangeCalendar":
    from exchange_calendars import get_calendar  # 0.9 s with pandas: paid by those who ask for a session

    return get_calendar("XNYS", start="1990-01-02")


def session_of(day: date) -> Session | None:
    """The session of a New York date; None on weekends and holidays.

    Raises ValueError for dates outside the calendar (before 1990, over a year ahead).
    """
    calendar = _exchange()
    if not calendar.first_session.date() <= day <= calendar.last_session.date():
        raise ValueError(f"{day} lies outside the exchange calendar, which ends on {calendar.last_session.date()}")
    if not calendar.is_session(day.isoformat()):
        return None
    schedule = calendar.schedule.loc[day.isoformat()]
    return Session(day, schedule["open"].to_pydatetime(), schedule["close"].to_pydatetime())


def sessions_between(first: date, last: date) -> list[Session]:
    """All sessions from first to last, both included."""
    days = _exchange().sessions_in_range(first.isoformat(), last.isoformat())
    return [session for day in days if (session := session_of(day.date())) is not None]


def market_session(now: datetime, session: Session) -> str:
    """Which part of the day it is: the first hour is `open`, the last `close`, with what lies around and between."""
    hour = timedelta(hours=1)
    if now < session.open:
        return "pre_market"
    if now >= session.close:
        return "after_hours"
    if now < session.open + hour:
        return "open"
    return "close" if now >= session.close - hour else "mid_day"
