from math import isnan

import pytest

from positions.history import PRIOR_TRADES, TradeHistory


def test_before_the_first_trade_nothing_is_known():
    history = TradeHistory()
    assert isnan(history.win_rate_10())
    assert isnan(history.symbol_win_rate("KO"))
    assert isnan(history.symbol_mean_r("KO"))
    assert history.trades == history.symbol_trades("KO") == history.streak == 0


def test_the_win_rate_is_that_of_the_last_ten_closed_trades():
    history = TradeHistory()
    for won in [True] * 5 + [False] * 8:
        history.add("KO", won, 1.0 if won else -1.0)
    assert history.win_rate_10() == 0.2
    assert history.streak == -8


def test_a_streak_turns_with_the_first_trade_against_it():
    history = TradeHistory()
    streaks = []
    for won in (True, True, False, False, True):
        history.add("KO", won, 0.0)
        streaks.append(history.streak)
    assert streaks == [1, 2, -1, -2, 1]


def test_a_symbols_record_is_drawn_towards_the_books_by_ten_trades():
    history = TradeHistory()
    for symbol, won, r in [("KO", True, 2.0), ("F", False, -1.0), ("F", False, -1.0), ("F", False, -1.0)]:
        history.add(symbol, won, r)
    assert history.symbol_win_rate("KO") == pytest.approx((1 + PRIOR_TRADES * 0.25) / (1 + PRIOR_TRADES))
    assert history.symbol_mean_r("KO") == pytest.approx((2.0 + PRIOR_TRADES * -0.25) / (1 + PRIOR_TRADES))
    assert history.symbol_win_rate("NEVER") == 0.25
    assert history.symbol_trades("NEVER") == 0
