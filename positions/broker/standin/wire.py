"""Alpaca's JSON: what its replies look like, and what its requests say."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from functools import cache
from typing import Any, TypeVar
from uuid import NAMESPACE_DNS, uuid5

from positions.broker.port import OrderSide, PositionIntent
from positions.broker.standin.account import Fee, Fill, Holding
from positions.broker.standin.events import TradeUpdate
from positions.broker.standin.faults import Fault
from positions.broker.standin.orders import Change, NewOrder, OrderClass, OrderType, TimeInForce, VenueOrder
from positions.broker.standin.rules import BAD_PARAMETER, Refused
from positions.broker.standin.state import View
from positions.broker.standin.tape import Bar
from positions.broker.standin.venue import Venue
from positions.market.calendar import NEW_YORK, Session

Json = dict[str, Any]
ACCOUNT_ID = str(uuid5(NAMESPACE_DNS, "account.stand-in"))
ACCOUNT_NUMBER = "PA0STANDIN00"
OPENED_AT = datetime(2024, 1, 2, 15, tzinfo=UTC)
EXCHANGE = "NYSE"
IEX = "V"

E = TypeVar("E", bound=StrEnum)


def number(value: Decimal) -> str:
    """Without exponent and trailing zeros."""
    return f"{value.normalize():f}" if value else "0"


def stamp(moment: datetime | None) -> str | None:
    """RFC 3339 in UTC, without trailing zeros of the second."""
    if moment is None:
        return None
    text = moment.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00")
    return text.rstrip("0").rstrip(".") + "Z"


@cache
def asset_id(symbol: str) -> str:
    return str(uuid5(NAMESPACE_DNS, f"{symbol}.stand-in"))


# -- trading: replies


def order_json(venue: Venue, order: VenueOrder, view: View | None = None, nested: bool = False) -> Json:
    """`nested` puts the legs into the order; a new order has them always."""
    orders = view.orders if view else venue.orders
    legs = [order_json(venue, orders[leg_id]) for leg_id in order.leg_ids if leg_id in orders] if nested else []
    filled = order.filled_quantity
    if venue.rules.replacement_fills == "carried":
        filled += order.filled_before
    return {
        "asset_class": "us_equity",
        "asset_id": asset_id(order.symbol),
        "canceled_at": stamp(order.canceled_at),
        "client_order_id": order.client_order_id,
        "created_at": stamp(order.created_at),
        "expired_at": stamp(order.expired_at),
        "expires_at": stamp(order.expires_at),
        "extended_hours": order.extended_hours,
        "failed_at": stamp(order.failed_at),
        "filled_at": stamp(order.filled_at if not order.is_open else None),
        "filled_avg_price": None if order.filled_price is None else number(round(order.filled_price, 6)),
        "filled_qty": number(filled),
        "hwm": None,
        "id": order.id,
        "legs": legs or None,
        "limit_price": None if order.limit_price is None else number(order.limit_price),
        "notional": None,
        "order_class": order.order_class.value,
        "order_type": order.type.value,
        "position_intent": order.intent.value,
        "qty": number(order.quantity),
        "replaced_at": stamp(order.replaced_at),
        "replaced_by": order.replaced_by,
        "replaces": order.replaces,
        "side": order.side.value,
        "source": None,
        "status": order.status.value,
        "stop_price": None if order.stop_price is None else number(order.stop_price),
        "submitted_at": stamp(order.created_at),
        "subtag": None,
        "symbol": order.symbol,
        "time_in_force": order.tif.value,
        "trail_percent": None,
        "trail_price": None,
        "type": order.type.value,
        "updated_at": stamp(order.updated_at),
    }


def position_json(venue: Venue, symbol: str, holding: Holding) -> Json:
    price, before = venue.price(symbol), venue.last_close(symbol)
    worth = holding.quantity * price
    available = venue.available(symbol)
    if holding.quantity < 0 and venue.rules.short_available == "negative":
        available = -available
    return {
        "asset_class": "us_equity",
        "asset_id": asset_id(symbol),
        "asset_marginable": True,
        "avg_entry_price": number(round(holding.cost / holding.quantity, 6)),
        "change_today": number(round(price / before - 1, 10)),
        "cost_basis": number(holding.cost),
        "current_price": number(price),
        "exchange": EXCHANGE,
        "lastday_price": number(before),
        "market_value": number(worth),
        "qty": number(holding.quantity),
        "qty_available": number(available),
        "side": "long" if holding.quantity > 0 else "short",
        "symbol": symbol,
        "unrealized_intraday_pl": number(worth - holding.day_cost),
        "unrealized_intraday_plpc": number(round((worth - holding.day_cost) / abs(holding.day_cost), 10)),
        "unrealized_pl": number(worth - holding.cost),
        "unrealized_plpc": number(round((worth - holding.cost) / abs(holding.cost), 10)),
    }


def account_json(venue: Venue) -> Json:
    account = venue.account
    worths = [holding.quantity * venue.price(symbol) for symbol, holding in account.held.items()]
    long, short = sum(w for w in worths if w > 0), sum(w for w in worths if w < 0)
    margin = account.exposure(venue.price) / 2
    money = {
        "accrued_fees": Decimal(0),
        "buying_power": venue.buying_power,
        "cash": account.cash,
        "equity": venue.equity,
        "initial_margin": margin,
        "intraday_adjustments": Decimal(0),
        "last_equity": account.last_equity,
        "last_maintenance_margin": Decimal(0),
        "long_market_value": Decimal(long),
        "maintenance_margin": margin * Decimal("0.6"),
        "multiplier": Decimal(venue.rules.multiplier),
        "non_marginable_buying_power": max(Decimal(0), account.cash),
        "options_buying_power": max(Decimal(0), account.cash),
        "pending_reg_taf_fees": Decimal(0),
        "portfolio_value": venue.equity,
        "regt_buying_power": venue.buying_power,
        "short_market_value": Decimal(short),
        "sma": account.last_equity,
    }
    return {
        **{name: number(round(amount, 4)) for name, amount in money.items()},
        "account_blocked": False,
        "account_number": ACCOUNT_NUMBER,
        "balance_asof": str(venue.tape.past[-1].session.day) if venue.tape.past else None,
        "created_at": stamp(OPENED_AT),
        "crypto_status": "INACTIVE",
        "currency": "USD",
        "id": ACCOUNT_ID,
        "options_approved_level": 0,
        "options_trading_level": 0,
        "shorting_enabled": venue.can_short,
        "status": "ACTIVE",
        "trade_suspended_by_user": venue.rules.suspend_trade,
        "trading_blocked": False,
        "transfers_blocked": False,
    }


def configurations_json(venue: Venue) -> Json:
    return {
        "disable_overnight_trading": False,
        "fractional_trading": True,
        "max_margin_multiplier": str(venue.rules.multiplier),
        "max_options_trading_level": 0,
        "no_shorting": venue.rules.no_shorting,
        "ptp_no_exception_entry": False,
        "suspend_trade": venue.rules.suspend_trade,
        "trade_confirm_email": "none",
    }


def asset_json(venue: Venue, symbol: str) -> Json:
    return {
        "attributes": [],
        "borrow_status": "hard_to_borrow" if symbol in venue.rules.not_shortable else "easy_to_borrow",
        "class": "us_equity",
        "cusip": None,
        "easy_to_borrow": symbol not in venue.rules.not_shortable,
        "exchange": EXCHANGE,
        "fractionable": symbol not in venue.rules.not_fractionable,
        "id": asset_id(symbol),
        "maintenance_margin_requirement": 30,
        "margin_requirement_long": "30",
        "margin_requirement_short": "30",
        "marginable": True,
        "name": f"{symbol} Common Stock",
        "shortable": symbol not in venue.rules.not_shortable,
        "status": "active",
        "symbol": symbol,
        "tradable": True,
    }


def activity_json(activity: Fill | Fee) -> Json:
    name = f"{activity.at.astimezone(NEW_YORK):%Y%m%d%H%M%S}{activity.at.microsecond // 1000:03}::{activity.id}"
    if isinstance(activity, Fee):
        return {
            "activity_sub_type": activity.kind,
            "activity_type": "FEE",
            "created_at": stamp(activity.at),
            "currency": "USD",
            "date": str(activity.day),
            "description": f"{activity.kind} fee for proceed of {activity.day}",
            "id": name,
            "net_amount": number(-activity.amount),
            "status": "executed",
        }
    order = activity.order
    return {
        "activity_type": "FILL",
        "cum_qty": number(order.filled_quantity),
        "id": name,
        "leaves_qty": number(order.remaining),
        "order_id": order.id,
        "order_status": order.status.value,
        "price": number(activity.price),
        "qty": number(activity.quantity),
        "side": order.side.value,
        "symbol": order.symbol,
        "transaction_time": stamp(activity.at),
        "type": "partial_fill" if order.is_open else "fill",
    }


def clock_json(now: datetime, is_open: bool, next_open: datetime, next_close: datetime) -> Json:
    return {
        "is_open": is_open,
        "next_close": next_close.astimezone(NEW_YORK).isoformat(),
        "next_open": next_open.astimezone(NEW_YORK).isoformat(),
        "timestamp": now.astimezone(NEW_YORK).isoformat(),
    }


def calendar_json(session: Session, settles: Session) -> Json:
    return {
        "close": f"{session.close.astimezone(NEW_YORK):%H:%M}",
        "date": str(session.day),
        "open": f"{session.open.astimezone(NEW_YORK):%H:%M}",
        "session_close": "2000",
        "session_open": "0400",
        "settlement_date": str(settles.day),
    }


def refusal_json(refused: Refused) -> Json:
    return {"code": refused.code, "message": refused.message, **refused.more}


def trade_update_json(venue: Venue, update: TradeUpdate) -> Json:
    data: Json = {
        "event": update.event,
        "event_id": update.id,
        "execution_id": update.fill.id if update.fill else update.id,
        "order": order_json(venue, update.order),
        "timestamp": stamp(update.at),
    }
    if update.fill:
        data |= {"position_qty": number(update.held), "price": number(update.fill.price)}
        data["qty"] = number(update.fill.quantity)
    return {"stream": "trade_updates", "data": data}


# -- market data: replies


def bar_json(bar: Bar) -> Json:
    return {
        "c": bar.close,
        "h": bar.high,
        "l": bar.low,
        "n": bar.trades,
        "o": bar.open,
        "t": stamp(bar.start),
        "v": bar.volume,
        "vw": bar.vwap,
    }


def trade_json(venue: Venue, symbol: str) -> Json:
    at = stamp(venue.now.replace(microsecond=0))
    return {
        "c": ["@"],
        "i": int(venue.now.timestamp()),
        "p": float(venue.price(symbol)),
        "s": 100,
        "t": at,
        "x": IEX,
        "z": "A",
    }


def quote_json(venue: Venue, symbol: str) -> Json:
    return {
        "ap": float(venue.ask(symbol)),
        "as": 100,
        "ax": IEX,
        "bp": float(venue.bid(symbol)),
        "bs": 100,
        "bx": IEX,
        "c": ["R"],
        "t": stamp(venue.now),
        "z": "A",
    }


# -- requests


def new_order(body: Mapping[str, Any]) -> NewOrder:
    """What a POST asks for. Raises Refused where it says what no order can."""
    if body.get("notional") is not None:
        both = body.get("qty") is not None
        raise Refused(
            BAD_PARAMETER, "only one of qty or notional is accepted" if both else "notional orders are not simulated"
        )
    if body.get("qty") is None:
        raise Refused(BAD_PARAMETER, "qty or notional is required")
    if not body.get("symbol"):
        raise Refused(BAD_PARAMETER, "symbol is required")
    profit, loss = body.get("take_profit") or {}, body.get("stop_loss") or {}
    stop = decimal(loss.get("stop_price"), "stop_loss.stop_price")
    named = body.get("order_class") or ""
    return NewOrder(
        symbol=str(body["symbol"]),
        side=_one_of(OrderSide, body.get("side"), "invalid side"),
        type=_one_of(OrderType, body.get("type"), "invalid order type"),
        quantity=_needed(body["qty"], "qty"),
        tif=_one_of(TimeInForce, body.get("time_in_force"), "invalid time_in_force"),
        client_order_id=str(body.get("client_order_id") or ""),
        limit_price=decimal(body.get("limit_price"), "limit_price"),
        stop_price=decimal(body.get("stop_price"), "stop_price"),
        extended_hours=bool(body.get("extended_hours")),
        intent=_one_of(PositionIntent, body["position_intent"], "invalid position_intent")
        if body.get("position_intent")
        else None,
        order_class=_one_of(OrderClass, "" if named == "simple" else named, "invalid order_class"),
        take_profit=decimal(profit.get("limit_price"), "take_profit.limit_price"),
        stop_loss=None if stop is None else (stop, decimal(loss.get("limit_price"), "stop_loss.limit_price")),
    )


def change(body: Mapping[str, Any]) -> Change:
    """What a PATCH asks for. Raises Refused."""
    tif = body.get("time_in_force")
    return Change(
        quantity=decimal(body.get("qty"), "qty"),
        limit_price=decimal(body.get("limit_price"), "limit_price"),
        stop_price=decimal(body.get("stop_price"), "stop_price"),
        tif=_one_of(TimeInForce, tif, "invalid time_in_force") if tif else None,
        client_order_id=str(body.get("client_order_id") or ""),
    )


def decimal(value: object, name: str) -> Decimal | None:
    """A number, as JSON number or as text. Raises Refused."""
    if value is None or value == "":
        return None
    return _needed(value, name)


def _needed(value: object, name: str) -> Decimal:
    try:
        parsed = Decimal(str(value))
    except InvalidOperation:
        raise Refused(BAD_PARAMETER, f"invalid {name}: {value}") from None
    if not parsed.is_finite():
        raise Refused(BAD_PARAMETER, f"invalid {name}: {value}")
    return parsed.normalize()  # the SDK sends 10.0, replies say 10


def _one_of(kind: type[E], value: object, problem: str) -> E:
    try:
        return kind(str(value))
    except ValueError:
        raise Refused(BAD_PARAMETER, problem) from None


def is_true(text: str) -> bool:
    """Booleans of a query, as the SDK writes them (True) and as everybody else does."""
    return text.lower() == "true"


def symbols_of(text: str) -> list[str]:
    return [symbol for symbol in text.split(",") if symbol]


def with_unknown_values(body: Any) -> Any:
    """The same with a value that no client knows wherever there is an enumeration."""
    if isinstance(body, list):
        return [with_unknown_values(each) for each in body]
    if isinstance(body, dict):
        unknown = {"status": "under_moonlight", "exchange": "MOON", "asset_class": "us_moon", "class": "us_moon"}
        return {key: unknown.get(key, with_unknown_values(value)) for key, value in body.items()}
    return body


def with_extra_fields(body: Any) -> Any:
    """The same with a key that no client knows in every object."""
    if isinstance(body, list):
        return [with_extra_fields(each) for each in body]
    if isinstance(body, dict):
        return {**{key: with_extra_fields(value) for key, value in body.items()}, "moon_phase": {"waning": [True]}}
    return body


#: What faults make of a reply.
CHANGES: dict[Fault, Callable[[Any], Any]] = {
    Fault.UNKNOWN_ENUM: with_unknown_values,
    Fault.EXTRA_FIELDS: with_extra_fields,
}
