"""What services write through: the database in live trading, memory in replay (flushed in batches), by the same rules.

Both keep the live trades and the journal of their orders in memory, so that a tick without news costs no query.
"""

from collections.abc import Iterable
from datetime import date, datetime
from decimal import Decimal
from operator import attrgetter
from typing import Protocol

from django.db import IntegrityError, models, transaction

from positions import bulk
from positions.models import LIVE_STATUSES, OrderIntent, PositionExit, StopMove, Trade
from positions.words import ExitStatus, StopMoveStatus, TradeStatus

Row = Trade | PositionExit | StopMove | OrderIntent

_ENDED = (TradeStatus.CLOSED, TradeStatus.CANCELLED)
_OF_THE_PLAN = ("plan_outcome", "plan_r", "plan_exit_reason", "plan_ended_at")


class Duplicate(Exception):
    """The row exists already: somebody else was first, or this was done before."""


class LiveTrade:
    """A trade that is not over, with the rows that belong to it."""

    __slots__ = ("exit", "intents", "moves", "past_exits", "trade", "unprotected_since")

    def __init__(self, trade: Trade) -> None:
        self.trade = trade
        self.intents: list[OrderIntent] = []
        self.exit: PositionExit | None = None
        self.past_exits: list[PositionExit] = []
        self.moves: list[StopMove] = []
        self.unprotected_since: datetime | None = None


class Store(Protocol):
    """One book's open business. `insert` raises Duplicate where a unique constraint says no; `update` saves fields."""

    book: str
    live: dict[str, LiveTrade]

    def insert(self, row: Row) -> None: ...

    def update(self, row: Row, *fields: str) -> None: ...

    def session_pnl(self, day: date) -> Decimal:
        """Dollars after fees of the trades of a session that have closed."""
        ...

    def unfinished_plans(self, day: date) -> list[Trade]:
        """The trades of a session that were entered and whose plan has not ended, whether they are closed or not."""
        ...

    def plans_ended(self, trades: list[Trade]) -> None:
        """Save the plan's own result of trades, whether they are closed or not."""
        ...


def _is_unique_violation(error: IntegrityError) -> bool:
    """Unlike a value that cannot be, which is a mistake and no race."""
    cause = error.__cause__
    return getattr(cause, "sqlstate", "") == "23505" or getattr(cause, "sqlite_errorname", "").endswith("_UNIQUE")


def _attach(live: dict[str, LiveTrade], row: Row) -> None:
    if isinstance(row, Trade):
        live[row.symbol] = LiveTrade(row)
        return
    mine = live[row.trade.symbol]
    if isinstance(row, OrderIntent):
        mine.intents.append(row)
    elif isinstance(row, StopMove):
        mine.moves.append(row)
    else:
        mine.exit = row


def _detach(live: dict[str, LiveTrade], row: Row) -> LiveTrade | None:
    """Forget what is over; returns the trade that has just ended."""
    if isinstance(row, Trade) and row.status in _ENDED:
        return live.pop(row.symbol)
    if isinstance(row, PositionExit) and row.status == ExitStatus.SUPERSEDED:
        mine = live[row.trade.symbol]
        mine.exit = None
        mine.past_exits.append(row)
    return None


