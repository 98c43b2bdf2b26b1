"""Fills the stored bars from Alpaca's history, session by session, so that an interrupted download goes on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

import numpy as np

from positions.clock import Clock
from positions.market.bar_files import BarRows, Mask, StoredBars, microseconds
from positions.market.bars import SessionBars, Universe
from positions.market.calendar import Session, sessions_between
from positions.market.feeds.alpaca.history import AlpacaBars
from positions.market.quarantine import PriceMemory, quarantine

#: How long after its close a session's bars are no longer expected to change.
SETTLED_AFTER = timedelta(minutes=15)

#: Stored closes before the first session of a download are remembered for so long.
REMEMBERED = timedelta(days=14)


@dataclass(slots=True)
class Fetched:
    """What a download did. `bars` counts new rows, corrections too; `empty`: symbols of which nothing is stored."""

    downloaded: int = 0
    already_there: int = 0
    bars: int = 0
    quarantined: int = 0
    bad_symbols: tuple[str, ...] = ()
    empty: tuple[str, ...] = ()


def fetch(
    stored: StoredBars,
    source: AlpacaBars,
    symbols: Sequence[str],
    sessions: Sequence[Session],
    clock: Clock,
    session_done: Callable[[int], None],
) -> Fetched:
    """Download the sessions' bars of the symbols that are not there yet; each session is stored as a whole.

    A session that has not settled is stored as far as it goes and asked for again the next time. Raises AlpacaRefused
    and AlpacaUnreachable; what was stored before stays.
    """
    done = Fetched()
    universe = _universe(symbols)
    memory = PriceMemory.empty(len(universe))
    for before in sessions_between(sessions[0].day - REMEMBERED, sessions[0].day - timedelta(days=1)):
        memory = _after(memory, stored.rows(before.day), universe)
    with_bars: set[str] = set()
    for session in sessions:
        wanted = sorted(set(symbols) - stored.fetched(session.day) - source.bad_symbols)
        if wanted:
            rows = source.bars(wanted, session.open, session.close)
            good, memory = _good(rows, session, stored.length, universe, memory)
            settled = clock.now() >= session.close + SETTLED_AFTER
            complete = set(wanted) - source.bad_symbols if settled else set()
            done.bars += stored.merge(session, rows.take(good), complete)
            done.quarantined += int((~good).sum())
            done.downloaded += 1
        else:
            done.already_there += 1
        there = stored.rows(session.day)
        memory = _after(memory, there, universe)
        with_bars |= set(there.symbols)
        session_done(1)
    done.bad_symbols = tuple(sorted(source.bad_symbols))
    done.empty = tuple(sorted(set(symbols) - with_bars - source.bad_symbols))
    return done


def _universe(symbols: Sequence[str]) -> Universe:
    names, unknown = tuple(sorted(set(symbols))), ("",) * len(set(symbols))
    return Universe(names, unknown, unknown, (True,) * len(names), index=None)


def _after(memory: PriceMemory, rows: BarRows, universe: Universe) -> PriceMemory:
    """The memory after stored bars of a session, of which the last of each symbol counts."""
    last = rows.take(np.diff(rows.codes, append=-1) != 0)
    close_of = {last.symbols[code]: close for code, close in zip(last.codes, last.values[3], strict=True)}
    stored = np.array([close_of.get(symbol, np.nan) for symbol in universe.symbols])
    return replace(memory, last_good=np.where(np.isnan(stored), memory.last_good, stored))


def _good(
    rows: BarRows, session: Session, length: timedelta, universe: Universe, memory: PriceMemory
) -> tuple[Mask, PriceMemory]:
    """Which rows are no bad prints, judged minute by minute as they would have been live."""
    bars = SessionBars(session, length, universe, rows.matrix(session, length, universe))
    refused = np.zeros(bars.values.shape[1:], dtype=bool)
    for number, batch in enumerate(bars.batches()):
        _, memory, refused[number] = quarantine(batch, memory)
    columns = np.array([universe.symbols.index(symbol) for symbol in rows.symbols], dtype=np.int64)[rows.codes]
    minutes = (rows.starts - microseconds(session.open)) // (length // timedelta(microseconds=1))
    return ~refused[minutes, columns], memory
