"""What the house says to a broker and hears from it: typed orders, positions and errors; no wire format."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Generic, Protocol, TypeVar

#: How much older than the intent an order may look, because two clocks are compared.
CLOCK_TOLERANCE = timedelta(seconds=5)


class OrderSide(StrEnum):
    BUY = "buy"
    SELL = "sell"


class OrderKind(StrEnum):
    """`other`: orders of somebody else, such as trailing stops; none of ours is one."""

    MARKET = "market"
    LIMIT = "limit"
    STOP = "stop"
    OTHER = "other"


class PositionIntent(StrEnum):
    """What an order is meant to do to the position; the broker refuses an order that would do anything else."""

    BUY_TO_OPEN = "buy_to_open"
    SELL_TO_CLOSE = "sell_to_close"
    SELL_TO_OPEN = "sell_to_open"
    BUY_TO_CLOSE = "buy_to_close"

    @property
    def closes(self) -> bool:
        return self in (PositionIntent.SELL_TO_CLOSE, PositionIntent.BUY_TO_CLOSE)


class OrderStatus(StrEnum):
    """What we make of the broker's word: whatever is not known to be the end of an order is `working`."""

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
    """A whole-share order; `stop_price` for stops and `limit_price` for limits only. Stops are good till cancelled, the
    rest for the day. `created_at` is when it was decided: an order found under its id is taken for it only if younger.
    """

    client_order_id: str
    symbol: str
    side: OrderSide
    kind: OrderKind
    quantity: int
    intent: PositionIntent
    stop_price: Decimal | None = None
    limit_price: Decimal | None = None
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """An order as the broker sees it now. `filled_price` is the average of the fills, None without any.

    Quantities are whole shares; of somebody else's order by amount or fraction, the whole part. `broker_status` is the
    broker's own word, "" where it has none. `intent` and `created_at` are None where the broker does not say.
    """

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
    intent: PositionIntent | None = None
    created_at: datetime | None = None
    broker_status: str = ""
    replaces: str | None = None

    def difference_from(self, request: OrderRequest) -> str:
        """Why this is not the order that was asked for, "" if it is. For an order that was found under its id."""
        for what, found, wanted in (
            ("symbol", self.symbol, request.symbol),
            ("side", self.side, request.side),
            ("kind", self.kind, request.kind),
            ("intent", self.intent or request.intent, request.intent),
            ("quantity", self.quantity, request.quantity),
            ("stop price", self.stop_price, request.stop_price),
        ):
            if found != wanted:
                return f"its {what} is {found}, not {wanted}"
        if request.created_at is None or self.created_at is None:
            return "nothing says that it is not an older one"
        if self.created_at < request.created_at - CLOCK_TOLERANCE:
            return f"it was made at {self.created_at}, before this was decided at {request.created_at}"
        return ""


@dataclass(frozen=True, slots=True)
class Position:
    """Whole shares held, negative when short; `available` shares are not reserved by a working order. `price` is the
    latest the broker knows, NaN without one."""

    symbol: str
    quantity: int
    available: int
    price: float


@dataclass(frozen=True, slots=True)
class Account:
    """`status` is the broker's word, ACTIVE when all is well; `blocked` says why it may not trade, "" if it may."""

    equity: Decimal
    buying_power: Decimal
    number: str = ""
    status: str = ""
    blocked: str = ""


@dataclass(frozen=True, slots=True)
class Activity:
    """Something that happened to the account: a fill (`kind` FILL), a fee (FEE), a dividend (DIV)...

    What a kind does not have is None. `amount` is money that came in, negative when it went out; `at` is aware UTC, the
    start of the day where only a date is known.
    """

    id: str
    kind: str
    at: datetime | None
    symbol: str | None
    side: OrderSide | None
    quantity: Decimal | None
    price: Decimal | None
    amount: Decimal | None
    order_id: str | None


Row = TypeVar("Row")


class Listing(dict[str, Row], Generic[Row]):
    """Rows by key. Those of the keys `unreadable` are there too, but nothing more is known of them: not absent."""

    def __init__(self, rows: dict[str, Row] | None = None, unreadable: frozenset[str] = frozenset()) -> None:
        super().__init__(rows or {})
        self.unreadable = unreadable


class BrokerError(Exception):
    """A call to the broker that did not do what was asked."""


class Rejected(BrokerError):
    """The broker said no: what was asked for was not done, and asking again gives the same answer.

    `status` and `code` are hints: one code has many causes.
    """

    def __init__(self, message: str, status: int | None = None, code: int | None = None) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class NotNow(Rejected):
    """Refused in the state the order is in; all stays as it was, and asking again later may help."""


class Unavailable(BrokerError):
    """The call did not reach the broker: nothing happened there."""


class KeysRefused(Unavailable):
    """The broker does not accept our keys: nothing happened, and nothing will until somebody looks after them."""


class OutcomeUnknown(BrokerError):
    """The call may or may not have taken effect; only a look-up by client order id can tell."""


class Broker(Protocol):
    """One account. Reads raise Unavailable; writes are sent once and raise Rejected, Unavailable or OutcomeUnknown."""

    def account(self) -> Account: ...

    def positions(self) -> Listing[Position]:
        """Positions by symbol."""
        ...

    def open_orders(self) -> Listing[Order]:
        """Working orders by client order id, those that wait for another one too."""
        ...

    def order_by_client_id(self, client_order_id: str) -> Order | None: ...

    def submit(self, request: OrderRequest) -> Order: ...

    def replace_stop(self, order_id: str, stop_price: Decimal, client_order_id: str) -> Order:
        """The stop that stands now: a new order, or the old one where it had that price. Also raises NotNow."""
        ...

    def cancel(self, order_id: str) -> None:
        """Ask for it. The order is cancelled once the broker says so."""
        ...

    def activities(self, after: datetime, kind: str = "FILL") -> list[Activity]:
        """What happened to the account after a moment, by anybody's orders, oldest first."""
        ...

    def changed_orders(self) -> list[Order]:
        """Orders that changed since the last call, oldest first; each call hands a change over once."""
        ...
