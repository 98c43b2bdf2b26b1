"""Cash, shares, fills and fees of the one account."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import ROUND_CEILING, Decimal

from positions.broker.port import OrderSide
from positions.broker.standin.orders import ZERO, VenueOrder
from positions.market.calendar import NEW_YORK

TAF_A_SHARE, TAF_CAP, CAT_A_SHARE = Decimal("0.000166"), Decimal("8.30"), Decimal("0.0000265")


@dataclass(frozen=True, slots=True)
class Holding:
    """Shares and what they cost, both negative when short; `day_cost` has those held overnight at the last close."""

    quantity: Decimal = ZERO
    cost: Decimal = ZERO
    day_cost: Decimal = ZERO

    def traded(self, signed: Decimal, price: Decimal) -> "Holding":
        quantity = self.quantity + signed
        if self.quantity * signed >= 0:
            return Holding(quantity, self.cost + signed * price, self.day_cost + signed * price)
        left = quantity / self.quantity
        return Holding(quantity, self.cost * left, self.day_cost * left)


@dataclass(frozen=True, slots=True)
class Fill:
    """`order` is the order after it."""

    id: str
    order: VenueOrder
    at: datetime
    price: Decimal
    quantity: Decimal


@dataclass(frozen=True, slots=True)
class Fee:
    id: str
    kind: str
    day: date
    at: datetime
    amount: Decimal


class Account:
    """`activities` are fills and fees, oldest first; `held` has no symbol without shares."""

    def __init__(self, cash: Decimal) -> None:
        self.cash = cash
        self.last_equity = cash
        self.held: dict[str, Holding] = {}
        self.activities: list[Fill | Fee] = []

    def quantity(self, symbol: str) -> Decimal:
        """Shares held, negative when short."""
        holding = self.held.get(symbol)
        return holding.quantity if holding else ZERO

    def equity(self, price: Callable[[str], Decimal]) -> Decimal:
        return self.cash + sum((h.quantity * price(symbol) for symbol, h in self.held.items()), start=ZERO)

    def exposure(self, price: Callable[[str], Decimal]) -> Decimal:
        return sum((abs(h.quantity) * price(symbol) for symbol, h in self.held.items()), start=ZERO)

    def take(self, fill: Fill) -> None:
        order = fill.order
        signed = fill.quantity if order.side is OrderSide.BUY else -fill.quantity
        holding = self.held.pop(order.symbol, Holding()).traded(signed, fill.price)
        if holding.quantity:
            self.held[order.symbol] = holding
        self.cash -= signed * fill.price
        self.activities.append(fill)

    def close_day(self, last_close: Callable[[str], Decimal]) -> None:
        self.last_equity = self.equity(last_close)
        for symbol, holding in self.held.items():
            self.held[symbol] = replace(holding, day_cost=holding.quantity * last_close(symbol))

    def fees_of(self, day: date) -> dict[str, Decimal]:
        """What a day's fills owe: TAF on sells, rounded up to a cent and capped a fill, CAT on both sides."""
        fills = [each for each in self.activities if isinstance(each, Fill) and day_of(each.at) == day]
        sold = (fill.quantity for fill in fills if fill.order.side is OrderSide.SELL)
        taf = sum((min(TAF_CAP, to_cents(TAF_A_SHARE * quantity)) for quantity in sold), start=ZERO)
        cat = to_cents(sum((CAT_A_SHARE * fill.quantity for fill in fills), start=ZERO))
        return {kind: amount for kind, amount in (("TAF", taf), ("CAT", cat)) if amount}

    def pay(self, fee: Fee) -> None:
        self.cash -= fee.amount
        self.activities.append(fee)


def to_cents(amount: Decimal) -> Decimal:
    """Rounded up."""
    return amount.quantize(Decimal("0.01"), ROUND_CEILING)


def day_of(moment: datetime) -> date:
    """The New York date."""
    return moment.astimezone(NEW_YORK).date()
