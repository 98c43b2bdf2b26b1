"""Enter, protect, move a stop, exit: claimed in the store, journaled before it is sent, resumable after any crash.

Each job is a generator whose every call to the broker or the store is a yielded step, so that faults can be enumerated
at each boundary; `Execution` performs the steps. What a step finds at the broker decides, not what was hoped for: an
order is sent only after looking at position and orders, with an id that the same intent always gets, and an unknown
outcome is looked up before anything is sent again.

An intent is stored before its order is sent. What is heard of an order can be asked again after any crash: it is
stored with the next intent, with the end of the trade, or at the end of the job; of an entry or exit that was just
sent, with the news of it.
"""

import hashlib
from collections.abc import Callable, Generator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from dataclasses import replace as changed
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import structlog

from positions.broker.port import (
    Activity,
    Broker,
    BrokerError,
    Listing,
    NotNow,
    Order,
    OrderKind,
    OrderRequest,
    OrderSide,
    OrderStatus,
    Position,
    PositionIntent,
    Rejected,
    Unavailable,
)
from positions.clock import Clock
from positions.fees import FeeRates, regulatory_fees
from positions.isolation import Isolate
from positions.models import LIVE_STATUSES, OrderIntent, PositionExit, StopMove, Trade
from positions.rules import ExitDecision, net_pnl
from positions.store import Change, Duplicate, LiveTrade, Row, Store, StoreUnavailable
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
class ReadFills:
    """Answered with what was bought and sold after a moment, by anybody: [Activity]."""

    after: datetime


@dataclass(frozen=True, slots=True)
class ReadChanges:
    """Answered with the orders that changed since the last time, oldest first: [Order]."""


@dataclass(frozen=True, slots=True)
class Settle:
    """Store what waits for the database; answered with the trades that others have ended meanwhile: [Trade]."""


@dataclass(frozen=True, slots=True)
class Wait:
    """A moment for the broker to set shares free that a cancelled order held."""


@dataclass(frozen=True, slots=True)
class Insert:
    """New rows, and changes of others: all of them or none."""

    rows: tuple[Row, ...]
    changes: tuple[Change, ...] = ()


@dataclass(frozen=True, slots=True)
class Update:
    """All of them or none."""

    changes: tuple[Change, ...]


#: An entry that has not filled by then is given up.
ENTRY_PATIENCE = timedelta(minutes=2)
#: How long an order that was sent may stay invisible before it counts as never received.
VISIBLE_WITHIN = timedelta(seconds=30)
#: How long the view of positions may lag behind what happened.
POSITIONS_LAG = timedelta(seconds=10)
#: A cancelled order gives its shares back within milliseconds as a rule: looked for so often, with a pause between.
RELEASE_LOOKS, RELEASE_PAUSE = 5, timedelta(seconds=0.2)
#: Shares that are shown free for so long are not held by a stop any more, though the end of that is not shown yet.
FREE_FOR = timedelta(seconds=4)
#: A stop move that is refused for now (after hours, say) is asked for again after it.
MOVE_PAUSE = timedelta(seconds=30)
#: Trades that are looked at one after the other share a listing of orders for so long.
SHOWN_FOR = timedelta(seconds=2)
#: Shares that stand longer than this without a stop or a closing order are an alarm, raised within ten seconds.
LONGEST_UNPROTECTED = timedelta(seconds=8)
#: Exits a trade may cost, and stops that may be refused: beyond it more orders will not mend what is wrong.
MOST_ATTEMPTS = 6
#: Stops a trade may cost in all, those that follow a filling entry too.
MOST_STOPS = 24
#: Share of the planned risk that must lie between fill and stop for that distance to be the trade's R.
LEAST_RISK = Decimal("0.25")

BrokerStep = ReadPositions | ReadOrders | ReadFills | ReadChanges | FindOrder | Send | Replace | Cancel
Step = BrokerStep | Settle | Wait | Insert | Update
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
#: Nobody knows whether the broker has it.
_OPEN_QUESTIONS = (IntentStatus.INTENDED, IntentStatus.UNKNOWN)
_PROTECTING = (IntentStep.STOP, IntentStep.MOVE)
_CLOSING = (IntentStep.STOP, IntentStep.MOVE, IntentStep.EXIT)
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
_ORDER_FIELDS = ("status", "broker_order_id", "filled_quantity", "filled_price", "finished_at", "error")


