"""What the house says to a broker and hears from it: typed orders, positions and errors; no wire format."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Protocol


class OrderSide(StrEnum):
    BUY = "buy"
    SELL = "sell"


class OrderKind(StrEnum):
    MARKET = "market"
    STOP = "stop"


class PositionIntent(StrEnum):
    """What an order is meant to do to the position; the broker refuses an order that would do anything else."""

    BUY_TO_OPEN = "buy_to_open"
    SELL_TO_CLOSE = "sell_to_close"
    SELL_TO_OPEN = "sell_to_open"
    BUY_TO_CLOSE = "buy_to_close"


class OrderStatus(StrEnum):
    WORKING = "working"
    FILLED = "filled"
    CANCELLED = "cancelled"
    REPLACED = "replaced"
    REJECTED = "rejected"
    EXPIRED = "expired"

    @property
    def is_final(self) -> bool:
        return self is not OrderStatus.WORKING


@dataclass(frozen=True, slots=True)
class OrderRequest:
    """A whole-share order; `stop_price` for stops only. Stops are good till cancelled, the rest for the day."""

    client_order_id: str
    symbol: str
    side: OrderSide
    kind: OrderKind
    quantity: int
    intent: PositionIntent
    stop_price: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """An order as the broker sees it now. `filled_price` is the average of the fills, None without any."""

    id: str
    client_order_id: str
    symbol: str
    side: OrderSide
    kind: OrderKind
    quantity: int
    status: OrderStatus
    stop_price: Decimal | None
    filled_quantity: int
    filled_price: Decimal | None
    filled_at: datetime | None
    replaced_by: str | None = None


@dataclass(frozen=True, slots=True)
class Position:
    """Shares held, negative when short; `available` shares are not reserved by a working order."""

    symbol: str
    quantity: int
    available: int
    price: float


@dataclass(frozen=True, slots=True)
class Account:
    equity: Decimal
    buying_power: Decimal


class BrokerError(Exception):
    """A call to the broker that did not do what was asked."""


class Rejected(BrokerError):
    """The broker said no: the order does not exist and sending it again gives the same answer."""


class Unavailable(BrokerError):
    """The call did not reach the broker: nothing happened there."""


class OutcomeUnknown(BrokerError):
    """The call may or may not have taken effect; only a look-up by client order id can tell."""


class Broker(Protocol):
    """One account. Reads raise Unavailable; writes raise Rejected, Unavailable or OutcomeUnknown."""

    def account(self) -> Account: ...

    def positions(self) -> dict[str, Position]: ...

    def open_orders(self) -> dict[str, Order]:
        """Working orders by client order id."""
        ...

    def order_by_client_id(self, client_order_id: str) -> Order | None: ...

    def submit(self, request: OrderRequest) -> Order: ...

    def replace_stop(self, order_id: str, stop_price: Decimal, client_order_id: str) -> Order: ...

    def cancel(self, order_id: str) -> None: ...

    def changed_orders(self) -> list[Order]:
        """Orders that changed since the last call, oldest first; each call hands a change over once."""
        ...
