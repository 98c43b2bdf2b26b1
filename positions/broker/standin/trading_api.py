"""The endpoints of the trading API."""

from collections.abc import Callable
from datetime import date, datetime, timedelta
from functools import cache
from itertools import pairwise
from typing import Any
from uuid import UUID

from positions.broker.standin import wire
from positions.broker.standin.calls import Answer, Body, Call
from positions.broker.standin.faults import OF_THE_VIEW, FaultPlan
from positions.broker.standin.orders import Status, VenueOrder
from positions.broker.standin.rules import BAD_PARAMETER, NOT_FOUND, Refused, changed
from positions.broker.standin.state import View
from positions.broker.standin.venue import Venue
from positions.market.calendar import NEW_YORK, Session, sessions_between

MOST_ORDERS, ORDERS_A_PAGE = 500, 50
MOST_ACTIVITIES = 100
CALENDAR_BEGINS, CALENDAR_REACHES = date(1990, 1, 2), timedelta(days=350)
ACTIVITIES = {"FILL", "FEE", "DIV", "TRANS", "MISC"}


class TradingApi:
    def __init__(self, venue: Venue, faults: FaultPlan) -> None:
        self.venue = venue
        self._faults = faults
        self._remembered: tuple[View, datetime | None] | None = None

    def remember(self, seconds: float | None) -> None:
        """Keep orders and positions as they are now for the fault that shows them later, at most so long."""
        until = None if seconds is None else self.venue.now + timedelta(seconds=seconds)
        self._remembered = self.venue.view(), until

    def _view(self, call: Call) -> View:
        """What a reader is told: things as they are, or as they were where a fault says so."""
        if self._remembered is not None and self._faults.take(OF_THE_VIEW, call.route):
            view, until = self._remembered
            if until is None or self.venue.now < until:
                return view
        return self.venue.view()

    def unknown_endpoint(self, call: Call) -> Body:
        raise Refused(NOT_FOUND, "endpoint not found")

    # -- account, clock, calendar, assets

    def get_account(self, call: Call) -> Body:
        return wire.account_json(self.venue)

    def get_configurations(self, call: Call) -> Body:
        return wire.configurations_json(self.venue)

    def change_configurations(self, call: Call) -> Body:
        """`no_shorting` and `suspend_trade`; the rest has no meaning here."""
        known = {name: call.body[name] for name in ("no_shorting", "suspend_trade") if name in call.body}
        self.venue.rules = changed(self.venue.rules, known)
        return wire.configurations_json(self.venue)

    def get_clock(self, call: Call) -> Body:
        venue, now = self.venue, self.venue.now
        known = [bars.session for bars in (venue.tape.today, venue.tape.tomorrow) if bars and now < bars.session.close]
        if len(known) < 2:  # the market ends: the calendar does not
            day = now.astimezone(NEW_YORK).date()
            known += _sessions(day + timedelta(days=1), day + timedelta(days=10))
        next_open = next(session.open for session in known if now < session.open)
        shown = now + timedelta(seconds=venue.rules.clock_ahead)
        return wire.clock_json(shown, venue.is_open, next_open, known[0].close)

    def get_calendar(self, call: Call) -> Body:
        first, last = call.moment("start"), call.moment("end")
        today = self.venue.now.astimezone(NEW_YORK).date()
        begin = max(first.date() if first else today, CALENDAR_BEGINS)
        end = min(last.date() if last else date.max, today + CALENDAR_REACHES)
        sessions = _sessions(begin, end + timedelta(days=10)) if begin <= end else []
        return [wire.calendar_json(day, following) for day, following in pairwise(sessions) if day.day <= end]

    def list_assets(self, call: Call) -> Body:
        if call.query.get("status", "active") != "active":
            return []
        return [wire.asset_json(self.venue, symbol) for symbol in self.venue.tape.row_of]

    def get_asset(self, call: Call) -> Body:
        name = call.path["name"]
        symbol = self._symbol(name)
        if symbol not in self.venue.tape.row_of:
            raise Refused(NOT_FOUND, f"asset not found for {name}")
        return wire.asset_json(self.venue, symbol)

    def _symbol(self, name: str) -> str:
        """From a symbol or an asset id."""
        return next((symbol for symbol in self.venue.tape.row_of if wire.asset_id(symbol) == name), name)

    def list_activities(self, call: Call) -> Body:
        kinds = wire.symbols_of(call.path.get("kind") or call.query.get("activity_types", ""))
        if bad := [kind for kind in kinds if kind not in ACTIVITIES]:
            raise Refused(BAD_PARAMETER, f"invalid activity type: {bad[0]}")
        after, until, on = call.moment("after"), call.moment("until"), call.moment("date")
        found = [
            wire.activity_json(each)
            for each in self.venue.account.activities
            if (after is None or each.at > after)
            and (until is None or each.at < until)
            and (on is None or each.at.astimezone(NEW_YORK).date() == on.date())
        ]
        found = [body for body in found if not kinds or body["activity_type"] in kinds]
        if call.query.get("direction", "desc") == "desc":
            found.reverse()
        token = call.query.get("page_token")
        ids = [body["id"] for body in found]
        start = ids.index(token) + 1 if token in ids else 0
        return found[start : start + min(call.whole("page_size", MOST_ACTIVITIES), MOST_ACTIVITIES)]

    # -- positions

    def list_positions(self, call: Call) -> Body:
        return [wire.position_json(self.venue, symbol, held) for symbol, held in self._view(call).held.items()]

    def get_position(self, call: Call) -> Body:
        symbol = self._symbol(call.path["name"])
        held = self._view(call).held.get(symbol)
        if held is None:
            raise Refused(NOT_FOUND, "position does not exist")
        return wire.position_json(self.venue, symbol, held)

    def close_position(self, call: Call) -> Body:
        quantity = wire.decimal(call.query.get("qty"), "qty")
        percentage = wire.decimal(call.query.get("percentage"), "percentage")
        if quantity is not None and percentage is not None:
            raise Refused(BAD_PARAMETER, "only one of qty or percentage is accepted")
        if percentage is not None and not 0 < percentage <= 100:
            raise Refused(BAD_PARAMETER, "percentage must be > 0 and <= 100")
        order = self.venue.close_position(self._symbol(call.path["name"]), quantity, percentage, call.mishap)
        return wire.order_json(self.venue, order)

    def close_positions(self, call: Call) -> Answer:
        results = self.venue.close_all(wire.is_true(call.query.get("cancel_orders", "")))
        return Answer(207, [self._closed(symbol, result) for symbol, result in results.items()])

    def _closed(self, symbol: str, result: VenueOrder | Refused) -> dict[str, Any]:
        if isinstance(result, Refused):
            return {"symbol": symbol, "status": result.status, "body": wire.refusal_json(result)}
        return {"symbol": symbol, "status": 200, "body": wire.order_json(self.venue, result)}

    # -- orders

    def submit_order(self, call: Call) -> Body:
        order = self.venue.submit(wire.new_order(call.body), call.mishap)
        return wire.order_json(self.venue, order, nested=True)

    def get_order(self, call: Call) -> Body:
        view = self._view(call)
        order = self.venue.find(_order_id(call), view)
        return wire.order_json(self.venue, order, view, wire.is_true(call.query.get("nested", "")))

    def get_order_by_client_id(self, call: Call) -> Body:
        view = self._view(call)
        order = self.venue.find_by_client_id(call.query.get("client_order_id", ""), view)
        return wire.order_json(self.venue, order, view)

    def replace_order(self, call: Call) -> Body:
        order = self.venue.replace(_order_id(call), wire.change(call.body), call.mishap)
        return wire.order_json(self.venue, order)

    def cancel_order(self, call: Call) -> Answer:
        self.venue.cancel(_order_id(call), call.mishap)
        return Answer(204, None)

    def cancel_orders(self, call: Call) -> Answer:
        return Answer(207, [{"id": order.id, "status": 200} for order in self.venue.cancel_all()])

    def list_orders(self, call: Call) -> Body:
        """Held legs are no open orders; nested, they stand under their parent, which then counts as open with them."""
        view, status = self._view(call), call.query.get("status", "open")
        if status not in {"open", "closed", "all"}:
            raise Refused(BAD_PARAMETER, f"invalid status: {status}")
        nested = wire.is_true(call.query.get("nested", ""))
        after, until = call.moment("after"), call.moment("until")
        side, symbols = call.query.get("side"), wire.symbols_of(call.query.get("symbols", ""))
        found = [
            order
            for order in view.orders.values()
            if self.venue.is_visible(order)
            and not (nested and order.parent_id)
            and (status == "all" or (status == "open") is _counts_as_open(order, view, nested))
            and (after is None or order.created_at > after)
            and (until is None or order.created_at < until)
            and (side is None or order.side == side)
            and (not symbols or order.symbol in symbols)
        ]
        found.sort(key=lambda order: order.created_at, reverse=call.query.get("direction", "desc") == "desc")
        limit = min(call.whole("limit", ORDERS_A_PAGE), MOST_ORDERS)
        return [wire.order_json(self.venue, order, view, nested) for order in found[:limit]]


