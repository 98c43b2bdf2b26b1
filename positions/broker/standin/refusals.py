"""What Alpaca refuses because of the account and the market: each check raises Refused."""

from datetime import timedelta
from decimal import Decimal

from positions.broker.exchange import OPENING
from positions.broker.port import OrderSide, PositionIntent
from positions.broker.standin.orders import (
    NOT_REPLACEABLE,
    STOPS,
    ZERO,
    Change,
    NewOrder,
    OrderClass,
    OrderType,
    Status,
    VenueOrder,
    check_form,
    check_tick,
    is_reached,
)
from positions.broker.standin.rules import BAD_ORDER, BAD_PARAMETER, FORBIDDEN, Refused
from positions.broker.standin.state import State

LONGEST_CLIENT_ID = 128
CENT = Decimal("0.01")


def check_new(venue: State, new: NewOrder) -> PositionIntent:
    """Everything about a new order; returns what it does to the position."""
    check_form(new)
    if venue.rules.suspend_trade:
        raise Refused(FORBIDDEN, "new orders are rejected by user request")
    check_client_id(venue, new.client_order_id)
    intent = _check_intent(new, venue.account.quantity(new.symbol))
    _check_asset(venue, new)
    _check_prices(venue, new)
    if intent in OPENING:
        _check_opening(venue, new, intent)
    else:
        _check_available(venue, new.symbol, new.quantity)
    if venue.rules.wash_trade_check:
        _check_wash_trade(venue, new)
    return intent


def check_client_id(venue: State, client_order_id: str) -> None:
    if len(client_order_id) > LONGEST_CLIENT_ID:
        raise Refused(BAD_PARAMETER, f"client_order_id must be no more than {LONGEST_CLIENT_ID} characters")
    if venue.knows(client_order_id):
        raise Refused(BAD_PARAMETER, "client_order_id must be unique")


def check_change(venue: State, old: VenueOrder, change: Change) -> None:
    """Everything about replacing an order."""
    check_client_id(venue, change.client_order_id)
    _check_replaceable(venue, old)
    if change.quantity is not None and change.quantity != old.quantity:
        _check_quantity_change(old, change.quantity)
    wanted = (change.quantity, change.limit_price, change.stop_price, change.tif)
    present = (old.quantity, old.limit_price, old.stop_price, old.tif)
    if all(new is None or new == now for new, now in zip(wanted, present, strict=True)):
        raise Refused(BAD_ORDER, "order parameters are not changed")
    check_tick("limit_price", change.limit_price)
    check_tick("stop_price", change.stop_price)
    if old.type in STOPS:
        _check_stop_side(venue, old.symbol, old.side, change.stop_price)
    more = (change.quantity or old.quantity) - old.quantity
    if more > 0 and old.closes:
        _check_available(venue, old.symbol, more)
    elif more > 0:
        _check_money(venue, more * (change.limit_price or old.limit or venue.ask(old.symbol)))


def _check_replaceable(venue: State, old: VenueOrder) -> None:
    if old.status is Status.REPLACED:
        raise Refused(BAD_ORDER, "order already replaced")
    if not old.is_open:
        raise Refused(BAD_ORDER, "unable to replace order, order is not open")
    settling = venue.rules.chain_delay
    if old.replaces and (settling is None or venue.now < old.created_at + timedelta(seconds=settling)):
        raise Refused(BAD_ORDER, "order chain not fully replaced")
    if old.status in NOT_REPLACEABLE:
        raise Refused(BAD_ORDER, f"cannot replace order in {old.status} status")


def _check_quantity_change(old: VenueOrder, quantity: Decimal) -> None:
    if old.order_class is not OrderClass.SIMPLE:
        raise Refused(BAD_ORDER, "qty cannot be changed for advanced orders")
    if quantity % 1 or old.quantity % 1:
        raise Refused(BAD_ORDER, "qty cannot be changed for fractional orders")
    if quantity <= old.filled_before + old.filled_quantity:
        raise Refused(BAD_ORDER, "qty must be > filled_qty")


def _check_asset(venue: State, new: NewOrder) -> None:
    if new.symbol not in venue.tape.row_of:
        raise Refused(BAD_ORDER, f'asset "{new.symbol}" not found')
    if new.quantity % 1 and new.symbol in venue.rules.not_fractionable:
        raise Refused(FORBIDDEN, f'asset "{new.symbol}" is not fractionable')


def _check_intent(new: NewOrder, held: Decimal) -> PositionIntent:
    if new.side is OrderSide.BUY:
        inferred = PositionIntent.BUY_TO_CLOSE if held < 0 else PositionIntent.BUY_TO_OPEN
    else:
        inferred = PositionIntent.SELL_TO_CLOSE if held > 0 else PositionIntent.SELL_TO_OPEN
    if new.intent is not None and new.intent is not inferred:
        raise Refused(BAD_ORDER, f"position intent mismatch, inferred: {inferred}, specified: {new.intent}")
    if new.order_class is OrderClass.BRACKET and inferred not in OPENING:
        raise Refused(BAD_ORDER, "bracket orders must be entry orders")
    if new.order_class is OrderClass.OCO and inferred in OPENING:
        raise Refused(BAD_ORDER, "oco orders must be exit orders")
    return inferred


