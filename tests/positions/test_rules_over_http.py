"""Each exit rule and breakeven on a market drawn by hand: monitors, execution and the real SDK at the simulated Alpaca.

Long and short are the same market, mirrored at 100.
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest

from positions.breakeven_manager import BreakevenStopManager
from positions.broker.standin.faults import Fault
from positions.exit_monitor import ExitMonitor
from positions.market.bars import BarHistory
from positions.market.indicators import IndicatorBank
from positions.models import PositionExit, StopMove, Trade
from positions.rules import ExitSettings
from positions.words import ExitReason, ExitStatus, Side, StopMoveStatus, TradeStatus
from tests.positions.desk_over_http import DeskOverHttp, StandInClock
from tests.positions.stand_in import DAYS, MINUTE, DrawnMarket, Prices, StandIn

pytestmark = pytest.mark.django_db

FLAT = (100.0, 100.0, 100.0, 100.0)
ONLY = ExitSettings(low_volume=False, time_limit=False, momentum_reversal=False, breakeven=False)
VOLUME = ExitSettings(time_limit=False, momentum_reversal=False, breakeven=False)
TIME = ExitSettings(low_volume=False, momentum_reversal=False, breakeven=False)
MOMENTUM = ExitSettings(low_volume=False, time_limit=False, breakeven=False)
BREAKEVEN = ExitSettings(low_volume=False, time_limit=False, momentum_reversal=False)
TEN = timedelta(seconds=10)


def level(price: float) -> Prices:
    return (price,) * 4


def mirrored(bar: Prices | None, side: Side) -> Prices | None:
    if bar is None or side is Side.LONG:
        return bar
    opened, high, low, close = (200 - price for price in bar[:4])
    return (opened, low, high, close, *bar[4:])


class Watched(DeskOverHttp):
    """A process that watches its trade: both monitors every ten and thirty seconds, and at each bar's arrival."""

    def __init__(
        self,
        alpaca: StandIn,
        side: Side,
        drawn: Sequence[Prices | None],
        settings: ExitSettings,
        clock: StandInClock | None = None,
        days: tuple[date, date] = DAYS,
    ) -> None:
        super().__init__(alpaca, side, clock)
        market = DrawnMarket(drawn, days=days)
        (before, _), (today, _), *_ = market.sessions()
        self._batches = today.batches()
        self.bank = IndicatorBank(market.universe)
        past = BarHistory()
        past.append(before)
        self.bank.open_session(today.session, MINUTE, past)
        self.exits = ExitMonitor(self.bank, self.store, self.execution, lambda: settings)
        self.breakeven = BreakevenStopManager(self.bank, self.store, self.execution, lambda: settings)

    def watch(self) -> None:
        self.tick()
        self.exits.tick(self.clock.now())

    def catch_up(self, until: datetime) -> None:
        """Take in the bars of the session from before this process began."""
        while self.bank.now < until:
            self.bank.update(next(self._batches))

    def minute(self, *, arrives: bool = True) -> None:
        """A minute passes; its bar arrives at its end, or never does."""
        batch = next(self._batches)
        for seconds in range(0, 60, 10):
            self.clock.sleep_until(batch.start + timedelta(seconds=seconds))
            self.watch()
            if not seconds % 30:
                self.breakeven.monitor_for_breakeven()
        self.clock.sleep_until(batch.end)
        if arrives:
            self.bank.update(batch)
        self.watch()
        self.breakeven.monitor_for_breakeven()
        self.look()

    def minutes(self, count: int, *, arrives: bool = True) -> None:
        for _ in range(count):
            self.minute(arrives=arrives)

    def has_exit(self) -> bool:
        return PositionExit.objects.exists()


def watched(alpaca: StandIn, side: Side, drawn: Sequence[Prices | None], settings: ExitSettings) -> Watched:
    """Entered at the open."""
    bars = [mirrored(bar, side) for bar in drawn]
    alpaca.reset(ko=bars)
    desk = Watched(alpaca, side, bars, settings)
    desk.enter()
    return desk


