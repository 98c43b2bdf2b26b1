from datetime import date
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from positions.fees import RATES, regulatory_fees
from positions.models import Trade
from positions.rules import ExitDecision
from positions.store import MemoryStore
from positions.words import ExitReason, Side
from tests.positions.world import World, trade_plan

BEFORE, FREE, NOW = date(2025, 5, 13), date(2025, 5, 14), date(2026, 11, 24)


@pytest.mark.parametrize(
    ("day", "fees"),
    [
        (BEFORE, "0.3106"),  # 0.278 and 0.0166, each up to a cent, and 0.0106
        (FREE, "0.0306"),
        (NOW, "0.2406"),
    ],
)
def test_the_fees_are_those_of_the_day(day, fees):
    assert regulatory_fees(day, Side.LONG, 100, Decimal(90), Decimal(100)) == Decimal(fees)


def test_only_the_sale_is_charged_by_value_and_a_short_sells_when_it_enters():
    long = regulatory_fees(NOW, Side.LONG, 1000, Decimal(50), Decimal(100))
    assert regulatory_fees(NOW, Side.SHORT, 1000, Decimal(100), Decimal(50)) == long


def test_the_taf_has_a_most():
    fees = regulatory_fees(FREE, Side.LONG, 1_000_000, Decimal(1), Decimal(1))
    assert fees == Decimal("8.30") + 2 * 1_000_000 * RATES[0].cat_per_share


@given(st.dates(date(2020, 1, 1), date(2040, 1, 1)), st.integers(1, 100_000), st.decimals("0.01", "5000", places=4))
def test_fees_are_never_negative_and_grow_with_the_size(day, quantity, price):
    one = regulatory_fees(day, Side.LONG, quantity, price, price)
    assert 0 < one <= regulatory_fees(day, Side.LONG, 2 * quantity, price, price)


def leave_at_100(**options) -> Trade:
    world = World(MemoryStore("live:X"), **options)
    world.execution.enter(trade_plan(book="live:X"))
    world.bar((100.0, 100.0, 100.0, 100.0))
    world.execution.exit(world.store.live["KO"], ExitDecision(ExitReason.TIME_LIMIT, {}), 100.0)
    world.bar((100.0, 100.0, 100.0, 100.0))
    return world.closed[0]


def test_a_live_trade_pays_what_the_regulators_take_instead_of_the_assumed_cost():
    assert leave_at_100().fees == Decimal("0.20")
    charged = leave_at_100(fee_rates=RATES)
    assert charged.fees == regulatory_fees(charged.session, Side.LONG, 10, Decimal(100), Decimal(100))
    assert charged.pnl == -charged.fees
