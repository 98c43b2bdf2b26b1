"""An order of which nobody knows whether the broker has it: looked up before anything is sent again."""

from positions.execution.limits import ENTRY_PATIENCE, VISIBLE_WITHIN
from positions.execution.moves import Moves
from positions.execution.steps import FindOrder, Steps
from positions.execution.trade_state import moved_from, shares_left
from positions.models import OrderIntent
from positions.store import LiveTrade
from positions.words import IntentStatus, IntentStep


class Lookups(Moves):
    def _look_up(self, mine: LiveTrade, intent: OrderIntent) -> Steps:
        """Ask the broker for an order by its id. One that is not there is sent again under the same id, unless its
        time has passed: whichever request arrives second is refused."""
        order = yield FindOrder(intent.client_order_id)
        if order is not None:
            yield from self._order_changed(mine, intent, order)
        elif intent.status == IntentStatus.WORKING:
            self.owed.add(mine.trade.symbol)  # it was accepted: it will show
        elif intent.step == IntentStep.MOVE:
            yield from self._move_not_there(mine, intent)
        elif intent.step == IntentStep.ENTRY and self._clock.now() - intent.created_at > ENTRY_PATIENCE:
            self._note_failure(mine, intent, IntentStatus.CANCELLED, "never sent, and its time has passed")
        elif intent.step == IntentStep.ENTRY or intent.quantity <= shares_left(mine):
            yield from self._send(mine, intent)
        else:
            self._give_up_unseen(mine, intent)

    def _move_not_there(self, mine: LiveTrade, intent: OrderIntent) -> Steps:
        old = moved_from(mine, intent)
        if old.status != IntentStatus.WORKING:
            self._give_up_unseen(mine, intent)
        elif mine.exit is None and (mine.move_again_at is None or self._clock.now() >= mine.move_again_at):
            yield from self._replace(mine, intent, old)
        else:
            self.owed.add(mine.trade.symbol)

    def _give_up_unseen(self, mine: LiveTrade, intent: OrderIntent) -> None:
        """An order that is not to be sent again: once it has had time to show, it never reached the broker."""
        if self._clock.now() - intent.created_at < VISIBLE_WITHIN:
            self.owed.add(mine.trade.symbol)
            return
        self._note_failure(mine, intent, IntentStatus.REJECTED, "it never reached the broker")
