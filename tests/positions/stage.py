"""The whole desk on a market that tests drive by hand."""

from dataclasses import replace
from datetime import timedelta

from positions.breakeven_manager import BreakevenStopManager
from positions.exit_monitor import ExitMonitor
from positions.loop import Desk, TradingLoop, replay_bar
from positions.market.bars import BarBatch, BarHistory
from positions.market.calendar import Session
from positions.market.indicators import IndicatorBank
from positions.market.market_regime import MarketState
from positions.models import Trade
from positions.rules import ExitSettings, RiskSettings
from positions.store import MemoryStore, OrmStore
from positions.strategy import Opinion, Signal
from positions.words import Feed, Side
from tests.positions.world import MINUTE, NO_BAR, START, UNIVERSE, World, batch

FLAT = (100.0, 100.0, 100.0, 100.0)


class Scripted:
    """A strategy that gives the signals it was told to."""

    def __init__(self) -> None:
        self.next: list[Signal] = []

    def signals(self, bank: IndicatorBank) -> list[Signal]:
        given, self.next = self.next, []
        return given


class Listener:
    """An adviser that lets everything through, unless told otherwise, and remembers what became of it."""

    def __init__(self) -> None:
        self.opinion = Opinion(take=True)
        self.decisions: list[str] = []

    def on_signal(self, signal: Signal, bank: IndicatorBank) -> Opinion:
        return self.opinion

    def on_decision(self, signal: Signal, not_taken_reason: str) -> None:
        self.decisions.append(not_taken_reason)


class Stage:
    """The whole desk on two symbols, with a session from START on."""

    def __init__(
        self,
        settings: ExitSettings | None = None,
        *,
        protections: bool = False,
        minutes: int = 300,
        store: MemoryStore | OrmStore | None = None,
    ) -> None:
        self.settings = settings or ExitSettings(low_volume=False, time_limit=False, momentum_reversal=False)
        self.world = World(store or OrmStore("simulated"))
        self.bank, self.strategy, self.listener = IndicatorBank(UNIVERSE), Scripted(), Listener()
        store, execution = self.world.store, self.world.execution
        self.exits = ExitMonitor(self.bank, store, execution, lambda: self.settings)
        self.breakeven = BreakevenStopManager(self.bank, store, execution, lambda: self.settings)
        self.risk = RiskSettings()
        self.desk = Desk(
            book="simulated",
            feed=Feed.SIMULATED,
            bank=self.bank,
            market=MarketState(self.bank),
            strategy=self.strategy,
            broker=self.world.exchange,
            store=store,
            execution=execution,
            exits=self.exits,
            breakeven=self.breakeven,
            adviser=self.listener,
            exit_settings=lambda: self.settings,
            risk_settings=lambda: self.risk,
            protections=protections,
        )
        self.loop = TradingLoop(self.desk)
        self.session = Session(START.date(), START, START + timedelta(minutes=minutes))
        self.loop.open_session(self.session, MINUTE, BarHistory())
        self.now = START

    def bar(self, ko=NO_BAR, f=NO_BAR, volume: float = 1000.0) -> None:
        bars: BarBatch = batch(self.now, ko, f, volume)
        replay_bar(self.loop, self.world.exchange, self.world.clock, bars)
        self.now += MINUTE

    def signal(self, symbol: str = "KO", side: Side = Side.LONG, **changes: float) -> None:
        sign = 1 if side is Side.LONG else -1
        row = UNIVERSE.symbols.index(symbol)
        plan = Signal(symbol, row, side, self.now + MINUTE, START.date(), 100.0, 100.0 - sign, 100.0 + 2 * sign)
        self.strategy.next.append(replace(plan, **changes))

    def enter(self, **changes: float) -> Trade:
        for _ in range(5):
            self.bar(FLAT)
        self.signal(**changes)
        self.bar(FLAT)
        self.bar(FLAT)
        return self.world.store.live["KO"].trade

    def bell(self) -> None:
        self.world.exchange.close_session(self.now)
        self.loop.close_session(self.now)

    def closed(self) -> Trade:
        (trade,) = self.world.closed
        return trade