class Execution:
    """Performs what strategy, monitors and events ask for, for one book at one broker.

    `installation` and the book make order ids that no other installation gives. `cost_per_share` is what fills are
    taken to cost in dollars a share and side; where there are `fee_rates`, a trade that ends is charged these instead.
    `entered_listeners` hear of every entry, and again where it fills further; `closing_listeners` of every trade that
    has been closed, before that is stored, and `closed_listeners` once it is.
    """

    def __init__(
        self,
        broker: Broker,
        store: Store,
        clock: Clock,
        installation: str,
        cost_per_share: float,
        fee_rates: Sequence[FeeRates] = (),
    ) -> None:
        self._broker = broker
        self._store = store
        self._clock = clock
        self.cost_per_share = Decimal(repr(cost_per_share))
        self._fee_rates = fee_rates
        self.isolate: Isolate = nullcontext
        self.entered_listeners: list[Callable[[Trade], None]] = []
        self.closing_listeners: list[Callable[[Trade], None]] = []
        self.closed_listeners: list[Callable[[Trade], None]] = []
        book = hashlib.sha256(store.book.encode()).hexdigest()[:8]
        self._id_prefix = f"{installation}.{book}."
        #: Symbols whose trade waits for something that no event will announce; everything after a start.
        self.owed: set[str] = set(store.live)
        self._reread: set[str] = set()
        #: Working orders that were read a moment ago, None where the job under way has changed some since.
        self._shown: Listing[Order] | None = None
        self._read: tuple[datetime, Listing[Order]] | None = None

    # -- what others ask for

    def enter(self, trade: Trade) -> bool:
        """Send the entry order of a new trade. False if the signal was acted on before or a position is open."""
        return self._run(trade.symbol, self._enter(trade), save=False) and trade.status != TradeStatus.CANCELLED

    def exit(self, mine: LiveTrade, decision: ExitDecision, price: float) -> bool:
        """Claim the exit of a trade and start it. False if an exit is under way already."""
        return self._run(mine.trade.symbol, self._claim_exit(mine, decision, price), save=False)

    def move_to_breakeven(self, mine: LiveTrade, new_stop: Decimal, evidence: dict[str, Any]) -> bool:
        """Tighten the stop. False if the broker refused, now or before, or a move is owed already."""
        if any(move.status == StopMoveStatus.REFUSED and move.new_stop == new_stop for move in mine.moves):
            return False
        return self._run(mine.trade.symbol, self._move_stop(mine, new_stop, evidence)) and (
            mine.trade.stop_price == new_stop
        )

    def take_events(self) -> bool:
        """Act on what the broker says has changed; True if anything did. What cannot be read now is told next time."""
        for trade in self._perform(Settle()):
            self._over(trade)
        try:
            changed: list[Order] = self._perform(ReadChanges())
        except BrokerError as error:
            log.warning("broker_call_failed", symbol=None, error=str(error))
            changed = []
        for order in changed:
            mine, intent = self._intent_of(order)
            if mine is not None and intent is not None:
                with self.isolate(order.symbol):
                    self._run(order.symbol, self._order_changed(mine, intent, order), save=False)
        self.save()
        return bool(changed)

    def save(self) -> None:
        """Store what was heard and is not stored yet."""
        for mine in [each for each in self._store.live.values() if each.unsaved]:
            with self.isolate(mine.trade.symbol):
                self._run(mine.trade.symbol, self._save(mine))

    def resume(self) -> None:
        """Take up what is owed: exits that wait, orders whose outcome is unknown, stops that are missing."""
        owed, self._read = sorted(self.owed), None
        for symbol in owed:
            self.owed.discard(symbol)
            if symbol in self._store.live:
                mine = self._store.live[symbol]
                with self.isolate(symbol):
                    self._shown = self._read_once() if len(owed) > 1 else None
                    self._run(symbol, self._resume(mine))
                self._shown = None
                self._alarm(mine)

    def _read_once(self) -> Listing[Order] | None:
        """The working orders, for trades that are looked at one after the other, each once."""
        now = self._clock.now()
        if self._read is None or not timedelta(0) <= now - self._read[0] <= SHOWN_FOR:
            try:
                self._read = now, self._perform(ReadOrders())
            except BrokerError:
                return None
        return self._read[1]

    def compare(self, positions: Listing[Position], orders: Listing[Order]) -> None:
        """Hold what the broker shows against what is known; a trade that looks otherwise is owed a look."""
        for symbol, mine in self._store.live.items():
            if symbol not in positions.unreadable and not _agrees(mine, positions.get(symbol), orders):
                self.owed.add(symbol)

    def shares_of(self, symbol: str) -> int:
        """Shares that our trade of a symbol holds as far as we know, negative when short."""
        mine = self._store.live.get(symbol)
        return 0 if mine is None else _sign(mine.trade) * _rest(mine)

    @property
    def urgent(self) -> bool:
        """Whether shares stand without a stop or a closing order, or an exit has just begun and is not sent yet: then
        the next tick is due within a second."""
        return any(
            mine.unprotected_since is not None or (_held_up_since(mine) is not None and not mine.alarmed)
            for mine in self._store.live.values()
        )

    def _alarm(self, mine: LiveTrade) -> None:
        unprotected, now = mine.unprotected_since, self._clock.now()
        since, alarm = unprotected or _held_up_since(mine), "position_unprotected" if unprotected else "exit_held_up"
        if since is not None and now - since >= LONGEST_UNPROTECTED and mine.alarmed != alarm:
            mine.alarmed = alarm
            log.error(
                alarm,
                trade=mine.trade.signal_key,
                seconds=(now - since).total_seconds(),
                todo="look at the account; it is tried again in every tick",
            )

    def cancel_entry(self, mine: LiveTrade) -> None:
        """Give up an entry that has not filled; what the broker says of the order decides what becomes of the trade."""
        self._run(mine.trade.symbol, self._cancel_working(mine, (IntentStep.ENTRY,)))

    # -- performing steps

    def _run(self, symbol: str, steps: Steps, *, save: bool = True) -> bool:
        """Perform a job. False where another process, the broker or the database broke it off: then it is owed."""
        done = False
        try:
            if symbol in self._reread and self._has_ended(symbol):
                return False
            try:
                self._drive(steps)
                done = True
            except BrokerError as error:
                log.warning("broker_call_failed", symbol=symbol, error=str(error))
            if save and symbol in self._store.live:
                self._drive(self._save(self._store.live[symbol]))
        except (Duplicate, StoreUnavailable) as error:
            log.info("job_broken_off", symbol=symbol, error=str(error))
            self._reread.add(symbol)
            done = False
        except Exception:  # a mistake, which others hear of: the position is looked at again all the same
            self._reread.add(symbol)
            self.owed.add(symbol)
            raise
        if not done:
            self.owed.add(symbol)
        return done

    @staticmethod
    def _save(mine: LiveTrade) -> Steps:
        if mine.unsaved:
            yield Update(mine.take_unsaved())

    def _drive(self, steps: Steps) -> None:
        with suppress(StopIteration):
            step = next(steps)
            while True:
                try:
                    answer = self._perform(step)
                except (BrokerError, Duplicate) as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(answer)

    def _has_ended(self, symbol: str) -> bool:
        """Read a trade again that is not in memory as it is stored: another process was faster, or a write failed."""
        ended = self._store.reload(symbol)
        self._reread.discard(symbol)
        if ended is not None:
            self._over(ended)
        return ended is not None

    def _over(self, trade: Trade) -> None:
        self.owed.discard(trade.symbol)
        if trade.status == TradeStatus.CLOSED:
            for listener in self.closed_listeners:
                listener(trade)

    def _perform(self, step: Step) -> Any:
        match step:
            case Update(changes):
                return self._store.update_all(changes)
            case Insert(rows, changes):
                return self._store.insert(*rows, changes=changes)
            case Settle():
                return self._store.settle(self._clock.now())
            case Wait():
                return self._clock.sleep_until(self._clock.now() + RELEASE_PAUSE)
            case _:
                known = self._known(step)
                return self._ask(step) if known is None else known

    def _known(self, step: BrokerStep) -> Listing[Order] | Order | None:
        """What the listing of a moment ago says, None where it does not."""
        shown = self._shown
        if isinstance(step, Send | Replace | Cancel):
            self._shown = None
        elif shown is not None and isinstance(step, ReadOrders):
            return shown
        elif shown is not None and isinstance(step, FindOrder) and step.client_order_id not in shown.unreadable:
            return shown.get(step.client_order_id)
        return None

    def _ask(self, step: BrokerStep) -> Any:
        match step:
            case ReadChanges():
                return self._broker.changed_orders()
            case ReadPositions():
                return self._broker.positions()
            case ReadOrders():
                return self._broker.open_orders()
            case ReadFills(after):
                return self._broker.activities(after)
            case Send(request):
                return self._broker.submit(request)
            case Cancel(order_id):
                return self._broker.cancel(order_id)
            case Replace(order_id, stop_price, client_order_id):
                return self._broker.replace_stop(order_id, stop_price, client_order_id)
            case FindOrder(client_order_id):
                return self._broker.order_by_client_id(client_order_id)

    # -- entries

    def _enter(self, trade: Trade) -> Steps:
        intent = self._new_intent(trade, [], IntentStep.ENTRY, trade.planned_quantity)
        yield Insert((trade, intent))
        mine = self._store.live[trade.symbol]
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
            mine.unsaved.append((mine.trade, ("status",)))
            yield Update(mine.take_unsaved())

    def _entry_filled(self, mine: LiveTrade, intent: OrderIntent) -> Steps:
        trade = mine.trade
        if intent.filled_quantity > trade.quantity:
            assert intent.filled_price is not None
            sign = _sign(trade)
            trade.entry_price, trade.quantity = intent.filled_price, intent.filled_quantity
            trade.entered_at = trade.entered_at or intent.finished_at or self._clock.now()
            # Filled at the stop or nearly so, the distance measures nothing: the plan's own stands.
            risk = sign * (trade.entry_price - trade.initial_stop)
            planned = abs(trade.planned_entry - trade.initial_stop)
            trade.risk_per_share = risk if risk >= planned * LEAST_RISK else planned
            trade.status = TradeStatus.OPEN if trade.status == TradeStatus.ENTERING else trade.status
            mine.unprotected_since = mine.unprotected_since or self._clock.now()
            mine.unsaved.append((trade, ("entry_price", "quantity", "entered_at", "risk_per_share", "status")))
            for listener in self.entered_listeners:
                listener(trade)
            if trade.status == TradeStatus.OPEN:
                yield from self._protect(mine)

    # -- exits

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
            if intent.status in _OPEN_QUESTIONS:
                yield from self._look_up(mine, intent)
        yield from self._exit(mine)

    def _exit(self, mine: LiveTrade) -> Steps:
        """One pass over an exit; run again until the position is flat. The order of work is the whole safety: every
        other order of the trade is at its end, and its fills known, before shares are counted and sold."""
        trade = mine.trade
        working = yield from self._working_orders(mine)
        if any(i.step == IntentStep.EXIT and i.client_order_id in working for i in mine.intents):
            return
        if _count(mine, IntentStep.EXIT) >= MOST_ATTEMPTS:
            log.error("exit_given_up", trade=trade.signal_key, attempts=MOST_ATTEMPTS, todo="close it by hand")
            yield from self._protect(mine)
            if mine.unprotected_since is None:
                self.owed.discard(trade.symbol)
            return
        self.owed.add(trade.symbol)
        yield from self._end_orders(mine)
        if trade.status not in LIVE_STATUSES:
            return
        if any(intent.status not in _OVER for intent in mine.intents):
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

    def _end_orders(self, mine: LiveTrade) -> Steps:
        """Cancel what still works, and wait a little until the broker says what became of it."""
        for intent in list(mine.intents):
            if intent.status in _OVER:
                continue
            if intent.status == IntentStatus.WORKING and intent.step != IntentStep.EXIT:
                yield from self._cancel(mine, intent)
            for _ in range(RELEASE_LOOKS):
                order = yield FindOrder(intent.client_order_id)
                if order is not None:
                    unheard = intent.status in _OPEN_QUESTIONS
                    yield from self._order_changed(mine, intent, order)
                    if unheard and intent.status == IntentStatus.WORKING:
                        yield from self._cancel(mine, intent)
                elif (
                    intent.step == IntentStep.MOVE
                    and intent.status in _OPEN_QUESTIONS
                    and self._cannot_move(mine, intent)
                ):
                    self._note_failure(mine, intent, IntentStatus.CANCELLED, "the trade was left instead")
                if intent.status in _OVER:
                    break
                yield Wait()

    def _seem_free(self, mine: LiveTrade) -> Generator[Step, Any, bool]:
        """Whether the view of orders lags: no stop holds a share any more, and has not for a while."""
        if any(i.status not in _OVER and i.step not in _PROTECTING for i in mine.intents):
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
            quantity = min(held, _rest(mine))
            if available >= quantity:
                return quantity
            yield Wait()
        return 0

    def _held(self, mine: LiveTrade) -> Generator[Step, Any, tuple[int, int]]:
        """Shares the broker holds of this trade's side and how many of them are free; what is not ours any more, others
        have sold. Raises Unavailable."""
        symbol = mine.trade.symbol
        positions: Listing[Position] = yield ReadPositions()
        if symbol in positions.unreadable:
            raise Unavailable(f"the position in {symbol} cannot be read")
        position = positions.get(symbol)
        held = max(0, _sign(mine.trade) * position.quantity) if position else 0
        mine.sold_by_others = max(0, _rest(mine) - held)
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
        if mine.trade.status not in LIVE_STATUSES or any(intent.status not in _OVER for intent in mine.intents):
            return
        yield from self._close(mine)

    # -- stops

    def _protect(self, mine: LiveTrade) -> Steps:
        """A stop for exactly the shares held. Where the market is beyond it already, out."""
        trade = mine.trade
        covered = yield from self._is_covered(mine)
        if covered:
            return
        mine.unprotected_since = mine.unprotected_since or self._clock.now()
        self.owed.add(trade.symbol)
        yield from self._end_stops(mine)
        quantity = _rest(mine) - mine.sold_by_others
        if quantity <= 0 or mine.missing_since is not None:
            held, _ = yield from self._held(mine)
            if not held:
                yield from self._missing(mine)
                return
        unended = any(i.step in _PROTECTING and i.status not in _OVER for i in mine.intents)
        if trade.status not in LIVE_STATUSES or quantity <= 0 or unended:
            return
        refused = [i for i in mine.intents if i.step == IntentStep.STOP and i.status == IntentStatus.REJECTED]
        if refused and any(i.step == IntentStep.ENTRY and i.status not in _OVER for i in mine.intents):
            # the broker refuses an order against one of the other side that works
            yield from self._cancel_working(mine, (IntentStep.ENTRY,))
            return
        if len(refused) >= MOST_ATTEMPTS or _count(mine, IntentStep.STOP) >= MOST_STOPS:
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
        stops = [intent for intent in mine.intents if intent.step in _PROTECTING]
        if not stops:
            return False
        working = yield from self._working_orders(mine)
        standing = [intent for intent in stops if intent.client_order_id in working]
        if standing and not _covers(standing, mine):  # others may have sold, or bought back
            held, _ = yield from self._held(mine)
            if mine.sold_by_others and self._just_entered(mine):
                self.owed.add(mine.trade.symbol)  # the view of positions may lag behind the entry
            if not held:
                yield from self._missing(mine)
                return True
        if not _covers(standing, mine):
            return False
        if standing[0].status != IntentStatus.WORKING:
            self._adopt(mine, standing[0], working[standing[0].client_order_id])
        self._protected_until(mine, self._clock.now())
        return True

    def _end_stops(self, mine: LiveTrade) -> Steps:
        """Cancel the stops that are not what is needed, once; what became of them is read at once."""
        for intent in list(mine.intents):
            if intent.step not in _PROTECTING or intent.status in _OVER:
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
        elif mine.exit is None and price is not None and _sign(mine.trade) * (price - float(stop)) <= 0:
            evidence = {"stop": float(stop), "stop_refused": refused.error, "price": price}
            yield from self._claim_exit(mine, ExitDecision(ExitReason.STOP, evidence), price)
        elif held < refused.quantity:
            yield from self._protect(mine)

    def _just_entered(self, mine: LiveTrade) -> bool:
        filled = [i.finished_at or self._clock.now() for i in mine.intents if i.step == IntentStep.ENTRY]
        return self._clock.now() - max(filled) < POSITIONS_LAG

    def _move_stop(self, mine: LiveTrade, new_stop: Decimal, evidence: dict[str, Any]) -> Steps:
        trade = mine.trade
        standing = [i for i in mine.intents if i.step in _PROTECTING and i.status == IntentStatus.WORKING]
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
            mine.unsaved.append((intent, _ORDER_FIELDS))
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
            mine.unsaved += ((intent, _ORDER_FIELDS), *self._stop_confirmed(mine, intent))
            return
        old.status, old.finished_at = IntentStatus.REPLACED, self._clock.now()
        self._adopt(mine, intent, order, old)

    @staticmethod
    def _moved_from(mine: LiveTrade, intent: OrderIntent) -> OrderIntent:
        before = mine.intents[: mine.intents.index(intent)]
        return [each for each in before if each.step in _PROTECTING and each.status != IntentStatus.REJECTED][-1]

    def _cannot_move(self, mine: LiveTrade, intent: OrderIntent) -> bool:
        """Whether the stop that was to be replaced ended otherwise."""
        old = self._moved_from(mine, intent)
        return old.status in _OVER and old.status != IntentStatus.REPLACED

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

    # -- taking up what was broken off

    def _resume(self, mine: LiveTrade) -> Steps:
        trade = mine.trade
        for intent in list(mine.intents):
            if intent.status not in _OVER and trade.status in LIVE_STATUSES:
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
        if trade.status in LIVE_STATUSES and trade.quantity > 0 and _rest(mine) <= 0:
            yield from self._flat(mine)

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
        elif intent.step == IntentStep.ENTRY or intent.quantity <= _rest(mine):
            yield from self._send(mine, intent)
        else:
            self._give_up_unseen(mine, intent)

    def _give_up_unseen(self, mine: LiveTrade, intent: OrderIntent) -> None:
        """An order that is not to be sent again: once it has had time to show, it never reached the broker."""
        if self._clock.now() - intent.created_at < VISIBLE_WITHIN:
            self.owed.add(mine.trade.symbol)
            return
        self._note_failure(mine, intent, IntentStatus.REJECTED, "it never reached the broker")

    def _move_not_there(self, mine: LiveTrade, intent: OrderIntent) -> Steps:
        old = self._moved_from(mine, intent)
        if old.status != IntentStatus.WORKING:
            self._give_up_unseen(mine, intent)
        elif mine.exit is None and (mine.move_again_at is None or self._clock.now() >= mine.move_again_at):
            yield from self._replace(mine, intent, old)
        else:
            self.owed.add(mine.trade.symbol)

    # -- orders and what becomes of them

    @staticmethod
    def _working_orders(mine: LiveTrade) -> Generator[Step, Any, Listing[Order]]:
        """By client order id. Raises Unavailable where one of this trade's cannot be read: that is not its absence."""
        working: Listing[Order] = yield ReadOrders()
        if any(intent.client_order_id in working.unreadable for intent in mine.intents):
            raise Unavailable(f"an order of {mine.trade.symbol} cannot be read")
        return working

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
            order = yield Send(_request(mine.trade, intent))
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
        mine.unsaved += [(each, _ORDER_FIELDS) for each in (replaced, intent) if each is not None]
        if intent.step in _CLOSING and not order.status.is_final:
            self._protected_until(mine, self._clock.now())
        if intent.step in _PROTECTING and order.status is not OrderStatus.REJECTED:
            mine.unsaved += self._stop_confirmed(mine, intent)

    @staticmethod
    def _protected_until(mine: LiveTrade, moment: datetime) -> None:
        """The time without a stop has ended: one works, or an order that closes, or nothing is held any more."""
        if mine.unprotected_since is not None:
            mine.trade.unprotected_seconds += max(0.0, (moment - mine.unprotected_since).total_seconds())
            mine.unprotected_since = None
            if mine.alarmed:
                log.warning("position_protected_again", trade=mine.trade.signal_key)
            mine.alarmed = ""

    def _note_failure(self, mine: LiveTrade, intent: OrderIntent, status: IntentStatus, error: object) -> None:
        """A move that came to nothing is refused with its order."""
        intent.status, intent.error = status, str(error)[:300]
        mine.unsaved.append((intent, _ORDER_FIELDS))
        if status in _OVER:
            intent.finished_at = self._clock.now()
            if intent.step == IntentStep.MOVE:
                for move in [each for each in mine.moves if each.status == StopMoveStatus.OWED]:
                    move.status = StopMoveStatus.REFUSED
                    mine.unsaved.append((move, ("status",)))

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
            mine.unsaved.append((intent, ("error",)))
            self.owed.add(mine.trade.symbol)

    def _intent_of(self, order: Order) -> tuple[LiveTrade | None, OrderIntent | None]:
        mine = self._store.live.get(order.symbol)
        if mine is None:
            return None, None
        return mine, next((i for i in mine.intents if i.client_order_id == order.client_order_id), None)

    def _order_changed(self, mine: LiveTrade, intent: OrderIntent, order: Order) -> Steps:
        if not intent.broker_order_id:  # sent, then interrupted before the answer was heard
            stranger = _as_replacement(mine, order).difference_from(_request(mine.trade, intent))
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
        mine.unsaved.append((intent, _ORDER_FIELDS))
        if intent.step == IntentStep.ENTRY and news:
            yield from self._entry_filled(mine, intent)
        yield from self._cancelled_without_entry(mine)
        if mine.trade.quantity > 0 and _rest(mine) <= 0:
            yield from self._flat(mine)
        elif intent.step != IntentStep.ENTRY and order.status.is_final and order.status is not OrderStatus.REPLACED:
            leaving = any(i.step == IntentStep.EXIT and i.status == IntentStatus.WORKING for i in mine.intents)
            if not leaving:
                mine.unprotected_since = mine.unprotected_since or intent.finished_at
                self.owed.add(mine.trade.symbol)

    def _flat(self, mine: LiveTrade) -> Steps:
        """All that was bought is sold: the trade is over, once none of its orders works any more."""
        if all(intent.status in _OVER for intent in mine.intents):
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
            if i.step in _CLOSING and i.filled_price is not None
        ]
        by_others = _rest(mine)
        last = max((i for i in mine.intents if i.step in _CLOSING and i.filled_quantity), key=_finished, default=None)
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
        for listener in self.closing_listeners:
            listener(trade)
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

    def _fees(self, trade: Trade, exit_price: Decimal) -> Decimal:
        assert trade.entry_price is not None
        if not self._fee_rates:
            return 2 * trade.quantity * self.cost_per_share
        return regulatory_fees(
            trade.session, Side(trade.side), trade.quantity, trade.entry_price, exit_price, self._fee_rates
        )

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


