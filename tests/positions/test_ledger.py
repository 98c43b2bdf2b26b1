"""What becomes of a plan that is left alone: on bars made by hand, and against a walk of one plan bar by bar."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from math import isnan

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from positions.ledger import Ledger, Plan, PlanResult
from positions.market.bars import BarBatch
from positions.market.calendar import Session
from positions.words import ExitReason, Outcome, PlanDoubt, Side
from tests.positions.world import MINUTE, NO_BAR, START, Prices, batch

FLAT = (100.0, 100.5, 99.5, 100.0)
LAST = 8  # bars of the session, of which the plan is to be out after the sixth
SESSION = Session(START.date(), START, START + LAST * MINUTE)
LONG = Plan(
    key="KO",
    row=0,
    side=Side.LONG,
    entry=Decimal(100),
    stop=99.0,
    target=102.0,
    risk=Decimal(1),
    cost=Decimal("0.01"),
    entered_at=START,
    flatten_at=START + 6 * MINUTE,
)
SHORT = replace(LONG, side=Side.SHORT, stop=101.0, target=98.0)


def mirrored(bar: Prices) -> Prices:
    """The same bar for a short: what was as far above 100 is as far below."""
    opened, high, low, close = (200.0 - price for price in bar)
    return opened, low, high, close


def end_of(plan: Plan, *bars: Prices, close: float = 100.0) -> PlanResult:
    """Follow a plan over the session's bars, the last of which is repeated."""
    ledger = Ledger(2)
    ledger.open_session(SESSION)
    assert ledger.follow(plan)
    results: list[PlanResult] = []
    for number in range(LAST):
        results += ledger.on_bar(batch(START + number * MINUTE, bars[min(number, len(bars) - 1)], FLAT))
    (result,) = results + ledger.close_session([close, 100.0])
    return result


@dataclass(frozen=True)
class Case:
    """Bars of a long, and how it ends: why, at which price, at which minute."""

    bars: tuple[Prices, ...]
    reason: ExitReason
    price: float
    minute: int


CASES = {
    "touched inside the bar": Case((FLAT, (99.8, 99.9, 98.7, 99.5)), ExitReason.STOP, 99.0, 2),
    "touched exactly": Case((FLAT, (99.8, 99.9, 99.0, 99.5)), ExitReason.STOP, 99.0, 2),
    "touched in the bar of the entry": Case(((100.0, 100.0, 98.9, 99.5),), ExitReason.STOP, 99.0, 1),
    "opened beyond the stop": Case((FLAT, (98.2, 99.9, 98.0, 99.5)), ExitReason.STOP, 98.2, 1),
    "opened at the stop": Case((FLAT, (99.0, 99.9, 98.0, 99.5)), ExitReason.STOP, 99.0, 1),
    "stop and target in one bar": Case((FLAT, (100.0, 102.5, 98.5, 101.0)), ExitReason.STOP, 99.0, 2),
    "target, out at the next open": Case(
        (FLAT, (100.5, 102.0, 100.4, 101.9), (101.7, 101.8, 95.0, 101.0)), ExitReason.TARGET, 101.7, 2
    ),
    "target in the bar of the entry": Case(((100.0, 102.3, 99.9, 102.0), FLAT), ExitReason.TARGET, 100.0, 1),
    "target, then a halt": Case(
        (FLAT, (100.5, 102.0, 100.4, 101.9), NO_BAR, NO_BAR, (97.0, 97.0, 97.0, 97.0)), ExitReason.TARGET, 97.0, 4
    ),
    "a halt, reopened beyond the stop": Case((FLAT, NO_BAR, NO_BAR, (97.0, 98.0, 96.0, 97.0)), ExitReason.STOP, 97, 3),
    "the session's close": Case((FLAT,) * 6 + ((99.9, 102.5, 98.5, 99.9),), ExitReason.SESSION_CLOSE, 99.9, 6),
    "target in the bar before the close": Case(
        (FLAT,) * 5 + ((100.5, 102.5, 100.4, 101.9), (101.0, 101.0, 101.0, 101.0)), ExitReason.SESSION_CLOSE, 101.0, 6
    ),
    "stop in the bar before the close": Case((FLAT,) * 5 + ((99.8, 99.9, 98.9, 99.5),), ExitReason.STOP, 99.0, 6),
    "halted before the close": Case((FLAT,) * 5 + (NO_BAR, NO_BAR, FLAT), ExitReason.SESSION_CLOSE, 100.0, 7),
}


@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_plan_ends_where_its_bars_say(case: Case, side: Side) -> None:
    bars, price = case.bars, case.price
    if side is Side.SHORT:
        bars, price = tuple(map(mirrored, bars)), 200.0 - price
    result = end_of(LONG if side is Side.LONG else SHORT, *bars)
    assert (result.reason, result.exit_price, result.ended_at) == (
        case.reason,
        Decimal(str(round(price, 4))),
        START + case.minute * MINUTE,
    )
    assert result.r == pytest.approx(case.price - 100.0 - 0.02)
    assert result.outcome == (Outcome.WIN if result.r > 0 else Outcome.LOSS)
    assert result.doubt is not PlanDoubt.AT_LAST_PRICE


