"""All that can be read of the venue: session, prices, money, shares, orders."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal

from positions.broker.standin.account import Account, Holding
from positions.broker.standin.orders import ZERO, VenueOrder
from positions.broker.standin.rules import NOT_FOUND, Refused, Rules
from positions.broker.standin.tape import Tape
from positions.market.calendar import NEW_YORK, Session

EXTENDED_OPEN, EXTENDED_CLOSE = time(4), time(20)
SHORTING_NEEDS = Decimal(2000)  # dollars of equity


@dataclass(frozen=True, slots=True)
class View:
    """Orders and shares as a reader is told them."""

    orders: dict[str, VenueOrder]
    held: dict[str, Holding]


class State:
    def __init__(self, tape: Tape, rules: Rules, now: datetime) -> None:
        self.rules = rules
        self.tape = tape
        self.now = now
        self.account = Account(rules.cash)
        self.orders: dict[str, VenueOrder] = {}
        self._open: dict[str, None] = {}  # ids, oldest first
        self._id_of_client_id: dict[str, str] = {}
        self._releasing: dict[str, tuple[str, Decimal]] = {}  # by group: shares that are not free yet

    @property
    def session(self) -> Session | None:
        """The session that is open or comes next, None after the last."""
        days = (self.tape.today, self.tape.tomorrow)
        return next((bars.session for bars in days if bars and self.now < bars.session.close), None)

    @property
    def is_open(self) -> bool:
        return self.session is not None and self.session.open <= self.now

    @property
    def _reaches_market(self) -> bool:
        """Whether orders are routed now, or wait as accepted."""
        return self.session is not None and new_york(self.session.day, EXTENDED_OPEN) <= self.now

    @property
    def _is_extended(self) -> bool:
        if self.tape.today is None:
            return False
        day = self.tape.today.session.day
        return new_york(day, EXTENDED_OPEN) <= self.now < new_york(day, EXTENDED_CLOSE)

    def price(self, symbol: str) -> Decimal:
        """The last price; 0 before the first trade."""
        return _dollars(self.tape.price(symbol, self.now))

    def last_close(self, symbol: str) -> Decimal:
        """The close of the session before, else the last price."""
        return _dollars(self.tape.last_close(symbol)) or self.price(symbol)

    def bid(self, symbol: str) -> Decimal:
        return self.price(symbol) - self.rules.spread / 2

    def ask(self, symbol: str) -> Decimal:
        return self.price(symbol) + self.rules.spread / 2

    @property
    def equity(self) -> Decimal:
        return self.account.equity(self.price)

    @property
    def buying_power(self) -> Decimal:
        entries = [order for order in self.open_orders() if not order.closes]
        waiting = sum((o.remaining * (o.limit or o.stop_price or self.price(o.symbol)) for o in entries), start=ZERO)
        return max(ZERO, self.rules.multiplier * self.equity - self.account.exposure(self.price) - waiting)

    @property
    def can_short(self) -> bool:
        return not self.rules.no_shorting and self.rules.multiplier > 1 and self.equity >= SHORTING_NEEDS

    def reservations(self, symbol: str) -> dict[str, Decimal]:
        """Shares that closing orders hold, and canceled ones until they are released, by group of orders.

        The orders of a group (the legs of a bracket, an order and its replacement) hold the same shares.
        """
        held: dict[str, Decimal] = {}
        wanted = [(order.group, order.remaining) for order in self.open_orders(symbol) if order.closes]
        wanted += [(group, shares) for group, (name, shares) in self._releasing.items() if name == symbol]
        for group, shares in wanted:
            held[group] = max(shares, held.get(group, ZERO))
        return held

    def available(self, symbol: str) -> Decimal:
        """Shares that may still be sold, or bought back where the position is short."""
        held = sum(self.reservations(symbol).values(), start=ZERO)
        return max(ZERO, abs(self.account.quantity(symbol)) - held)

    def view(self) -> View:
        """Orders and shares as they are now, to be kept."""
        return View(dict(self.orders), dict(self.account.held))

    def is_visible(self, order: VenueOrder) -> bool:
        return order.visible_from is None or order.visible_from <= self.now

    def open_orders(self, symbol: str | None = None) -> list[VenueOrder]:
        """Oldest first."""
        orders = [self.orders[order_id] for order_id in self._open]
        return [order for order in orders if symbol is None or order.symbol == symbol]

    def knows(self, client_order_id: str) -> bool:
        """Whether an order has or had this id."""
        return client_order_id in self._id_of_client_id

    def find(self, order_id: str, view: View | None = None) -> VenueOrder:
        """Raises Refused where there is no such order, or nobody is told of it."""
        order = (view.orders if view else self.orders).get(order_id)
        if order is None or not self.is_visible(order):
            raise Refused(NOT_FOUND, f"order not found for {order_id}")
        return order

    def find_by_client_id(self, client_order_id: str, view: View | None = None) -> VenueOrder:
        """As `find`."""
        try:
            return self.find(self._id_of_client_id.get(client_order_id, ""), view)
        except Refused:
            raise Refused(NOT_FOUND, f"order not found for {client_order_id}") from None


def _dollars(price: float) -> Decimal:
    return Decimal(f"{price:.4f}") if price == price else ZERO


def new_york(day: date, at: time) -> datetime:
    """That moment, in UTC."""
    return datetime.combine(day, at, NEW_YORK).astimezone(UTC)