class OrmStore:
    """Every write goes to the database at once, where the constraints decide."""

    def __init__(self, book: str) -> None:
        self.book = book
        self.live: dict[str, LiveTrade] = {}
        trades = Trade.objects.filter(book=book, status__in=LIVE_STATUSES).prefetch_related(
            "intents", "stop_moves", "exits"
        )
        for trade in trades.order_by("id"):
            _attach(self.live, trade)
            children: tuple[Row, ...] = (*trade.intents.all(), *trade.stop_moves.all(), *trade.exits.all())
            for row in sorted(children, key=attrgetter("pk")):
                _attach(self.live, row)
                _detach(self.live, row)

    def insert(self, row: Row) -> None:
        try:
            with transaction.atomic():
                row.save(force_insert=True)
        except IntegrityError as error:
            if _is_unique_violation(error):
                raise Duplicate(str(error)) from error
            raise
        _attach(self.live, row)

    def session_pnl(self, day: date) -> Decimal:
        closed = Trade.objects.filter(book=self.book, session=day, status=TradeStatus.CLOSED)
        total: Decimal | None = closed.aggregate(total=models.Sum("pnl"))["total"]
        return total or Decimal(0)

    def update(self, row: Row, *fields: str) -> None:
        row.save(update_fields=fields)
        _detach(self.live, row)

    def unfinished_plans(self, day: date) -> list[Trade]:
        entered = Trade.objects.filter(book=self.book, session=day, entered_at__isnull=False)
        return list(entered.filter(plan_outcome__isnull=True).order_by("id"))

    def plans_ended(self, trades: list[Trade]) -> None:
        Trade.objects.bulk_update(trades, _OF_THE_PLAN)


class MemoryStore:
    """The same rules in memory; `flush` writes the trades that have ended, with all that belongs to them."""

    def __init__(self, book: str) -> None:
        self.book = book
        self.live: dict[str, LiveTrade] = {}
        self._ended: list[LiveTrade] = []
        self._signals: set[str] = set()
        self._client_ids: set[str] = set()

    def insert(self, row: Row) -> None:
        if isinstance(row, Trade):
            self._claim(self._signals, row.signal_key)
            if row.symbol in self.live:
                self._signals.discard(row.signal_key)
                raise Duplicate(f"a position in {row.symbol} is open already")
        elif isinstance(row, OrderIntent):
            self._claim(self._client_ids, row.client_order_id)
        elif isinstance(row, PositionExit) and self.live[row.trade.symbol].exit is not None:
            raise Duplicate(f"an exit of {row.trade.signal_key} is under way already")
        elif isinstance(row, StopMove) and any(
            move.status == StopMoveStatus.OWED for move in self.live[row.trade.symbol].moves
        ):
            raise Duplicate(f"a stop move of {row.trade.signal_key} is owed already")
        _attach(self.live, row)

    @staticmethod
    def _claim(taken: set[str], key: str) -> None:
        if key in taken:
            raise Duplicate(key)
        taken.add(key)

    def update(self, row: Row, *fields: str) -> None:
        ended = _detach(self.live, row)
        if ended is not None:
            self._ended.append(ended)

    def session_pnl(self, day: date) -> Decimal:
        results = (mine.trade.pnl for mine in self._ended if mine.trade.session == day and mine.trade.pnl is not None)
        return sum(results, start=Decimal(0))

    def unfinished_plans(self, day: date) -> list[Trade]:
        trades = [mine.trade for mine in (*self._ended, *self.live.values())]
        return [trade for trade in trades if trade.session == day and trade.entered_at and not trade.plan_outcome]

    def plans_ended(self, trades: list[Trade]) -> None:
        """Nothing to do: `flush` writes what the trades hold by then."""

    def flush(self) -> None:
        ended, self._ended = self._ended, []
        trades = [mine.trade for mine in ended]
        with transaction.atomic():
            bulk.insert(Trade, map(vars, trades))
            keys = [trade.signal_key for trade in trades]
            stored = Trade.objects.filter(book=self.book, signal_key__in=keys).order_by()
            ids = dict(stored.values_list("signal_key", "pk"))
            for trade in trades:
                trade.pk = ids[trade.signal_key]
            _write(OrderIntent, (intent for mine in ended for intent in mine.intents))
            _write(StopMove, (move for mine in ended for move in mine.moves))
            exits = [(*mine.past_exits, mine.exit) for mine in ended]
            _write(PositionExit, (row for rows in exits for row in rows if row is not None))


def _write(model: type[models.Model], rows: Iterable[OrderIntent | StopMove | PositionExit]) -> None:
    bulk.insert(model, ({**vars(row), "trade_id": row.trade.pk} for row in rows))
