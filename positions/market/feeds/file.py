"""The feed that replays bars from a file, with a market index, VIX closes and sectors from files beside it.

Bars are labelled by their start. Everything is read and checked when the feed is made, so that nothing is written
before all files are known to be good; sessions are then built one at a time.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from positions.market.bar_files import StoredFile, joined, session_files
from positions.market.bars import FIELDS, Floats, SessionBars, Universe
from positions.market.calendar import Session, session_of
from positions.market.feeds import VixHistory
from positions.market.feeds.reading import BadBars, Mask, Table, Whole
from positions.words import Feed

__all__ = ["INDEX", "BadBars", "FileFeed"]

#: The pseudo-symbol of a market index that is not itself in the bars.
INDEX = "^INDEX"

PRICES = ("open", "high", "low", "close")
LENGTHS = (timedelta(minutes=1), timedelta(minutes=5))
INDEX_START = 1000.0

#: Real files hold float32 prices: an open may lie this far, relative, outside its bar's range.
ROUNDING = 1e-6
PRICE_DECIMALS = 4
#: The widest values that the tables hold.
HIGHEST_PRICE, LONGEST_SYMBOL, LONGEST_SECTOR = 1e8, 16, 64

_EPOCH = date(1970, 1, 1)
_DAY = timedelta(days=1) // timedelta(microseconds=1)


class FileFeed:
    """Replays 1- or 5-minute bars of regular New York sessions (a `ReplayFeed`).

    They come from a CSV or Parquet file, or from a folder of stored sessions (see StoredBars) as they were first seen.
    A file has the columns symbol, timestamp (the bar's start, with a time zone), open, high, low, close, volume and
    perhaps vwap; each symbol's bars are in order of time. `market` has timestamp, ew_index and pct_above_vwap, and adds
    the pseudo-symbol ^INDEX; without it the index is SPY, else QQQ, else ^INDEX made from the mean return of the
    tradable symbols. `vix` has date and close, one row a day. `symbols` has symbol, kind, gics_sector and sector_etf;
    only a `stock` is tradable. `universe` is given instead of `market` and `symbols`; bars of other symbols are left
    out. Without `first` every session is traded; with it, earlier ones only warm up.

    `skipped_rows` counts bad rows left out (of all files), `outside_session` the bars outside regular sessions, which
    are left out; `inputs_sha256` names the contents of the files. Raises BadBars.
    """

    def __init__(
        self,
        bars: Path,
        market: Path | None = None,
        vix: Path | None = None,
        symbols: Path | None = None,
        first: date | None = None,
        last: date | None = None,
        skip_bad_rows: bool = False,
        revised: bool = False,
        universe: Universe | None = None,
    ) -> None:
        self.name = Feed.FILE
        self._first = first
        skipped = 0
        if bars.is_dir():
            self._bars, self.name = _read_stored(bars, first, last, revised)
        else:
            self._bars, skipped = _read_bars(bars, first, last, skip_bad_rows)
        self.length = self._bars.length
        self.outside_session = self._bars.outside_session
        self._listing: dict[str, _Listing] | None = None
        self._market: _Market | None = None
        self.vix: VixHistory | None = None
        if symbols:
            self._listing, bad = _read_symbols(symbols, skip_bad_rows)
            skipped += bad
        if market:
            self._market, bad = _read_market(market, self._bars, skip_bad_rows)
            skipped += bad
        if vix:
            self.vix, bad = _read_vix(vix, skip_bad_rows)
            skipped += bad
        self.skipped_rows = skipped
        self.universe = universe or _universe(self._bars.symbols, self._listing, has_market=market is not None)
        inputs = {"bars": self._bars if bars.is_dir() else bars, "market": market, "vix": vix, "symbols": symbols}
        self.inputs_sha256 = _sha256(inputs)

    @property
    def session_count(self) -> int:
        """Sessions that are traded, without those that only warm up."""
        return sum(self._is_traded(session) for session in self._bars.sessions)

    def _is_traded(self, session: Session) -> bool:
        return self._first is None or session.day >= self._first

    def sessions(self) -> Iterator[tuple[SessionBars, bool]]:
        equal_weight = _EqualWeight(self.universe)
        for number, session in enumerate(self._bars.sessions):
            values = self._bars.matrix(number, self.universe.symbols)
            share = None
            if self.universe.symbols[-1] == INDEX:
                if self._market is not None:
                    level, share = self._market.of(session, self.length)
                else:
                    level = equal_weight.of(values[FIELDS.index("close")])
                values[: len(PRICES), :, -1] = level
                values[FIELDS.index("volume"), :, -1] = np.where(np.isfinite(level), 0.0, np.nan)
            yield SessionBars(session, self.length, self.universe, values, share), self._is_traded(session)


@dataclass(frozen=True, slots=True)
class _Bars:
    """All bars of the sessions, sorted by time: `values` (5 or 6, n), `times` in microseconds, `codes` of symbols.

    Session i has the rows from `bounds[i]` to `bounds[i + 1]`.
    """

    symbols: tuple[str, ...]
    sessions: list[Session]
    bounds: Whole
    length: timedelta
    times: Whole
    codes: Whole
    values: Floats
    outside_session: int

    def matrix(self, number: int, symbols: tuple[str, ...]) -> Floats:
        """One session of the symbols as (6, bars, symbols), NaN where there is no bar."""
        session = self.sessions[number]
        rows = slice(self.bounds[number], self.bounds[number + 1])
        matrix = np.full((len(FIELDS), (session.close - session.open) // self.length, len(symbols)), np.nan)
        bar = (self.times[rows] - _microseconds(session.open)) // _span(self.length)
        row_of = {symbol: row for row, symbol in enumerate(symbols)}
        column = np.array([row_of.get(symbol, -1) for symbol in self.symbols], dtype=np.int64)[self.codes[rows]]
        wanted = column >= 0
        matrix[: len(self.values), bar[wanted], column[wanted]] = self.values[:, rows][:, wanted]
        return matrix

    def sha256(self) -> str:
        total = hashlib.sha256("\n".join(self.symbols).encode())
        for array in (self.times, self.codes, self.values):
            total.update(array.tobytes())
        return total.hexdigest()


@dataclass(frozen=True, slots=True)
class _Market:
    times: Whole
    level: Floats
    share_above_vwap: Floats

    def of(self, session: Session, length: timedelta) -> tuple[Floats, Floats]:
        """Level and share at the end of each bar of a session: those of the last minute that lies within the bar."""
        opened, closed = _microseconds(session.open), _microseconds(session.close)
        rows = slice(*np.searchsorted(self.times, [opened, closed]))
        bar = (self.times[rows] - opened) // _span(length)
        level, share = np.full((2, (session.close - session.open) // length), np.nan)
        level[bar], share[bar] = self.level[rows], self.share_above_vwap[rows]
        return level, share


@dataclass(frozen=True, slots=True)
class _Listing:
    sector: str
    sector_etf: str
    tradable: bool


class _EqualWeight:
    """An index of the tradable symbols: their mean return since each one's last close, cumulated from 1000."""

    def __init__(self, universe: Universe) -> None:
        self._members = np.flatnonzero(universe.tradable)
        self._last_close = np.full(len(self._members), np.nan)
        self._level = INDEX_START

    def of(self, close: Floats) -> Floats:
        """The level at the end of each bar (bars,) of the next session, whose closes are (bars, symbols)."""
        closes = np.vstack([self._last_close, close[:, self._members]])
        known = np.isfinite(closes)
        latest = np.maximum.accumulate(np.where(known, np.arange(len(closes))[:, None], 0), axis=0)
        filled = np.take_along_axis(closes, latest, axis=0)
        returns = np.where(known[1:] & np.isfinite(filled[:-1]), closes[1:] / filled[:-1] - 1, np.nan)
        counted = np.isfinite(returns)
        mean = np.where(counted, returns, 0.0).sum(axis=1) / np.maximum(counted.sum(axis=1), 1)
        level = self._level * np.cumprod(1 + mean)
        self._level, self._last_close = float(level[-1]), filled[-1]
        return np.where(known[1:].any(axis=1), level, np.nan)


def _read_bars(path: Path, first: date | None, last: date | None, skip: bool) -> tuple[_Bars, int]:
    table = Table(path, ("symbol", "timestamp", *PRICES, "volume"), ("vwap",), skip)
    codes, symbols = table.text("symbol")
    table.refuse(~_named(symbols)[codes], "symbol", f"must have 1 to {LONGEST_SYMBOL} characters and not be {INDEX}")
    times = table.times("timestamp")
    values = _read_values(table)
    sessions, row_session, inside = _place(table, times)
    table.refuse_disorder(codes, times, "timestamp")
    table.settle()
    length = _length(table, codes, times)
    table.refuse(times % _span(length) != 0, "timestamp", f"must lie on the {length.seconds // 60}-minute grid")
    table.settle()

    kept = table.good & inside
    outside = int(table.good.sum() - kept.sum())
    if last is not None:
        kept &= np.array([session.day <= last for session in sessions])[row_session]
    days = [sessions[i].day for i in np.unique(row_session[kept])]
    if not any(first is None or day >= first for day in days):
        wanted = f"from {first or 'the start'} to {last or 'the end'}"
        raise table.bad_file(f"no bar within a regular session {wanted}; its times must be starts of bars, and UTC")

    rows = np.flatnonzero(kept)
    rows = rows[np.argsort(times[rows], kind="stable")]
    used, codes = np.unique(codes[rows], return_inverse=True)
    numbers, bounds = np.unique(row_session[rows], return_index=True)
    bars = _Bars(
        symbols=tuple(symbols[i] for i in used),
        sessions=[sessions[i] for i in numbers],
        bounds=np.append(bounds, len(rows)),
        length=length,
        times=times[rows],
        codes=codes,
        values=values[:, rows],
        outside_session=outside,
    )
    return bars, table.skipped


def _read_stored(folder: Path, first: date | None, last: date | None, revised: bool) -> tuple[_Bars, Feed]:
    """Bars that were checked when they were stored, with the feed that they came from."""
    files = [StoredFile(path) for path in session_files(folder)]
    files = [file for file in files if last is None or file.day <= last]
    if not any(len(file.rows) and (first is None or file.day >= first) for file in files):
        wanted = f"from {first or 'the start'} to {last or 'the end'}"
        raise BadBars(f"{folder}: no stored session (YYYY-MM-DD.parquet) with bars {wanted}; see fetch_bars")
    kinds = {(file.feed, file.length) for file in files}
    if len(kinds) > 1:
        raise BadBars(f"{folder}: sessions of several feeds or bar lengths; keep each in a folder of its own")
    [(feed, length)] = kinds
    sessions = [session for file in files if (session := session_of(file.day)) is not None]
    rows = joined(file.rows.revised() if revised else file.rows.first_seen() for file in files)
    rows = rows.take(np.argsort(rows.starts, kind="stable"))
    opened = [_microseconds(session.open) for session in sessions]
    bounds = np.append(np.searchsorted(rows.starts, opened), len(rows))
    return _Bars(rows.symbols, sessions, bounds, length, rows.starts, rows.codes, rows.values, 0), feed


def _read_values(table: Table) -> Floats:
    """Checked values of all rows, (5 or 6, n) in the order of FIELDS; prices rounded to undo float32."""
    prices = {column: np.round(table.numbers(column), PRICE_DECIMALS) for column in PRICES}
    for column, price in prices.items():
        table.refuse(~((price > 0) & (price < HIGHEST_PRICE)), column, "must be a price above 0 and below 100 million")
    high, low = prices["high"], prices["low"]
    table.refuse(high < low * (1 - ROUNDING), "high", "must not be below low")
    for column in ("open", "close"):
        price = prices[column]
        beyond = (price > high * (1 + ROUNDING)) | (price < low * (1 - ROUNDING))
        table.refuse(beyond, column, "must lie between low and high")
    volume = table.numbers("volume")
    table.refuse(volume < 0, "volume", "must not be negative")
    values = [*prices.values(), volume]
    if "vwap" in table:
        vwap = np.round(table.numbers("vwap", may_lack=True), PRICE_DECIMALS)
        table.refuse(vwap <= 0, "vwap", "must be positive")
        values.append(vwap)
    return np.stack(values)


def _place(table: Table, times: Whole) -> tuple[list[Session], Whole, Mask]:
    """The sessions of the dates in `times`, which of them each row is on (-1: none), and whether it is inside it.

    A regular session lies within one UTC date, which is its New York date too.
    """
    days, row_day = np.unique(np.where(table.good, times, 0) // _DAY, return_inverse=True)
    sessions: list[Session] = []
    session_of_day = np.full(len(days), -1)
    unknown = np.zeros(len(days), dtype=bool)
    for i, day in enumerate(days):
        try:
            session = session_of(_EPOCH + timedelta(days=int(day)))
        except (ValueError, OverflowError):
            unknown[i] = True
            continue
        if session is not None:
            session_of_day[i] = len(sessions)
            sessions.append(session)
    table.refuse(unknown[row_day], "timestamp", "must be a date that the exchange calendar knows")
    opened = np.array([*(_microseconds(session.open) for session in sessions), 0])
    closed = np.array([*(_microseconds(session.close) for session in sessions), 0])
    row_session = session_of_day[row_day]
    return sessions, row_session, (times >= opened[row_session]) & (times < closed[row_session])


def _length(table: Table, groups: Whole, times: Whole) -> timedelta:
    """The commonest distance between neighbouring bars of a symbol, which must be 1 or 5 minutes."""
    rows = np.flatnonzero(table.good)
    rows = rows[np.lexsort((times[rows], groups[rows]))]
    distances = np.diff(times[rows])[np.diff(groups[rows]) == 0]
    if not len(distances):
        raise table.bad_file("one bar a symbol is too little to tell the length of a bar; give more bars")
    found, counts = np.unique(distances, return_counts=True)
    length = timedelta(microseconds=int(found[counts.argmax()]))
    if length not in LENGTHS:
        raise table.bad_file(f"its bars are {length} apart; only 1- and 5-minute bars can be replayed")
    return length


def _read_market(path: Path, bars: _Bars, skip: bool) -> tuple[_Market, int]:
    table = Table(path, ("timestamp", "ew_index", "pct_above_vwap"), skip=skip)
    times = table.times("timestamp")
    level = table.numbers("ew_index")
    table.refuse(~((level > 0) & (level < HIGHEST_PRICE)), "ew_index", "must be above 0 and below 100 million")
    share = table.numbers("pct_above_vwap", may_lack=True)
    table.refuse((share < 0) | (share > 1), "pct_above_vwap", "must be a share from 0 to 1")
    one_group = np.zeros(len(times), dtype=np.int64)
    table.refuse_disorder(one_group, times, "timestamp")
    table.settle()
    length = _length(table, one_group, times)
    if length > bars.length:
        raise table.bad_file(f"its levels are {length} apart, the bars {bars.length}; give levels for every bar")
    table.refuse(times % _span(length) != 0, "timestamp", f"must lie on the {length.seconds // 60}-minute grid")
    table.settle()
    market = _Market(times[table.good], level[table.good], share[table.good])
    if not any(np.isfinite(market.of(session, bars.length)[0]).any() for session in bars.sessions):
        raise table.bad_file("no level within the sessions of the bars; give the market file of the same dates")
    return market, table.skipped


def _read_vix(path: Path, skip: bool) -> tuple[VixHistory, int]:
    table = Table(path, ("date", "close"), skip=skip)
    days, close = table.dates("date"), table.numbers("close")
    table.refuse(close <= 0, "close", "must be positive")
    table.refuse_disorder(np.zeros(len(days), dtype=np.int64), days, "date")
    table.settle()
    dates = tuple(_EPOCH + timedelta(days=int(day)) for day in days[table.good])
    return VixHistory(dates, close[table.good], "cboe"), table.skipped


def _read_symbols(path: Path, skip: bool) -> tuple[dict[str, _Listing], int]:
    table = Table(path, ("symbol", "kind", "gics_sector", "sector_etf"), skip=skip)
    codes, symbols = table.text("symbol")
    table.refuse(~_named(symbols)[codes], "symbol", f"must have 1 to {LONGEST_SYMBOL} characters and not be {INDEX}")
    texts: dict[str, NDArray[np.object_]] = {}
    for column, longest in (("kind", LONGEST_SECTOR), ("gics_sector", LONGEST_SECTOR), ("sector_etf", LONGEST_SYMBOL)):
        text_codes, distinct = table.text(column)
        too_long = np.array([len(text) > longest for text in distinct])
        table.refuse(too_long[text_codes], column, f"must have at most {longest} characters")
        texts[column] = np.array(distinct, dtype=object)[text_codes]
    table.refuse(texts["kind"] == "", "kind", "must say what it is (stock, etf, index, ...)")
    table.refuse_disorder(codes, np.zeros(len(codes), dtype=np.int64), "symbol")
    table.settle()
    listing = {
        symbols[codes[row]]: _Listing(
            sector=texts["gics_sector"][row],
            sector_etf=texts["sector_etf"][row],
            tradable=texts["kind"][row] == "stock",
        )
        for row in np.flatnonzero(table.good)
    }
    return listing, table.skipped


def _universe(symbols: tuple[str, ...], listing: dict[str, _Listing] | None, *, has_market: bool) -> Universe:
    unlisted = _Listing("", "", tradable=True)
    entries = [(listing or {}).get(symbol, unlisted) for symbol in symbols]
    index = next((symbols.index(symbol) for symbol in ("SPY", "QQQ") if symbol in symbols), None)
    if has_market or (index is None and any(entry.tradable for entry in entries)):
        index = len(symbols)
        symbols = (*symbols, INDEX)
        entries.append(_Listing("", "", tradable=False))
    return Universe(
        symbols=symbols,
        sectors=tuple(entry.sector for entry in entries),
        sector_etfs=tuple(entry.sector_etf for entry in entries),
        tradable=tuple(entry.tradable for entry in entries),
        index=index,
    )


def _named(symbols: list[str]) -> Mask:
    return np.array([0 < len(symbol) <= LONGEST_SYMBOL and symbol != INDEX for symbol in symbols], dtype=bool)


def _sha256(inputs: dict[str, Path | _Bars | None]) -> str:
    """A hash of the contents of the given files, or bars, and of what each was given as."""
    total = hashlib.sha256()
    for role, given in inputs.items():
        if isinstance(given, _Bars):
            total.update(f"{role} {given.sha256()}\n".encode())
        elif given is not None:
            with given.open("rb") as file:
                total.update(f"{role} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()


def _microseconds(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def _span(length: timedelta) -> int:
    return length // timedelta(microseconds=1)
