"""The shadow book: signals that were not taken, followed on paper by their plans alone.

They enter at the open of their symbol's next bar, as an order that waits in the simulated exchange does, and end as
the plan of a trade does (positions/ledger.py), after the same costs.
"""

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal

from positions.execution import ENTRY_PATIENCE, LEAST_RISK
from positions.ledger import Ledger, Plan, PlanResult
from positions.market.bars import BarBatch, Floats
from positions.market.calendar import Session
from positions.models import ShadowTrade, Trade
from positions.words import SIGN, Side


def take_plan_result(row: Trade | ShadowTrade, result: PlanResult) -> None:
    """Note on a trade how its plan ended."""
    row.plan_outcome, row.plan_r, row.plan_doubt = result.outcome, result.r, result.doubt
    row.plan_exit_reason, row.plan_ended_at = result.reason, result.ended_at


def _risk_per_share(shadow: ShadowTrade, entry: Decimal) -> Decimal:
    """As a trade's: entered at the stop or nearly so, the distance measures nothing and the plan's own stands."""
    risk = SIGN[shadow.side] * (entry - shadow.initial_stop)
    planned = abs(shadow.planned_entry - shadow.initial_stop)
    return risk if risk >= planned * LEAST_RISK else planned


class ShadowBook:
    """Follows the shadow trades of a session. One that finds no bar to enter in within ENTRY_PATIENCE, or by the bell,
    is not entered; one of whose life a bar was missed has no result."""

    def __init__(self, symbols: int, cost_per_share: Decimal) -> None:
        self._cost = cost_per_share
        self._ledger = Ledger(symbols)
        self._waiting: list[tuple[ShadowTrade, int]] = []
        self._entered: dict[str, ShadowTrade] = {}
        self._changed: dict[str, ShadowTrade] = {}
        self._flatten_at: datetime
        self._seen_until: datetime

    def open_session(self, session: Session, flatten_at: datetime) -> None:
        """Nothing is followed from one session into the next; from `flatten_at` on plans are to be out."""
        self._ledger.open_session(session)
        self._waiting, self._entered = [], {}
        self._flatten_at, self._seen_until = flatten_at, session.open

    def follow(self, shadow: ShadowTrade, row: int) -> None:
        """Follow a signal from now on; `row` is its symbol's place in the universe."""
        self._waiting.append((shadow, row))

    def add(self, shadow: ShadowTrade, row: int) -> None:
        """Follow a signal that is not stored yet."""
        self.follow(shadow, row)
        self._changed[shadow.signal_key] = shadow

    def on_bar(self, batch: BarBatch) -> None:
        """Take in a completed bar of every symbol."""
        if batch.start != self._seen_until:  # the open at which they would have entered may have been missed
            self._waiting = [each for each in self._waiting if each[0].signal_at >= batch.start]
        self._seen_until = batch.end
        if self._waiting:
            self._enter(batch)
        self._end(self._ledger.on_bar(batch))

    def close_session(self, last_price: Floats) -> None:
        """The bell; `last_price` (symbols,) as in Ledger.close_session."""
        self._waiting = []
        self._end(self._ledger.close_session(last_price))

    def take_changed(self) -> list[ShadowTrade]:
        """What is new or has ended since this was last asked."""
        changed, self._changed = self._changed, {}
        return list(changed.values())

    def _enter(self, batch: BarBatch) -> None:
        waiting, self._waiting = self._waiting, []
        for shadow, row in waiting:
            opened = float(batch.open[row])
            if shadow.signal_at <= batch.start and opened == opened:  # NaN: no trade in this symbol
                self._fill(shadow, row, opened, batch.start)
            elif batch.end - shadow.signal_at <= ENTRY_PATIENCE:
                self._waiting.append((shadow, row))

    def _fill(self, shadow: ShadowTrade, row: int, price: float, at: datetime) -> None:
        entry = Decimal(f"{price:.4f}")
        risk = _risk_per_share(shadow, entry)
        shadow.entered_at, shadow.entry_price, shadow.risk_per_share = at, entry, risk
        self._entered[shadow.signal_key] = shadow
        self._ledger.follow(
            Plan(
                key=shadow.signal_key,
                row=row,
                side=Side(shadow.side),
                entry=entry,
                stop=float(shadow.initial_stop),
                target=float(shadow.target),
                risk=risk,
                cost=self._cost,
                entered_at=at,
                flatten_at=self._flatten_at,
            )
        )

    def _end(self, results: Iterable[PlanResult]) -> None:
        for result in results:
            shadow = self._entered.pop(result.key)
            take_plan_result(shadow, result)
            self._changed[result.key] = shadow