def _check_prices(venue: State, new: NewOrder) -> None:
    stop, stop_limit = new.stop_loss or (None, None)
    for name, price in (
        ("limit_price", new.limit_price),
        ("stop_price", new.stop_price),
        ("take_profit.limit_price", new.take_profit),
        ("stop_loss.stop_price", stop),
        ("stop_loss.limit_price", stop_limit),
    ):
        check_tick(name, price)
    if new.type in STOPS:
        _check_stop_side(venue, new.symbol, new.side, new.stop_price)
    if stop is not None:
        _check_stop_leg(venue, new, stop)


def _check_stop_side(venue: State, symbol: str, side: OrderSide, stop: Decimal | None) -> None:
    """A stop that the market has passed already."""
    market = venue.price(symbol)
    if venue.rules.stop_through_market == "refuse" and stop is not None and is_reached(side, stop, market):
        beyond = "less" if side is OrderSide.SELL else "greater"
        raise Refused(BAD_ORDER, f"stop price must be {beyond} than current price {market:f}")


def _check_stop_leg(venue: State, new: NewOrder, stop: Decimal) -> None:
    is_exit = new.order_class is OrderClass.OCO
    selling = (new.side is OrderSide.SELL) is is_exit  # legs of an entry are on its other side
    profit = new.limit_price if is_exit else new.take_profit
    if profit is not None and (profit <= stop if selling else profit >= stop):
        relation = ">" if selling else "<"
        raise Refused(BAD_ORDER, f"take_profit.limit_price must be {relation} stop_loss.stop_price")
    base = new.limit_price or venue.price(new.symbol)
    if selling and stop > base - CENT:
        raise Refused(BAD_ORDER, "stop_loss.stop_price must be <= base_price - 0.01", base_price=f"{base:f}")
    if not selling and stop < base + CENT:
        raise Refused(BAD_ORDER, "stop_loss.stop_price must be >= base_price + 0.01", base_price=f"{base:f}")


def _check_opening(venue: State, new: NewOrder, intent: PositionIntent) -> None:
    others = [o for o in venue.open_orders(new.symbol) if not o.closes and o.side is not new.side]
    if intent is PositionIntent.SELL_TO_OPEN:
        if new.quantity % 1:
            raise Refused(BAD_ORDER, "fractional orders cannot be sold short")
        if others:
            raise Refused(FORBIDDEN, "cannot open a short sell while a long buy order is open")
        if new.symbol in venue.rules.not_shortable:
            raise Refused(BAD_ORDER, f'asset "{new.symbol}" cannot be sold short')
        if not venue.can_short:
            raise Refused(FORBIDDEN, "account is not allowed to short")
    elif others:
        raise Refused(FORBIDDEN, "cannot open a long buy while a short sell order is open")
    _check_money(venue, new.quantity * (new.limit_price or new.stop_price or venue.ask(new.symbol)))


def _check_money(venue: State, cost: Decimal) -> None:
    if cost > venue.buying_power:
        more = {"buying_power": f"{venue.buying_power:f}", "cost_basis": f"{cost:f}"}
        raise Refused(FORBIDDEN, "insufficient buying power", **more)


def _check_available(venue: State, symbol: str, quantity: Decimal) -> None:
    available = venue.available(symbol)
    if quantity <= available:
        return
    reserved = venue.reservations(symbol)
    more: dict[str, object] = {
        "available": f"{available:f}",
        "existing_qty": f"{venue.account.quantity(symbol):f}",
        "held_for_orders": f"{sum(reserved.values(), start=ZERO):f}",
        "symbol": symbol,
    }
    if reserved:
        more["related_orders"] = [_related(venue, symbol, group) for group in reserved]
    message = f"insufficient qty available for order (requested: {quantity:f}, available: {available:f})"
    raise Refused(FORBIDDEN, message, **more)


def _related(venue: State, symbol: str, group: str) -> str:
    """The id by which a refusal names a chain of replacements: its first, or that which works now."""
    current = [order.id for order in venue.open_orders(symbol) if order.group == group]
    return current[-1] if current and venue.rules.related_orders == "current" else group


def _check_wash_trade(venue: State, new: NewOrder) -> None:
    for order in venue.open_orders(new.symbol):
        if order.side is new.side:
            continue
        if order.type is not OrderType.LIMIT:
            kind = "market/stop"
        elif _could_cross(new, order):
            kind = "limit"
        else:
            continue
        raise Refused(
            FORBIDDEN,
            "potential wash trade detected. use complex orders",
            existing_order_id=order.id,
            reject_reason=f"opposite side {kind} order exists",
        )


def _could_cross(new: NewOrder, resting: VenueOrder) -> bool:
    """Whether an order could trade against a resting limit order of the other side."""
    if new.type is not OrderType.LIMIT or new.limit_price is None or resting.limit_price is None:
        return True
    if new.side is OrderSide.BUY:
        return new.limit_price >= resting.limit_price
    return new.limit_price <= resting.limit_price