def _finished(intent: OrderIntent) -> tuple[datetime, int]:
    return intent.finished_at or intent.created_at, intent.attempt


def _held_up_since(mine: LiveTrade) -> datetime | None:
    """When the exit was decided that no order carries out yet, None where one does or nothing leaves."""
    if mine.exit is None or any(i.step == IntentStep.EXIT and i.status == IntentStatus.WORKING for i in mine.intents):
        return None
    return mine.exit.decided_at


def _rest(mine: LiveTrade) -> int:
    """Shares bought and, as far as our own orders tell, not yet sold."""
    return mine.trade.quantity - sum(intent.filled_quantity for intent in mine.intents if intent.step in _CLOSING)


def _count(mine: LiveTrade, step: IntentStep) -> int:
    return sum(intent.step == step for intent in mine.intents)


def _covers(standing: list[OrderIntent], mine: LiveTrade) -> bool:
    """Whether exactly one stop stands, for exactly the shares held."""
    left = [intent.quantity - intent.filled_quantity for intent in standing]
    return left == [_rest(mine) - mine.sold_by_others]


def _agrees(mine: LiveTrade, position: Position | None, orders: Listing[Order]) -> bool:
    """Whether the broker shows the shares and the orders that this trade should have."""
    shown = [intent for intent in mine.intents if intent.client_order_id in orders]
    if shown != [intent for intent in mine.intents if intent.status == IntentStatus.WORKING]:
        return False
    held = _sign(mine.trade) * position.quantity if position else 0
    standing = [intent for intent in shown if intent.step in _PROTECTING]
    return held == _rest(mine) and (mine.trade.status != TradeStatus.OPEN or _covers(standing, mine))


def _sign(trade: Trade) -> int:
    return 1 if trade.side == Side.LONG else -1


def _as_replacement(mine: LiveTrade, order: Order) -> Order:
    """An order that replaces one of this trade's is younger than that, whatever its time says."""
    if order.replaces and order.replaces in {intent.broker_order_id for intent in mine.intents}:
        return changed(order, created_at=max(intent.created_at for intent in mine.intents))
    return order


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
