"""One order of a trade: journaled, sent, cancelled, and what its journal then says."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable
from datetime import datetime
from decimal import Decimal
from typing import Any

import structlog

from positions.broker.port import (
    BrokerError,
    Listing,
    Order,
    OrderKind,
    OrderRequest,
    OrderSide,
    OrderStatus,
    PositionIntent,
    Rejected,
    Unavailable,
)
from positions.clock import Clock
from positions.execution.steps import Cancel, FindOrder, Insert, ReadOrders, Send, Step, Steps
from positions.execution.trade_state import CLOSING, OVER, PROTECTING, UNPROTECTED
from positions.isolation import Isolate, Work
from positions.models import OrderIntent, Trade
from positions.store import Change, LiveTrade
from positions.words import IntentStatus, IntentStep, Side, StopMoveStatus

log = structlog.get_logger(__name__)

ORDER_FIELDS = ("status", "broker_order_id", "filled_quantity", "filled_price", "finished_at", "error")


class Orders(ABC):
    """The ground on which the jobs stand: each takes from those below, and says as abstract what it asks of one above.

    `owed` are the symbols whose trade waits for something that no event will announce: all of them after a start.
    """

    owed: set[str]
    isolate: Isolate
    _clock: Clock
    _live: dict[str, LiveTrade]
    _id_prefix: str
    #: Symbols whose trade is read from the store again before the next job.
    _reread: set[str]

    def _tell(self, listeners: Iterable[Callable[[Trade], None]], trade: Trade) -> None:
        """What goes wrong with a listener keeps no share from its stop and no trade from its end."""
        for listener in listeners:
            with self.isolate(Work("telling", trade.symbol, trade.signal_key)):
                listener(trade)

    @abstractmethod
    def _order_changed(self, mine: LiveTrade, intent: OrderIntent, order: Order) -> Steps:
        """Take what the broker shows of an order for what it is, with all that follows for the trade."""

    def _new_intent(
        self,
        trade: Trade,
        before: list[OrderIntent],
        step: IntentStep,
        quantity: int,
        stop_price: Decimal | None = None,
    ) -> OrderIntent:
        attempt = 1 + sum(intent.step == step for intent in before)
        return OrderIntent(
            book=trade.book,
            trade=trade,
            client_order_id=f"{self._id_prefix}{trade.signal_key}-{step}{attempt}",
            step=step,
            attempt=attempt,
            quantity=quantity,
            stop_price=stop_price,
            created_at=self._clock.now(),
        )

    def _journal(
        self, mine: LiveTrade, step: IntentStep, quantity: int, stop_price: Decimal | None = None
    ) -> Generator[Step, Any, OrderIntent]:
        intent = self._new_intent(mine.trade, mine.intents, step, quantity, stop_price)
        yield Insert((intent,), mine.take_unsaved())
        return intent

    def _send(self, mine: LiveTrade, intent: OrderIntent) -> Steps:
        try:
            order = yield Send(request_of(mine.trade, intent))
        except Rejected as error:
            order = yield FindOrder(intent.client_order_id)
            if order is None:
                self._note_failure(mine, intent, IntentStatus.REJECTED, error)
            else:  # sent before, by us or by somebody else
                yield from self._order_changed(mine, intent, order)
        except BrokerError as error:
            self._note_failure(mine, intent, IntentStatus.UNKNOWN, error)
            self.owed.add(mine.trade.symbol)
        else:
            self._adopt(mine, intent, order)
            yield from self._order_changed(mine, intent, order)

    def _adopt(self, mine: LiveTrade, intent: OrderIntent, order: Order, replaced: OrderIntent | None = None) -> None:
        """The broker has the order: say so in the journal. A stop that was accepted was in force, whatever came."""
        intent.broker_order_id, intent.status = order.id, IntentStatus.WORKING
        mine.unsaved += [(each, ORDER_FIELDS) for each in (replaced, intent) if each is not None]
        if intent.step in CLOSING and not order.status.is_final:
            self._protected_until(mine, self._clock.now())
        if intent.step in PROTECTING and order.status is not OrderStatus.REJECTED:
            mine.unsaved += self._stop_confirmed(mine, intent)

    def _stop_confirmed(self, mine: LiveTrade, intent: OrderIntent) -> tuple[Change, ...]:
        """The broker holds this stop now: the trade says so, and a move that was owed is done."""
        trade, stop = mine.trade, intent.stop_price
        trade.stop_price, trade.breakeven_set = stop, trade.breakeven_set or intent.step == IntentStep.MOVE
        done = [move for move in mine.moves if move.status == StopMoveStatus.OWED and move.new_stop == stop]
        for move in done:
            move.status, move.confirmed_at = StopMoveStatus.CONFIRMED, self._clock.now()
        return (
            (trade, ("stop_price", "breakeven_set", "unprotected_seconds")),
            *((move, ("status", "confirmed_at")) for move in done),
        )

    @staticmethod
    def _protected_until(mine: LiveTrade, moment: datetime) -> None:
        """The time without a stop has ended: one works, or an order that closes, or nothing is held any more."""
        if mine.unprotected_since is not None:
            mine.trade.unprotected_seconds += max(0.0, (moment - mine.unprotected_since).total_seconds())
            mine.unprotected_since = None
            if mine.alarmed == UNPROTECTED:
                log.warning("position_protected_again", trade=mine.trade.signal_key)
            mine.alarmed = ""

    def _note_failure(self, mine: LiveTrade, intent: OrderIntent, status: IntentStatus, error: object) -> None:
        """A move that came to nothing is refused with its order."""
        intent.status, intent.error = status, str(error)[:300]
        mine.unsaved.append((intent, ORDER_FIELDS))
        if status in OVER:
            intent.finished_at = self._clock.now()
            if intent.step == IntentStep.MOVE:
                for move in [each for each in mine.moves if each.status == StopMoveStatus.OWED]:
                    move.status = StopMoveStatus.REFUSED
                    mine.unsaved.append((move, ("status",)))

    def _cancel_working(self, mine: LiveTrade, steps: tuple[IntentStep, ...]) -> Steps:
        for intent in mine.intents:
            if intent.step in steps and intent.status == IntentStatus.WORKING:
                yield from self._cancel(mine, intent)
            elif intent.step in steps and intent.status not in OVER:
                self.owed.add(mine.trade.symbol)

    def _cancel(self, mine: LiveTrade, intent: OrderIntent) -> Steps:
        """Ask for it; that it is cancelled, or was filled before, is the broker's to say."""
        try:
            yield Cancel(intent.broker_order_id)
        except BrokerError as error:
            intent.error = str(error)[:300]
            mine.unsaved.append((intent, ("error",)))
            self.owed.add(mine.trade.symbol)

    @staticmethod
    def _working_orders(mine: LiveTrade) -> Generator[Step, Any, Listing[Order]]:
        """By client order id. Raises Unavailable where one of this trade's cannot be read: that is not its absence."""
        working: Listing[Order] = yield ReadOrders()
        if any(intent.client_order_id in working.unreadable for intent in mine.intents):
            raise Unavailable(f"an order of {mine.trade.symbol} cannot be read")
        return working


def request_of(trade: Trade, intent: OrderIntent) -> OrderRequest:
    buying = (trade.side == Side.LONG) is (intent.step == IntentStep.ENTRY)
    if intent.step == IntentStep.ENTRY:
        position_intent = PositionIntent.BUY_TO_OPEN if buying else PositionIntent.SELL_TO_OPEN
    else:
        position_intent = PositionIntent.BUY_TO_CLOSE if buying else PositionIntent.SELL_TO_CLOSE
    return OrderRequest(
        client_order_id=intent.client_order_id,
        symbol=trade.symbol,
        side=OrderSide.BUY if buying else OrderSide.SELL,
        kind=OrderKind.MARKET if intent.stop_price is None else OrderKind.STOP,
        quantity=intent.quantity,
        intent=position_intent,
        stop_price=intent.stop_price,
        created_at=intent.created_at,
    )
