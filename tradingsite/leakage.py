"""Does any feature know the future? Alter what comes after a moment, run the session again, compare every byte before.

The same altered sessions are shown to features that do look ahead (planted leaks): a check that does not catch each of
them proves nothing.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime

import numpy as np

from ml.feature_extractor import FeatureExtractor, Value
from ml.features import FEATURES
from ml.progress import Progress, quiet
from positions.broker.exchange import SimulatedExchange
from positions.clock import ReplayClock
from positions.history import TradeHistory
from positions.loop import TradingLoop
from positions.market.bars import FIELDS, BarHistory, Floats, SessionBars
from positions.market.feeds import ReplayFeed, VixHistory
from positions.market.indicators import IndicatorBank
from positions.models import Trade
from positions.store import MemoryStore
from positions.strategy import Opinion, Signal
from positions.words import Outcome
from tradingsite.replaying import ReplayOptions, replay_session, wire

OPEN, HIGH, LOW, CLOSE, VOLUME, VWAP = range(len(FIELDS))


#: Nothing is stored, so there is no book; no stored one has this name.
NO_BOOK = "replay:"


@dataclass(frozen=True)
class Run:
    """What one session came to: its signals in order with their features, and the trades that closed in it."""

    bars: SessionBars
    vix: VixHistory | None
    signals: list[Signal]
    features: dict[str, dict[str, Value]]
    closed: list[Trade]


@dataclass(frozen=True)
class Start:
    """Everything a session's run depends on besides its bars."""

    past: BarHistory
    history: TradeHistory


@dataclass(frozen=True)
class Leak:
    feature: str
    signal_key: str
    alteration: str
    before: Value
    after: Value


@dataclass(frozen=True)
class Report:
    """`compared` counts feature values; `caught` says at how many points each planted leak was found, of `points`.

    `not_planted` names the leaks for which the data has nothing to leak (no VIX, no trade that closed).
    """

    points: int
    compared: int
    leaks: list[Leak]
    caught: Mapping[str, int]
    not_planted: list[str]

    @property
    def clean(self) -> bool:
        """No feature leaks, and every planted leak was found."""
        return not self.leaks and all(self.caught.values())


class _Recorder:
    """An adviser that lets every signal through and keeps what was known at it."""

    def __init__(self, extractor: FeatureExtractor) -> None:
        self._extractor = extractor
        self.signals: list[Signal] = []
        self.features: dict[str, dict[str, Value]] = {}

    def on_signal(self, signal: Signal, bank: IndicatorBank) -> Opinion:
        self.signals.append(signal)
        self.features[signal.key] = self._extractor.extract(signal).values
        return Opinion(take=True)

    def on_decision(self, signal: Signal, not_taken_reason: str) -> None:
        """What becomes of a signal is not looked at here."""


def run_session(
    feed: ReplayFeed, options: ReplayOptions, start: Start, bars: SessionBars, vix: VixHistory | None
) -> tuple[Run, TradeHistory]:
    """One session from its start, in memory; also returns the history as it stands at its end."""
    exchange = SimulatedExchange(feed.universe, cost_per_share=options.exits.cost_per_share)
    clock = ReplayClock(datetime.min.replace(tzinfo=UTC))
    wired = wire(NO_BOOK, feed.name, feed.universe, options, exchange, MemoryStore(NO_BOOK), clock)
    extractor = FeatureExtractor(wired.desk.bank, wired.desk.market, copy.deepcopy(start.history))
    extractor.vix = vix.before(bars.session.day) if vix else None
    recorder, closed = _Recorder(extractor), list[Trade]()
    desk = replace(wired.desk, adviser=recorder)
    desk.execution.closed_listeners[:] = [closed.append, extractor.history.add]
    replay_session(TradingLoop(desk), start.past, exchange, clock, bars)
    return Run(bars, vix, recorder.signals, recorder.features, closed), extractor.history


# -- what is done to the future


def _future(bars: SessionBars, after: datetime) -> slice:
    return slice(int(np.ceil((after - bars.session.open) / bars.length)), None)


