"""Enter, protect, move a stop, exit: claimed in the store, journaled before it is sent, resumable after any crash.

Each job is a generator whose every call to the broker or the store is a yielded step, so that faults can be enumerated
at each boundary; `Execution` performs the steps. What a step finds at the broker decides, not what was hoped for: an
order is sent only after looking at position and orders, with an id that the same intent always gets, and an unknown
outcome is looked up before anything is sent again.
"""

import hashlib
from collections.abc import Callable, Generator
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import structlog

from positions.broker.port import (
    Broker,
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
from positions.models import LIVE_STATUSES, OrderIntent, PositionExit, StopMove, Trade
from positions.rules import ExitDecision, net_pnl
from positions.store import Duplicate, LiveTrade, Row, Store
from positions.words import (
    ExitReason,
    ExitStatus,
    IntentStatus,
    IntentStep,
    Outcome,
    Side,
    StopMoveStatus,
    TradeStatus,
)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ReadPositions:
    """Answered with {symbol: Position}."""


@dataclass(frozen=True, slots=True)
class ReadOrders:
    """Answered with {client order id: working Order}."""


@dataclass(frozen=True, slots=True)
class FindOrder:
    client_order_id: str


@dataclass(frozen=True, slots=True)
class Send:
    request: OrderRequest


@dataclass(frozen=True, slots=True)
class Replace:
    order_id: str
    stop_price: Decimal
    client_order_id: str


@dataclass(frozen=True, slots=True)
class Cancel:
    order_id: str


@dataclass(frozen=True, slots=True)
class Insert:
    row: Row


@dataclass(frozen=True, slots=True)
class Update:
    row: Row
    fields: tuple[str, ...]


#: An entry that has not filled by then is given up.
ENTRY_PATIENCE = timedelta(minutes=2)
#: How long an order that was sent may stay invisible before it counts as never received.
VISIBLE_WITHIN = timedelta(seconds=30)
#: Orders of one kind a trade may cost: beyond that something is wrong that more orders will not mend.
MOST_ATTEMPTS = 6
#: Share of the planned risk that must lie between fill and stop for that distance to be the trade's R.
LEAST_RISK = Decimal("0.25")

Step = ReadPositions | ReadOrders | FindOrder | Send | Replace | Cancel | Insert | Update
Steps = Generator[Step, Any, None]

_STATUS = {
    OrderStatus.WORKING: IntentStatus.WORKING,
    OrderStatus.FILLED: IntentStatus.FILLED,
    OrderStatus.CANCELLED: IntentStatus.CANCELLED,
    OrderStatus.EXPIRED: IntentStatus.CANCELLED,
    OrderStatus.REPLACED: IntentStatus.REPLACED,
    OrderStatus.REJECTED: IntentStatus.REJECTED,
}
_OVER = (IntentStatus.FILLED, IntentStatus.CANCELLED, IntentStatus.REPLACED, IntentStatus.REJECTED)
_PROTECTING = (IntentStep.STOP, IntentStep.MOVE)
_CLOSING = (IntentStep.STOP, IntentStep.MOVE, IntentStep.EXIT)
_ORDER_FIELDS = ("status", "broker_order_id", "filled_quantity", "filled_price", "finished_at", "error")


class Execution:
    """Performs what strategy, monitors and events ask for, for one book at one broker.

    `cost_per_share` is what fills cost in dollars a share and side. `entered_listeners` hear of every entry, and again
    where it fills further; `closed_listeners` of every trade that ends.
    """

    def __init__(
        self,
        broker: Broker,
        store: Store,
        clock: Clock,
        installation: str,
        cost_per_share: float,
    ) -> None:
        self._broker = broker
        self._store = store
        self._clock = clock
        self.cost_per_share = Decimal(repr(cost_per_share))
        self.entered_listeners: list[Callable[[Trade], None]] = []
        self.closed_listeners: list[Callable[[Trade], None]] = []
        book = hashlib.sha256(store.book.encode()).hexdigest()[:8]
        self._id_prefix = f"{installation}.{book}."
        #: Symbols whose trade waits for something that no event will announce; everything after a start.
        self.owed: set[str] = set(store.live)

    # -- what others ask for

    def enter(self, trade: Trade) -> bool:
        """Send the entry order of a new trade. False if the signal was acted on before or a position is open."""
        return self._run(trade.symbol, self._enter(trade)) and trade.status != TradeStatus.CANCELLED

    def exit(self, mine: LiveTrade, decision: ExitDecision, price: float) -> bool:
        """Claim the exit of a trade and start it. False if an exit is under way already."""
        return self._run(mine.trade.symbol, self._claim_exit(mine, decision, price))

    def move_to_breakeven(self, mine: LiveTrade, new_stop: Decimal, evidence: dict[str, Any]) -> bool:
        """Tighten the stop. False if the broker refused, now or before, or a move is owed already."""
        if any(move.status == StopMoveStatus.REFUSED and move.new_stop == new_stop for move in mine.moves):
            return False
        return self._run(mine.trade.symbol, self._move_stop(mine, new_stop, evidence)) and (
            mine.trade.stop_price == new_stop
        )

    def take_events(self) -> bool:
        """Act on what the broker says has changed; True if anything did. What cannot be read now is told next time."""
        try:
            changed = self._broker.changed_orders()
        except BrokerError as error:
            log.warning("broker_call_failed", symbol=None, error=str(error))
            return False
        for order in changed:
            mine, intent = self._intent_of(order)
            if mine is not None and intent is not None:
                self._run(order.symbol, self._order_changed(mine, intent, order))
        return bool(changed)

    def resume(self) -> None:
        """Take up what is owed: exits that wait, orders whose outcome is unknown, stops that are missing."""
        for symbol in sorted(self.owed):
            self.owed.discard(symbol)
            if symbol in self._store.live:
                self._run(symbol, self._resume(self._store.live[symbol]))

    def cancel_entry(self, mine: LiveTrade) -> None:
        """Give up an entry that has not filled; what the broker says of the order decides what becomes of the trade."""
        self._run(mine.trade.symbol, self._cancel_working(mine, (IntentStep.ENTRY,)))

    # -- performing steps

    def _run(self, symbol: str, steps: Steps) -> bool:
        """Perform a job. False where a unique constraint or the broker broke it off: in the latter case it is owed."""
        try:
            step = next(steps)
            while True:
                try:
                    answer = self._perform(step)
                except (BrokerError, Duplicate) as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(answer)
        except StopIteration:
            return True
        except Duplicate:
            return False
        except BrokerError as error:
            log.warning("broker_call_failed", symbol=symbol, error=str(error))
            self.owed.add(symbol)
            return False

    def _perform(self, step: Step) -> Any:
        match step:
            case Update(row, fields):
                return self._store.update(row, *fields)
            case Insert(row):
                return self._store.insert(row)
            case ReadPositions():
                return self._broker.positions()
            case ReadOrders():
                return self._broker.open_orders()
            case Send(request):
                return self._broker.submit(request)
            case Cancel(order_id):
                return self._broker.cancel(order_id)
            case Replace(order_id, stop_price, client_order_id):
                return self._broker.replace_stop(order_id, stop_price, client_order_id)
            case FindOrder(client_order_id):
                return self._broker.order_by_client_id(client_order_id)

    # -- the jobs, as steps

    def _enter(self, trade: Trade) -> Steps:
        yield Insert(trade)
        mine = self._store.live[trade.symbol]
        intent = yield from self._journal(mine, IntentStep.ENTRY, trade.planned_quantity)
        yield from self._send(mine, intent)
        yield from self._cancelled_without_entry(mine)

    def _cancelled_without_entry(self, mine: LiveTrade) -> Steps:
        """A trade whose entry can no longer fill, and that holds nothing, is over."""
        if mine.trade.status == TradeStatus.ENTERING and all(
            intent.status in _OVER and not intent.filled_quantity
            for intent in mine.intents
            if intent.step == IntentStep.ENTRY
        ):
            mine.trade.status = TradeStatus.CANCELLED
            yield Update(mine.trade, ("status",))

    def _claim_exit(self, mine: LiveTrade, decision: ExitDecision, price: float) -> Steps:
        trade = mine.trade
        yield Insert(
            PositionExit(
                book=trade.book,
                trade=trade,
                rule=decision.rule,
                evidence=decision.evidence,
                decided_at=self._clock.now(),
                decided_price=Decimal(f"{price:.4f}"),
                quantity=trade.quantity,
            )
        )
        trade.status = TradeStatus.EXITING
        yield Update(trade, ("status",))
        yield from self._exit(mine)

    def _exit(self, mine: LiveTrade) -> Steps:
        """One pass over an exit; run again until the position is flat. The order of work is the whole safety."""
        trade = mine.trade
        working = yield from self._working_orders(mine)
        if any(i.step == IntentStep.EXIT and i.client_order_id in working for i in mine.intents):
            return
        if sum(intent.step == IntentStep.EXIT for intent in mine.intents) >= MOST_ATTEMPTS:
            log.error("exit_given_up", trade=trade.signal_key, attempts=MOST_ATTEMPTS, todo="close it by hand")
            yield from self._protect(mine)
            return
        self.owed.add(trade.symbol)
        for intent in mine.intents:
            if intent.step != IntentStep.EXIT and intent.client_order_id in working:
                yield from self._cancel(mine, intent)
                if intent.step in _PROTECTING:
                    mine.unprotected_since = mine.unprotected_since or self._clock.now()
        positions = yield ReadPositions()
        position = positions.get(trade.symbol)
        sign = 1 if trade.side == Side.LONG else -1
        held = sign * position.quantity if position else 0
        quantity = min(held, trade.quantity - _filled(mine, _CLOSING))
        if quantity <= 0 or position.available < quantity:
            return
        intent = yield from self._journal(mine, IntentStep.EXIT, quantity)
        yield from self._send(mine, intent)
        if intent.status == IntentStatus.WORKING:
            self.owed.discard(trade.symbol)
        elif intent.status == IntentStatus.REJECTED:
            yield from self._protect(mine)

    @staticmethod
    def _working_orders(mine: LiveTrade) -> Generator[Step, Any, Listing[Order]]:
        """By client order id. Raises Unavailable where one of this trade's cannot be read: that is not its absence."""
        working: Listing[Order] = yield ReadOrders()
        if any(intent.client_order_id in working.unreadable for intent in mine.intents):
            raise Unavailable(f"an order of {mine.trade.symbol} cannot be read")
        return working

    def _protect(self, mine: LiveTrade) -> Steps:
        """A stop for exactly the shares held. Where the market is beyond it already, out."""
        trade = mine.trade
        quantity = trade.quantity - _filled(mine, _CLOSING)
        working = yield from self._working_orders(mine)
        standing = [i for i in mine.intents if i.step in _PROTECTING and i.client_order_id in working]
        if len(standing) == 1 and standing[0].quantity == quantity:
            if standing[0].status != IntentStatus.WORKING:
                yield from self._adopt(mine, standing[0], working[standing[0].client_order_id])
            return
        mine.unprotected_since = mine.unprotected_since or self._clock.now()
        for intent in standing:
            yield from self._cancel(mine, intent)
        if sum(intent.step == IntentStep.STOP for intent in mine.intents) >= MOST_ATTEMPTS:
            log.error("stop_given_up", trade=trade.signal_key, attempts=MOST_ATTEMPTS, todo="protect it by hand")
            return
        stop = trade.stop_price or trade.initial_stop
        intent = yield from self._journal(mine, IntentStep.STOP, quantity, stop)
        yield from self._send(mine, intent)
        if intent.status == IntentStatus.REJECTED:
            yield from self._beyond_the_stop(mine, stop, intent.error)

    def _beyond_the_stop(self, mine: LiveTrade, stop: Decimal, refusal: str) -> Steps:
        """A stop was refused: if the market has passed it, leave; else it is owed and tried again."""
        trade = mine.trade
        positions = yield ReadPositions()
        position = positions.get(trade.symbol)
        sign = 1 if trade.side == Side.LONG else -1
        if position is not None and sign * (position.price - float(stop)) <= 0 and mine.exit is None:
            evidence = {"stop": float(stop), "stop_refused": refusal, "price": position.price}
            yield from self._claim_exit(mine, ExitDecision(ExitReason.STOP, evidence), position.price)
        else:
            self.owed.add(trade.symbol)

    def _move_stop(self, mine: LiveTrade, new_stop: Decimal, evidence: dict[str, Any]) -> Steps:
        trade = mine.trade
        working = [i for i in mine.intents if i.step in _PROTECTING and i.status == IntentStatus.WORKING]
        if not working or trade.stop_price is None:
            self.owed.add(trade.symbol)
            return
        old = working[-1]
        move = StopMove(
            book=trade.book,
            trade=trade,
            old_stop=trade.stop_price,
            new_stop=new_stop,
            evidence=evidence,
            decided_at=self._clock.now(),
        )
        yield Insert(move)
        intent = yield from self._journal(mine, IntentStep.MOVE, old.quantity, new_stop)
        try:
            order = yield Replace(old.broker_order_id, new_stop, intent.client_order_id)
        except Rejected as error:
            yield from self._note_failure(intent, IntentStatus.REJECTED, error)
            yield from self._move_refused(mine)
            return
        except BrokerError as error:
            yield from self._note_failure(intent, IntentStatus.UNKNOWN, error)
            self.owed.add(trade.symbol)
            return
        old.status, old.finished_at = IntentStatus.REPLACED, self._clock.now()
        yield Update(old, _ORDER_FIELDS)
        yield from self._adopt(mine, intent, order)

    def _stop_confirmed(self, mine: LiveTrade, intent: OrderIntent, stop: Decimal) -> Steps:
        """The broker holds this stop now: the trade says so, and a move that was owed is done."""
        trade = mine.trade
        for move in mine.moves:
            if move.status == StopMoveStatus.OWED and move.new_stop == stop:
                move.status, move.confirmed_at = StopMoveStatus.CONFIRMED, self._clock.now()
                yield Update(move, ("status", "confirmed_at"))
        trade.stop_price, trade.breakeven_set = stop, trade.breakeven_set or intent.step == IntentStep.MOVE
        yield Update(trade, ("stop_price", "breakeven_set", "unprotected_seconds"))

    def _resume(self, mine: LiveTrade) -> Steps:
        trade = mine.trade
        for intent in list(mine.intents):
            if intent.status not in _OVER and trade.status in LIVE_STATUSES:
                yield from self._look_up(mine, intent)
        # What was journaled, then interrupted before the trade knew of it:
        for intent in mine.intents:
            if intent.step == IntentStep.ENTRY and intent.filled_quantity > trade.quantity:
                yield from self._entry_filled(mine, intent)
        if trade.status in LIVE_STATUSES and 0 < trade.quantity <= _filled(mine, _CLOSING):
            yield from self._flat(mine)
        if trade.status == TradeStatus.ENTERING:
            yield from self._cancelled_without_entry(mine)
        elif trade.status in LIVE_STATUSES and mine.exit is not None:
            trade.status = TradeStatus.EXITING
            yield Update(trade, ("status",))
            yield from self._exit(mine)
        elif trade.status == TradeStatus.OPEN:
            yield from self._protect(mine)

    def _look_up(self, mine: LiveTrade, intent: OrderIntent) -> Steps:
        """Ask the broker for an order by its id. One that is not there is sent again under the same id, unless its
        time has passed; a replacement that is not there was never made once it has had time to show."""
        order = yield FindOrder(intent.client_order_id)
        age = self._clock.now() - intent.created_at
        if order is not None:
            yield from self._order_changed(mine, intent, order)
        elif intent.step == IntentStep.MOVE:
            if age < VISIBLE_WITHIN:
                self.owed.add(mine.trade.symbol)
                return
            yield from self._note_failure(intent, IntentStatus.REJECTED, "the replacement never reached the broker")
            yield from self._move_refused(mine)
        elif intent.step == IntentStep.ENTRY and age > ENTRY_PATIENCE:
            yield from self._note_failure(intent, IntentStatus.CANCELLED, "never sent, and its time has passed")
        elif intent.step == IntentStep.ENTRY or intent.quantity <= mine.trade.quantity - _filled(mine, _CLOSING):
            yield from self._send(mine, intent)

    def _move_refused(self, mine: LiveTrade) -> Steps:
        for move in mine.moves:
            if move.status == StopMoveStatus.OWED:
                move.status = StopMoveStatus.REFUSED
                yield Update(move, ("status",))

    # -- orders and what becomes of them

    def _journal(
        self, mine: LiveTrade, step: IntentStep, quantity: int, stop_price: Decimal | None = None
    ) -> Generator[Step, Any, OrderIntent]:
        trade = mine.trade
        attempt = 1 + sum(intent.step == step for intent in mine.intents)
        intent = OrderIntent(
            book=trade.book,
            trade=trade,
            client_order_id=f"{self._id_prefix}{trade.signal_key}-{step}{attempt}",
            step=step,
            attempt=attempt,
            quantity=quantity,
            stop_price=stop_price,
            created_at=self._clock.now(),
        )
        yield Insert(intent)
        return intent

    def _send(self, mine: LiveTrade, intent: OrderIntent) -> Steps:
        try:
            order = yield Send(_request(mine.trade, intent))
        except Rejected as error:
            yield from self._note_failure(intent, IntentStatus.REJECTED, error)
        except BrokerError as error:
            yield from self._note_failure(intent, IntentStatus.UNKNOWN, error)
            self.owed.add(mine.trade.symbol)
        else:
            yield from self._adopt(mine, intent, order)

    def _adopt(self, mine: LiveTrade, intent: OrderIntent, order: Order) -> Steps:
        """The broker has the order: say so in the journal."""
        intent.broker_order_id, intent.status = order.id, IntentStatus.WORKING
        yield Update(intent, _ORDER_FIELDS)
        if intent.step in _PROTECTING and intent.stop_price is not None:
            self._protected_until(mine, self._clock.now())
            yield from self._stop_confirmed(mine, intent, intent.stop_price)

    @staticmethod
    def _protected_until(mine: LiveTrade, moment: datetime) -> None:
        """The time without a stop at the broker has ended: a stop works, or nothing is held any more."""
        if mine.unprotected_since is not None:
            mine.trade.unprotected_seconds += max(0.0, (moment - mine.unprotected_since).total_seconds())
            mine.unprotected_since = None

    def _note_failure(self, intent: OrderIntent, status: IntentStatus, error: object) -> Steps:
        intent.status, intent.error = status, str(error)[:300]
        if status in _OVER:
            intent.finished_at = self._clock.now()
        yield Update(intent, _ORDER_FIELDS)

    def _cancel_working(self, mine: LiveTrade, steps: tuple[IntentStep, ...]) -> Steps:
        for intent in mine.intents:
            if intent.step in steps and intent.status == IntentStatus.WORKING:
                yield from self._cancel(mine, intent)
            elif intent.step in steps and intent.status not in _OVER:
                self.owed.add(mine.trade.symbol)

    def _cancel(self, mine: LiveTrade, intent: OrderIntent) -> Steps:
        """Ask for it; that it is cancelled, or was filled before, is the broker's to say."""
        try:
            yield Cancel(intent.broker_order_id)
        except BrokerError as error:
            intent.error = str(error)[:300]
            yield Update(intent, ("error",))
            self.owed.add(mine.trade.symbol)

    def _intent_of(self, order: Order) -> tuple[LiveTrade | None, OrderIntent | None]:
        mine = self._store.live.get(order.symbol)
        if mine is None:
            return None, None
        return mine, next((i for i in mine.intents if i.client_order_id == order.client_order_id), None)

    def _order_changed(self, mine: LiveTrade, intent: OrderIntent, order: Order) -> Steps:
        if not intent.broker_order_id:  # sent, then interrupted before the answer was heard
            stranger = "" if intent.step == IntentStep.MOVE else order.difference_from(_request(mine.trade, intent))
            if stranger:
                log.error(
                    "order_is_not_ours", order=order.client_order_id, why=stranger, todo="look at it at the broker"
                )
                yield from self._note_failure(intent, IntentStatus.REJECTED, f"another order has its id: {stranger}")
                self.owed.add(mine.trade.symbol)
                return
            yield from self._adopt(mine, intent, order)
        news = order.filled_quantity > intent.filled_quantity
        status = _STATUS[order.status]
        if not news and (intent.status == status or intent.finished_at is not None):
            return
        intent.status = status
        intent.filled_quantity, intent.filled_price = order.filled_quantity, order.filled_price
        if order.status.is_final:
            intent.finished_at = order.filled_at or self._clock.now()
        yield Update(intent, _ORDER_FIELDS)
        if intent.step == IntentStep.ENTRY and news:
            yield from self._entry_filled(mine, intent)
        yield from self._cancelled_without_entry(mine)
        if 0 < mine.trade.quantity <= _filled(mine, _CLOSING):
            yield from self._flat(mine)
        elif intent.step != IntentStep.ENTRY and order.status.is_final and order.status is not OrderStatus.REPLACED:
            leaving = any(i.step == IntentStep.EXIT and i.status == IntentStatus.WORKING for i in mine.intents)
            if not leaving:
                self.owed.add(mine.trade.symbol)

    def _flat(self, mine: LiveTrade) -> Steps:
        """All that was bought is sold: the trade is over, unless its entry still works; that is cancelled first."""
        entries = [i for i in mine.intents if i.step == IntentStep.ENTRY]
        if all(intent.status in _OVER for intent in entries):
            last = max((i for i in mine.intents if i.step in _CLOSING and i.filled_quantity), key=_finished)
            yield from self._close(mine, last)
        else:
            yield from self._cancel_working(mine, (IntentStep.ENTRY,))

    def _entry_filled(self, mine: LiveTrade, intent: OrderIntent) -> Steps:
        trade = mine.trade
        if intent.filled_quantity > trade.quantity:
            assert intent.filled_price is not None
            sign = 1 if trade.side == Side.LONG else -1
            trade.entry_price, trade.quantity = intent.filled_price, intent.filled_quantity
            trade.entered_at = trade.entered_at or intent.finished_at or self._clock.now()
            # Filled at the stop or nearly so, the distance measures nothing: the plan's own stands.
            risk = sign * (trade.entry_price - trade.initial_stop)
            planned = abs(trade.planned_entry - trade.initial_stop)
            trade.risk_per_share = risk if risk >= planned * LEAST_RISK else planned
            trade.status = TradeStatus.OPEN if trade.status == TradeStatus.ENTERING else trade.status
            yield Update(trade, ("entry_price", "quantity", "entered_at", "risk_per_share", "status"))
            for listener in self.entered_listeners:
                listener(trade)
            if trade.status == TradeStatus.OPEN:
                yield from self._protect(mine)

    def _close(self, mine: LiveTrade, last: OrderIntent) -> Steps:
        trade, claimed = mine.trade, mine.exit
        assert trade.entry_price is not None
        assert trade.entered_at is not None
        assert trade.risk_per_share is not None
        fills = [i for i in mine.intents if i.step in _CLOSING and i.filled_price is not None]
        value = sum((i.filled_price * i.filled_quantity for i in fills if i.filled_price), start=Decimal(0))
        trade.exit_price = (value / sum(i.filled_quantity for i in fills)).quantize(Decimal("0.000001"))
        trade.exited_at = last.finished_at or self._clock.now()
        self._protected_until(mine, trade.exited_at)
        trade.fees = 2 * trade.quantity * self.cost_per_share
        trade.pnl = net_pnl(Side(trade.side), trade.entry_price, trade.exit_price, trade.quantity, trade.fees)
        trade.r_multiple = float(trade.pnl / (trade.risk_per_share * trade.quantity))
        trade.outcome = Outcome.WIN if trade.pnl > 0 else Outcome.LOSS
        trade.status = TradeStatus.CLOSED
        by_exit = last.step == IntentStep.EXIT and claimed is not None
        if by_exit and claimed is not None:
            trade.exit_reason = claimed.rule
        else:
            trade.exit_reason = ExitReason.BREAKEVEN_STOP if trade.breakeven_set else ExitReason.STOP
        if claimed is not None:
            claimed.status = ExitStatus.DONE if by_exit else ExitStatus.SUPERSEDED
            claimed.finished_at, claimed.exit_price = trade.exited_at, trade.exit_price
            claimed.pnl, claimed.r_multiple = trade.pnl, trade.r_multiple
            claimed.hold_seconds = (trade.exited_at - trade.entered_at).total_seconds()
            yield Update(claimed, ("status", "finished_at", "exit_price", "pnl", "r_multiple", "hold_seconds"))
        yield Update(
            trade,
            (
                "exit_price",
                "exited_at",
                "fees",
                "pnl",
                "r_multiple",
                "outcome",
                "status",
                "exit_reason",
                "unprotected_seconds",
            ),
        )
        self.owed.discard(trade.symbol)
        for listener in self.closed_listeners:
            listener(trade)


def _finished(intent: OrderIntent) -> tuple[datetime, int]:
    return intent.finished_at or intent.created_at, intent.attempt


def _filled(mine: LiveTrade, steps: tuple[IntentStep, ...]) -> int:
    return sum(intent.filled_quantity for intent in mine.intents if intent.step in steps)


def _request(trade: Trade, intent: OrderIntent) -> OrderRequest:
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
