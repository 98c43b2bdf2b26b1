"""What the broker says of an order, and what then follows for its trade; the same for what was broken off."""

from dataclasses import replace as changed

import structlog

from positions.broker.port import Order, OrderStatus
from positions.execution.entries import Entries
from positions.execution.exits import Exits
from positions.execution.orders import ORDER_FIELDS, request_of
from positions.execution.steps import Steps
from positions.execution.trade_state import OVER, shares_left
from positions.models import LIVE_STATUSES, OrderIntent
from positions.store import LiveTrade
from positions.words import IntentStatus, IntentStep, TradeStatus

log = structlog.get_logger(__name__)

_STATUS = {
    OrderStatus.WORKING: IntentStatus.WORKING,
    OrderStatus.FILLED: IntentStatus.FILLED,
    OrderStatus.CANCELLED: IntentStatus.CANCELLED,
    OrderStatus.EXPIRED: IntentStatus.CANCELLED,
    OrderStatus.REPLACED: IntentStatus.REPLACED,
    OrderStatus.REJECTED: IntentStatus.REJECTED,
}


class News(Entries, Exits):
    def _order_changed(self, mine: LiveTrade, intent: OrderIntent, order: Order) -> Steps:
        if not intent.broker_order_id:  # sent, then interrupted before the answer was heard
            stranger = _as_replacement(mine, order).difference_from(request_of(mine.trade, intent))
            if stranger:
                log.error(
                    "order_is_not_ours", order=order.client_order_id, why=stranger, todo="look at it at the broker"
                )
                self._note_failure(mine, intent, IntentStatus.REJECTED, f"not ours: {stranger}")
                self.owed.add(mine.trade.symbol)
                return
            self._adopt(mine, intent, order)
        news = order.filled_quantity > intent.filled_quantity
        status = _STATUS[order.status]
        if not news and (intent.status == status or intent.finished_at is not None):
            return
        intent.status = status
        if news:
            intent.filled_quantity, intent.filled_price = order.filled_quantity, order.filled_price
        if order.status.is_final:
            intent.finished_at = order.filled_at or self._clock.now()
        mine.unsaved.append((intent, ORDER_FIELDS))
        if intent.step == IntentStep.ENTRY and news:
            yield from self._entry_filled(mine, intent)
        yield from self._cancelled_without_entry(mine)
        if mine.trade.quantity > 0 and shares_left(mine) <= 0:
            yield from self._flat(mine)
        elif intent.step != IntentStep.ENTRY and order.status.is_final and order.status is not OrderStatus.REPLACED:
            leaving = any(i.step == IntentStep.EXIT and i.status == IntentStatus.WORKING for i in mine.intents)
            if not leaving:
                mine.unprotected_since = mine.unprotected_since or intent.finished_at
                self.owed.add(mine.trade.symbol)

    def _intent_of(self, order: Order) -> tuple[LiveTrade | None, OrderIntent | None]:
        mine = self._live.get(order.symbol)
        if mine is None:
            return None, None
        return mine, next((i for i in mine.intents if i.client_order_id == order.client_order_id), None)

    def _resume(self, mine: LiveTrade) -> Steps:
        trade = mine.trade
        for intent in list(mine.intents):
            if intent.status not in OVER and trade.status in LIVE_STATUSES:
                yield from self._look_up(mine, intent)
        yield from self._catch_up(mine)
        if trade.status == TradeStatus.ENTERING:
            yield from self._cancelled_without_entry(mine)
        elif trade.status in LIVE_STATUSES and mine.exit is not None:
            if trade.status != TradeStatus.EXITING:
                trade.status = TradeStatus.EXITING
                mine.unsaved.append((trade, ("status",)))
            yield from self._exit(mine)
        elif trade.status == TradeStatus.OPEN:
            yield from self._protect(mine)

    def _catch_up(self, mine: LiveTrade) -> Steps:
        """What was journaled, then interrupted before the trade knew of it."""
        trade = mine.trade
        for intent in mine.intents:
            if intent.step == IntentStep.ENTRY and intent.filled_quantity > trade.quantity:
                yield from self._entry_filled(mine, intent)
        if trade.status in LIVE_STATUSES and trade.quantity > 0 and shares_left(mine) <= 0:
            yield from self._flat(mine)


def _as_replacement(mine: LiveTrade, order: Order) -> Order:
    """An order that replaces one of this trade's is younger than that, whatever its time says."""
    if order.replaces and order.replaces in {intent.broker_order_id for intent in mine.intents}:
        return changed(order, created_at=max(intent.created_at for intent in mine.intents))
    return order
