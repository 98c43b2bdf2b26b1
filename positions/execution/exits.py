"""Out of a trade: claimed once, then a pass over it again and again until nothing is held."""

from collections.abc import Generator
from decimal import Decimal
from typing import Any

import structlog

from positions.execution.limits import FREE_FOR, MOST_ATTEMPTS, RELEASE_LOOKS
from positions.execution.lookups import Lookups
from positions.execution.steps import Insert, Step, Steps, Wait
from positions.execution.stops import Stops
from positions.execution.trade_state import OPEN_QUESTIONS, OVER, PROTECTING, is_given_up, shares_left
from positions.models import LIVE_STATUSES, PositionExit
from positions.rules import ExitDecision
from positions.store import LiveTrade
from positions.words import IntentStatus, IntentStep, TradeStatus

log = structlog.get_logger(__name__)


class Exits(Lookups, Stops):
    def _claim_exit(self, mine: LiveTrade, decision: ExitDecision, price: float) -> Steps:
        trade = mine.trade
        claimed = PositionExit(
            book=trade.book,
            trade=trade,
            rule=decision.rule,
            evidence=decision.evidence,
            decided_at=self._clock.now(),
            decided_price=Decimal(f"{price:.4f}"),
            quantity=trade.quantity,
        )
        trade.status = TradeStatus.EXITING
        mine.unsaved.append((trade, ("status",)))
        yield Insert((claimed,), mine.take_unsaved())
        for intent in list(mine.intents):
            if intent.status in OPEN_QUESTIONS:
                yield from self._look_up(mine, intent)
        yield from self._exit(mine)

    def _exit(self, mine: LiveTrade) -> Steps:
        """One pass over an exit; run again until the position is flat. The order of work is the whole safety: every
        other order of the trade is at its end, and its fills known, before shares are counted and sold."""
        trade = mine.trade
        working = yield from self._working_orders(mine)
        if any(i.step == IntentStep.EXIT and i.client_order_id in working for i in mine.intents):
            return
        if is_given_up(mine):
            log.error("exit_given_up", trade=trade.signal_key, attempts=MOST_ATTEMPTS, todo="close it by hand")
            yield from self._protect(mine)
            if mine.unprotected_since is None:
                self.owed.discard(trade.symbol)
            return
        self.owed.add(trade.symbol)
        yield from self._end_orders(mine)
        if trade.status not in LIVE_STATUSES:
            return
        if any(intent.status not in OVER for intent in mine.intents):
            free = yield from self._seem_free(mine)
            if not free:
                return
        mine.free_since = None
        quantity = yield from self._free_shares(mine)
        if not quantity:
            return
        intent = yield from self._journal(mine, IntentStep.EXIT, quantity)
        yield from self._send(mine, intent)
        if intent.status == IntentStatus.WORKING:
            self.owed.discard(trade.symbol)
        elif intent.status == IntentStatus.REJECTED:
            yield from self._protect(mine)

    def _seem_free(self, mine: LiveTrade) -> Generator[Step, Any, bool]:
        """Whether the view of orders lags: no stop holds a share any more, and has not for a while."""
        if any(i.status not in OVER and i.step not in PROTECTING for i in mine.intents):
            return False
        held, available = yield from self._held(mine)
        if not held or available < held:
            mine.free_since = None
            return False
        mine.free_since = mine.free_since or self._clock.now()
        mine.unprotected_since = mine.unprotected_since or mine.free_since
        return self._clock.now() - mine.free_since >= FREE_FOR

    def _free_shares(self, mine: LiveTrade) -> Generator[Step, Any, int]:
        """How many shares may be sold now: no more than are held, and than our fills leave. 0: none yet."""
        for _ in range(RELEASE_LOOKS):
            held, available = yield from self._held(mine)
            if held <= 0:
                yield from self._missing(mine)
                return 0
            quantity = min(held, shares_left(mine))
            if available >= quantity:
                return quantity
            yield Wait()
        return 0