@cache
def _sessions(first: date, last: date) -> list[Session]:
    return sessions_between(first, last)  # milliseconds, and every tick asks for the clock


def _order_id(call: Call) -> str:
    try:
        return str(UUID(call.path["order_id"]))
    except ValueError:
        raise Refused(BAD_PARAMETER, "order_id is missing") from None


def _counts_as_open(order: VenueOrder, view: View, nested: bool) -> bool:
    if nested and any(view.orders[leg].is_open for leg in order.leg_ids if leg in view.orders):
        return True
    return order.is_open and order.status is not Status.HELD


ROUTES: list[tuple[str, str, Callable[[TradingApi, Call], Body | Answer]]] = [
    ("GET", "/v2/account", TradingApi.get_account),
    ("GET", "/v2/account/configurations", TradingApi.get_configurations),
    ("PATCH", "/v2/account/configurations", TradingApi.change_configurations),
    ("GET", "/v2/account/activities", TradingApi.list_activities),
    ("GET", "/v2/account/activities/{kind}", TradingApi.list_activities),
    ("GET", "/v2/clock", TradingApi.get_clock),
    ("GET", "/v2/calendar", TradingApi.get_calendar),
    ("GET", "/v2/assets", TradingApi.list_assets),
    ("GET", "/v2/assets/{name}", TradingApi.get_asset),
    ("GET", "/v2/positions", TradingApi.list_positions),
    ("DELETE", "/v2/positions", TradingApi.close_positions),
    ("GET", "/v2/positions/{name}", TradingApi.get_position),
    ("DELETE", "/v2/positions/{name}", TradingApi.close_position),
    ("POST", "/v2/orders", TradingApi.submit_order),
    ("GET", "/v2/orders", TradingApi.list_orders),
    ("DELETE", "/v2/orders", TradingApi.cancel_orders),
    ("GET", "/v2/orders:by_client_order_id", TradingApi.get_order_by_client_id),
    ("GET", "/v2/orders/{order_id}", TradingApi.get_order),
    ("PATCH", "/v2/orders/{order_id}", TradingApi.replace_order),
    ("DELETE", "/v2/orders/{order_id}", TradingApi.cancel_order),
]
