"""What services write through: the database in live trading, memory in replay (flushed in batches), by the same rules.

Both keep the live trades and the journal of their orders in memory, so that a tick without news costs no query.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import date, datetime
from itertools import starmap
from operator import attrgetter
from typing import Any, Protocol

from django.db import IntegrityError, InterfaceError, OperationalError, connection, models, transaction
from django.db.models import Q

from positions import bulk
from positions.apps import LOCK_TIMEOUT_MS
from positions.models import LIVE_STATUSES, ErrorNote, OrderIntent, PositionExit, RuleNote, ShadowTrade, StopMove, Trade
from positions.statements import Statement, Untouched, change, insertion, run
from positions.words import ExitStatus, Rule, RuleNoteKind, Side, StopMoveStatus, TradeStatus

Row = Trade | PositionExit | StopMove | OrderIntent
#: A row and the fields of it that are to be saved.
Change = tuple[Row, tuple[str, ...]]

_ENDED = (TradeStatus.CLOSED, TradeStatus.CANCELLED)
_IS_LIVE = '"status" IN ({})'.format(", ".join(f"'{status}'" for status in LIVE_STATUSES))
#: What was decided once is not decided again.
_OF_THE_DECISION = ("id", "trade", "rule", "evidence", "decided_at", "decided_price")
_OF_THE_PLAN = ("plan_outcome", "plan_r", "plan_exit_reason", "plan_ended_at", "plan_doubt")
_AFTER = ("worst_after_r", "best_after_r")


class Duplicate(Exception):
    """The row exists already: somebody else was first, or this was done before."""


class StoreUnavailable(Exception):
    """The database did not answer. What was to be written may not be stored."""


class LiveTrade:
    """A trade that is not over, with the rows that belong to it, and what is known of it in this process only.

    `alarmed`: the alarm that was raised last, "" for none. `sold_by_others`: shares that were bought and are neither
    held nor sold by us. `notes`: what this process noted of its rules. `unsaved`: what the next write takes along.
    `last_price`: the broker's. Times are None where the thing is not so: shares stand without a stop or a closing order
    since, are shown free although a stop seems to work since, the broker shows no position since, a stop move is to be
    tried again at.
    """

    __slots__ = (
        "alarmed",
        "exit",
        "free_since",
        "intents",
        "last_price",
        "missing_since",
        "move_again_at",
        "moves",
        "notes",
        "past_exits",
        "sold_by_others",
        "trade",
        "unprotected_since",
        "unsaved",
    )

    def __init__(self, trade: Trade) -> None:
        self.trade = trade
        self.intents: list[OrderIntent] = []
        self.exit: PositionExit | None = None
        self.past_exits: list[PositionExit] = []
        self.moves: list[StopMove] = []
        self.notes: dict[tuple[Rule, RuleNoteKind], RuleNote] = {}
        self.unsaved: list[Change] = []
        self.unprotected_since: datetime | None = None
        self.free_since: datetime | None = None
        self.alarmed = ""
        self.sold_by_others = 0
        self.missing_since: datetime | None = None
        self.move_again_at: datetime | None = None
        self.last_price: float | None = None

    def take_rows(self, fresh: "LiveTrade") -> "LiveTrade":
        """The rows of another reading of the same trade."""
        self.intents, self.exit, self.past_exits, self.moves = (
            fresh.intents,
            fresh.exit,
            fresh.past_exits,
            fresh.moves,
        )
        self.unsaved = []
        return self

    def take_unsaved(self) -> tuple[Change, ...]:
        """What is to be saved now, each row once."""
        fields: dict[int, dict[str, None]] = {}
        for row, names in self.unsaved:
            fields.setdefault(id(row), {}).update(dict.fromkeys(names))
        rows = {id(row): row for row, _ in self.unsaved}
        self.unsaved = []
        return tuple((rows[key], tuple(names)) for key, names in fields.items())


class Store(Protocol):
    """One book's open business.

    Reads raise StoreUnavailable where the database does not answer.

    Writes raise Duplicate where somebody else was first: where a unique constraint says no, where the trade of a row is
    over, or has orders in its journal that are not in `live`, or where the stored row is further than the one in hand.
    They raise StoreUnavailable where the database does not answer. `reload` mends `live` after either.
    """

    book: str
    live: dict[str, LiveTrade]

    def insert(self, *rows: Row, changes: Sequence[Change] = ()) -> None:
        """Store new rows and changes of others, all of them or none; an intent so that it outlives a loss of power."""
        ...

    def update(self, row: Row, *fields: str) -> None:
        """Save fields of a row."""
        ...

    def update_all(self, changes: Sequence[Change]) -> None:
        """All of them or none."""
        ...

    def reload(self, symbol: str) -> Trade | None:
        """Read a symbol's live trade again; returns the one that was live in memory and is over."""
        ...

    def closed_trades(self, day: date) -> list[Trade]:
        """The trades of a session that have closed, in the order of their ends."""
        ...

    def orders_since(self, moment: datetime) -> int:
        """How many orders were journaled from then on."""
        ...

    def settle(self, now: datetime) -> list[Trade]:
        """Store what waits for the database, if anything does; returns the trades that others have ended meanwhile."""
        ...

    def unfinished_plans(self, day: date) -> list[Trade]:
        """The trades of a session that were entered and whose plan has not ended, whether they are closed or not."""
        ...

    def plans_ended(self, trades: list[Trade]) -> None:
        """Save the plan's own result of trades, whether they are closed or not, and how far prices went after them."""
        ...

    def unfinished_shadows(self, day: date) -> list[ShadowTrade]:
        """The shadow trades of a session whose plan has not ended."""
        ...

    def store_shadows(self, shadows: list[ShadowTrade]) -> None:
        """Store new shadow trades, and what has become of those that are stored."""
        ...

    def note_rules(self, notes: list[RuleNote]) -> None:
        """Store notes of live trades; the first of its trade, rule and kind stays."""
        ...

    def note_errors(self, notes: Sequence[ErrorNote]) -> bool:
        """Add them to what is counted of their kinds; False while the database is away: they are to be told again."""
        ...


