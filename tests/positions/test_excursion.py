"""How far a trade went against and for it: bar by bar, on a desk driven by hand, and on simulated sessions."""

from datetime import timedelta
from decimal import Decimal

import numpy as np
import pytest

from positions.excursion import Aftermath, Excursions
from positions.market.calendar import Session
from positions.market.feeds.simulated import SimulatedMarket
from positions.models import Trade
from positions.rules import ExitSettings
from positions.words import ExitReason, Side
from tests.positions.stage import FLAT, Stage
from tests.positions.world import MINUTE, NO_BAR, START, batch
from tests.runs import run

pytestmark = pytest.mark.django_db

SESSION = Session(START.date(), START, START + 10 * MINUTE)


def between(*bars: tuple[float, ...], entered_at: timedelta = timedelta()) -> tuple[float, float] | None:
    """Lowest and highest price of a trade that lives from `entered_at` after the session's start."""
    excursions = Excursions(2)
    excursions.open_session(SESSION)
    for number, prices in enumerate(bars):
        each = batch(START + number * MINUTE, prices)
        if each.start <= START + entered_at < each.end:
            excursions.follow(0, START + entered_at)
        excursions.on_bar(each)
    return excursions.end(0)


def test_every_bar_of_a_trades_life_counts_and_none_before_it() -> None:
    bars = (100.0, 120.0, 80.0, 100.0), (100.0, 101.0, 99.0, 100.0), NO_BAR, (100.0, 103.0, 99.5, 100.0)
    assert between(*bars, entered_at=MINUTE) == (99.0, 103.0)


def test_the_bar_of_an_entry_within_it_is_left_out() -> None:
    bars = (100.0, 120.0, 80.0, 100.0), (100.0, 101.0, 99.0, 100.0)
    assert between(*bars, entered_at=MINUTE / 2) == (99.0, 101.0)


def test_a_trade_of_whose_life_a_bar_was_missed_is_not_known() -> None:
    excursions = Excursions(2)
    excursions.open_session(SESSION)
    excursions.follow(0, START)
    excursions.on_bar(batch(START, FLAT))
    excursions.on_bar(batch(START + 2 * MINUTE, FLAT))
    assert excursions.end(0) is None


def test_a_trade_that_is_heard_of_after_bars_of_its_life_is_not_known() -> None:
    excursions = Excursions(2)
    excursions.open_session(SESSION)
    excursions.on_bar(batch(START, FLAT))
    excursions.follow(0, START)
    assert excursions.end(0) is None


def test_the_next_trade_of_a_symbol_starts_anew() -> None:
    excursions = Excursions(2)
    excursions.open_session(SESSION)
    excursions.follow(0, START)
    excursions.on_bar(batch(START, (100.0, 110.0, 90.0, 100.0)))
    assert excursions.end(0) == (90.0, 110.0)
    excursions.follow(0, START + MINUTE)
    excursions.on_bar(batch(START + MINUTE, FLAT))
    assert excursions.end(0) == (100.0, 100.0)


@pytest.mark.parametrize(("side", "worst", "best"), [(Side.LONG, 0.5, 0.75), (Side.SHORT, 0.75, 0.5)])
def test_a_trade_is_stored_with_its_worst_and_its_best_in_r(side: Side, worst: float, best: float) -> None:
    stage = Stage(ExitSettings(low_volume=False, momentum_reversal=False, time_limit_minutes=4.0))
    sign = 1 if side is Side.LONG else -1
    stage.enter(side=side, stop=100.0 - sign, target=100.0 + 2 * sign)
    stage.bar((100.0, 100.75, 100.0, 100.0))
    stage.bar((100.0, 100.0, 99.5, 100.0 - 0.25 * sign))
    for _ in range(3):
        stage.bar((100.0 - 0.25 * sign,) * 4)
    trade = Trade.objects.get()
    assert trade.exit_reason == ExitReason.TIME_LIMIT
    assert (trade.mae_r, trade.mfe_r) == (worst, best)


def test_a_trade_that_is_stopped_went_as_far_as_its_exit_and_no_further() -> None:
    stage = Stage()
    stage.enter()
    stage.bar((100.0, 100.5, 98.0, 98.0))
    trade = Trade.objects.get()
    assert trade.exit_reason == ExitReason.STOP
    assert (trade.mae_r, trade.mfe_r) == (1.0, 0.0)


