"""What happens to an order, now or at a moment to come, and the news of it."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from heapq import heappush
from itertools import count
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from positions.broker.standin.account import Fill
from positions.broker.standin.orders import VenueOrder
from positions.broker.standin.rules import Rules
from positions.broker.standin.state import State
from positions.broker.standin.tape import Tape

NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class TradeUpdate:
    """News of an order; `held` are the shares of its symbol after it."""

    id: str
    event: str
    order: VenueOrder
    at: datetime
    held: Decimal
    fill: Fill | None = None


@dataclass(order=True, slots=True)
class _Job:
    at: datetime
    number: int
    work: Callable[[], object] = field(compare=False)


class Events(State):
    """`news` are trade updates that nobody has taken yet, oldest first."""

    def __init__(self, tape: Tape, rules: Rules, now: datetime) -> None:
        super().__init__(tape, rules, now)
        self.news: list[TradeUpdate] = []
        self._jobs: list[_Job] = []
        self._numbers = count(1)

    def after(self, seconds: float | None, work: Callable[..., object], *arguments: object) -> None:
        """Do something when so much time has passed; None is never."""
        if seconds is not None:
            self.at(self.now + timedelta(seconds=seconds), work, *arguments)

    def at(self, moment: datetime, work: Callable[..., object], *arguments: object) -> None:
        """Do something at a moment to come."""
        heappush(self._jobs, _Job(moment, next(self._numbers), partial(work, *arguments)))

    def _in(self, seconds: float | None) -> datetime:
        return NEVER if seconds is None else self.now + timedelta(seconds=seconds)

    def _set(self, order: VenueOrder, **changes: Any) -> VenueOrder:
        changed = replace(self.orders[order.id], updated_at=self.now, **changes)
        self.orders[order.id] = changed
        if not changed.is_open:
            self._open.pop(order.id, None)
        return changed

    def _change(self, order: VenueOrder, event: str, **changes: Any) -> None:
        self._tell(event, self._set(order, **changes))

    def _finish(self, order: VenueOrder, event: str, release: float | None = 0.0, **changes: Any) -> None:
        """End an order that has not filled; the shares it held are free `release` seconds later."""
        self._change(order, event, **changes)
        if order.closes and not any(other.group == order.group for other in self.open_orders(order.symbol)):
            self._hold_back(order, release)

    def _hold_back(self, order: VenueOrder, seconds: float | None) -> None:
        if seconds == 0:
            return
        self._releasing[order.group] = (order.symbol, order.remaining)
        self.after(seconds, self._releasing.pop, order.group, None)

    def _tell(self, event: str, order: VenueOrder, fill: Fill | None = None) -> None:
        held = self.account.quantity(order.symbol)
        self.news.append(TradeUpdate(self._id("update"), event, order, self.now, held, fill))

    def _id(self, kind: str) -> str:
        """The same ids in the same order, so that a session can be repeated."""
        return str(uuid5(NAMESPACE_URL, f"{kind}-{next(self._numbers)}"))