def left(desk: Watched, rule: ExitReason) -> PositionExit:
    """The exit there was: one, by this rule, done, with nothing left behind."""
    desk.run(20)
    assert desk.wrong() == []
    trade, done = Trade.objects.get(), PositionExit.objects.get()
    assert (done.rule, done.status) == (rule, ExitStatus.DONE)
    assert (trade.status, trade.exit_reason, desk.held, desk.working) == (TradeStatus.CLOSED, rule, 0, [])
    assert [each.signal_key for each in desk.closed] == [trade.signal_key]
    return done


def stays(desk: Watched, stop: str = "99") -> None:
    """Nothing was done: the trade is open and its shares are covered by the stop where it was."""
    assert desk.wrong() == []
    assert not desk.has_exit()
    price = Decimal(stop) if desk.side is Side.LONG else 200 - Decimal(stop)
    assert (Trade.objects.get().status, desk.held, desk.covered) == (TradeStatus.OPEN, 10, 10)
    assert desk.stop_price == price


both_sides = pytest.mark.parametrize("side", Side)


@both_sides
def test_volume_below_half_of_that_at_entry_over_five_bars_ends_the_trade(alpaca: StandIn, side: Side) -> None:
    desk = watched(alpaca, side, [(*FLAT, 499.0)] * 10, VOLUME)
    desk.minutes(4)
    stays(desk)
    desk.minute()
    assert left(desk, ExitReason.LOW_VOLUME).evidence["mean_volume"] == 499.0


@both_sides
def test_volume_at_half_of_that_at_entry_does_not(alpaca: StandIn, side: Side) -> None:
    desk = watched(alpaca, side, [(*FLAT, 500.0)] * 10, VOLUME)
    desk.minutes(7)
    stays(desk)


@both_sides
def test_fifteen_minutes_without_profit_after_costs_end_the_trade_and_fourteen_do_not(
    alpaca: StandIn, side: Side
) -> None:
    desk = watched(alpaca, side, [FLAT, *[level(100.02)] * 19], TIME)
    desk.minutes(14)
    stays(desk)
    desk.minutes(2)
    done = left(desk, ExitReason.TIME_LIMIT)
    assert timedelta(minutes=15) <= done.decided_at - Trade.objects.get().entered_at <= timedelta(minutes=16)


@both_sides
def test_a_cent_above_the_costs_is_profit_enough_to_stay(alpaca: StandIn, side: Side) -> None:
    desk = watched(alpaca, side, [FLAT, *[level(100.03)] * 19], TIME)
    desk.minutes(18)
    stays(desk)


@both_sides
def test_momentum_ends_the_trade_within_ten_seconds_of_the_bar_that_crosses_and_not_before(
    alpaca: StandIn, side: Side
) -> None:
    rise = [level(100 + 0.05 * minute) for minute in range(12)]
    desk = watched(alpaca, side, [*rise, *[level(100.55)] * 28], MOMENTUM)
    row, bars = desk.bank.row_of["KO"], 0
    while desk.sign * desk.bank.macd_histogram[row] >= 0:
        if bars:
            stays(desk)
        desk.minute()
        bars += 1
    assert 12 < bars < 40
    arrived: datetime = desk.bank.now
    left(desk, ExitReason.MOMENTUM_REVERSAL)
    assert Trade.objects.get().exited_at - arrived <= TEN


@both_sides
@pytest.mark.parametrize(("best", "reached"), [(102.0, True), (101.99, False)])
def test_a_target_that_a_bar_touches_ends_the_trade_at_the_market(
    alpaca: StandIn, side: Side, best: float, reached: bool
) -> None:
    desk = watched(alpaca, side, [FLAT, FLAT, (100.0, best, 100.0, 100.5), *[level(100.5)] * 5], ONLY)
    desk.minutes(3)
    if reached:
        left(desk, ExitReason.TARGET)
        assert Trade.objects.get().exit_price == 100 + desk.sign * Decimal("0.5")
    else:
        stays(desk)


@both_sides
def test_a_trade_that_earned_its_risk_cannot_lose_it_any_more(alpaca: StandIn, side: Side) -> None:
    desk = watched(alpaca, side, [FLAT] * 2 + [level(101.0)] * 3 + [level(99.5)] * 2, BREAKEVEN)
    desk.minutes(4)
    stays(desk, stop="100.02")
    assert StopMove.objects.get().status == StopMoveStatus.CONFIRMED
    desk.minutes(2)
    assert desk.wrong() == []
    assert (Trade.objects.get().exit_reason, desk.held, desk.working) == (ExitReason.BREAKEVEN_STOP, 0, [])


