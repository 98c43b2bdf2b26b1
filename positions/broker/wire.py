"""Alpaca's JSON as orders, positions, accounts and activities.

What is not needed may be missing, new or strange; what is needed and cannot be read costs its own row of a list only.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Generic, TypeVar

from positions.broker.port import (
    Account,
    Activity,
    Order,
    OrderKind,
    OrderSide,
    OrderStatus,
    Position,
    PositionIntent,
)
from positions.rules import tick_of

_FINAL = {
    "filled": OrderStatus.FILLED,
    "canceled": OrderStatus.CANCELLED,
    "expired": OrderStatus.EXPIRED,
    "replaced": OrderStatus.REPLACED,
    "rejected": OrderStatus.REJECTED,
}
_WORKING = frozenset(
    {
        "new",
        "partially_filled",
        "done_for_day",
        "pending_cancel",
        "pending_replace",
        "pending_review",
        "accepted",
        "pending_new",
        "accepted_for_bidding",
        "stopped",
        "suspended",
        "calculated",
        "held",
    }
)
_ENDED_AT = {
    "canceled_at": OrderStatus.CANCELLED,
    "expired_at": OrderStatus.EXPIRED,
    "replaced_at": OrderStatus.REPLACED,
    "failed_at": OrderStatus.REJECTED,
}
#: In these an order cannot be replaced; a stop that rests overnight is `accepted`.
SETTLING = frozenset({"accepted", "pending_new", "pending_cancel", "pending_replace"})
_BLOCKS = ("trading_blocked", "account_blocked", "trade_suspended_by_user")

Row = TypeVar("Row")


class BadReply(ValueError):
    """A body that is not what was asked for; the message is one line."""


@dataclass(frozen=True, slots=True)
class Rows(Generic[Row]):
    """What could be read of a list, in its order, and why the rest could not, by key. `size` is the list's own."""

    rows: list[Row]
    unreadable: dict[str, str]
    size: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error's body. `code` and `message` are hints: the wording may change and one code has many causes."""

    code: int | None
    message: str


def order(body: Any) -> Order:
    """Raises BadReply where id, symbol or side are missing or a number is none."""
    fields = _object(body)
    status = _text(fields, "status")
    filled = _shares(fields, "filled_qty")
    return Order(
        id=_needed(fields, "id"),
        client_order_id=_text(fields, "client_order_id"),
        symbol=_needed(fields, "symbol"),
        side=_side(fields),
        kind=_kind(_text(fields, "type") or _text(fields, "order_type")),
        quantity=_shares(fields, "qty"),
        status=_FINAL.get(status) or _ended(status, fields, filled),
        stop_price=_decimal(fields, "stop_price"),
        filled_quantity=filled,
        filled_price=_decimal(fields, "filled_avg_price") if filled else None,
        filled_at=_time(fields.get("filled_at")),
        replaced_by=_text(fields, "replaced_by") or None,
        replaces=_text(fields, "replaces") or None,
        intent=_intent(_text(fields, "position_intent")),
        created_at=_time(fields.get("created_at")),
        broker_status=status,
    )


def _ended(status: str, fields: dict[str, Any], filled: int) -> OrderStatus:
    """Of an order whose status is no end that we know: a status that we do not know may be one, by its times."""
    if status in _WORKING:
        return OrderStatus.WORKING
    if filled and filled == _shares(fields, "qty"):
        return OrderStatus.FILLED
    ended = (end for name, end in _ENDED_AT.items() if _time(fields.get(name)) is not None)
    return next(ended, OrderStatus.WORKING)


def is_known_status(word: str) -> bool:
    return word in _FINAL or word in _WORKING


def orders(body: Any) -> Rows[Order]:
    """A list of orders with the legs of each behind it."""
    listed = _list(body)
    found = _rows([leaf for each in listed for leaf in _with_legs(each)], order, ("client_order_id", "id"))
    return replace(found, size=len(listed))


def _with_legs(body: Any) -> list[Any]:
    legs = body.get("legs") if isinstance(body, dict) else None
    return [body, *(leaf for leg in legs for leaf in _with_legs(leg))] if isinstance(legs, list) else [body]


def position(body: Any) -> Position:
    """Raises BadReply without a symbol or with a quantity that is none. Without `qty_available` all shares are."""
    fields = _object(body)
    held = abs(_shares(fields, "qty", needed=True))
    available = abs(_shares(fields, "qty_available")) if fields.get("qty_available") is not None else held
    is_short = _text(fields, "side") == "short" or str(fields["qty"]).startswith("-")
    return Position(
        symbol=_needed(fields, "symbol"),
        quantity=-held if is_short else held,
        available=available,
        price=float(_decimal(fields, "current_price") or math.nan),
    )


def positions(body: Any) -> Rows[Position]:
    return _rows(_list(body), position, ("symbol",))


