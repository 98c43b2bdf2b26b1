"""Closed trades in memory, so that what history says of a signal costs no query. Only what has closed is in here."""

from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from math import nan

#: How many trades at the book's own rate a symbol's own record has to outweigh (beta prior's strength).
PRIOR_TRADES = 10


@dataclass(slots=True)
class _Record:
    trades: int = 0
    wins: int = 0
    total_r: float = 0.0


@dataclass(slots=True)
class TradeHistory:
    """How a book's closed trades ended, in the order in which they closed."""

    last_ten: deque[bool] = field(default_factory=lambda: deque(maxlen=10))
    streak: int = 0
    _all: _Record = field(default_factory=_Record)
    _by_symbol: defaultdict[str, _Record] = field(default_factory=lambda: defaultdict(_Record))

    def add(self, symbol: str, won: bool, r: float) -> None:
        """Call when a trade closes, never before."""
        self.last_ten.append(won)
        self.streak = max(self.streak, 0) + 1 if won else min(self.streak, 0) - 1
        for record in (self._all, self._by_symbol[symbol]):
            record.trades += 1
            record.wins += won
            record.total_r += r

    @property
    def trades(self) -> int:
        return self._all.trades

    def win_rate_10(self) -> float:
        """Win rate of the last ten closed trades (fewer while there are fewer); NaN before the first."""
        return sum(self.last_ten) / len(self.last_ten) if self.last_ten else nan

    def symbol_trades(self, symbol: str) -> int:
        return self._by_symbol[symbol].trades if symbol in self._by_symbol else 0

    def symbol_win_rate(self, symbol: str) -> float:
        """The symbol's win rate drawn towards the book's by PRIOR_TRADES trades; NaN before the first trade."""
        return self._shrunk(symbol, lambda record: record.wins)

    def symbol_mean_r(self, symbol: str) -> float:
        """The symbol's mean R drawn towards the book's by PRIOR_TRADES trades; NaN before the first trade."""
        return self._shrunk(symbol, lambda record: record.total_r)

    def _shrunk(self, symbol: str, total: Callable[[_Record], float]) -> float:
        if not self._all.trades:
            return nan
        own = self._by_symbol[symbol] if symbol in self._by_symbol else _Record()
        prior = total(self._all) / self._all.trades
        return (total(own) + PRIOR_TRADES * prior) / (own.trades + PRIOR_TRADES)
