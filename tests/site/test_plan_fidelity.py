"""Is the plan's own result the truth? Of a trade that no early rule touched it must be the trade's result."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from positions.market.feeds import ReplayFeed
from positions.market.feeds.file import FileFeed
from positions.market.feeds.simulated import SimulatedMarket
from positions.models import Trade
from positions.rules import ExitSettings
from positions.words import ExitReason
from tests.live import trade_live
from tests.runs import run
from tradingsite.replaying import ReplayOptions

pytestmark = pytest.mark.django_db

PLANNED = (ExitReason.STOP, ExitReason.TARGET, ExitReason.SESSION_CLOSE)


def compared(book: str = "simulated") -> Counter[str]:
    """Assert that every trade which no early rule touched ended as its plan did; how many did so, by kind of exit."""
    untouched = Trade.objects.filter(book=book, status="closed", breakeven_set=False, exit_reason__in=PLANNED)
    for trade in untouched:
        planned = trade.plan_exit_reason, trade.plan_ended_at, trade.plan_r, trade.plan_outcome
        assert planned == (trade.exit_reason, trade.exited_at, trade.r_multiple, trade.outcome), trade.signal_key
    assert not Trade.objects.filter(book=book, entered_at__isnull=False, plan_outcome=None).exists()
    return Counter(untouched.values_list("exit_reason", flat=True))


def left_alone() -> ReplayOptions:
    """The settings in force, but with every early rule and breakeven off."""
    rules = ExitSettings(low_volume=False, time_limit=False, momentum_reversal=False, breakeven=False)
    return replace(ReplayOptions.in_force(), exits=rules)


def real_bars(folder: Path, name: str, first: date, last: date) -> ReplayFeed:
    return FileFeed(folder / name, symbols=folder / "symbols.csv", first=first, last=last)


def test_on_simulated_sessions_with_an_early_close_every_trade_left_alone_ends_as_its_plan():
    run(SimulatedMarket(6, seed=4), options=left_alone())
    kinds = compared()
    assert kinds.total() == Trade.objects.filter(status="closed").count() > 500
    assert min(kinds[reason] for reason in PLANNED) > 10
    flattened = Trade.objects.filter(session=date(2024, 12, 24), plan_exit_reason=ExitReason.SESSION_CLOSE)
    assert {trade.plan_ended_at for trade in flattened} == {datetime(2024, 12, 24, 17, 55, tzinfo=UTC)}


def test_on_simulated_sessions_under_all_rules_those_that_none_touched_end_as_their_plan():
    run(SimulatedMarket(2, seed=4))
    assert compared().total() > 50
    touched = Trade.objects.filter(status="closed").exclude(exit_reason__in=PLANNED)
    assert touched.filter(plan_outcome="WIN", outcome="LOSS").exists()
    assert touched.filter(plan_outcome="LOSS", outcome="WIN").exists()


def test_traded_live_the_plans_end_as_in_a_replay():
    run(SimulatedMarket(2, seed=4))
    trade_live("paper:test", SimulatedMarket(2, seed=4))
    columns = ("signal_key", "plan_exit_reason", "plan_ended_at", "plan_r", "plan_outcome")
    replayed, live = (
        list(Trade.objects.filter(book=book).order_by("signal_key").values_list(*columns))
        for book in ("simulated", "paper:test")
    )
    assert live == replayed
    assert len(live) > 50


@pytest.mark.parametrize(
    ("name", "first", "last"),
    [
        ("us_1min_2018.parquet", date(2018, 2, 21), date(2018, 2, 23)),
        ("us_5min_2025.parquet", date(2025, 7, 1), date(2025, 7, 11)),  # the third is an early close
    ],
)
def test_on_real_bars_every_trade_left_alone_ends_as_its_plan(
    shared_data: Path, name: str, first: date, last: date
) -> None:
    run(real_bars(shared_data, name, first, last), options=left_alone())
    kinds = compared()
    assert kinds.total() == Trade.objects.filter(status="closed").count() > 300
    assert min(kinds[reason] for reason in PLANNED) > 10


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "first", "last", "options", "at_least"),
    [
        ("us_1min_2018.parquet", date(2018, 2, 16), date(2018, 3, 29), ReplayOptions.in_force, 2_000),
        ("us_1min_2018.parquet", date(2018, 2, 16), date(2018, 3, 29), left_alone, 4_000),
        ("us_5min_2025.parquet", date(2025, 4, 24), date(2025, 12, 12), ReplayOptions.in_force, 3_000),
        ("us_5min_2025.parquet", date(2025, 4, 24), date(2025, 12, 12), left_alone, 8_000),
    ],
)
def test_on_all_real_bars_no_trade_that_no_rule_touched_differs_from_its_plan(
    shared_data: Path, name: str, first: date, last: date, options: Callable[[], ReplayOptions], at_least: int
) -> None:
    run(real_bars(shared_data, name, first, last), options=options())
    assert compared().total() > at_least