def _rescaled(bars: SessionBars, after: datetime, random: np.random.Generator) -> SessionBars:
    """Other prices, other volumes."""
    values, future = bars.values.copy(), _future(bars, after)
    tail = values[:, future]
    tail[[OPEN, HIGH, LOW, CLOSE, VWAP]] *= 1.05 + 0.02 * random.random(tail.shape[2])
    tail[VOLUME] *= 3.0
    return _with(bars, values, future, lambda share: 1.0 - share)


def _truncated(bars: SessionBars, after: datetime, random: np.random.Generator) -> SessionBars:
    """No bar at all."""
    values, future = bars.values.copy(), _future(bars, after)
    values[:, future] = np.nan
    return _with(bars, values, future, lambda share: np.full_like(share, np.nan))


def _shuffled(bars: SessionBars, after: datetime, random: np.random.Generator) -> SessionBars:
    """The same bars in another order."""
    values, future = bars.values.copy(), _future(bars, after)
    order = random.permutation(values[:, future].shape[1])
    values[:, future] = values[:, future][:, order]
    return _with(bars, values, future, lambda share: share[order])


def _with(bars: SessionBars, values: Floats, future: slice, change: Callable[[Floats], Floats]) -> SessionBars:
    share = bars.share_above_vwap
    if share is not None:
        share = share.copy()
        share[future] = change(share[future])
    return replace(bars, values=values, share_above_vwap=share)


ALTERATIONS = {"rescaled": _rescaled, "truncated": _truncated, "shuffled": _shuffled}


def _altered_vix(vix: VixHistory | None, day: date) -> VixHistory | None:
    """Other closes from the session's own day on."""
    if vix is None:
        return None
    known = np.array([each < day for each in vix.days])
    return replace(vix, closes=np.where(known, vix.closes, 2.0 * vix.closes))


# -- features that look ahead, each computed from a whole session


def _column(run: Run, signal: Signal, quantity: int) -> tuple[Floats, int]:
    """A symbol's values of the session where it has bars, and the place of the signal's bar among them."""
    values = run.bars.values[:, :, signal.row]
    bar = int((signal.at - run.bars.session.open) / run.bars.length) - 1
    known = np.isfinite(values[CLOSE])
    return values[quantity][known], int(known[: bar + 1].sum()) - 1


def _same_day_vix(run: Run, signal: Signal) -> float | None:
    if run.vix is None or signal.session not in run.vix.days:
        return None
    return float(run.vix.closes[run.vix.days.index(signal.session)])


def _whole_day_volume_mean(run: Run, signal: Signal) -> float:
    volume, at = _column(run, signal, VOLUME)
    return float(volume[at] / volume.mean())


def _whole_sample_z_score(run: Run, signal: Signal) -> float:
    close, at = _column(run, signal, CLOSE)
    return float((close[at] - close.mean()) / close.std())


def _centred_mean(run: Run, signal: Signal) -> float:
    close, at = _column(run, signal, CLOSE)
    return float(close[max(0, at - 5) : at + 6].mean())


def _day_high(run: Run, signal: Signal) -> float:
    high, _ = _column(run, signal, HIGH)
    return float(high.max())


def _next_close(run: Run, signal: Signal) -> float | None:
    close, at = _column(run, signal, CLOSE)
    return float(close[at + 1]) if at + 1 < len(close) else None


def _unfinished_five_minute_bar(run: Run, signal: Signal) -> float:
    """The high of the clock's five-minute bar that the signal's bar lies in, finished or not."""
    bar = int((signal.at - run.bars.session.open) / run.bars.length) - 1
    first = bar - bar % 5
    return float(np.nanmax(run.bars.values[HIGH, first : first + 6, signal.row]))


def _win_rate_with_open_trades(run: Run, signal: Signal) -> float | None:
    entered = [trade for trade in run.closed if trade.signal_at < signal.at]
    return sum(trade.outcome == Outcome.WIN for trade in entered) / len(entered) if entered else None