def _is_unique_violation(error: IntegrityError) -> bool:
    """Unlike a value that cannot be, which is a mistake and no race."""
    cause = error.__cause__
    return getattr(cause, "sqlstate", "") == "23505" or getattr(cause, "sqlite_errorname", "").endswith("_UNIQUE")


@contextmanager
def _reaching_the_database() -> Iterator[None]:
    """Raises Duplicate for a row that exists, StoreUnavailable where the database cannot be asked, or is locked."""
    try:
        if connection.vendor == "sqlite":
            with connection.cursor() as cursor:
                cursor.execute(f"PRAGMA busy_timeout = {LOCK_TIMEOUT_MS}")
        yield
    except Untouched as error:
        raise Duplicate("another process has written here since") from error
    except IntegrityError as error:
        if _is_unique_violation(error):
            raise Duplicate(str(error)) from error
        raise
    except (OperationalError, InterfaceError) as error:
        if not connection.in_atomic_block:
            connection.close()  # Django would go on with one that is broken
        raise StoreUnavailable(str(error)) from error


def _saving(row: Row, fields: tuple[str, ...]) -> Statement:
    """Touches nothing where what is stored is further: a trade that is over stays so, its quantity never shrinks and
    its stop never loosens; an order that has ended stays so, and its fills never shrink."""
    if isinstance(row, PositionExit):
        return change(row, fields, f'"trade_id" IN (SELECT "id" FROM "trades" WHERE {_IS_LIVE})', [])
    if isinstance(row, StopMove):
        return change(row, fields, '"status" = %s', [StopMoveStatus.OWED])
    if isinstance(row, OrderIntent):
        not_ended = "" if row.finished_at else ' AND "finished_at" IS NULL'
        return change(row, fields, f'"filled_quantity" <= %s{not_ended}', [row.filled_quantity])
    allowed, values = [_IS_LIVE], list[object]()
    if "quantity" in fields:
        allowed.append('"quantity" <= %s')
        values.append(row.quantity)
    if "stop_price" in fields and row.stop_price is None:
        allowed.append('"stop_price" IS NULL')
    elif "stop_price" in fields:
        looser = "<=" if row.side == Side.LONG else ">="
        allowed.append(f'("stop_price" IS NULL OR "stop_price" {looser} %s)')
        values.append(connection.ops.adapt_decimalfield_value(row.stop_price))
    return change(row, fields, " AND ".join(allowed), values)


def attach(live: dict[str, LiveTrade], row: Row) -> None:
    """Take a new row into memory."""
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


