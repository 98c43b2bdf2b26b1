"""How a trade ends: its orders at their end, nothing held any more, its result reckoned and stored."""

from collections.abc import Callable, Generator, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

import structlog

from positions.broker.port import Activity, Listing, OrderSide, Position, Unavailable
from positions.execution.limits import POSITIONS_LAG, RELEASE_LOOKS
from positions.execution.orders import Orders
from positions.execution.steps import FindOrder, ReadFills, ReadPositions, Step, Steps, Update, Wait
from positions.execution.trade_state import CLOSING, OPEN_QUESTIONS, OVER, cannot_move, shares_left
from positions.fees import FeeRates, regulatory_fees
from positions.models import LIVE_STATUSES, OrderIntent, Trade
from positions.rules import net_pnl
from positions.store import LiveTrade
from positions.words import SIGN, ExitReason, ExitStatus, IntentStatus, IntentStep, Outcome, Side, TradeStatus

log = structlog.get_logger(__name__)

_EXIT_FIELDS = ("status", "finished_at", "exit_price", "pnl", "r_multiple", "hold_seconds")
_RESULT_FIELDS = (
    "exit_price",
    "exited_at",
    "fees",
    "pnl",
    "r_multiple",
    "mae_r",
    "mfe_r",
    "outcome",
    "status",
    "exit_reason",
    "unprotected_seconds",
)


