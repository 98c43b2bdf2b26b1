"""A small market that tests drive by hand: bars as (open, high, low, close) of one or two symbols."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import numpy as np

from positions.broker.exchange import SimulatedExchange
from positions.clock import ReplayClock
from positions.execution import Execution
from positions.fees import FeeRates
from positions.market.bars import BarBatch, Universe
from positions.models import Trade
from positions.rules import ExitDecision
from positions.store import MemoryStore, OrmStore
from positions.words import ExitReason, Feed, Side

START = datetime(2025, 5, 12, 14, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
UNIVERSE = Universe(("KO", "F"), ("", ""), ("", ""), (True, True), None)
LEAVE = ExitDecision(ExitReason.TIME_LIMIT, {"minutes": 15})
BREAKEVEN = Decimal("100.02")
NAN = float("nan")
NO_BAR = (NAN, NAN, NAN, NAN)

Prices = tuple[float, float, float, float]


def batch(start: datetime, ko: Prices = NO_BAR, f: Prices = NO_BAR, volume: float = 1000.0) -> BarBatch:
    opened, high, low, close = (np.array(pair) for pair in zip(ko, f, strict=True))
    volumes = np.where(np.isfinite(close), volume, np.nan)
    return BarBatch(start, MINUTE, opened, high, low, close, volumes, np.full(2, np.nan))


def trade_plan(symbol: str = "KO", side: Side = Side.LONG, book: str = "simulated", at: datetime = START) -> Trade:
    """Entry near 100, stop and target 1 and 2 away."""
    sign = 1 if side is Side.LONG else -1
    return Trade(
        book=book,
        signal_key=f"{symbol}-{at:%Y%m%dT%H%M%SZ}-{side}",
        symbol=symbol,
        side=side,
        strategy="tests",
        feed=Feed.SIMULATED,
        session=at.date(),
        exit_settings_hash="test",
        signal_at=at,
        planned_entry=Decimal(100),
        initial_stop=Decimal(100 - sign),
        target=Decimal(100 + 2 * sign),
        planned_quantity=10,
        entry_volume=1000.0,
    )


@dataclass
class World:
    """An exchange, a store and the execution between them, moved bar by bar."""

    store: MemoryStore | OrmStore
    cost: float = 0.01
    now: datetime = START
    closed: list[Trade] = field(default_factory=list)
    fee_rates: tuple[FeeRates, ...] = ()

    def __post_init__(self) -> None:
        self.exchange = SimulatedExchange(UNIVERSE, cost_per_share=self.cost)
        self.clock = ReplayClock(self.now)
        self.execution = Execution(self.exchange, self.store, self.clock, "test", self.cost, self.fee_rates)
        self.execution.closed_listeners.append(self.closed.append)

    def bar(self, ko: Prices = NO_BAR, f: Prices = NO_BAR) -> None:
        bars = batch(self.now, ko, f)
        self.exchange.open_bar(bars)
        self.settle()
        self.exchange.trade_bar(bars)
        self.now += MINUTE
        self.clock.sleep_until(self.now)
        self.settle()

    def settle(self) -> None:
        while self.execution.take_events():
            self.execution.resume()
        self.execution.resume()

    def held(self, symbol: str = "KO") -> int:
        positions = self.exchange.positions()
        return positions[symbol].quantity if symbol in positions else 0

    def protected(self, symbol: str = "KO") -> int:
        return sum(o.quantity for o in self.exchange.open_orders().values() if o.symbol == symbol and o.stop_price)
