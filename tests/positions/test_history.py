from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import permutations
from math import isnan

import pytest

from positions.history import PRIOR_TRADES, TradeHistory
from positions.words import Outcome


@dataclass
class Closed:
    symbol: str
    won: bool
    r_multiple: float | None = 0.0
    exited_at: datetime | None = datetime(2025, 5, 12, 15, tzinfo=UTC)

    @property
    def outcome(self) -> str:
        return Outcome.WIN if self.won else Outcome.LOSS


def later(number: int) -> datetime:
    return datetime(2025, 5, 12, 15, number, tzinfo=UTC)


def test_before_the_first_trade_nothing_is_known():
    history = TradeHistory()
    assert isnan(history.win_rate_10())
    assert isnan(history.symbol_win_rate("KO"))
    assert isnan(history.symbol_mean_r("KO"))
    assert history.trades == history.symbol_trades("KO") == history.streak == 0


def test_the_win_rate_is_that_of_the_last_ten_closed_trades():
    history = TradeHistory()
    for number, won in enumerate([True] * 5 + [False] * 8):
        history.add(Closed("KO", won, exited_at=later(number)))
    history.as_of(later(59))
    assert history.win_rate_10() == 0.2
    assert history.streak == -8


def test_a_streak_turns_with_the_first_trade_against_it():
    history = TradeHistory()
    streaks = []
    for number, won in enumerate((True, True, False, False, True)):
        history.add(Closed("KO", won, exited_at=later(number)))
        history.as_of(later(number + 1))
        streaks.append(history.streak)
    assert streaks == [1, 2, -1, -2, 1]


def test_a_symbols_record_is_drawn_towards_the_books_by_ten_trades():
    history = TradeHistory()
    for symbol, won, r in [("KO", True, 2.0), ("F", False, -1.0), ("F", False, -1.0), ("F", False, -1.0)]:
        history.add(Closed(symbol, won, r))
    history.as_of(later(1))
    assert history.symbol_win_rate("KO") == pytest.approx((1 + PRIOR_TRADES * 0.25) / (1 + PRIOR_TRADES))
    assert history.symbol_mean_r("KO") == pytest.approx((2.0 + PRIOR_TRADES * -0.25) / (1 + PRIOR_TRADES))
    assert history.symbol_win_rate("NEVER") == 0.25
    assert history.symbol_trades("NEVER") == 0


def test_trades_that_closed_at_one_moment_count_the_same_in_whatever_order_they_are_heard_of():
    seen = set()
    for order in permutations([Closed("A", True), Closed("B", False), Closed("C", True)]):
        history = TradeHistory()
        for trade in order:
            history.add(trade)
        history.as_of(later(1))
        seen.add((history.streak, history.win_rate_10()))
    assert seen == {(1, 2 / 3)}


def test_a_trade_that_is_still_open_is_refused():
    with pytest.raises(ValueError, match="has not closed"):
        TradeHistory().add(Closed("KO", True, exited_at=None))


def test_a_trade_that_closed_at_the_very_moment_did_not_close_before_it():
    history = TradeHistory()
    history.add(Closed("KO", True, exited_at=later(5)))
    history.as_of(later(5))
    assert history.trades == 0
    history.as_of(later(6))
    assert history.trades == 1
