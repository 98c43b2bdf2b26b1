"""A stop for exactly the shares held, from the first fill to the last."""

from abc import abstractmethod
from collections.abc import Generator
from decimal import Decimal
from typing import Any

import structlog

from positions.execution.endings import Endings
from positions.execution.limits import MOST_ATTEMPTS, MOST_STOPS, POSITIONS_LAG
from positions.execution.steps import FindOrder, Step, Steps
from positions.execution.trade_state import OVER, PROTECTING, attempts, covers, shares_left
from positions.models import LIVE_STATUSES, OrderIntent
from positions.rules import ExitDecision
from positions.store import LiveTrade
from positions.words import SIGN, ExitReason, IntentStatus, IntentStep

log = structlog.get_logger(__name__)


class Stops(Endings):
    @abstractmethod
    def _claim_exit(self, mine: LiveTrade, decision: ExitDecision, price: float) -> Steps:
        """Leave: the market has passed the stop."""

    def _protect(self, mine: LiveTrade) -> Steps:
        """A stop for exactly the shares held. Where the market is beyond it already, out."""
        trade = mine.trade
        covered = yield from self._is_covered(mine)
        if covered:
            return
        mine.unprotected_since = mine.unprotected_since or self._clock.now()
        self.owed.add(trade.symbol)
        yield from self._end_stops(mine)
        quantity = shares_left(mine) - mine.sold_by_others
        if quantity <= 0 or mine.missing_since is not None:
            held, _ = yield from self._held(mine)
            if not held:
                yield from self._missing(mine)
                return
        unended = any(i.step in PROTECTING and i.status not in OVER for i in mine.intents)
        if trade.status not in LIVE_STATUSES or quantity <= 0 or unended:
            return
        refused = [i for i in mine.intents if i.step == IntentStep.STOP and i.status == IntentStatus.REJECTED]
        if refused and any(i.step == IntentStep.ENTRY and i.status not in OVER for i in mine.intents):
            # the broker refuses an order against one of the other side that works
            yield from self._cancel_working(mine, (IntentStep.ENTRY,))
            return
        if len(refused) >= MOST_ATTEMPTS or attempts(mine, IntentStep.STOP) >= MOST_STOPS:
            log.error("stop_given_up", trade=trade.signal_key, attempts=len(refused), todo="protect it by hand")
            self.owed.discard(trade.symbol)
            self._reread.add(trade.symbol)  # perhaps another process's stop holds the shares
            return
        stop = trade.stop_price or trade.initial_stop
        intent = yield from self._journal(mine, IntentStep.STOP, quantity, stop)
        yield from self._send(mine, intent)
        if intent.status == IntentStatus.WORKING and mine.exit is None:
            self.owed.discard(trade.symbol)
        elif intent.status == IntentStatus.REJECTED:
            yield from self._stop_refused(mine, stop, intent)

    def _is_covered(self, mine: LiveTrade) -> Generator[Step, Any, bool]:
        """Whether the stop that is needed stands; also True where there is nothing to protect."""
        stops = [intent for intent in mine.intents if intent.step in PROTECTING]
        if not stops:
            return False
        working = yield from self._working_orders(mine)
        standing = [intent for intent in stops if intent.client_order_id in working]
        if standing and not covers(standing, mine):  # others may have sold, or bought back
            held, _ = yield from self._held(mine)
            if mine.sold_by_others and self._just_entered(mine):
                self.owed.add(mine.trade.symbol)  # the view of positions may lag behind the entry
            if not held:
                yield from self._missing(mine)
                return True
        if not covers(standing, mine):
            return False
        if standing[0].status != IntentStatus.WORKING:
            self._adopt(mine, standing[0], working[standing[0].client_order_id])
        self._protected_until(mine, self._clock.now())
        return True

    def _just_entered(self, mine: LiveTrade) -> bool:
        filled = [i.finished_at or self._clock.now() for i in mine.intents if i.step == IntentStep.ENTRY]
        return self._clock.now() - max(filled) < POSITIONS_LAG

    def _end_stops(self, mine: LiveTrade) -> Steps:
        """Cancel the stops that are not what is needed, once; what became of them is read at once."""
        for intent in list(mine.intents):
            if intent.step not in PROTECTING or intent.status in OVER:
                continue
            if intent.status == IntentStatus.WORKING:
                yield from self._cancel(mine, intent)
            order = yield FindOrder(intent.client_order_id)
            if order is not None:
                yield from self._order_changed(mine, intent, order)

    def _stop_refused(self, mine: LiveTrade, stop: Decimal, refused: OrderIntent) -> Steps:
        """If the market has passed the stop, leave; if others hold the shares now, protect what is left; else later."""
        held, _ = yield from self._held(mine)
        price = mine.last_price
        if not held:
            yield from self._missing(mine)
        elif mine.exit is None and price is not None and SIGN[mine.trade.side] * (price - float(stop)) <= 0:
            evidence = {"stop": float(stop), "stop_refused": refused.error, "price": price}
            yield from self._claim_exit(mine, ExitDecision(ExitReason.STOP, evidence), price)
        elif held < refused.quantity:
            yield from self._protect(mine)
