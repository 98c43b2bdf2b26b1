"""Into a trade: its order sent, its fills protected."""

from collections.abc import Callable

from positions.execution.limits import LEAST_RISK
from positions.execution.steps import Insert, Steps, Update
from positions.execution.stops import Stops
from positions.execution.trade_state import OVER
from positions.models import OrderIntent, Trade
from positions.store import LiveTrade
from positions.words import SIGN, IntentStep, TradeStatus


class Entries(Stops):
    entered_listeners: list[Callable[[Trade], None]]

    def _enter(self, trade: Trade) -> Steps:
        intent = self._new_intent(trade, [], IntentStep.ENTRY, trade.planned_quantity)
        yield Insert((trade, intent))
        mine = self._live[trade.symbol]
        yield from self._send(mine, intent)
        yield from self._cancelled_without_entry(mine)

    def _cancelled_without_entry(self, mine: LiveTrade) -> Steps:
        """A trade whose entry can no longer fill, and that holds nothing, is over."""
        if mine.trade.status == TradeStatus.ENTERING and all(
            intent.status in OVER and not intent.filled_quantity
            for intent in mine.intents
            if intent.step == IntentStep.ENTRY
        ):
            mine.trade.status = TradeStatus.CANCELLED
            mine.unsaved.append((mine.trade, ("status",)))
            yield Update(mine.take_unsaved())

    def _entry_filled(self, mine: LiveTrade, intent: OrderIntent) -> Steps:
        trade = mine.trade
        if intent.filled_quantity > trade.quantity:
            assert intent.filled_price is not None
            sign = SIGN[trade.side]
            trade.entry_price, trade.quantity = intent.filled_price, intent.filled_quantity
            trade.entered_at = trade.entered_at or intent.finished_at or self._clock.now()
            # Filled at the stop or nearly so, the distance measures nothing: the plan's own stands.
            risk = sign * (trade.entry_price - trade.initial_stop)
            planned = abs(trade.planned_entry - trade.initial_stop)
            trade.risk_per_share = risk if risk >= planned * LEAST_RISK else planned
            trade.status = TradeStatus.OPEN if trade.status == TradeStatus.ENTERING else trade.status
            mine.unprotected_since = mine.unprotected_since or self._clock.now()
            mine.unsaved.append((trade, ("entry_price", "quantity", "entered_at", "risk_per_share", "status")))
            self._tell(self.entered_listeners, trade)
            if trade.status == TradeStatus.OPEN:
                yield from self._protect(mine)