def detach(live: dict[str, LiveTrade], row: Row) -> LiveTrade | None:
    """Forget what is over; returns the trade that has just ended."""
    if isinstance(row, Trade) and row.status in _ENDED:
        return live.pop(row.symbol)
    if isinstance(row, PositionExit) and row.status == ExitStatus.SUPERSEDED:
        mine = live[row.trade.symbol]
        mine.exit = None
        mine.past_exits.append(row)
    return None


def check_unclaimed(mine: LiveTrade, row: Row) -> None:
    """Raises Duplicate where the trade has an exit under way or owes a stop move already."""
    if isinstance(row, PositionExit) and mine.exit is not None:
        raise Duplicate(f"an exit of {row.trade.signal_key} is under way already")
    if isinstance(row, StopMove) and any(move.status == StopMoveStatus.OWED for move in mine.moves):
        raise Duplicate(f"a stop move of {row.trade.signal_key} is owed already")


class OrmStore:
    """Every write goes to the database at once, where the constraints decide. The start may raise StoreUnavailable."""

    def __init__(self, book: str) -> None:
        self.book = book
        self.live: dict[str, LiveTrade] = {}
        trades = Trade.objects.filter(book=book, status__in=LIVE_STATUSES).prefetch_related(
            "intents", "stop_moves", "exits"
        )
        with _reaching_the_database():
            for trade in trades.order_by("id"):
                self._take(trade)

    def _take(self, trade: Trade) -> None:
        attach(self.live, trade)
        children: tuple[Row, ...] = (*trade.intents.all(), *trade.stop_moves.all(), *trade.exits.all())
        for row in sorted(children, key=attrgetter("pk")):
            attach(self.live, row)
            detach(self.live, row)

    def insert(self, *rows: Row, changes: Sequence[Change] = ()) -> None:
        first = rows[0]
        for row in rows:
            if not isinstance(row, Trade):
                row.trade = row.trade  # takes over a key that the trade got since
        with _reaching_the_database():
            if isinstance(first, Trade):
                statements = [insertion(first), *(insertion(row, parent="trade") for row in rows[1:])]
            else:
                statements = [*self._known(first.trade), *starmap(_saving, changes), *map(insertion, rows)]
            keys = run(*statements, durable=any(isinstance(row, OrderIntent) for row in rows))
        for row, key in zip(rows, keys, strict=True):
            row.pk, row._state.adding = key, False
            if not isinstance(row, Trade):
                row.trade = row.trade
            attach(self.live, row)

    def _known(self, trade: Trade) -> tuple[Statement, Statement]:
        """Find the trade live, and lock it; then its journal as it is in memory."""
        lock = " FOR UPDATE" if connection.features.has_select_for_update else ""
        known = len(self.live[trade.symbol].intents)
        return (
            Statement(f'SELECT "id" FROM "trades" WHERE "id" = %s AND {_IS_LIVE}{lock}', (trade.pk,)),
            Statement(
                'SELECT 1 WHERE %s = (SELECT COUNT(*) FROM "order_intents" WHERE "trade_id" = %s)', (known, trade.pk)
            ),
        )

    def update(self, row: Row, *fields: str) -> None:
        self.update_all([(row, fields)])

    def update_all(self, changes: Sequence[Change]) -> None:
        with _reaching_the_database():
            run(*starmap(_saving, changes))
        for row, _ in changes:
            detach(self.live, row)

    def reload(self, symbol: str) -> Trade | None:
        mine = self.live.get(symbol)
        with _reaching_the_database():
            if mine is not None:
                mine.trade.refresh_from_db()
                if mine.trade.status in LIVE_STATUSES:
                    self._take(mine.trade)
                    self.live[symbol] = mine.take_rows(self.live[symbol])
                    return None
                del self.live[symbol]
                return mine.trade
            for trade in Trade.objects.filter(book=self.book, symbol=symbol, status__in=LIVE_STATUSES):
                self._take(trade)
        return None

    def open_symbols(self) -> set[str]:
        with _reaching_the_database():
            return set(Trade.objects.filter(book=self.book, status__in=LIVE_STATUSES).values_list("symbol", flat=True))

    def put(self, mine: LiveTrade) -> None:
        trade = mine.trade
        with _reaching_the_database(), transaction.atomic():
            stored = Trade.objects.select_for_update().filter(book=trade.book, signal_key=trade.signal_key).first()
            if stored is None:
                trade.save(force_insert=True)
            else:
                trade.pk = stored.pk
            for intent in mine.intents:
                _put(intent, trade.intents.filter(client_order_id=intent.client_order_id))
            for move in mine.moves:
                _put(move, trade.stop_moves.filter(Q(decided_at=move.decided_at) | _claims_the_same(move)))
            for claimed in [*mine.past_exits, *([mine.exit] if mine.exit else [])]:
                _put(claimed, trade.exits.filter(Q(decided_at=claimed.decided_at) | _claims_the_same(claimed)))
            if stored is not None:
                _overwrite(trade)
                if trade.plan_outcome is not None:
                    known = {name: getattr(trade, name) for name in (*_OF_THE_PLAN, *_AFTER)}
                    Trade.objects.filter(pk=trade.pk).update(**known)
            if Trade.objects.filter(pk=trade.pk, status__in=_ENDED).exists():
                trade.exits.filter(status=ExitStatus.PENDING).update(status=ExitStatus.SUPERSEDED)
                trade.stop_moves.filter(status=StopMoveStatus.OWED).update(status=StopMoveStatus.REFUSED)

    def settle(self, now: datetime) -> list[Trade]:
        """Nothing waits here."""
        return []

    def closed_trades(self, day: date) -> list[Trade]:
        closed = Trade.objects.filter(book=self.book, session=day, status=TradeStatus.CLOSED)
        with _reaching_the_database():
            return list(closed.order_by("exited_at", "id"))

    def orders_since(self, moment: datetime) -> int:
        with _reaching_the_database():
            return OrderIntent.objects.filter(book=self.book, created_at__gte=moment).count()

    def unfinished_plans(self, day: date) -> list[Trade]:
        entered = Trade.objects.filter(book=self.book, session=day, entered_at__isnull=False)
        with _reaching_the_database():
            return list(entered.filter(plan_outcome__isnull=True).order_by("id"))

    def plans_ended(self, trades: list[Trade]) -> None:
        with _reaching_the_database(), transaction.atomic():
            Trade.objects.bulk_update(trades, (*_OF_THE_PLAN, *_AFTER))

    def unfinished_shadows(self, day: date) -> list[ShadowTrade]:
        unfinished = ShadowTrade.objects.filter(book=self.book, session=day, plan_outcome__isnull=True)
        with _reaching_the_database():
            return list(unfinished.order_by("id"))

    def store_shadows(self, shadows: list[ShadowTrade]) -> None:
        with _reaching_the_database():
            ShadowTrade.objects.bulk_create(
                shadows,
                update_conflicts=True,
                unique_fields=["book", "signal_key"],
                update_fields=["entered_at", "entry_price", "risk_per_share", *_OF_THE_PLAN],
            )

    def note_rules(self, notes: list[RuleNote]) -> None:
        with _reaching_the_database():
            RuleNote.objects.bulk_create(notes, ignore_conflicts=True)

    def note_errors(self, notes: Sequence[ErrorNote]) -> bool:
        stored = ErrorNote.objects.filter(book=self.book, session__in={note.session for note in notes})
        with _reaching_the_database(), transaction.atomic():
            known = {note.kind: note for note in stored.select_for_update()}
            ErrorNote.objects.bulk_create(
                [note.after(known.get(note.kind)) for note in notes],
                update_conflicts=True,
                unique_fields=["book", "session", "job", "symbol", "error"],
                update_fields=["subject", "message", "count", "first_at", "last_at"],
            )
        return True