def test_after_a_restart_the_stored_bars_tell_how_far_an_open_trade_went() -> None:
    before, bars = Stage(), [FLAT] * 7 + [(100.0, 100.75, 99.5, 100.0)]
    before.enter()
    before.bar(bars[-1])
    stage = Stage()
    for number, prices in enumerate(bars):
        stage.loop.catch_up(batch(START + number * MINUTE, prices))
    trade = stage.world.store.live["KO"].trade
    trade.exit_price = Decimal(100)
    for listener in stage.world.execution.closing_listeners:
        listener(trade)
    assert (trade.mae_r, trade.mfe_r) == (0.5, 0.75)


def test_on_simulated_sessions_every_trade_went_as_far_as_its_bars_say() -> None:
    market = SimulatedMarket(2, seed=4)
    run(market)
    sessions = {bars.session.day: bars for bars, _ in market.sessions()}
    looked_at = 0
    for trade in Trade.objects.filter(status="closed"):
        bars = sessions[trade.session]
        opened, high, low, _, _, _ = bars.values[:, :, market.universe.symbols.index(trade.symbol)]
        first, last = (round((at - bars.session.open) / bars.length) for at in (trade.entered_at, trade.exited_at))
        sign = 1 if trade.side == Side.LONG else -1
        if trade.exit_price == trade.stop_price:  # within a bar
            if opened[last] == float(trade.exit_price):  # or at the open of the next, the trade does not say
                continue
            last -= 1
        looked_at += 1
        entry, exit_price, risk = float(trade.entry_price), float(trade.exit_price), float(trade.risk_per_share)
        prices = np.array([*low[first:last], *high[first:last], entry, exit_price])
        moved = sign * (prices[np.isfinite(prices)] - entry) / risk
        assert trade.mae_r == pytest.approx(-moved.min(), abs=1e-9), trade.signal_key
        assert trade.mfe_r == pytest.approx(moved.max(), abs=1e-9), trade.signal_key
    assert looked_at > 200


def after(*bars: tuple[float, ...], ended_at: timedelta, missing: int | None = None) -> tuple[float, float] | None:
    """Lowest and highest price from `ended_at` after the start of a session of so many bars."""
    aftermath = Aftermath()
    aftermath.open_session(Session(START.date(), START, START + len(bars) * MINUTE))
    for number, prices in enumerate(bars):
        if number != missing:
            aftermath.on_bar(batch(START + number * MINUTE, prices))
    return aftermath.of([(0, START + ended_at)])[0]


BARS = (100.0, 120.0, 80.0, 100.0), (100.0, 103.0, 99.0, 100.0), NO_BAR, (100.0, 101.0, 99.5, 100.0)


def test_what_came_after_is_told_of_bars_that_began_at_the_end_or_later() -> None:
    assert after(*BARS, ended_at=MINUTE) == (99.0, 103.0)
    assert after(*BARS, ended_at=MINUTE + timedelta(seconds=1)) == (99.5, 101.0)  # the bar it ended in says nothing
    assert after(*BARS, ended_at=timedelta()) == (80.0, 120.0)


def test_after_the_last_bar_nothing_came() -> None:
    assert after(*BARS, ended_at=4 * MINUTE) is None


def test_where_a_bar_was_missed_nothing_is_known_of_what_ended_before_it() -> None:
    assert after(*BARS, ended_at=MINUTE, missing=1) is None
    assert after(*BARS, ended_at=2 * MINUTE, missing=1) == (99.5, 101.0)
    assert after(*BARS, ended_at=MINUTE, missing=3) is None  # the close was not seen


def test_on_simulated_sessions_what_came_after_each_trade_is_what_the_bars_say() -> None:
    market = SimulatedMarket(2, seed=4)
    run(market)
    sessions = {bars.session.day: bars for bars, _ in market.sessions()}
    told = 0
    for trade in Trade.objects.filter(status="closed"):
        bars = sessions[trade.session]
        _, high, low, _, _, _ = bars.values[:, :, market.universe.symbols.index(trade.symbol)]
        first = -((bars.session.open - trade.exited_at) // bars.length)
        later = np.array([*low[first:], *high[first:]])
        later = later[np.isfinite(later)]
        if not len(later):
            assert (trade.worst_after_r, trade.best_after_r) == (None, None)
            continue
        told += 1
        exit_price, risk = float(trade.exit_price), float(trade.risk_per_share)
        moved = (1 if trade.side == Side.LONG else -1) * (later - exit_price) / risk
        assert trade.worst_after_r == pytest.approx(max(0.0, -moved.min()), abs=1e-9), trade.signal_key
        assert trade.best_after_r == pytest.approx(max(0.0, moved.max()), abs=1e-9), trade.signal_key
    assert told > 200