@both_sides
def test_a_cent_less_than_its_risk_leaves_the_stop_where_it_was(alpaca: StandIn, side: Side) -> None:
    desk = watched(alpaca, side, [FLAT, FLAT, *[level(100.99)] * 6], BREAKEVEN)
    desk.minutes(6)
    stays(desk)
    assert not StopMove.objects.exists()


@both_sides
def test_on_a_short_day_everything_is_left_five_minutes_before_the_early_close(alpaca: StandIn, side: Side) -> None:
    days, now = (date(2025, 7, 2), date(2025, 7, 3)), datetime(2025, 7, 3, 16, 50, tzinfo=UTC)
    alpaca.reset(days=days, at=now)
    desk = Watched(alpaca, side, [], ONLY, StandInClock(alpaca, now), days)
    desk.catch_up(now)
    desk.enter()
    desk.minutes(4)
    stays(desk)
    desk.minute()
    assert left(desk, ExitReason.SESSION_CLOSE).decided_at == datetime(2025, 7, 3, 16, 55, tzinfo=UTC)


@both_sides
@pytest.mark.parametrize(("reopens_at", "reason"), [(97.0, ExitReason.STOP), (99.5, ExitReason.TIME_LIMIT)])
def test_through_a_halt_of_its_symbol_nothing_is_sold_and_afterwards_the_trade_is_left_once(
    alpaca: StandIn, side: Side, reopens_at: float, reason: ExitReason
) -> None:
    desk = watched(alpaca, side, [FLAT, FLAT, *[None] * 20, *[level(reopens_at)] * 6], TIME)
    desk.minutes(21)
    stays(desk)
    desk.minutes(4)
    desk.run(20)
    assert desk.wrong() == []
    trade = Trade.objects.get()
    assert (trade.exit_reason, desk.held, desk.working) == (reason, 0, [])
    assert trade.exit_price == 100 + desk.sign * (Decimal(str(reopens_at)) - 100)


@both_sides
def test_without_bars_no_rule_acts_and_the_stop_does(alpaca: StandIn, side: Side) -> None:
    desk = watched(alpaca, side, [*[FLAT] * 20, (98.9, 98.9, 98.9, 98.9)], ExitSettings())
    desk.minutes(3)
    desk.minutes(16, arrives=False)
    stays(desk)
    desk.minutes(2, arrives=False)
    assert desk.wrong() == []
    assert (Trade.objects.get().exit_reason, desk.held, desk.has_exit()) == (ExitReason.STOP, 0, False)


@both_sides
def test_the_first_bar_after_a_gap_is_acted_on(alpaca: StandIn, side: Side) -> None:
    desk = watched(alpaca, side, [FLAT] * 25, TIME)
    desk.minutes(3)
    desk.minutes(17, arrives=False)
    stays(desk)
    desk.minute()
    left(desk, ExitReason.TIME_LIMIT)


@both_sides
@pytest.mark.parametrize("fault", [Fault.SERVER_ERROR, Fault.TOO_MANY, Fault.RESET_AFTER, Fault.TIMEOUT_AFTER])
def test_a_rule_that_meets_a_broker_in_trouble_is_carried_out_once_it_is_over(
    alpaca: StandIn, side: Side, fault: Fault
) -> None:
    desk = watched(alpaca, side, [FLAT] * 30, TIME)
    desk.minutes(14)
    alpaca.arm(fault, "* /v2/*", count=6)
    desk.minutes(2)
    desk.run(90)
    left(desk, ExitReason.TIME_LIMIT)


@both_sides
def test_two_processes_that_see_the_same_bar_leave_once(alpaca: StandIn, side: Side) -> None:
    first = watched(alpaca, side, [FLAT] * 20, TIME)
    first.minutes(1)
    second = Watched(alpaca, side, [FLAT] * 20, TIME, first.clock)
    second.minutes(1)
    while not first.has_exit():
        first.minute()
        second.minute()
    left(first, ExitReason.TIME_LIMIT)
    second.run(20)
    assert (second.problems, second.store.live) == ([], {})
