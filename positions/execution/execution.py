"""The face of the package: what strategy, monitors and events ask for."""

import hashlib
from collections.abc import Sequence
from contextlib import nullcontext
from decimal import Decimal
from itertools import chain
from typing import Any

import structlog

from positions.broker.port import Broker, BrokerError, Listing, Order, Position
from positions.clock import Clock
from positions.execution.limits import LONGEST_UNPROTECTED
from positions.execution.performer import Performer
from positions.execution.steps import ReadChanges, Settle
from positions.execution.trade_state import ALARMS, HELD_UP, UNPROTECTED, agrees, held_up_since, shares_left
from positions.fees import FeeRates
from positions.isolation import Isolate, Work
from positions.models import Trade
from positions.rules import ExitDecision
from positions.store import LiveTrade, Store
from positions.words import SIGN, IntentStep, StopMoveStatus, TradeStatus

log = structlog.get_logger(__name__)


class Execution(Performer):
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
        self._store, self._live = store, store.live
        self._clock = clock
        self.cost_per_share = Decimal(repr(cost_per_share))
        self._fee_rates = fee_rates
        self.isolate: Isolate = nullcontext
        self.entered_listeners = []
        self.closing_listeners = []
        self.closed_listeners = []
        book = hashlib.sha256(store.book.encode()).hexdigest()[:8]
        self._id_prefix = f"{installation}.{book}."
        self.owed = set(store.live)
        self._reread = set()
        self._shown = None
        self._read = None

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

    def cancel_entry(self, mine: LiveTrade) -> None:
        """Give up an entry that has not filled; what the broker says of the order decides what becomes of the trade."""
        self._run(mine.trade.symbol, self._cancel_working(mine, (IntentStep.ENTRY,)))

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
                with self.isolate(Work("orders", order.symbol, mine.trade.signal_key)):
                    self._run(order.symbol, self._order_changed(mine, intent, order), save=False)
        self.save()
        return bool(changed)

    def save(self) -> None:
        """Store what was heard and is not stored yet."""
        for mine in [each for each in self._live.values() if each.unsaved]:
            with self.isolate(Work("orders", mine.trade.symbol, mine.trade.signal_key)):
                self._run(mine.trade.symbol, self._save(mine))

    def resume(self) -> None:
        """Take up what is owed: exits that wait, orders whose outcome is unknown, stops that are missing."""
        owed, self._read = sorted(self.owed), None
        for symbol in owed:
            self.owed.discard(symbol)
            if symbol in self._live:
                mine = self._live[symbol]
                with self.isolate(Work("orders", symbol, mine.trade.signal_key)):
                    self._shown = self._read_once() if len(owed) > 1 else None
                    self._run(symbol, self._resume(mine))
                self._shown = None
                self._alarm(mine)

    def compare(self, positions: Listing[Position], orders: Listing[Order]) -> None:
        """Hold what the broker shows against what is known; a trade that looks otherwise is owed a look."""
        for symbol, mine in self._live.items():
            if symbol not in positions.unreadable and not agrees(mine, positions.get(symbol), orders):
                self.owed.add(symbol)

    def shares_of(self, symbol: str) -> int:
        """Shares that our trade of a symbol holds as far as we know, negative when short."""
        mine = self._live.get(symbol)
        return 0 if mine is None else SIGN[mine.trade.side] * shares_left(mine)

    @property
    def urgent(self) -> bool:
        """Whether shares stand without a stop or a closing order, or an exit has just begun and is not sent yet: then
        the next tick is due within a second."""
        return any(
            mine.unprotected_since is not None or (held_up_since(mine) is not None and not mine.alarmed)
            for mine in self._live.values()
        )

    @property
    def alarms(self) -> str:
        """The alarms that were raised and still hold, those of shares without a stop first; "" for none."""
        holding: dict[str, list[str]] = {alarm: [] for alarm in ALARMS}
        for symbol, mine in self._live.items():
            since = mine.unprotected_since if mine.alarmed == UNPROTECTED else held_up_since(mine)
            if mine.alarmed and since is not None:
                holding[mine.alarmed].append(f"{mine.alarmed}: {symbol} since {since:%H:%M:%S} UTC")
        return "; ".join(chain(*holding.values()))

    def _alarm(self, mine: LiveTrade) -> None:
        unprotected, now = mine.unprotected_since, self._clock.now()
        since, alarm = unprotected or held_up_since(mine), UNPROTECTED if unprotected else HELD_UP
        if since is not None and now - since >= LONGEST_UNPROTECTED and mine.alarmed != alarm:
            mine.alarmed = alarm
            log.error(
                alarm,
                trade=mine.trade.signal_key,
                seconds=(now - since).total_seconds(),
                todo="look at the account; it is tried again in every tick",
            )
