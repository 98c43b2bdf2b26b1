"""A stop moved: one replaced by a tighter one, or left where it stands."""

from decimal import Decimal
from typing import Any

from positions.broker.port import BrokerError, NotNow, Rejected
from positions.execution.limits import MOVE_PAUSE
from positions.execution.orders import ORDER_FIELDS, Orders
from positions.execution.steps import FindOrder, Insert, Replace, Steps
from positions.execution.trade_state import PROTECTING
from positions.models import OrderIntent, StopMove
from positions.store import LiveTrade
from positions.words import IntentStatus, IntentStep


class Moves(Orders):
    def _move_stop(self, mine: LiveTrade, new_stop: Decimal, evidence: dict[str, Any]) -> Steps:
        trade = mine.trade
        standing = [i for i in mine.intents if i.step in PROTECTING and i.status == IntentStatus.WORKING]
        if not standing or trade.stop_price is None:
            self.owed.add(trade.symbol)
            return
        move = StopMove(
            book=trade.book,
            trade=trade,
            old_stop=trade.stop_price,
            new_stop=new_stop,
            evidence=evidence,
            decided_at=self._clock.now(),
        )
        intent = self._new_intent(trade, mine.intents, IntentStep.MOVE, standing[-1].quantity, new_stop)
        yield Insert((move, intent), mine.take_unsaved())
        yield from self._replace(mine, intent, standing[-1])

    def _replace(self, mine: LiveTrade, intent: OrderIntent, old: OrderIntent) -> Steps:
        assert intent.stop_price is not None
        try:
            order = yield Replace(old.broker_order_id, intent.stop_price, intent.client_order_id)
        except NotNow as error:
            intent.status, intent.error = IntentStatus.INTENDED, str(error)[:300]
            mine.unsaved.append((intent, ORDER_FIELDS))
            mine.move_again_at = self._clock.now() + MOVE_PAUSE
            self.owed.add(mine.trade.symbol)
            return
        except Rejected as error:
            made = yield FindOrder(intent.client_order_id)
            if made is not None:
                yield from self._order_changed(mine, intent, made)
                return
            self._note_failure(mine, intent, IntentStatus.REJECTED, error)
            self.owed.add(mine.trade.symbol)
            return
        except BrokerError as error:
            self._note_failure(mine, intent, IntentStatus.UNKNOWN, error)
            self.owed.add(mine.trade.symbol)
            return
        if order.client_order_id == old.client_order_id:  # it stood there already
            intent.status, intent.finished_at = IntentStatus.CANCELLED, self._clock.now()
            mine.unsaved += ((intent, ORDER_FIELDS), *self._stop_confirmed(mine, intent))
            return
        old.status, old.finished_at = IntentStatus.REPLACED, self._clock.now()
        self._adopt(mine, intent, order, old)
