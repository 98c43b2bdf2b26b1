"""A store that goes on without its database: what follows an entry is journaled on disk until the database is back.

A line of the journal is a live trade as it then is, with all its rows. Stored again it changes nothing, so that a
process may be killed at any point of storing; what others wrote meanwhile is never taken back.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import orjson
import structlog
from django.core.exceptions import ValidationError
from django.db import DataError, IntegrityError, models

from positions.journal import Journal
from positions.models import ErrorNote, OrderIntent, PositionExit, RuleNote, ShadowTrade, StopMove, Trade
from positions.store import Change, Duplicate, LiveTrade, Row, Store, StoreUnavailable, attach, check_unclaimed, detach
from positions.words import ExitStatus

log = structlog.get_logger(__name__)

#: A database that did not answer is asked again after it.
PAUSE = timedelta(seconds=5)
#: Lines that the database will never take are kept in this file of the journal's folder.
REFUSED = "refused.jsonl"


class DurableStore(Store, Protocol):
    """A store whose database may fail."""

    def put(self, mine: LiveTrade) -> None:
        """Store a trade of whatever book, all of it or nothing; rows that are stored as further stay as they are.

        Raises Duplicate where another trade holds the symbol, and StoreUnavailable.
        """
        ...

    def open_symbols(self) -> set[str]:
        """Symbols of the live trades in the database. Raises StoreUnavailable."""
        ...


class NotATrade(Exception):
    """A line of a journal that is whole and means nothing here."""


class Lines(Protocol):
    """Where lines wait: TradeJournal on disk."""

    def left_behind(self) -> list[bytes]:
        """What dead processes could not store."""
        ...

    def add(self, line: bytes) -> None:
        """Raises OSError where the disk does not take it."""
        ...

    def set_aside(self, line: bytes) -> None: ...

    def clear(self) -> None: ...


class TradeJournal:
    """Lines in a folder, each forced to the disk before `add` returns."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._journal = Journal.create(folder)
        self._orphans = list(Journal.orphans(folder))

    def left_behind(self) -> list[bytes]:
        return [line for journal in self._orphans for line in journal.read_all()]

    def add(self, line: bytes) -> None:
        self._journal.append(line)
        self._journal.sync()

    def set_aside(self, line: bytes) -> None:
        with (self._folder / REFUSED).open("ab") as file:
            file.write(line + b"\n")

    def clear(self) -> None:
        while self._orphans:
            self._orphans.pop().remove()
        self._journal.clear()

    def close(self) -> None:
        """Leave what is not stored to the next process."""
        for journal in self._orphans:
            journal.close()
        self._journal.leave()