def account(body: Any) -> Account:
    """Raises BadReply without equity or buying power."""
    fields = _object(body)
    return Account(
        equity=_number(fields, "equity"),
        buying_power=_number(fields, "buying_power"),
        number=_text(fields, "account_number"),
        status=_text(fields, "status"),
        blocked=", ".join(name for name in _BLOCKS if fields.get(name) is True),
    )


def forbids_shorting(body: Any) -> bool:
    """Of an account's configuration: whether no order may open a short position."""
    return _object(body).get("no_shorting") is True


def time_of_clock(body: Any) -> datetime:
    """The broker's time. Raises BadReply without it."""
    moment = _time(_object(body).get("timestamp"))
    if moment is None:
        raise BadReply("a clock without a time")
    return moment


def activity(body: Any) -> Activity:
    """Raises BadReply without id or kind."""
    fields = _object(body)
    return Activity(
        id=_needed(fields, "id"),
        kind=_needed(fields, "activity_type"),
        at=_time(fields.get("transaction_time") or fields.get("date")),
        symbol=_text(fields, "symbol") or None,
        side=_side(fields) if fields.get("side") is not None else None,
        quantity=_decimal(fields, "qty"),
        price=_decimal(fields, "price"),
        amount=_decimal(fields, "net_amount"),
        order_id=_text(fields, "order_id") or None,
    )


def activities(body: Any) -> Rows[Activity]:
    return _rows(_list(body), activity, ("id",))


def refusal(text: str) -> Refusal:
    """Of an error's body: JSON, a proxy's page or nothing."""
    try:
        body = json.loads(text)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        return Refusal(None, _one_line(text))
    code = body.get("code")
    message = body.get("message")
    return Refusal(
        int(code) if isinstance(code, int | str) and str(code).isdecimal() else None,
        _one_line(text if message is None else str(message)),
    )


def price(value: Decimal) -> float:
    """A price on the tick as the JSON number that reads the same, digit by digit. Raises ValueError off the tick."""
    if not value.is_finite() or value <= 0 or value % tick_of(value):
        raise ValueError(f"{value} is no price on the tick")
    return float(value)


def _rows(found: list[Any], parse: Callable[[Any], Row], keys: tuple[str, ...]) -> Rows[Row]:
    good: list[Row] = []
    bad: dict[str, str] = {}
    for each in found:
        try:
            good.append(parse(each))
        except BadReply as error:
            bad[_key(each, keys)] = str(error)
    return Rows(good, bad, len(found))


def _key(body: Any, keys: tuple[str, ...]) -> str:
    fields = body if isinstance(body, dict) else {}
    return next((fields[key] for key in keys if isinstance(fields.get(key), str)), "?")


def _one_line(text: str) -> str:
    return " ".join(text.split())[:200] or "nothing"


def _object(body: Any) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise BadReply(f"{_one_line(repr(body))} instead of an object")
    return body


def _list(body: Any) -> list[Any]:
    if not isinstance(body, list):
        raise BadReply(f"{_one_line(repr(body))} instead of a list")
    return body


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    return value if isinstance(value, str) else ""


def _needed(fields: dict[str, Any], name: str) -> str:
    value = _text(fields, name)
    if not value:
        raise BadReply(f"{name} is missing")
    return value


def _decimal(fields: dict[str, Any], name: str) -> Decimal | None:
    """A number as text or number, None for null and "". Raises BadReply for anything else, NaN and infinity."""
    value = fields.get(name)
    if value is None or value == "":
        return None
    try:
        number = Decimal(str(value)) if not isinstance(value, bool) else None
    except InvalidOperation:
        number = None
    if number is None or not number.is_finite():
        raise BadReply(f"{name} is {_one_line(repr(value))}")
    return number


def _number(fields: dict[str, Any], name: str) -> Decimal:
    number = _decimal(fields, name)
    if number is None:
        raise BadReply(f"{name} is missing")
    return number


def _shares(fields: dict[str, Any], name: str, *, needed: bool = False) -> int:
    """The whole part; nothing counts as 0 unless needed: an order by amount has no quantity."""
    return int(_number(fields, name) if needed else _decimal(fields, name) or 0)


def _side(fields: dict[str, Any]) -> OrderSide:
    """Also `sell_short` and the like, which activities know."""
    word = _text(fields, "side")
    for side in OrderSide:
        if word.startswith(side):
            return side
    raise BadReply(f"side is {_one_line(repr(fields.get('side')))}")


def _kind(word: str) -> OrderKind:
    try:
        return OrderKind(word)
    except ValueError:
        return OrderKind.OTHER


def _intent(word: str) -> PositionIntent | None:
    try:
        return PositionIntent(word)
    except ValueError:
        return None


def _time(value: Any) -> datetime | None:
    """Aware UTC of RFC 3339 text, or of a date alone; None for what is neither."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
