"""What the exit rules are worth on your own bars: replays under other exit settings, compared trade by trade."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from ml.impact import Effect, Impact, dollars_at_risk, effect, impact
from ml.statistics import Interval, clustered_interval, mean
from positions.broker.exchange import SimulatedExchange
from positions.clock import ReplayClock
from positions.loop import TradingLoop
from positions.market.bars import BarHistory
from positions.market.feeds import ReplayFeed
from positions.market.indicators import IndicatorBank
from positions.models import Trade
from positions.rules import ExitSettings
from positions.store import MemoryStore
from positions.strategy import Opinion, Signal
from positions.words import VolumeReference
from tradingsite.replaying import ReplayOptions, replay_session, wire

#: A book that nothing is written to: all of this happens in memory.
NO_BOOK = "replay:comparison"
#: The switches of the exit settings: a rule that is added is compared too.
SWITCHES = tuple(field.name for field in fields(ExitSettings) if field.type is bool)


@dataclass(frozen=True, slots=True)
class Variant:
    name: str
    exits: ExitSettings


def variants(exits: ExitSettings) -> list[Variant]:
    """The settings in force, no rule, each rule alone, and other thresholds of the rules that are on."""
    off: dict[str, Any] = dict.fromkeys(SWITCHES, False)
    other = VolumeReference.PROFILE if exits.low_volume_reference == VolumeReference.ENTRY else VolumeReference.ENTRY
    thresholds = [
        ("low_volume", "low_volume below 0.4", replace(exits, low_volume_fraction=0.4)),
        ("low_volume", "low_volume below 0.6", replace(exits, low_volume_fraction=0.6)),
        ("low_volume", f"low_volume by {other}", replace(exits, low_volume_reference=other)),
        ("time_limit", "time_limit 10 min", replace(exits, time_limit_minutes=10.0)),
        ("time_limit", "time_limit 20 min", replace(exits, time_limit_minutes=20.0)),
        ("breakeven", "breakeven at 0.5 R", replace(exits, breakeven_at_r=0.5)),
        ("breakeven", "breakeven at 1.5 R", replace(exits, breakeven_at_r=1.5)),
    ]
    return [
        Variant("in force", exits),
        Variant("no rule", replace(exits, **off)),
        *(Variant(f"only {rule}", replace(exits, **{**off, rule: True})) for rule in SWITCHES),
        *(Variant(name, changed) for rule, name, changed in thresholds if getattr(exits, rule) and changed != exits),
    ]


@dataclass(frozen=True, slots=True)
class Compared:
    """A replay under one variant. `impact` sets its trades beside their own plans; `paired` sets those that the replay
    in force made too (by signal) beside what they made there: None of that replay itself and where there is none.
    `unpaired` trades were made in one of the two only: a rule that leaves earlier is free for another signal."""

    variant: Variant
    trades: int
    sessions: int
    mean_r: float | None
    mean_r_interval: Interval | None
    impact: Impact
    paired: Effect | None
    unpaired: int


def compare(
    feed: ReplayFeed, options: ReplayOptions, wanted: Sequence[Variant], session_done: Callable[[], None]
) -> Iterator[Compared]:
    """A replay for each variant, the first of which is the one that the others are compared with.

    Nothing is stored. Raises BadSignal where the strategy gives what is no signal.
    """
    reference: dict[str, Trade] | None = None
    for variant in wanted:
        trades = closed_trades(feed, replace(options, exits=variant.exits), session_done)
        yield _compared(variant, trades, reference)
        if reference is None:
            reference = {trade.signal_key: trade for trade in trades}


def closed_trades(feed: ReplayFeed, options: ReplayOptions, session_done: Callable[[], None]) -> list[Trade]:
    """The trades that `replay` would store, with the ends of their plans, in the order in which they closed."""
    exchange = SimulatedExchange(feed.universe, cost_per_share=options.exits.cost_per_share)
    clock, store = ReplayClock(datetime.min.replace(tzinfo=UTC)), MemoryStore(NO_BOOK)
    wired = wire(NO_BOOK, feed.name, feed.universe, options, exchange, store, clock)
    closed: list[Trade] = []
    wired.desk.execution.closed_listeners[:] = [closed.append]
    loop, past = TradingLoop(replace(wired.desk, adviser=_TakesEverySignal())), BarHistory()
    for session_bars, trading in feed.sessions():
        if trading:
            replay_session(loop, past, exchange, clock, session_bars)
            store.take_ended()
            session_done()
        past.append(session_bars)
    return closed


class _TakesEverySignal:
    """An adviser without a model, as every replay's is."""

    def on_signal(self, signal: Signal, bank: IndicatorBank) -> Opinion:
        return Opinion(take=True)

    def on_decision(self, signal: Signal, not_taken_reason: str) -> None:
        """What becomes of a signal is not looked at here."""


def _compared(variant: Variant, trades: list[Trade], reference: Mapping[str, Trade] | None) -> Compared:
    measured = [trade for trade in trades if trade.r_multiple is not None]
    r = np.array([trade.r_multiple for trade in measured], dtype=np.float64)
    days = [trade.session.toordinal() for trade in measured]
    paired = None if reference is None else _paired(measured, reference)
    return Compared(
        variant=variant,
        trades=len(trades),
        sessions=len(set(days)),
        mean_r=mean(r),
        mean_r_interval=clustered_interval(r, days),
        impact=impact(trades),
        paired=paired,
        unpaired=0 if reference is None else len(trades) + len(reference) - 2 * (paired.n if paired else 0),
    )


def _paired(trades: list[Trade], reference: Mapping[str, Trade]) -> Effect | None:
    both = [(trade, reference[trade.signal_key]) for trade in trades if trade.signal_key in reference]
    if not both:
        return None
    own, other = (np.array([trade.r_multiple for trade in side], dtype=np.float64) for side in zip(*both, strict=True))
    sessions = [trade.session.toordinal() for trade, _ in both]
    return effect(own, other, sessions, dollars_at_risk([trade for trade, _ in both]))
