import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from positions.market.bars import BarHistory
from positions.market.feeds.simulated import SimulatedMarket
from positions.market.indicators import IndicatorBank
from positions.market.market_regime import MarketState, Regime, next_regime


@pytest.mark.parametrize(
    ("current", "trend", "volatility", "after"),
    [
        (Regime.RANGE, 1.1, 1.0, Regime.TREND_UP),
        (Regime.RANGE, 0.9, 1.0, Regime.RANGE),
        (Regime.TREND_UP, 0.6, 1.0, Regime.TREND_UP),
        (Regime.TREND_UP, 0.4, 1.0, Regime.RANGE),
        (Regime.TREND_UP, -1.1, 1.0, Regime.TREND_DOWN),
        (Regime.TREND_DOWN, -0.6, 1.0, Regime.TREND_DOWN),
        (Regime.RANGE, 1.5, 2.1, Regime.STORM),
        (Regime.STORM, 1.5, 1.6, Regime.STORM),
        (Regime.STORM, 1.5, 1.4, Regime.TREND_UP),
        (Regime.TREND_UP, float("nan"), 1.0, Regime.TREND_UP),
    ],
)
def test_a_regime_is_entered_beyond_one_limit_and_left_inside_another(current, trend, volatility, after):
    assert next_regime(current, trend, volatility) is after


@given(st.sampled_from(Regime), st.floats(-5, 5), st.floats(0, 5))
def test_a_regime_that_has_been_entered_stays_while_nothing_changes(current, trend, volatility):
    after = next_regime(current, trend, volatility)
    assert next_regime(after, trend, volatility) is after


def test_breadth_and_sectors_are_plain_shares_and_means_of_the_universe():
    feed = SimulatedMarket(1, seed=3)
    bank = IndicatorBank(feed.universe)
    market, history = MarketState(bank), BarHistory()
    for bars, _ in feed.sessions():
        bank.open_session(bars.session, bars.length, history)
        market.open_session()
        for batch in bars.batches():
            bank.update(batch)
            market.update()
        history.append(bars)
    stocks = np.flatnonzero(feed.universe.tradable)
    assert market.breadth_ema20() == np.mean([bank.close[row] > bank.ema20[row] for row in stocks])
    assert market.breadth_vwap() == np.mean([bank.close[row] > bank.vwap[row] for row in stocks])
    row = int(stocks[0])
    fund = feed.universe.symbols.index(feed.universe.sector_etfs[row])
    assert market.sector_return(row) == bank.close[fund] / bank.session_open[fund] - 1
