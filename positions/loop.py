"""The main job: bars in, signals out, trades entered, watched and closed. The same object trades live and replays."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

import numpy as np
import structlog

from positions import breakeven_manager, exit_monitor
from positions.breakeven_manager import BreakevenStopManager
from positions.broker.exchange import SimulatedExchange
from positions.broker.port import Account, Broker, BrokerError
from positions.clock import ReplayClock
from positions.excursion import Aftermath, Excursions
from positions.execution import ENTRY_PATIENCE, Execution
from positions.exit_monitor import ExitMonitor
from positions.isolation import Isolate, Work
from positions.ledger import Ledger, Plan, PlanResult
from positions.market.bars import BarBatch, BarHistory
from positions.market.calendar import Session
from positions.market.indicators import IndicatorBank
from positions.market.market_regime import MarketState
from positions.models import ShadowTrade, Trade
from positions.rules import DayView, ExitSettings, RiskSettings, blocked, initial_stop, round_to_tick, whole_shares
from positions.shadow import ShadowBook, take_plan_result
from positions.store import Store, StoreUnavailable
from positions.strategy import Adviser, BadSignal, Signal, Strategy
from positions.words import Feed, Outcome, Side, TradeStatus

log = structlog.get_logger(__name__)

#: Prices beyond it are no prices, and the tables could not hold them.
HIGHEST_PRICE = 1e7

#: What trades are sized on where portfolio caps are off: every session starts from the same account.
FIXED_ACCOUNT = Account(equity=Decimal(100_000), buying_power=Decimal("Infinity"))


@dataclass(frozen=True, slots=True)
class Desk:
    """Who works together on one book. `protections` off sizes on a fixed account and blocks no entry."""

    book: str
    feed: Feed
    bank: IndicatorBank
    market: MarketState
    strategy: Strategy
    broker: Broker
    store: Store
    execution: Execution
    exits: ExitMonitor
    breakeven: BreakevenStopManager
    adviser: Adviser
    exit_settings: Callable[[], ExitSettings]
    risk_settings: Callable[[], RiskSettings]
    protections: bool
    isolate: Isolate = nullcontext
    is_halted: Callable[[], bool] = bool


class Levels(NamedTuple):
    """The prices of a plan as orders take them, in dollars."""

    entry: Decimal
    stop: Decimal
    target: Decimal


@dataclass(slots=True)
class Results:
    """What the session's closed trades came to: dollars after fees, and the losses since the last win."""

    pnl: Decimal = Decimal(0)
    losses: int = 0
    last_loss_at: datetime | None = None

    def add(self, trade: Trade) -> None:
        self.pnl += trade.pnl or 0
        won = trade.outcome == Outcome.WIN
        self.losses = 0 if won else self.losses + 1
        self.last_loss_at = None if won else trade.exited_at