def test_a_bar_that_touches_both_says_so_unless_it_opened_beyond_the_stop() -> None:
    assert end_of(LONG, FLAT, (100.0, 102.5, 98.5, 101.0)).doubt is PlanDoubt.BOTH_TOUCHED
    assert end_of(LONG, FLAT, (100.0, 101.5, 98.5, 101.0)).doubt is None
    assert end_of(LONG, FLAT, (98.0, 102.5, 98.0, 101.0)).doubt is None


@pytest.mark.parametrize(
    ("bars", "reason"),
    [
        ((*(FLAT,) * 3, (100.5, 102.0, 100.4, 101.9), NO_BAR), ExitReason.TARGET),
        ((*(FLAT,) * 3, NO_BAR), ExitReason.SESSION_CLOSE),
    ],
    ids=["while it waited to leave", "while it ran"],
)
def test_a_plan_whose_bars_stop_coming_ends_at_the_last_known_price_and_says_so(bars, reason) -> None:
    result = end_of(LONG, *bars, close=101.9)
    assert result.doubt is PlanDoubt.AT_LAST_PRICE
    assert (result.reason, result.exit_price, result.ended_at) == (reason, Decimal("101.9"), SESSION.close)


def test_a_target_reached_in_the_sessions_last_bar_is_left_at_its_close() -> None:
    plan = replace(LONG, flatten_at=SESSION.close + MINUTE)
    result = end_of(plan, *(FLAT,) * 7, (100.5, 102.0, 100.4, 101.9), close=101.9)
    assert (result.reason, result.ended_at) == (ExitReason.TARGET, SESSION.close)
    assert result.doubt is PlanDoubt.AT_LAST_PRICE


def test_what_happened_before_the_entry_does_not_count() -> None:
    late = replace(LONG, entered_at=START + 2 * MINUTE)
    beyond_both = (100.0, 103.0, 95.0, 100.0)
    result = end_of(late, beyond_both, beyond_both, FLAT, (99.8, 99.9, 98.7, 99.5))
    assert result.ended_at == START + 4 * MINUTE


def test_an_entry_within_a_bar_is_stopped_at_its_stop_though_the_bar_opened_beyond_it() -> None:
    within = replace(LONG, entered_at=START + timedelta(seconds=20))
    result = end_of(within, (98.5, 100.0, 98.0, 99.9))
    assert (result.exit_price, result.ended_at) == (Decimal(99), START + MINUTE)


def test_an_entry_beyond_its_stop_leaves_at_the_next_open() -> None:
    result = end_of(replace(LONG, entry=Decimal("98.5")), (98.5, 103.0, 98.0, 99.0), (99.7, 103.0, 95.0, 99.0))
    assert (result.reason, result.exit_price) == (ExitReason.STOP, Decimal("99.7"))


def test_a_result_of_exactly_the_costs_is_a_loss() -> None:
    to_the_cent = end_of(LONG, *(FLAT,) * 6, (100.02, 100.02, 100.02, 100.02))
    assert (to_the_cent.r, to_the_cent.outcome) == (0.0, Outcome.LOSS)


def test_an_entry_that_fills_further_goes_on_at_its_average_price() -> None:
    ledger = Ledger(2)
    ledger.open_session(SESSION)
    ledger.follow(LONG)
    ledger.on_bar(batch(START, FLAT))
    assert ledger.follow(replace(LONG, entry=Decimal("100.1"), risk=Decimal("1.1")))
    (result,) = ledger.on_bar(batch(START + MINUTE, (100.0, 100.0, 98.0, 98.0)))
    assert result.r == pytest.approx(-1.12 / 1.1)


def test_a_missed_bar_leaves_the_plans_that_ran_without_a_result_and_no_other() -> None:
    ledger = Ledger(2)
    ledger.open_session(SESSION)
    ledger.follow(LONG)
    ledger.follow(replace(LONG, key="leaving", target=100.5))
    ledger.on_bar(batch(START, FLAT))
    ledger.follow(replace(LONG, key="in the gap", entered_at=START + MINUTE))
    ledger.follow(replace(LONG, key="after it", entered_at=START + 2 * MINUTE))
    (result,) = ledger.on_bar(batch(START + 2 * MINUTE, (100.0, 100.0, 98.0, 98.0)))
    assert result.key == "after it"
    assert not ledger.follow(replace(LONG, key="heard of too late", entered_at=START + MINUTE))
    for number in range(3, LAST):
        assert ledger.on_bar(batch(START + number * MINUTE, (100.0, 103.0, 98.0, 98.0))) == []
    assert ledger.close_session([100.0, 100.0]) == []


def test_without_the_sessions_last_bar_nothing_is_known() -> None:
    ledger = Ledger(2)
    ledger.open_session(SESSION)
    ledger.follow(LONG)
    ledger.on_bar(batch(START, FLAT))
    assert ledger.close_session([100.0, 100.0]) == []