class JournaledStore:
    """A store and the journal that stands in for its database. Implements the Store protocol; one thread's.

    While the database is `down`, entries raise StoreUnavailable; everything else is journaled, and memory is what is
    so. Shadow trades wait in memory alone, and notes of rules are lost, for nothing rests on them. Once it answers,
    `settle` stores the journal and reads all live trades again. What dead processes left is stored first. Raises
    StoreUnavailable if the database does not answer at the start.
    """

    def __init__(self, store: DurableStore, lines: Lines) -> None:
        self.book, self.live = store.book, store.live
        self._store, self._lines = store, lines
        self._waiting = lines.left_behind()
        self.down = False
        self._ask_at: datetime | None = None
        self._ended: list[Trade] = []
        self._shadows: dict[str, ShadowTrade] = {}
        if self._waiting:
            self._catch_up()

    # -- writes

    def insert(self, *rows: Row, changes: Sequence[Change] = ()) -> None:
        if isinstance(rows[0], Trade):
            if self.down:
                raise StoreUnavailable("the database does not answer: no entries until it does")
            try:
                self._store.insert(*rows, changes=changes)
            except StoreUnavailable as error:
                self._lost(error)
                raise
        elif not self._reached(lambda: self._store.insert(*rows, changes=changes)):
            mine = self.live[rows[0].trade.symbol]
            for row in rows:
                check_unclaimed(mine, row)
            for row in rows:
                attach(self.live, row)
            self._note(mine)

    def update(self, row: Row, *fields: str) -> None:
        self.update_all([(row, fields)])

    def update_all(self, changes: Sequence[Change]) -> None:
        if not self._reached(lambda: self._store.update_all(changes)):
            row = changes[0][0]
            mine = self.live[row.symbol if isinstance(row, Trade) else row.trade.symbol]
            for row, _ in changes:
                detach(self.live, row)
            self._note(mine)

    def plans_ended(self, trades: list[Trade]) -> None:
        if not self._reached(lambda: self._store.plans_ended(trades)):
            for trade in trades:
                self._note(LiveTrade(trade))

    def store_shadows(self, shadows: list[ShadowTrade]) -> None:
        self._shadows.update((each.signal_key, each) for each in shadows)
        self._reached(self._store_waiting_shadows)

    def note_rules(self, notes: list[RuleNote]) -> None:
        self._reached(lambda: self._store.note_rules(notes))

    def note_errors(self, notes: Sequence[ErrorNote]) -> bool:
        return self._reached(lambda: self._store.note_errors(notes))

    def _store_waiting_shadows(self) -> None:
        self._store.store_shadows(list(self._shadows.values()))
        self._shadows = {}

    def _reached(self, write: Callable[[], object]) -> bool:
        """Whether the database took it. Behind a line that waits, everything waits: order is kept."""
        if self.down:
            return False
        try:
            write()
        except StoreUnavailable as error:
            self._lost(error)
            return False
        return True

    def _lost(self, error: StoreUnavailable) -> None:
        self.down = True
        log.error("database_lost", error=str(error), todo="start it again; exits go on, entries wait for it")

    def _note(self, mine: LiveTrade) -> None:
        line = _encoded(mine)
        self._waiting.append(line)
        try:
            self._lines.add(line)
        except OSError as error:
            log.error(
                "trade_journal_failed",
                trade=mine.trade.signal_key,
                error=str(error),
                todo="make room on the disk; until the database is back only this process knows of it",
            )

    # -- reads

    def reload(self, symbol: str) -> Trade | None:
        """While the database does not answer, what is in memory is what there is; `settle` reads everything again."""
        ended: list[Trade | None] = []
        self._reached(lambda: ended.append(self._store.reload(symbol)))
        return ended[0] if ended else None

    def settle(self, now: datetime) -> list[Trade]:
        if not self.down or (self._ask_at is not None and now < self._ask_at):
            return []
        with suppress(StoreUnavailable):
            self._catch_up()
            ended, self._ended = self._ended, []
            return ended
        self._ask_at = now + PAUSE
        return []

    def _catch_up(self) -> None:
        for line in self._waiting:
            try:
                mine = _decoded(line)
                self._store.put(mine)
                known = self.live.get(mine.trade.symbol)
                if known is not None and known.trade.signal_key == mine.trade.signal_key:
                    known.trade.pk = mine.trade.pk  # another one where the database was restored
            except (Duplicate, NotATrade, IntegrityError, DataError) as error:
                log.error("trade_refused", line=line[:100].decode(errors="replace"), kept_in=REFUSED, error=str(error))
                self._lines.set_aside(line)
        for symbol in sorted(self._store.open_symbols() | set(self.live)):
            ended = self._store.reload(symbol)
            if ended is not None:
                self._ended.append(ended)
        if self._shadows:
            self._store_waiting_shadows()
        self._lines.clear()
        log.warning("database_is_back", stored=len(self._waiting))
        self._waiting, self.down, self._ask_at = [], False, None

    def closed_trades(self, day: date) -> list[Trade]:
        return self._store.closed_trades(day)

    def orders_since(self, moment: datetime) -> int:
        return self._store.orders_since(moment)

    def unfinished_plans(self, day: date) -> list[Trade]:
        return self._store.unfinished_plans(day)

    def unfinished_shadows(self, day: date) -> list[ShadowTrade]:
        return self._store.unfinished_shadows(day)


def _encoded(mine: LiveTrade) -> bytes:
    exits = [*mine.past_exits, *([mine.exit] if mine.exit is not None else [])]
    line: dict[str, object] = {
        "trade": _plain(mine.trade),
        "intents": [_plain(intent) for intent in mine.intents],
        "moves": [_plain(move) for move in mine.moves],
        "exits": [_plain(claimed) for claimed in exits],
    }
    return orjson.dumps(line, default=str)


def _decoded(line: bytes) -> LiveTrade:
    """The trade with its rows, none of which has a primary key. Raises NotATrade."""
    try:
        plain = orjson.loads(line)
        mine = LiveTrade(_row(Trade, plain["trade"]))
        mine.intents = [_row(OrderIntent, each, trade=mine.trade) for each in plain["intents"]]
        mine.moves = [_row(StopMove, each, trade=mine.trade) for each in plain["moves"]]
        exits = [_row(PositionExit, each, trade=mine.trade) for each in plain["exits"]]
    except (KeyError, TypeError, ValueError, ValidationError) as error:
        raise NotATrade(f"no trade of this version: {error!r}") from error
    mine.past_exits = [each for each in exits if each.status == ExitStatus.SUPERSEDED]
    mine.exit = next((each for each in exits if each.status != ExitStatus.SUPERSEDED), None)
    return mine


def _own_fields(model: type[models.Model]) -> list["models.Field[Any, Any]"]:
    return [field for field in model._meta.concrete_fields if not field.primary_key and not field.is_relation]


def _plain(row: models.Model) -> dict[str, Any]:
    return {field.attname: getattr(row, field.attname) for field in _own_fields(type(row))}


def _row(model: type[Any], plain: dict[str, Any], **relations: Trade) -> Any:
    """What JSON made of a row, back in the types of its columns; a column that the line lacks has its default."""
    fields = [field for field in _own_fields(model) if field.attname in plain]
    return model(**{field.attname: field.to_python(plain[field.attname]) for field in fields}, **relations)