class TradingLoop:
    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._strategy_name = f"{type(desk.strategy).__module__}.{type(desk.strategy).__qualname__}"
        self._results = Results()
        self._ledger = Ledger(len(desk.bank.universe))
        self._followed: dict[str, Trade] = {}
        self._excursions = Excursions(len(desk.bank.universe))
        self._aftermath, self._ended = Aftermath(), list[Trade]()
        self._shadows = ShadowBook(len(desk.bank.universe), desk.execution.cost_per_share)
        self._considered: set[str] = set()
        self._is_open = False
        desk.execution.closing_listeners.append(self._measure)
        desk.execution.entered_listeners.append(self._follow)
        desk.execution.closed_listeners.append(self._count_result)

    def open_session(self, session: Session, length: timedelta, history: BarHistory) -> None:
        self._desk.bank.open_session(session, length, history)
        self._desk.market.open_session()
        self._results = Results()
        self._considered.clear()
        self._ended = list(self._desk.store.closed_trades(session.day))
        for trade in self._ended:
            self._results.add(trade)
        self._aftermath.open_session(session)
        self._ledger.open_session(session)
        self._excursions.open_session(session)
        self._followed, self._is_open = {}, True
        for trade in self._desk.store.unfinished_plans(session.day):
            if trade.symbol in self._desk.bank.row_of:  # else it is watched no more: no bar will tell
                self._follow(trade)
        self._shadows.open_session(session, self._flatten_at)
        for shadow in self._desk.store.unfinished_shadows(session.day):
            if shadow.symbol in self._desk.bank.row_of:
                self._shadows.follow(shadow, self._desk.bank.row_of[shadow.symbol])

    @property
    def _flatten_at(self) -> datetime:
        """When plans are to be out."""
        return self._desk.bank.session.close - timedelta(minutes=self._desk.exit_settings().flatten_minutes)

    def catch_up(self, batch: BarBatch) -> None:
        """Take in a stored bar of this session, from before this process began: nothing is decided on it.

        A minute in which no symbol has a bar was not stored: the plans that ran then are not known any more.
        """
        if np.isfinite(batch.close).any():
            self._take_in(batch)
            self._excursions.on_bar(batch)
            self._aftermath.on_bar(batch)
            self._end_plans(self._ledger.on_bar(batch))
            self._shadows.on_bar(batch)

    def close_session(self, now: datetime) -> None:
        """The bell has rung: settle what it closed, and end every plan."""
        self.tick(now)
        self._end_plans(self._ledger.close_session(self._desk.bank.close))
        self._tell_what_came_after()
        if self._followed:
            log.warning("plans_not_known", plans=len(self._followed), reason="a bar was missed while they ran")
        self._shadows.close_session(self._desk.bank.close)
        self._store_shadows()

    def _count_result(self, trade: Trade) -> None:
        self._results.add(trade)
        self._ended.append(trade)

    def _tell_what_came_after(self) -> None:
        """How far prices went after each trade of the session had ended, in R."""
        rows = self._desk.bank.row_of
        ended = [trade for trade in self._ended if trade.symbol in rows and trade.exited_at and trade.risk_per_share]
        after = self._aftermath.of([(rows[trade.symbol], trade.exited_at) for trade in ended if trade.exited_at])
        told = []
        for trade, between in zip(ended, after, strict=True):
            if between is not None and trade.exit_price is not None and trade.risk_per_share:
                closed_at, risk = float(trade.exit_price), float(trade.risk_per_share)
                below = max(0.0, closed_at - between[0]) / risk
                above = max(0.0, between[1] - closed_at) / risk
                is_long = trade.side == Side.LONG
                trade.worst_after_r, trade.best_after_r = (below, above) if is_long else (above, below)
                told.append(trade)
        if told:
            self._desk.store.plans_ended(told)

    def on_bar(self, batch: BarBatch) -> None:
        """A completed bar has arrived: update, get out, protect, then look for entries."""
        desk = self._desk
        self._take_in(batch)
        self.tick(desk.bank.now)
        self._excursions.on_bar(batch)
        self._aftermath.on_bar(batch)
        self.tick_breakeven()
        self._give_up_old_entries(desk.bank.now)
        self._end_plans(self._ledger.on_bar(batch))
        self._shadows.on_bar(batch)
        for signal in self._signals():
            with desk.isolate(Work("signals", signal.symbol, signal.key)):
                self.consider(signal)
        self._store_shadows()

    def revise_bar(self, batch: BarBatch) -> None:
        """The last bar of some symbols was corrected; `remember` was called before that bar."""
        self._desk.bank.revise(batch)
        self._desk.market.revise()

    def remember(self) -> None:
        """A bar is about to come that may be corrected later."""
        self._desk.bank.remember()

    def _take_in(self, batch: BarBatch) -> None:
        self._desk.bank.update(batch)
        self._desk.market.update()

    def _follow(self, trade: Trade) -> None:
        """Hear of an entry: what becomes of its plan is followed beside the trade, and on when that has ended. Before
        the first session is open nothing is followed; the trade is stored, and the opening reads it."""
        if not self._is_open:
            return
        desk = self._desk
        assert trade.entry_price is not None
        assert trade.risk_per_share is not None
        assert trade.entered_at is not None
        self._excursions.follow(desk.bank.row_of[trade.symbol], trade.entered_at)
        if trade.plan_outcome is not None:  # its entry filled further after the plan had ended
            return
        plan = Plan(
            key=trade.signal_key,
            row=desk.bank.row_of[trade.symbol],
            side=Side(trade.side),
            entry=trade.entry_price,
            stop=float(trade.initial_stop),
            target=float(trade.target),
            risk=trade.risk_per_share,
            cost=desk.execution.cost_per_share,
            entered_at=trade.entered_at,
            flatten_at=self._flatten_at,
        )
        self._followed[trade.signal_key] = trade
        self._ledger.follow(plan)

    def _measure(self, trade: Trade) -> None:
        """Hear of a trade that was closed: how far it went is told in R, its entry and its exit included."""
        row = self._desk.bank.row_of.get(trade.symbol)
        between = None if row is None else self._excursions.end(row)
        if between is None:
            return
        assert trade.entry_price is not None
        assert trade.exit_price is not None
        assert trade.risk_per_share is not None
        entry, closed_at, risk = float(trade.entry_price), float(trade.exit_price), float(trade.risk_per_share)
        below = (entry - min(between[0], entry, closed_at)) / risk
        above = (max(between[1], entry, closed_at) - entry) / risk
        trade.mae_r, trade.mfe_r = (below, above) if trade.side == Side.LONG else (above, below)

    def _end_plans(self, results: list[PlanResult]) -> None:
        if not results:
            return
        trades = []
        for result in results:
            trade = self._followed.pop(result.key)
            take_plan_result(trade, result)
            trades.append(trade)
        self._desk.store.plans_ended(trades)

    def _store_shadows(self) -> None:
        changed = self._shadows.take_changed()
        if changed:
            self._desk.store.store_shadows(changed)

    def tick(self, now: datetime) -> None:
        """What every 10 seconds brings: the broker's news, what is owed, the exit rules."""
        self.settle()
        self._desk.exits.tick(now)

    def settle(self) -> None:
        """The broker's news and what is owed, whether the market is open or not."""
        execution = self._desk.execution
        execution.take_events()
        if execution.owed:
            execution.resume()

    def tick_breakeven(self) -> None:
        """What every 30 seconds brings."""
        self._desk.breakeven.monitor_for_breakeven()

    def _give_up_old_entries(self, now: datetime) -> None:
        for mine in list(self._desk.store.live.values()):
            if mine.trade.status == TradeStatus.ENTERING and now - mine.trade.signal_at > ENTRY_PATIENCE:
                self._desk.execution.cancel_entry(mine)
                self._desk.execution.take_events()

    def _signals(self) -> list[Signal]:
        """What the strategy says of the bar. Raises BadSignal where it contradicts the market it was shown."""
        bank, name = self._desk.bank, self._strategy_name
        given: dict[str, Signal] = {}
        for signal in self._desk.strategy.signals(bank):
            if not isinstance(signal, Signal):
                raise BadSignal(f"strategy {name} gave {signal!r}, which is no Signal")
            if bank.row_of.get(signal.symbol) != signal.row or not bank.tradable[signal.row]:
                raise BadSignal(f"strategy {name}: {signal.symbol} is not the tradable symbol of row {signal.row}")
            if signal.at != bank.now or signal.session != bank.session.day:
                raise BadSignal(f"strategy {name}: the signal {signal.key} is not of the bar that ends at {bank.now}")
            if signal.key in given:
                raise BadSignal(f"strategy {name} gave the signal {signal.key} twice")
            given[signal.key] = signal
        return list(given.values())

    def consider(self, signal: Signal) -> str:
        """Have a signal's features stored and its odds predicted, and enter it unless something is against it; returns
        what is, "" if an entry order works. One that is not entered and has a plan is followed in the shadow book."""
        if signal.key in self._considered:
            return "given_already"
        self._considered.add(signal.key)
        desk = self._desk
        opinion = desk.adviser.on_signal(signal, desk.bank)
        reason = ("" if opinion.take else opinion.reason) or self._enter(signal)
        desk.adviser.on_decision(signal, reason)
        if reason:
            self._follow_on_paper(signal, reason)
        return reason

    def _day(self, account: Account, now: datetime) -> DayView:
        desk, results = self._desk, self._results
        return DayView(
            now=now,
            halted=desk.is_halted(),
            open_positions=len(desk.store.live),
            pnl=float(results.pnl),
            equity=float(account.equity),
            orders=desk.store.orders_since(now - timedelta(minutes=1)),
            losses=results.losses,
            last_loss_at=results.last_loss_at,
        )

    def _follow_on_paper(self, signal: Signal, reason: str) -> None:
        levels = _levels(signal)
        if levels is None:
            return
        shadow = ShadowTrade(
            book=self._desk.book,
            signal_key=signal.key,
            symbol=signal.symbol,
            side=signal.side,
            strategy=signal.source or self._strategy_name,
            not_taken_reason=reason,
            feed=self._desk.feed,
            session=signal.session,
            signal_at=signal.at,
            planned_entry=levels.entry,
            initial_stop=levels.stop,
            target=levels.target,
        )
        self._shadows.add(shadow, signal.row)

    def _enter(self, signal: Signal) -> str:
        """Enter a trade on a signal; returns why not, "" if an entry order works."""
        desk = self._desk
        if signal.symbol in desk.store.live:
            return "position_open"
        exits, risk = desk.exit_settings(), desk.risk_settings()
        levels = _levels(signal)
        if levels is None:
            return "invalid_plan"
        account = FIXED_ACCOUNT
        if desk.protections:
            try:
                account = desk.broker.account()
            except BrokerError:
                return "account_unknown"
            try:
                reason = blocked(self._day(account, signal.at), risk)
            except StoreUnavailable:
                reason = "database_away"
            if reason:
                return reason
        quantity = whole_shares(
            float(levels.entry), float(levels.stop), float(account.equity), float(account.buying_power), risk
        )
        if quantity == 0:
            return "too_small"
        volume = desk.bank.mean_volume(signal.row, exits.low_volume_bars)
        trade = Trade(
            book=desk.book,
            signal_key=signal.key,
            symbol=signal.symbol,
            side=signal.side,
            strategy=signal.source or self._strategy_name,
            feed=desk.feed,
            session=signal.session,
            exit_settings_hash=exits.hash,
            signal_at=signal.at,
            planned_entry=levels.entry,
            initial_stop=levels.stop,
            target=levels.target,
            planned_quantity=quantity,
            equity=account.equity,
            entry_volume=volume if volume == volume else None,
        )
        return "" if desk.execution.enter(trade) else "refused"


