from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from positions.broker.rate_budget import MINUTE, RateBudget
from positions.clock import Clock, ReplayClock

NOW = datetime(2025, 5, 12, 14, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)


@pytest.fixture
def clock() -> ReplayClock:
    return ReplayClock(NOW)


def budget_of(clock: Clock, per_minute: int, spent: int) -> RateBudget:
    budget = RateBudget(clock, per_minute)
    for _ in range(spent):
        budget.spend()
    return budget


@given(st.integers(1, 12), st.lists(st.tuples(st.booleans(), st.integers(0, 20)), max_size=80))
def test_no_minute_sees_more_requests_than_allowed_nor_more_ordinary_ones_than_leave_the_reserve(
    per_minute: int, wishes: list[tuple[bool, int]]
) -> None:
    clock = ReplayClock(NOW)
    budget = RateBudget(clock, per_minute)
    sent: list[datetime] = []
    for urgent, pause in wishes:
        clock.sleep_until(clock.now() + pause * SECOND)
        clock.sleep_until(budget.earliest(urgent))
        budget.spend()
        sent.append(clock.now())
        within = sum(moment > clock.now() - MINUTE for moment in sent)
        assert within <= (per_minute if urgent else per_minute - per_minute // 5)


def test_requests_may_be_sent_at_once_until_the_reserve_is_reached(clock: ReplayClock) -> None:
    budget = budget_of(clock, per_minute=10, spent=7)
    assert budget.earliest(urgent=False) == NOW
    budget.spend()
    assert budget.earliest(urgent=False) == NOW + MINUTE
    assert budget.earliest(urgent=True) == NOW
    budget.spend()
    budget.spend()
    assert budget.earliest(urgent=True) == NOW + MINUTE


def test_what_others_used_of_the_account_counts_too(clock: ReplayClock) -> None:
    budget = RateBudget(clock, 200)
    reset = str(int(NOW.timestamp()) + 20)
    budget.heard(200, {"X-RateLimit-Remaining": "41", "X-RateLimit-Reset": reset})
    assert budget.earliest(urgent=False) == NOW
    budget.heard(200, {"X-RateLimit-Remaining": "40", "X-RateLimit-Reset": reset})
    assert budget.earliest(urgent=False) == NOW + 20 * SECOND
    assert budget.earliest(urgent=True) == NOW


@pytest.mark.parametrize(
    ("headers", "ordinary", "urgent"),
    [
        ({}, 1, 1),
        ({"X-RateLimit-Reset": str(int(NOW.timestamp()) + 30)}, 30, 1),
        ({"X-RateLimit-Reset": str(int(NOW.timestamp()) - 30)}, 1, 1),
        ({"X-RateLimit-Reset": "99999999999"}, 60, 1),
        ({"X-RateLimit-Reset": "soon", "Retry-After": "later"}, 1, 1),
        ({"Retry-After": "4"}, 4, 4),
        ({"Retry-After": format_datetime(NOW + 4 * SECOND, usegmt=True)}, 4, 4),
        ({"Retry-After": "86400"}, 60, 60),
        ({"Retry-After": "4", "X-RateLimit-Reset": str(int(NOW.timestamp()) + 30)}, 30, 4),
    ],
)
def test_a_refusal_for_the_rate_closes_for_as_long_as_it_says_and_never_for_more_than_a_minute(
    clock: ReplayClock, headers: dict[str, str], ordinary: int, urgent: int
) -> None:
    budget = RateBudget(clock, 200)
    budget.heard(429, headers)
    assert budget.earliest(urgent=False) == NOW + ordinary * SECOND
    assert budget.earliest(urgent=True) == NOW + urgent * SECOND


def test_a_clock_that_is_set_back_does_not_stop_trading() -> None:
    class Settable:
        moment = NOW

        def now(self) -> datetime:
            return self.moment

        def sleep_until(self, moment: datetime) -> None:
            self.moment = moment

    clock = Settable()
    budget = budget_of(clock, per_minute=1, spent=1)
    budget.heard(429, {"Retry-After": "30"})
    clock.moment = NOW - timedelta(hours=1)
    assert budget.earliest(urgent=False) == clock.moment
