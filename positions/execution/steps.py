"""What a job asks the broker and the store for: each call is a value, so that faults can be enumerated at each."""

from collections.abc import Generator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from positions.broker.port import OrderRequest
from positions.store import Change, Row


@dataclass(frozen=True, slots=True)
class ReadPositions:
    """Answered with {symbol: Position}."""


@dataclass(frozen=True, slots=True)
class ReadOrders:
    """Answered with {client order id: working Order}."""


@dataclass(frozen=True, slots=True)
class FindOrder:
    client_order_id: str


@dataclass(frozen=True, slots=True)
class Send:
    request: OrderRequest


@dataclass(frozen=True, slots=True)
class Replace:
    order_id: str
    stop_price: Decimal
    client_order_id: str


@dataclass(frozen=True, slots=True)
class Cancel:
    order_id: str


@dataclass(frozen=True, slots=True)
class ReadFills:
    """Answered with what was bought and sold after a moment, by anybody: [Activity]."""

    after: datetime


@dataclass(frozen=True, slots=True)
class ReadChanges:
    """Answered with the orders that changed since the last time, oldest first: [Order]."""


@dataclass(frozen=True, slots=True)
class Settle:
    """Store what waits for the database; answered with the trades that others have ended meanwhile: [Trade]."""


@dataclass(frozen=True, slots=True)
class Wait:
    """A moment for the broker to set shares free that a cancelled order held."""


@dataclass(frozen=True, slots=True)
class Insert:
    """New rows, and changes of others: all of them or none."""

    rows: tuple[Row, ...]
    changes: tuple[Change, ...] = ()


@dataclass(frozen=True, slots=True)
class Update:
    """All of them or none."""

    changes: tuple[Change, ...]


BrokerStep = ReadPositions | ReadOrders | ReadFills | ReadChanges | FindOrder | Send | Replace | Cancel
Step = BrokerStep | Settle | Wait | Insert | Update
Steps = Generator[Step, Any, None]
