"""The account is the truth: what it shows is compared with what is known, at the start and every minute.

A trade of ours that looks otherwise there is looked at by the exit protocol, which reads again before it acts. A
position that is not ours is recorded as external and, by the setting EXTERNAL_POSITIONS or a user's word, taken over.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from math import isfinite

import structlog
from django.db import InterfaceError, OperationalError

from positions.broker.port import Broker, BrokerError, Listing, Order, Position
from positions.execution import Execution
from positions.market.calendar import NEW_YORK
from positions.market.indicators import IndicatorBank
from positions.models import ExternalPosition, OrderIntent, Trade
from positions.rules import ExitSettings, initial_stop, round_to_tick
from positions.store import Duplicate, Store, StoreUnavailable
from positions.words import SIGN, ExternalMode, Feed, IntentStatus, IntentStep, Side, TradeStatus

log = structlog.get_logger(__name__)

#: A trade that ended so shortly ago may still show as a position.
SETTLES_WITHIN = timedelta(seconds=30)
#: A position that is taken over gets a stop so far from the price, and a target twice as far.
STOP_ATR, STOP_WITHOUT_ATR = 2.0, 0.02
STRATEGY = "external"


class Reconciler:
    """`reconcile` makes two requests. What cannot be read is not known; nothing is concluded from it."""

    def __init__(
        self,
        feed: Feed,
        broker: Broker,
        store: Store,
        execution: Execution,
        bank: IndicatorBank,
        mode: Callable[[], ExternalMode],
        exits: Callable[[], ExitSettings],
    ) -> None:
        self._feed, self._broker, self._store, self._execution = feed, broker, store, execution
        self._bank, self._mode, self._exits = bank, mode, exits

    def reconcile(self, now: datetime) -> None:
        try:
            positions, orders = self._broker.positions(), self._broker.open_orders()
        except BrokerError as error:
            log.warning("not_reconciled", book=self._store.book, error=str(error))
            return
        self._execution.compare(positions, orders)
        try:
            self._see_to_externals(positions, orders, now)
        except (OperationalError, InterfaceError, StoreUnavailable) as error:
            log.warning("external_positions_not_noted", book=self._store.book, error=str(error))

    def _see_to_externals(self, positions: Listing[Position], orders: Listing[Order], now: datetime) -> None:
        rows = {row.symbol: row for row in ExternalPosition.objects.filter(book=self._store.book, gone_at=None)}
        found = self._externals(positions, now)
        self._forget(rows, found, positions, now)
        mode = self._mode() if found else ExternalMode.SHOW
        for row in self._note(rows, found, positions, now):
            self._take_over(row, positions[row.symbol], orders, mode, now)

    def _externals(self, positions: Listing[Position], now: datetime) -> dict[str, int]:
        """Shares by symbol, negative when short, that no trade of ours explains."""
        found = {}
        for symbol, position in positions.items():
            ours = self._execution.shares_of(symbol)
            shares = position.quantity - ours
            if shares and (not ours or abs(position.quantity) > abs(ours) or position.quantity * ours < 0):
                found[symbol] = shares
        ended = Trade.objects.filter(book=self._store.book, symbol__in=found, exited_at__gt=now - SETTLES_WITHIN)
        for symbol in ended.values_list("symbol", flat=True):
            found.pop(symbol, None)
        return found

    def _forget(
        self, rows: dict[str, ExternalPosition], found: dict[str, int], positions: Listing[Position], now: datetime
    ) -> None:
        gone = [row.pk for symbol, row in rows.items() if symbol not in found and symbol not in positions.unreadable]
        if gone:
            ExternalPosition.objects.filter(pk__in=gone).update(gone_at=now)

    def _note(
        self, rows: dict[str, ExternalPosition], found: dict[str, int], positions: Listing[Position], now: datetime
    ) -> list[ExternalPosition]:
        """The rows of what was found, as it now is."""
        new, changed = list[ExternalPosition](), list[ExternalPosition]()
        for symbol, shares in found.items():
            price = positions[symbol].price
            row = rows.get(symbol) or ExternalPosition(book=self._store.book, symbol=symbol, first_seen_at=now)
            seen = shares, Decimal(f"{price:.4f}") if isfinite(price) else None
            if (row.quantity, row.price) != seen:
                (row.quantity, row.price), row.last_seen_at = seen, now
                (new if row.pk is None else changed).append(row)
            rows[symbol] = row
        for row in new:
            log.warning(
                "external_position",
                symbol=row.symbol,
                shares=row.quantity,
                todo="adopt it in the admin (External positions), or leave it",
            )
        ExternalPosition.objects.bulk_create(new)
        ExternalPosition.objects.bulk_update(changed, ["quantity", "price", "last_seen_at"])
        return [rows[symbol] for symbol in found]

    def _take_over(
        self,
        row: ExternalPosition,
        position: Position,
        orders: Listing[Order],
        mode: ExternalMode,
        now: datetime,
    ) -> None:
        if row.symbol in self._store.live or not (row.adopt or mode is not ExternalMode.SHOW):
            return
        others = [order.client_order_id for order in orders.values() if order.symbol == row.symbol]
        if others or not isfinite(position.price) or position.price <= 0:
            log.warning("external_position_left", symbol=row.symbol, orders=others, todo="cancel its orders first")
            return
        managed = (row.adopt or mode is ExternalMode.MANAGE) and row.symbol in self._bank.row_of
        trade, entry = self._as_trade(row, position.price, managed, now)
        try:
            self._store.insert(trade, entry)
        except Duplicate as error:
            log.info("external_position_taken_before", symbol=row.symbol, error=str(error))
            return
        self._store.live[row.symbol].unprotected_since = now
        self._execution.owed.add(row.symbol)
        ExternalPosition.objects.filter(pk=row.pk).update(gone_at=now, trade=trade)

    def _as_trade(self, row: ExternalPosition, price: float, managed: bool, now: datetime) -> tuple[Trade, OrderIntent]:
        """A trade that begins now at the last price: its P/L and R count from here."""
        side = Side.LONG if row.quantity > 0 else Side.SHORT
        shares = abs(row.quantity)
        entry = round_to_tick(price, up=side is Side.LONG)
        place = self._bank.row_of.get(row.symbol)
        atr = float("nan") if place is None else float(self._bank.atr14[place])
        distance = max(STOP_ATR * atr if isfinite(atr) else STOP_WITHOUT_ATR * price, 0.02)
        stop = initial_stop(price - SIGN[side] * distance, side)
        trade = Trade(
            book=self._store.book,
            signal_key=f"{row.symbol}-{now:%Y%m%dT%H%M%SZ}-{side}",
            symbol=row.symbol,
            side=side,
            status=TradeStatus.OPEN,
            strategy=STRATEGY,
            managed=managed,
            feed=self._feed,
            session=now.astimezone(NEW_YORK).date(),
            exit_settings_hash=self._exits().hash,
            signal_at=now,
            planned_entry=entry,
            initial_stop=stop,
            target=round_to_tick(price + 2 * SIGN[side] * distance, up=side is Side.LONG),
            planned_quantity=shares,
            entered_at=now,
            entry_price=entry,
            quantity=shares,
            risk_per_share=abs(entry - stop),
        )
        held = OrderIntent(
            book=self._store.book,
            trade=trade,
            client_order_id=f"held.{trade.signal_key}",
            step=IntentStep.ENTRY,
            status=IntentStatus.FILLED,
            quantity=shares,
            created_at=now,
            finished_at=now,
            filled_quantity=shares,
            filled_price=entry,
        )
        return trade, held