def _levels(signal: Signal) -> Levels | None:
    """A signal's plan on the tick; None where it is no plan."""
    if not all(0 < price < HIGHEST_PRICE for price in (signal.entry, signal.stop, signal.target)):
        return None
    long = signal.side is Side.LONG
    entry, stop = round_to_tick(signal.entry, up=long), initial_stop(signal.stop, signal.side)
    target = round_to_tick(signal.target, up=long)
    right = 0 < stop < entry < target if long else stop > entry > target > 0
    return Levels(entry, stop, target) if right else None


def replay_bar(loop: TradingLoop, exchange: SimulatedExchange, clock: ReplayClock, batch: BarBatch) -> None:
    """One bar of a simulated market, with the ticks that fall into it.

    Orders that wait fill at the open, their stops are placed at once, the bar's range may touch them, and when the bar
    is complete the loop looks at it.
    """
    clock.sleep_until(batch.start)
    exchange.open_bar(batch)
    loop.tick(batch.start)
    for seconds in range(
        exit_monitor.INTERVAL_SECONDS, int(batch.length.total_seconds()), exit_monitor.INTERVAL_SECONDS
    ):
        clock.sleep_until(batch.start + timedelta(seconds=seconds))
        loop.tick(clock.now())
        if seconds % breakeven_manager.INTERVAL_SECONDS == 0:
            loop.tick_breakeven()
    exchange.trade_bar(batch)
    clock.sleep_until(batch.end)
    loop.on_bar(batch)
