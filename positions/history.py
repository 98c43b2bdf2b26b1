"""Closed trades in memory, so that what history says of a signal costs no query. Only what has closed is in here."""

from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from math import nan
from typing import Protocol

from positions.words import Outcome

#: How many trades at the book's own rate a symbol's own record has to outweigh (beta prior's strength).
PRIOR_TRADES = 10


class ClosedTrade(Protocol):
    """What history keeps of a trade; `exited_at` is aware UTC, `r_multiple` after costs."""

    @property
    def symbol(self) -> str: ...
    @property
    def outcome(self) -> str | None: ...
    @property
    def r_multiple(self) -> float | None: ...
    @property
    def exited_at(self) -> datetime | None: ...


@dataclass(slots=True)
class _Record:
    trades: int = 0
    wins: int = 0
    total_r: float = 0.0


@dataclass(slots=True)
class TradeHistory:
    """How a book's closed trades ended, as of a moment: `as_of` first, then read.

    Trades count in the order in which they closed, and by symbol where they closed at one moment: the order in which
    they were heard of says nothing.
    """

    _heard: list[tuple[datetime, str, bool, float]] = field(default_factory=list)
    _last_ten: deque[bool] = field(default_factory=lambda: deque(maxlen=10))
    #: Wins in a row, losses negative; 0 before the first trade.
    streak: int = 0
    _all: _Record = field(default_factory=_Record)
    _by_symbol: defaultdict[str, _Record] = field(default_factory=lambda: defaultdict(_Record))

    def add(self, trade: ClosedTrade) -> None:
        """Call when a trade has closed, never before."""
        if trade.exited_at is None:
            raise ValueError(f"the trade in {trade.symbol} has not closed and says nothing yet")
        self._heard.append((trade.exited_at, trade.symbol, trade.outcome == Outcome.WIN, trade.r_multiple or 0.0))

    def as_of(self, moment: datetime) -> None:
        """Count the trades that closed before a moment (aware UTC), which must not lie before that of the last call."""
        for trade in sorted(heard for heard in self._heard if heard[0] < moment):
            self._heard.remove(trade)
            self._count(*trade[1:])

    def _count(self, symbol: str, won: bool, r: float) -> None:
        self._last_ten.append(won)
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
        return sum(self._last_ten) / len(self._last_ten) if self._last_ten else nan

    def symbol_trades(self, symbol: str) -> int:
        return self._by_symbol[symbol].trades if symbol in self._by_symbol else 0

    def symbol_win_rate(self, symbol: str) -> float:
        """The symbol's win rate drawn towards the book's by PRIOR_TRADES trades; NaN before the first trade."""
        return self._shrunk(symbol, lambda record: record.wins)

    def symbol_mean_r(self, symbol: str) -> float:
        """The symbol's mean R drawn towards the book's by PRIOR_TRADES trades; NaN before the first trade."""
        return self._shrunk(symbol, lambda record: record.total_r)

    def _shrunk(self, symbol: str, total: Callable[[_Record], float]) -> float:
        if not self.trades:
            return nan
        own = self._by_symbol[symbol] if symbol in self._by_symbol else _Record()
        prior = total(self._all) / self._all.trades
        return (total(own) + PRIOR_TRADES * prior) / (own.trades + PRIOR_TRADES)