def _streak_with_the_trade_itself(run: Run, signal: Signal) -> float | None:
    own = [trade for trade in run.closed if trade.signal_key == signal.key]
    return float(own[0].r_multiple or 0.0) if own else None


PLANTED: dict[str, Callable[[Run, Signal], float | None]] = {
    "same-day VIX close": _same_day_vix,
    "whole-day volume mean": _whole_day_volume_mean,
    "whole-sample z-score": _whole_sample_z_score,
    "centred mean": _centred_mean,
    "day high": _day_high,
    "next close": _next_close,
    "unfinished 5-minute bar": _unfinished_five_minute_bar,
    "win rate counting open trades": _win_rate_with_open_trades,
    "streak counting the trade itself": _streak_with_the_trade_itself,
}


def check(
    feed: ReplayFeed,
    options: ReplayOptions,
    points: int,
    seed: int = 0,
    progress: Progress = quiet,
    extractor: Callable[[Run, Signal], Mapping[str, Value]] | None = None,
) -> Report:
    """Check every feature of every signal up to `points` moments, each in three alterations by turns.

    A moment is a signal's own, drawn at random over all sessions; `progress` hears of each, and before that of each
    session. `extractor` adds features to those that are checked, computed from a whole run: for tests of the check
    itself. Raises ValueError where the bars give no signal at all.
    """
    random = np.random.default_rng(seed)
    runs = list(_baseline(feed, options, progress))
    moments = [(number, signal) for number, (_, run) in enumerate(runs) for signal in run.signals]
    if not moments:
        raise ValueError("the bars give no signal, so there is nothing to check")
    chosen = random.choice(len(moments), size=points, replace=points > len(moments))
    leaks: list[Leak] = []
    possible = {
        name: leak
        for name, leak in PLANTED.items()
        if any(leak(run, signal) is not None for _, run in runs for signal in run.signals)
    }
    caught = dict.fromkeys(possible, 0)
    compared = 0
    for turn, pick in enumerate(chosen.tolist()):
        number, at = moments[pick]
        start, honest = runs[number]
        name = list(ALTERATIONS)[turn % len(ALTERATIONS)]
        bars = ALTERATIONS[name](honest.bars, at.at, random)
        other, _ = run_session(feed, options, start, bars, _altered_vix(honest.vix, bars.session.day))
        until = [signal for signal in honest.signals if signal.at <= at.at]
        for signal in until:
            found = _differences(honest, other, signal, name, extractor)
            leaks += found
            compared += len(FEATURES)
        for planted, leak in possible.items():
            caught[planted] += any(leak(honest, signal) != leak(other, signal) for signal in until)
        progress(1)
    return Report(points, compared, leaks, caught, sorted(set(PLANTED) - set(possible)))


def _baseline(feed: ReplayFeed, options: ReplayOptions, progress: Progress) -> Iterator[tuple[Start, Run]]:
    past, history = BarHistory(), TradeHistory()
    for bars, trading in feed.sessions():
        if trading:
            start = Start(copy.copy(past), history)
            run, history = run_session(feed, options, start, bars, feed.vix)
            yield start, run
        past.append(bars)
        progress(1)


def _differences(
    honest: Run,
    other: Run,
    signal: Signal,
    alteration: str,
    extractor: Callable[[Run, Signal], Mapping[str, Value]] | None,
) -> list[Leak]:
    if signal.key not in other.features:
        return [Leak("(the signal itself)", signal.key, alteration, "given", "not given")]
    before, after = honest.features[signal.key], other.features[signal.key]
    if extractor is not None:
        before, after = {**before, **extractor(honest, signal)}, {**after, **extractor(other, signal)}
    return [
        Leak(name, signal.key, alteration, value, after[name]) for name, value in before.items() if value != after[name]
    ]


def by_feature(leaks: Sequence[Leak]) -> dict[str, list[Leak]]:
    grouped: dict[str, list[Leak]] = {}
    for leak in leaks:
        grouped.setdefault(leak.feature, []).append(leak)
    return grouped
