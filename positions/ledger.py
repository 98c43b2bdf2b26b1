"""What becomes of a plan that is left alone: its stop, its target or the session's close, whichever the bars reach
first, whatever was done with the trade in the meantime."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

import numpy as np
from numpy.typing import NDArray

from positions.market.bars import BarBatch, Floats
from positions.market.calendar import Session
from positions.rules import net_pnl
from positions.words import ExitReason, Outcome, Side


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
    stop: Decimal
    target: Decimal
    risk: Decimal
    cost: Decimal
    entered_at: datetime
    flatten_at: datetime

    @property
    def sign(self) -> int:
        return 1 if self.side is Side.LONG else -1


@dataclass(frozen=True, slots=True)
class PlanResult:
    """How a plan ended. `r` is its result after costs in units of its risk; exactly zero is a LOSS.

    `mfe_r` and `mae_r` (both >= 0) are how far the price went for and against the plan, in R before costs, over the
    bars that it lived to the end of and its exit. `both_touched`: the stop's bar reached the target too, and which came
    first is not known. `at_last_price`: no bar came any more to leave in.
    """

    key: str
    reason: ExitReason
    exit_price: Decimal
    ended_at: datetime
    r: float
    outcome: Outcome
    mfe_r: float
    mae_r: float
    both_touched: bool = False
    at_last_price: bool = False


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

    def __init__(self) -> None:
        self._plans: list[Plan] = []
        self._reasons: list[ExitReason | None] = []
        self._rows = np.empty(0, dtype=np.int64)
        self._long = np.empty(0, dtype=bool)
        self._leaving = np.empty(0, dtype=bool)
        # Shape (fields, plans). Prices are negated for shorts, so that higher is better for every plan.
        self._numbers: Floats = np.empty((6, 0))
        self._session: Session
        self._seen_until: datetime

    def open_session(self, session: Session) -> None:
        """Nothing is followed from one session into the next."""
        self._session, self._seen_until = session, session.open
        self._keep(np.zeros(len(self._plans), dtype=bool))

    def follow(self, plan: Plan) -> bool:
        """Follow a plan from its entry on; one that is followed already goes on at its new entry price and risk.

        False if a bar after its entry was taken in before: how it ended cannot be known any more.
        """
        for number, known in enumerate(self._plans):
            if known.key == plan.key:
                self._plans[number] = plan
                return True
        if plan.entered_at < self._seen_until:
            return False
        entry, stop, target = (plan.sign * float(price) for price in (plan.entry, plan.stop, plan.target))
        numbers = (stop, target, plan.entered_at.timestamp(), plan.flatten_at.timestamp(), entry, entry)
        beyond = entry <= stop
        self._plans.append(plan)
        self._reasons.append(ExitReason.STOP if beyond else None)
        self._rows = np.append(self._rows, plan.row)
        self._long = np.append(self._long, plan.side is Side.LONG)
        self._leaving = np.append(self._leaving, beyond)
        self._numbers = np.column_stack((self._numbers, numbers))
        return True

    def on_bar(self, batch: BarBatch) -> list[PlanResult]:
        """Take in a completed bar of every symbol; returns the plans that ended in it."""
        if batch.start != self._seen_until:
            self._keep(self._numbers[2] >= batch.start.timestamp())
        self._seen_until = batch.end
        if not self._plans:
            return []
        stop, target, entered, flatten, best, worst = self._numbers
        high, low = batch.high[self._rows], batch.low[self._rows]
        highest, lowest = np.where(self._long, high, -low), np.where(self._long, low, -high)
        start, end = batch.start.timestamp(), batch.end.timestamp()
        begun = entered < end
        staying = begun & ~self._leaving
        stopped = staying & (lowest <= stop)
        reached = highest >= target
        leaves = staying & ~stopped & (reached | (flatten <= end))
        left = self._leaving & (entered < start) & np.isfinite(high)
        ended = stopped | left
        np.fmax(best, highest, out=best, where=begun & ~ended)
        np.fmin(worst, lowest, out=worst, where=begun & ~ended)
        for number in np.flatnonzero(leaves):
            self._leaving[number] = True
            self._reasons[number] = ExitReason.SESSION_CLOSE if flatten[number] <= end else ExitReason.TARGET
        if not ended.any():
            return []
        results = [
            self._stopped(int(number), batch, bool(reached[number]))
            if stopped[number]
            else self._result(int(number), float(batch.open[self._rows[number]]), batch.start)
            for number in np.flatnonzero(ended)
        ]
        self._keep(~ended)
        return results

    def close_session(self, last_price: Floats) -> list[PlanResult]:
        """The bell: what is still followed ends at its symbol's last known price (shape (symbols,)).

        Without the session's last bar nothing is known of what was still followed.
        """
        complete = self._seen_until >= self._session.close
        results = [
            self._result(number, float(last_price[plan.row]), self._session.close, at_last_price=True)
            for number, plan in enumerate(self._plans if complete else ())
        ]
        self._keep(np.zeros(len(self._plans), dtype=bool))
        return results

    def _stopped(self, number: int, batch: BarBatch, reached: bool) -> PlanResult:
        plan = self._plans[number]
        opened = float(batch.open[plan.row])
        beyond = plan.sign * (opened - float(plan.stop)) <= 0 and batch.start >= plan.entered_at
        price, ended_at = (opened, batch.start) if beyond else (float(plan.stop), batch.end)
        return self._result(number, price, ended_at, both_touched=reached and not beyond)

    def _result(
        self, number: int, price: float, at: datetime, *, both_touched: bool = False, at_last_price: bool = False
    ) -> PlanResult:
        plan = self._plans[number]
        exit_price = Decimal(f"{price:.4f}")
        net = net_pnl(plan.side, plan.entry, exit_price, 1, 2 * plan.cost)
        best, worst = self._numbers[4:, number].tolist()
        entry, left, risk = plan.sign * float(plan.entry), plan.sign * float(exit_price), float(plan.risk)
        return PlanResult(
            key=plan.key,
            reason=self._reasons[number] or (ExitReason.SESSION_CLOSE if at_last_price else ExitReason.STOP),
            exit_price=exit_price,
            ended_at=at,
            r=float(net / plan.risk),
            outcome=Outcome.WIN if net > 0 else Outcome.LOSS,
            mfe_r=(max(best, left, entry) - entry) / risk,
            mae_r=(entry - min(worst, left, entry)) / risk,
            both_touched=both_touched,
            at_last_price=at_last_price,
        )

    def _keep(self, kept: NDArray[np.bool_]) -> None:
        if kept.all():
            return
        self._plans = [plan for plan, keep in zip(self._plans, kept, strict=True) if keep]
        self._reasons = [reason for reason, keep in zip(self._reasons, kept, strict=True) if keep]
        self._rows, self._long, self._leaving = self._rows[kept], self._long[kept], self._leaving[kept]
        self._numbers = self._numbers[:, kept]
