"""The only room that has broker and store in hand: it performs the steps of a job, one after the other."""

from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

import structlog

from positions.broker.port import Broker, BrokerError, Listing, Order
from positions.execution.limits import RELEASE_PAUSE, SHOWN_FOR
from positions.execution.news import News
from positions.execution.steps import (
    BrokerStep,
    Cancel,
    FindOrder,
    Insert,
    ReadChanges,
    ReadFills,
    ReadOrders,
    ReadPositions,
    Replace,
    Send,
    Settle,
    Step,
    Steps,
    Update,
    Wait,
)
from positions.store import Duplicate, LiveTrade, Store, StoreUnavailable

log = structlog.get_logger(__name__)


class Performer(News):
    _broker: Broker
    _store: Store
    #: Working orders that were read a moment ago, None where the job under way has changed some since.
    _shown: Listing[Order] | None
    _read: tuple[datetime, Listing[Order]] | None

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
            if save and symbol in self._live:
                self._drive(self._save(self._live[symbol]))
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

    def _read_once(self) -> Listing[Order] | None:
        """The working orders, for trades that are looked at one after the other, each once."""
        now = self._clock.now()
        if self._read is None or not timedelta(0) <= now - self._read[0] <= SHOWN_FOR:
            try:
                self._read = now, self._perform(ReadOrders())
            except BrokerError:
                return None
        return self._read[1]