def test_nothing_is_followed_into_the_next_session() -> None:
    ledger = Ledger(2)
    ledger.open_session(SESSION)
    ledger.follow(LONG)
    ledger.follow(replace(LONG, key="leaving", target=100.5))
    ledger.follow(replace(LONG, key="new", entered_at=START + MINUTE))
    ledger.on_bar(batch(START, FLAT))
    tomorrow = START + timedelta(days=1)
    ledger.open_session(Session(tomorrow.date(), tomorrow, tomorrow + LAST * MINUTE))
    assert ledger.on_bar(batch(tomorrow, (90.0, 110.0, 80.0, 90.0))) == []


# -- against a reference


def reference(
    plan: Plan, bars: list[BarBatch], last_price: float
) -> tuple[ExitReason, float, datetime, PlanDoubt | None]:
    """One plan, walked bar by bar: reason, price, time, and why that is not certain. A short is a long of negative
    prices."""
    sign = 1 if plan.side is Side.LONG else -1
    entry, stop, target = sign * float(plan.entry), sign * plan.stop, sign * plan.target
    leaving: ExitReason | None = None
    for bar in [bar for bar in bars if bar.end > plan.entered_at]:
        opened, one, other = (sign * float(prices[plan.row]) for prices in (bar.open, bar.high, bar.low))
        high, low = max(one, other), min(one, other)
        in_entry_bar = bar.start <= plan.entered_at
        if in_entry_bar and entry <= stop:
            leaving = ExitReason.STOP
            continue
        if leaving is not None:
            if isnan(opened):
                continue
            return leaving, sign * opened, bar.start, None
        if not isnan(opened):
            if opened <= stop and bar.start >= plan.entered_at:
                return ExitReason.STOP, sign * opened, bar.start, None
            if low <= stop:
                return ExitReason.STOP, sign * stop, bar.end, PlanDoubt.BOTH_TOUCHED if high >= target else None
            if high >= target:
                leaving = ExitReason.TARGET
        if bar.end >= plan.flatten_at:
            leaving = ExitReason.SESSION_CLOSE
    return leaving or ExitReason.SESSION_CLOSE, last_price, bars[-1].end, PlanDoubt.AT_LAST_PRICE


QUARTERS = st.integers(-12, 12).map(lambda quarters: 100.0 + quarters / 4)


@st.composite
def bar(draw: st.DrawFn) -> Prices:
    if draw(st.integers(0, 4)) == 0:
        return NO_BAR
    opened, close, *more = draw(st.lists(QUARTERS, min_size=4, max_size=4))
    return opened, max(opened, close, *more), min(opened, close, *more), close


@st.composite
def plan(draw: st.DrawFn, key: str) -> Plan:
    """Anywhere in the session, and its entry anywhere about its stop and target."""
    side = draw(st.sampled_from(Side))
    lower, upper = draw(st.sampled_from([(97, 104), (98, 102), (99, 101), (99, 103)]))
    stop, target = (lower, upper) if side is Side.LONG else (upper, lower)
    return Plan(
        key=key,
        row=draw(st.integers(0, 1)),
        side=side,
        entry=Decimal(str(draw(QUARTERS))),
        stop=float(stop),
        target=float(target),
        risk=Decimal("1.25"),
        cost=Decimal("0.01"),
        entered_at=START + draw(st.integers(0, LAST - 1)) * MINUTE + draw(st.sampled_from([0, 0, 20])) * MINUTE / 60,
        flatten_at=START + draw(st.sampled_from([3, 5, LAST])) * MINUTE,
    )


@settings(max_examples=500, deadline=None)
@given(
    bars=st.lists(st.tuples(bar(), bar()), min_size=LAST, max_size=LAST),
    plans=st.integers(1, 8).flatmap(lambda n: st.tuples(*(plan(str(number)) for number in range(n)))),
)
def test_every_plan_ends_as_in_a_walk_of_its_own(bars, plans) -> None:
    batches = [batch(START + number * MINUTE, *pair) for number, pair in enumerate(bars)]
    closes = [[each.close[row] for each in batches if not isnan(each.close[row])] for row in (0, 1)]
    last_prices = [float(closes[row][-1]) if closes[row] else 100.0 for row in (0, 1)]
    ledger = Ledger(2)
    ledger.open_session(SESSION)
    results: list[PlanResult] = []
    for each in batches:
        for entered in plans:
            if each.start <= entered.entered_at < each.end:
                assert ledger.follow(entered)
        results += ledger.on_bar(each)
    results += ledger.close_session(last_prices)
    found = {
        result.key: (
            result.reason,
            float(result.exit_price),
            result.ended_at,
            result.doubt,
        )
        for result in results
    }
    assert found == {each.key: reference(each, batches, last_prices[each.row]) for each in plans}
    for result in results:
        followed = plans[int(result.key)]
        gained = float(result.exit_price - followed.entry) * (1 if followed.side is Side.LONG else -1)
        assert result.r == pytest.approx((gained - 0.02) / 1.25)
        assert (result.outcome == Outcome.WIN) == (gained > 0.02)