class Endings(Orders):
    cost_per_share: Decimal
    _fee_rates: Sequence[FeeRates]
    closing_listeners: list[Callable[[Trade], None]]
    closed_listeners: list[Callable[[Trade], None]]

    def _end_orders(self, mine: LiveTrade) -> Steps:
        """Cancel what still works, and wait a little until the broker says what became of it."""
        for intent in list(mine.intents):
            if intent.status in OVER:
                continue
            if intent.status == IntentStatus.WORKING and intent.step != IntentStep.EXIT:
                yield from self._cancel(mine, intent)
            for _ in range(RELEASE_LOOKS):
                order = yield FindOrder(intent.client_order_id)
                if order is not None:
                    unheard = intent.status in OPEN_QUESTIONS
                    yield from self._order_changed(mine, intent, order)
                    if unheard and intent.status == IntentStatus.WORKING:
                        yield from self._cancel(mine, intent)
                elif intent.step == IntentStep.MOVE and intent.status in OPEN_QUESTIONS and cannot_move(mine, intent):
                    self._note_failure(mine, intent, IntentStatus.CANCELLED, "the trade was left instead")
                if intent.status in OVER:
                    break
                yield Wait()

    def _held(self, mine: LiveTrade) -> Generator[Step, Any, tuple[int, int]]:
        """Shares the broker holds of this trade's side and how many of them are free; what is not ours any more, others
        have sold. Raises Unavailable."""
        symbol = mine.trade.symbol
        positions: Listing[Position] = yield ReadPositions()
        if symbol in positions.unreadable:
            raise Unavailable(f"the position in {symbol} cannot be read")
        position = positions.get(symbol)
        held = max(0, SIGN[mine.trade.side] * position.quantity) if position else 0
        mine.sold_by_others = max(0, shares_left(mine) - held)
        if held:
            mine.missing_since = None
        if position is not None and position.price == position.price:
            mine.last_price = position.price
        return held, position.available if position else 0

    def _missing(self, mine: LiveTrade) -> Steps:
        """The broker holds nothing although we have not sold: once that stays so, others have closed the position."""
        self.owed.add(mine.trade.symbol)
        mine.missing_since = mine.missing_since or self._clock.now()
        if self._clock.now() - mine.missing_since < POSITIONS_LAG:
            return
        yield from self._end_orders(mine)
        if mine.trade.status not in LIVE_STATUSES or any(intent.status not in OVER for intent in mine.intents):
            return
        yield from self._close(mine)

    def _flat(self, mine: LiveTrade) -> Steps:
        """All that was bought is sold: the trade is over, once none of its orders works any more."""
        if all(intent.status in OVER for intent in mine.intents):
            yield from self._close(mine)
            return
        self.owed.add(mine.trade.symbol)
        for intent in mine.intents:
            if intent.status == IntentStatus.WORKING:
                yield from self._cancel(mine, intent)

    def _close(self, mine: LiveTrade) -> Steps:
        trade, claimed = mine.trade, mine.exit
        assert trade.entry_price is not None
        assert trade.entered_at is not None
        assert trade.risk_per_share is not None
        fills = [
            (i.filled_quantity, i.filled_price)
            for i in mine.intents
            if i.step in CLOSING and i.filled_price is not None
        ]
        by_others = shares_left(mine)
        last = max((i for i in mine.intents if i.step in CLOSING and i.filled_quantity), key=_finished, default=None)
        if by_others > 0:
            price, at = yield from self._sold_by_others(mine)
            fills.append((by_others, price))
            trade.exited_at, trade.exit_reason = at, ExitReason.MANUAL
        else:
            assert last is not None
            trade.exited_at = last.finished_at or self._clock.now()
            trade.exit_reason = ExitReason.STOP if last.stop_price == trade.initial_stop else ExitReason.BREAKEVEN_STOP
        by_exit = claimed is not None and by_others <= 0 and last is not None and last.step == IntentStep.EXIT
        if by_exit and claimed is not None:
            trade.exit_reason = claimed.rule
        value = sum((quantity * price for quantity, price in fills), start=Decimal(0))
        trade.exit_price = (value / sum(quantity for quantity, _ in fills)).quantize(Decimal("0.000001"))
        self._protected_until(mine, trade.exited_at)
        trade.fees = self._fees(trade, trade.exit_price)
        trade.pnl = net_pnl(Side(trade.side), trade.entry_price, trade.exit_price, trade.quantity, trade.fees)
        trade.r_multiple = float(trade.pnl / (trade.risk_per_share * trade.quantity))
        trade.outcome = Outcome.WIN if trade.pnl > 0 else Outcome.LOSS
        self._tell(self.closing_listeners, trade)
        trade.status = TradeStatus.CLOSED
        if claimed is not None:
            claimed.status = ExitStatus.DONE if by_exit else ExitStatus.SUPERSEDED
            claimed.finished_at, claimed.exit_price = trade.exited_at, trade.exit_price
            claimed.pnl, claimed.r_multiple = trade.pnl, trade.r_multiple
            claimed.hold_seconds = (trade.exited_at - trade.entered_at).total_seconds()
            mine.unsaved.append((claimed, _EXIT_FIELDS))
        mine.unsaved.append((trade, _RESULT_FIELDS))
        yield Update(mine.take_unsaved())
        self._over(trade)

    def _sold_by_others(self, mine: LiveTrade) -> Generator[Step, Any, tuple[Decimal, datetime]]:
        """Price and time at which others closed what was left: by the broker's fills, else the last price known."""
        trade = mine.trade
        assert trade.entered_at is not None
        ours = {intent.broker_order_id for intent in mine.intents}
        activities: list[Activity] = yield ReadFills(trade.entered_at)
        closing = OrderSide.SELL if trade.side == Side.LONG else OrderSide.BUY
        fills = [
            (each.quantity, each.price, each.at)
            for each in activities
            if (each.symbol, each.side) == (trade.symbol, closing)
            and each.order_id not in ours
            and each.quantity
            and each.price
            and each.at
        ]
        if fills:
            quantity = sum(each for each, _, _ in fills)
            return sum((q * p for q, p, _ in fills), start=Decimal(0)) / quantity, max(at for _, _, at in fills)
        log.warning("exit_price_estimated", trade=trade.signal_key, reason="the broker shows no fill of it")
        known = mine.last_price or mine.trade.stop_price or mine.trade.initial_stop
        return Decimal(str(known)), mine.missing_since or self._clock.now()

    def _fees(self, trade: Trade, exit_price: Decimal) -> Decimal:
        assert trade.entry_price is not None
        if not self._fee_rates:
            return 2 * trade.quantity * self.cost_per_share
        return regulatory_fees(
            trade.session, Side(trade.side), trade.quantity, trade.entry_price, exit_price, self._fee_rates
        )

    def _over(self, trade: Trade) -> None:
        self.owed.discard(trade.symbol)
        if trade.status == TradeStatus.CLOSED:
            self._tell(self.closed_listeners, trade)


def _finished(intent: OrderIntent) -> tuple[datetime, int]:
    return intent.finished_at or intent.created_at, intent.attempt
