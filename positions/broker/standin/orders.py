"""Orders as Alpaca knows them, with all their statuses, and what is wrong with one whatever the market."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from positions.broker.exchange import OPENING
from positions.broker.port import OrderSide, PositionIntent
from positions.broker.standin.rules import BAD_ORDER, BAD_PARAMETER, Refused
from positions.rules import tick_of

ZERO = Decimal(0)


class OrderType(StrEnum):
    MARKET = "market"
    LIMIT = "limit"
    STOP = "stop"
    STOP_LIMIT = "stop_limit"


class TimeInForce(StrEnum):
    DAY = "day"
    GTC = "gtc"


class OrderClass(StrEnum):
    SIMPLE = ""
    BRACKET = "bracket"
    OCO = "oco"
    OTO = "oto"


class Status(StrEnum):
    ACCEPTED = "accepted"
    PENDING_NEW = "pending_new"
    NEW = "new"
    HELD = "held"
    PARTIALLY_FILLED = "partially_filled"
    PENDING_CANCEL = "pending_cancel"
    PENDING_REPLACE = "pending_replace"
    FILLED = "filled"
    CANCELED = "canceled"
    EXPIRED = "expired"
    REJECTED = "rejected"
    REPLACED = "replaced"


FINAL = frozenset({Status.FILLED, Status.CANCELED, Status.EXPIRED, Status.REJECTED, Status.REPLACED})
AT_MARKET = frozenset({Status.NEW, Status.PARTIALLY_FILLED, Status.PENDING_CANCEL, Status.PENDING_REPLACE})
PENDING = frozenset({Status.PENDING_CANCEL, Status.PENDING_REPLACE})
NOT_REPLACEABLE = PENDING | {Status.ACCEPTED, Status.PENDING_NEW}
STOPS = frozenset({OrderType.STOP, OrderType.STOP_LIMIT})
LIMITS = frozenset({OrderType.LIMIT, OrderType.STOP_LIMIT})


@dataclass(frozen=True, slots=True)
class NewOrder:
    """What a client asks for. `take_profit` is a limit price, `stop_loss` a stop price with or without a limit."""

    symbol: str
    side: OrderSide
    type: OrderType
    quantity: Decimal
    tif: TimeInForce
    client_order_id: str = ""
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    extended_hours: bool = False
    intent: PositionIntent | None = None
    order_class: OrderClass = OrderClass.SIMPLE
    take_profit: Decimal | None = None
    stop_loss: tuple[Decimal, Decimal | None] | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """What a client wants replaced; None leaves it as it is."""

    quantity: Decimal | None = None
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    tif: TimeInForce | None = None
    client_order_id: str = ""


@dataclass(frozen=True, slots=True)
class VenueOrder:
    """An order as it is now. `group` is shared by the legs of one order and by the replacements of one another."""

    id: str
    client_order_id: str
    symbol: str
    side: OrderSide
    type: OrderType
    quantity: Decimal
    tif: TimeInForce
    intent: PositionIntent
    status: Status
    created_at: datetime
    updated_at: datetime
    expires_at: datetime
    group: str
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    extended_hours: bool = False
    order_class: OrderClass = OrderClass.SIMPLE
    parent_id: str | None = None
    leg_ids: tuple[str, ...] = ()
    filled_quantity: Decimal = ZERO  # by this order alone
    filled_before: Decimal = ZERO  # by those that it replaces
    filled_price: Decimal | None = None
    filled_at: datetime | None = None
    canceled_at: datetime | None = None
    expired_at: datetime | None = None
    failed_at: datetime | None = None
    replaced_at: datetime | None = None
    replaced_by: str | None = None
    replaces: str | None = None
    elected: bool = False  # a stop whose price was reached
    cap: Decimal | None = None  # the limit that a buy stop becomes
    splits: bool = False  # fills in two parts
    rest_after: float | None = None  # seconds between them
    matched_from: datetime | None = None  # no fill before
    visible_from: datetime | None = None  # no reader is told before

    @property
    def remaining(self) -> Decimal:
        return self.quantity - self.filled_before - self.filled_quantity

    @property
    def is_open(self) -> bool:
        return self.status not in FINAL

    @property
    def closes(self) -> bool:
        return self.intent not in OPENING

    @property
    def limit(self) -> Decimal | None:
        """The worst price it may fill at, None for any."""
        return self.limit_price if self.type in LIMITS else self.cap


def check_form(new: NewOrder) -> None:
    """What is wrong with an order whatever the market and the account. Raises Refused."""
    if new.quantity <= 0:
        raise Refused(BAD_PARAMETER, "qty must be > 0")
    _check_prices_for_type(new)
    if new.order_class is not OrderClass.SIMPLE:
        _check_class(new)
    if new.quantity % 1 and new.tif is not TimeInForce.DAY:
        raise Refused(BAD_ORDER, "fractional orders must be DAY orders")
    if new.quantity % 1 and new.order_class is not OrderClass.SIMPLE:
        raise Refused(BAD_ORDER, "fractional orders must be simple orders")
    if new.extended_hours and new.type in STOPS:
        raise Refused(BAD_ORDER, "stop orders are not eligible for extended hours trading")
    if new.extended_hours and (new.type is not OrderType.LIMIT or new.order_class is not OrderClass.SIMPLE):
        raise Refused(BAD_ORDER, "extended hours order must be DAY or GTC limit orders")


def _check_prices_for_type(new: NewOrder) -> None:
    given = (new.limit_price is not None, new.stop_price is not None)
    wanted = (new.type in LIMITS, new.type in STOPS)
    if given == wanted:
        return
    raise Refused(
        BAD_PARAMETER,
        {
            OrderType.MARKET: "market orders require no stop or limit price",
            OrderType.LIMIT: "limit orders require a limit price"
            if not given[0]
            else "limit orders require only limit price",
            OrderType.STOP: "stop orders require a stop price",
            OrderType.STOP_LIMIT: "stop limit orders require both stop and limit price",
        }[new.type],
    )


def _check_class(new: NewOrder) -> None:
    legs = (new.take_profit is not None) + (new.stop_loss is not None)
    if new.order_class is OrderClass.OTO:
        if legs != 1:
            raise Refused(BAD_PARAMETER, "oto orders require take_profit or stop_loss")
        return
    if new.order_class is OrderClass.OCO and new.type is not OrderType.LIMIT:
        raise Refused(BAD_ORDER, "oco orders must be limit orders")
    if new.take_profit is None and new.order_class is OrderClass.BRACKET:
        raise Refused(BAD_PARAMETER, "bracket orders require take_profit.limit_price")
    if new.stop_loss is None:
        raise Refused(BAD_PARAMETER, f"{new.order_class} orders require stop_loss.stop_price")


def check_tick(name: str, price: Decimal | None) -> None:
    if price is not None and (price <= 0 or price % tick_of(price)):
        increment = "sub-penny increment does not fulfill minimum pricing criteria"
        raise Refused(BAD_ORDER, f"invalid {name} {price:f}. {increment}")


def is_reached(side: OrderSide, stop: Decimal, price: Decimal) -> bool:
    return price <= stop if side is OrderSide.SELL else price >= stop
