"""What becomes of a plan that is left alone: its stop, its target or the session's close, whichever the bars reach
first, whatever was done with the trade in the meantime."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

import numpy as np

from positions.market.bars import BarBatch, Floats
from positions.market.calendar import Session
from positions.rules import net_pnl
from positions.words import ExitReason, Outcome, PlanDoubt, Side


@dataclass(frozen=True, slots=True)
class Plan:
    """An entry and what was planned for it. Prices in dollars a share; times aware UTC.

    `entry` is what was paid, `risk` is R in dollars a share, `cost` is dollars a share and side; `row` is the symbol's
    place in the universe. From `flatten_at` on the plan is to be out, as rule session_close has it.
    """

    key: str
    row: int
    side: Side
    entry: Decimal
    stop: float
    target: float
    risk: Decimal
    cost: Decimal
    entered_at: datetime
    flatten_at: datetime

    def is_stopped_at(self, price: float) -> bool:
        return price <= self.stop if self.side is Side.LONG else price >= self.stop

    def has_its_target_at(self, price: float) -> bool:
        return price >= self.target if self.side is Side.LONG else price <= self.target


@dataclass(frozen=True, slots=True)
class PlanResult:
    """How a plan ended. `r` is its result after costs in units of its risk; exactly zero is a LOSS."""

    key: str
    reason: ExitReason
    exit_price: Decimal
    ended_at: datetime
    r: float
    outcome: Outcome
    doubt: PlanDoubt | None = None


class Ledger:
    """Follows any number of plans through a session, bar by bar, by the rules by which trades are closed with every
    early rule and breakeven off:

    - the stop fills at its price, or at the open of a bar that opened beyond it; a bar that reaches stop and target
      counts as the stop;
    - a bar that reaches the target, and the first that ends at `flatten_at` or later, are judged when complete, and the
      plan leaves at the open of its symbol's next bar, or at the session's close at the last known price;
    - a plan whose entry lies beyond its stop leaves at the next bar's open, as a trade whose stop is refused does;
    - a symbol without a bar waits.

    A plan of which a bar was missed is not known any more and has no result: nothing is made up for it.
    """

    def __init__(self, symbols: int) -> None:
        self._session: Session
        self._seen_until: datetime
        self._plans: dict[str, Plan] = {}
        self._new: list[str] = []  # entered in a bar that is not complete yet
        self._running: dict[int, list[str]] = {}  # by row
        self._leaving: dict[str, ExitReason] = {}  # at the next open of their symbol
        # Of each symbol the nearest prices at which one of its running plans ends: within them, a bar changes nothing.
        self._below: Floats = np.full(symbols, -np.inf)
        self._above: Floats = np.full(symbols, np.inf)
        self._next_flatten: datetime

    def open_session(self, session: Session) -> None:
        """Nothing is followed from one session into the next."""
        self._session, self._seen_until, self._next_flatten = session, session.open, session.close
        self._forget_all()

    def follow(self, plan: Plan) -> bool:
        """Follow a plan from its entry on; one that is followed already goes on at its new entry price and risk.

        False if a bar after its entry was taken in before: how it ends cannot be known any more.
        """
        if plan.key not in self._plans:
            if plan.entered_at < self._seen_until:
                return False
            self._new.append(plan.key)
        self._plans[plan.key] = plan
        return True

    def on_bar(self, batch: BarBatch) -> list[PlanResult]:
        """Take in a completed bar of every symbol; returns the plans that ended in it."""
        if batch.start != self._seen_until:
            self._forget_entered_before(batch.start)
        self._seen_until = batch.end
        results = self._leave(batch)
        self._begin(batch.end)
        for row in self._rows_to_look_at(batch):
            results += self._look(row, batch)
        for result in results:
            del self._plans[result.key]
        return results

    def close_session(self, last_price: Floats) -> list[PlanResult]:
        """The bell: what is still followed ends at its symbol's last known price (shape (symbols,)).

        Without the session's last bar nothing is known of what was still followed.
        """
        results = []
        if self._seen_until >= self._session.close:
            running = [key for keys in self._running.values() for key in keys]
            for key, reason in {**self._leaving, **dict.fromkeys(running, ExitReason.SESSION_CLOSE)}.items():
                plan = self._plans[key]
                price = float(last_price[plan.row])
                results.append(_result(plan, reason, price, self._session.close, PlanDoubt.AT_LAST_PRICE))
        self._forget_all()
        return results

    def _leave(self, batch: BarBatch) -> list[PlanResult]:
        results = []
        for key, reason in list(self._leaving.items()):
            plan = self._plans[key]
            opened = float(batch.open[plan.row])
            if opened == opened:  # NaN: no trade in this symbol, the plan waits
                del self._leaving[key]
                results.append(_result(plan, reason, opened, batch.start))
        return results

    def _begin(self, end: datetime) -> None:
        """Plans that were entered in the bar that ends now run from this bar on."""
        new, self._new = self._new, []
        for key in new:
            plan = self._plans[key]
            if plan.entered_at >= end:
                self._new.append(key)
            elif plan.is_stopped_at(float(plan.entry)):
                self._leaving[key] = ExitReason.STOP
            else:
                self._running.setdefault(plan.row, []).append(key)
                self._next_flatten = min(self._next_flatten, plan.flatten_at)
                self._heed(plan)

    def _rows_to_look_at(self, batch: BarBatch) -> list[int]:
        if not self._running:
            return []
        if batch.end >= self._next_flatten:
            return list(self._running)
        rows: list[int] = ((batch.low <= self._below) | (batch.high >= self._above)).nonzero()[0].tolist()
        return rows

    def _look(self, row: int, batch: BarBatch) -> list[PlanResult]:
        """Judge the running plans of a symbol by its bar; returns those that were stopped."""
        opened, high, low = float(batch.open[row]), float(batch.high[row]), float(batch.low[row])
        results, running = [], []
        self._below[row], self._above[row] = -np.inf, np.inf
        for key in self._running.pop(row):
            plan = self._plans[key]
            best, worst = (high, low) if plan.side is Side.LONG else (low, high)
            reached = plan.has_its_target_at(best)
            if plan.is_stopped_at(worst):
                beyond = plan.is_stopped_at(opened) and batch.start >= plan.entered_at
                price, ended_at = (opened, batch.start) if beyond else (plan.stop, batch.end)
                doubt = PlanDoubt.BOTH_TOUCHED if reached and not beyond else None
                results.append(_result(plan, ExitReason.STOP, price, ended_at, doubt))
            elif batch.end >= plan.flatten_at:
                self._leaving[key] = ExitReason.SESSION_CLOSE
            elif reached:
                self._leaving[key] = ExitReason.TARGET
            else:
                running.append(key)
                self._heed(plan)
        if running:
            self._running[row] = running
        return results

    def _heed(self, plan: Plan) -> None:
        """Look at the plan's symbol when a bar touches its stop or its target."""
        lower, upper = (plan.stop, plan.target) if plan.side is Side.LONG else (plan.target, plan.stop)
        self._below[plan.row] = max(self._below[plan.row], lower)
        self._above[plan.row] = min(self._above[plan.row], upper)

    def _forget_all(self) -> None:
        self._plans, self._new, self._leaving = {}, [], {}
        self._forget_running()

    def _forget_running(self) -> None:
        self._running = {}
        self._below[:], self._above[:] = -np.inf, np.inf

    def _forget_entered_before(self, moment: datetime) -> None:
        """Bars are missing: nothing is known any more of the plans that ran while they were traded."""
        self._plans = {key: plan for key, plan in self._plans.items() if plan.entered_at >= moment}
        self._new = [key for key in self._new if key in self._plans]
        self._leaving = {}
        self._forget_running()


def _result(
    plan: Plan, reason: ExitReason, price: float, ended_at: datetime, doubt: PlanDoubt | None = None
) -> PlanResult:
    exit_price = Decimal(f"{price:.4f}")
    net = net_pnl(plan.side, plan.entry, exit_price, 1, 2 * plan.cost)
    return PlanResult(
        key=plan.key,
        reason=reason,
        exit_price=exit_price,
        ended_at=ended_at,
        r=float(net / plan.risk),
        outcome=Outcome.WIN if net > 0 else Outcome.LOSS,
        doubt=doubt,
    )
