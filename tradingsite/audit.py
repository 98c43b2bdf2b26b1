"""Were a session's stored features what the stored bars say? Computed again by the same code, compared one by one."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date

from django.utils.module_loading import import_string

from ml.feature_extractor import FeatureExtractor, Value
from ml.features import FEATURES
from ml.models import TradeFeatures
from positions.history import TradeHistory
from positions.market.bars import BarHistory, SessionBars
from positions.market.feeds import ReplayFeed
from positions.market.indicators import IndicatorBank
from positions.market.market_regime import MarketState
from positions.models import Instruction, Trade
from positions.strategy import Signal, Strategy
from positions.words import InstructionKind, TradeStatus

#: Relative to the value where that is above one.
TOLERANCE = 1e-9


class NothingToAudit(Exception):
    """There are no stored features of the session, or no bars of it."""


@dataclass(frozen=True)
class FeatureAudit:
    """One feature over the session's signals. `late` counts values that were right by the bars as first seen and would
    be others by the bars as corrected since; `example` names a signal that differs, with both values."""

    feature: str
    equal: int
    differs: int
    late: int
    example: tuple[str, Value, Value] | None


@dataclass(frozen=True)
class Audit:
    """`unexplained` are stored signals that the bars do not give again; `by_api` counts those left out of everything
    else, because a program gave them and not the strategy."""

    signals: int
    by_api: int
    features: list[FeatureAudit]
    unexplained: list[str]

    @property
    def clean(self) -> bool:
        return not self.unexplained and not any(feature.differs for feature in self.features)


def audit(
    book: str,
    day: date,
    strategy: str,
    first_seen: ReplayFeed,
    revised: ReplayFeed | None,
    session_read: Callable[[int], None] = lambda sessions: None,
) -> Audit:
    """Compare a session's stored features with those of its bars; `revised` has the same bars as corrected since.

    `session_read` is called with 1 after each session of either. Raises NothingToAudit.
    """
    names = [feature.name for feature in FEATURES]
    rows = {
        key: dict(zip(names, values, strict=True))
        for key, *values in TradeFeatures.objects.filter(book=book, session=day).values_list("signal_key", *names)
    }
    if not rows:
        raise NothingToAudit(f"book {book} has no features of {day}")
    by_api = Instruction.objects.filter(book=book, kind=InstructionKind.SIGNAL, signal_key__in=rows)
    stored = {key: rows[key] for key in rows.keys() - set(by_api.values_list("signal_key", flat=True))}
    if not stored:
        raise NothingToAudit(f"every signal of book {book} on {day} came by the API")
    known = recomputed(book, day, strategy, first_seen, session_read)
    later = recomputed(book, day, strategy, revised, session_read) if revised is not None else known
    both = sorted(stored.keys() & known.keys())
    features = []
    for name in names:
        differing = [key for key in both if not _same(stored[key][name], known[key][name])]
        late = [
            key
            for key in both
            if _same(stored[key][name], known[key][name])
            and key in later
            and not _same(known[key][name], later[key][name])
        ]
        example = (differing[0], stored[differing[0]][name], known[differing[0]][name]) if differing else None
        equal = len(both) - len(differing) - len(late)
        features.append(FeatureAudit(name, equal, len(differing), len(late), example))
    return Audit(len(stored), len(rows) - len(stored), features, sorted(stored.keys() - known.keys()))


def _same(one: Value, other: Value) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) <= TOLERANCE * max(1.0, abs(one))
    return one == other


def recomputed(
    book: str, day: date, strategy: str, feed: ReplayFeed, session_read: Callable[[int], None]
) -> dict[str, dict[str, Value]]:
    """The features of every signal that a session's bars give, by signal key; history from the book's closed trades.

    Raises NothingToAudit where the feed has no bars of the day.
    """
    bars, past = _session(feed, day, session_read)
    bank = IndicatorBank(feed.universe)
    market, history = MarketState(bank), TradeHistory()
    extractor = FeatureExtractor(bank, market, history)
    extractor.vix = feed.vix.before(day) if feed.vix else None
    for trade in Trade.objects.filter(book=book, status=TradeStatus.CLOSED, session__lte=day):
        history.add(trade)
    signals = _signals(import_string(strategy)(), bank, market, bars, past)
    return {signal.key: extractor.extract(signal).values for signal in signals}


def _session(feed: ReplayFeed, day: date, session_read: Callable[[int], None]) -> tuple[SessionBars, BarHistory]:
    past = BarHistory()
    for bars, _ in feed.sessions():
        if bars.session.day == day:
            return bars, past
        past.append(bars)
        session_read(1)
    raise NothingToAudit(f"the bars do not have the session of {day}")


def _signals(
    strategy: Strategy, bank: IndicatorBank, market: MarketState, bars: SessionBars, past: BarHistory
) -> Iterator[Signal]:
    bank.open_session(bars.session, bars.length, past)
    market.open_session()
    for batch in bars.batches():
        bank.update(batch)
        market.update()
        yield from strategy.signals(bank)