def _put(row: Row, same: "models.QuerySet[Any]") -> None:
    """Insert a row, or write it over what is stored of it unless that is further."""
    stored = same.order_by("id").first()
    if stored is None:
        row.save(force_insert=True)
    else:
        row.pk = stored.pk
        _overwrite(row)


def _overwrite(row: Row) -> None:
    fields = tuple(field.name for field in row._meta.concrete_fields if field.name not in _OF_THE_DECISION)
    with suppress(Untouched):
        run(_saving(row, fields))


def _claims_the_same(row: PositionExit | StopMove) -> Q:
    """Stored rows beside which there may be no such row: whoever claimed first decided."""
    if isinstance(row, StopMove):
        return Q(status=StopMoveStatus.OWED) if row.status == StopMoveStatus.OWED else Q(pk=None)
    claims = (ExitStatus.PENDING, ExitStatus.DONE)
    return Q(status__in=claims) if row.status in claims else Q(pk=None)


class MemoryStore:
    """The same rules in memory; `flush` writes the trades that have ended, with all that belongs to them, and the
    shadow trades, whose session is over then."""

    def __init__(self, book: str) -> None:
        self.book = book
        self.live: dict[str, LiveTrade] = {}
        self._ended: list[LiveTrade] = []
        self.shadows: dict[str, ShadowTrade] = {}
        self._signals: set[str] = set()
        self._client_ids: set[str] = set()

    def insert(self, *rows: Row, changes: Sequence[Change] = ()) -> None:
        for row in rows:
            self._insert(row)

    def _insert(self, row: Row) -> None:
        if isinstance(row, Trade):
            self._claim(self._signals, row.signal_key)
            if row.symbol in self.live:
                self._signals.discard(row.signal_key)
                raise Duplicate(f"a position in {row.symbol} is open already")
        elif isinstance(row, OrderIntent):
            self._claim(self._client_ids, row.client_order_id)
        else:
            check_unclaimed(self.live[row.trade.symbol], row)
        attach(self.live, row)

    def reload(self, symbol: str) -> Trade | None:
        """Nobody else writes here: what is in memory is what there is."""
        return None

    def settle(self, now: datetime) -> list[Trade]:
        """Nothing waits here."""
        return []

    @staticmethod
    def _claim(taken: set[str], key: str) -> None:
        if key in taken:
            raise Duplicate(key)
        taken.add(key)

    def update(self, row: Row, *fields: str) -> None:
        self.update_all([(row, fields)])

    def update_all(self, changes: Sequence[Change]) -> None:
        for row, _ in changes:
            ended = detach(self.live, row)
            if ended is not None:
                self._ended.append(ended)

    def closed_trades(self, day: date) -> list[Trade]:
        trades = [mine.trade for mine in self._ended if mine.trade.session == day]
        return sorted((trade for trade in trades if trade.exited_at), key=attrgetter("exited_at"))

    def orders_since(self, moment: datetime) -> int:
        known = (*self._ended, *self.live.values())
        return sum(intent.created_at >= moment for mine in known for intent in mine.intents)

    def unfinished_plans(self, day: date) -> list[Trade]:
        trades = [mine.trade for mine in (*self._ended, *self.live.values())]
        return [trade for trade in trades if trade.session == day and trade.entered_at and not trade.plan_outcome]

    def plans_ended(self, trades: list[Trade]) -> None:
        """Nothing to do: `flush` writes what the trades hold by then."""

    def unfinished_shadows(self, day: date) -> list[ShadowTrade]:
        return [each for each in self.shadows.values() if each.session == day and not each.plan_outcome]

    def note_rules(self, notes: list[RuleNote]) -> None:
        """Nothing to do: `flush` writes the notes of its trades."""

    def note_errors(self, notes: Sequence[ErrorNote]) -> bool:
        """Nothing to do: the first error ends a replay."""
        return True

    def store_shadows(self, shadows: list[ShadowTrade]) -> None:
        self.shadows.update((each.signal_key, each) for each in shadows)

    def take_ended(self) -> list[LiveTrade]:
        """Hand over the trades that have ended since this was last asked, and forget them."""
        ended, self._ended = self._ended, []
        return ended

    def flush(self) -> None:
        ended, shadows = self.take_ended(), self.shadows
        trades, self.shadows = [mine.trade for mine in ended], {}
        with transaction.atomic():
            bulk.insert(ShadowTrade, map(vars, shadows.values()))
            bulk.insert(Trade, map(vars, trades))
            keys = [trade.signal_key for trade in trades]
            stored = Trade.objects.filter(book=self.book, signal_key__in=keys).order_by()
            ids = dict(stored.values_list("signal_key", "pk"))
            for trade in trades:
                trade.pk = ids[trade.signal_key]
            _write(OrderIntent, (intent for mine in ended for intent in mine.intents))
            _write(StopMove, (move for mine in ended for move in mine.moves))
            _write(RuleNote, (note for mine in ended for note in mine.notes.values()))
            exits = [(*mine.past_exits, mine.exit) for mine in ended]
            _write(PositionExit, (row for rows in exits for row in rows if row is not None))


def _write(model: type[models.Model], rows: Iterable[OrderIntent | StopMove | PositionExit | RuleNote]) -> None:
    bulk.insert(model, ({**vars(row), "trade_id": row.trade.pk} for row in rows))
