"""Watches open trades every 10 seconds and gets out of those that have stopped working."""

from datetime import datetime
from math import isfinite
from typing import Any

from positions import rules
from positions.execution.trade_state import held_up_since
from positions.isolation import Work
from positions.market.indicators import IndicatorBank
from positions.models import RuleNote, Trade
from positions.monitor import NEAR, Monitor
from positions.rules import ExitDecision, ExitSettings, MarketView, PositionView
from positions.store import LiveTrade
from positions.words import SIGN, ExitReason, Rule, RuleNoteKind, Side, TradeStatus, VolumeReference

INTERVAL_SECONDS = 10
HELD = (TradeStatus.OPEN, TradeStatus.EXITING)


def position_view(trade: Trade) -> PositionView:
    """An open trade as the rules see it."""
    assert trade.entry_price is not None
    assert trade.risk_per_share is not None
    assert trade.entered_at is not None
    return PositionView(
        side=Side(trade.side),
        entry=float(trade.entry_price),
        stop=float(trade.stop_price or trade.initial_stop),
        target=float(trade.target),
        risk=float(trade.risk_per_share),
        entered_at=trade.entered_at,
        entry_volume=trade.entry_volume,
        breakeven_set=trade.breakeven_set,
    )


def market_view(bank: IndicatorBank, row: int) -> MarketView:
    """A symbol's last completed bar as the rules see it."""
    return MarketView(
        high=float(bank.high[row]),
        low=float(bank.low[row]),
        close=float(bank.close[row]),
        macd_histogram=float(bank.macd_histogram[row]),
        previous_macd_histogram=float(bank.previous_macd_histogram[row]),
    )


class ExitMonitor(Monitor):
    """Of several rules that speak at once the first of this order acts: session_close, target, momentum_reversal,
    time_limit, low_volume. No rule but session_close acts on a symbol without a bar in the last minute, and none on a
    bar that ended before the entry. The first time that a rule of a trade comes near, or would act and may not, is
    noted.
    """

    def tick(self, now: datetime) -> None:
        """Look once at every open trade. Returns at once if no bar has come in since the last look."""
        if not self._has_news():
            return
        held = [mine for mine in self._store.live.values() if mine.trade.status in HELD]
        if not held:
            return
        settings, notes = self._settings(), list[RuleNote]()
        for mine in held:
            with self._isolate(Work("exits", mine.trade.symbol, mine.trade.signal_key)):
                notes += self._look_at(mine, settings, now)
        if notes:
            self._store.note_rules(notes)

    def _look_at(self, mine: LiveTrade, settings: ExitSettings, now: datetime) -> list[RuleNote]:
        """Get out of a trade if a rule says so; returns what is to be noted."""
        decision = self.decide(mine.trade, settings, now)
        refusal = self._refusal(mine.trade, decision)
        if decision is None:
            return [] if refusal else self._near(mine, settings, now)
        if refusal is None:
            self.execute_early_exit(mine, decision)
            return []
        return self._first(mine, Rule(decision.rule), refusal, decision.evidence, now)

    def decide(self, trade: Trade, settings: ExitSettings, now: datetime) -> ExitDecision | None:
        """What the rules say of a trade, whether they may act on it or not."""
        over = rules.check_session_close(self._bank.minutes_to_close, settings)
        if over is not None:
            return over
        row = self._bank.row_of.get(trade.symbol)
        if row is None or trade.entered_at is None or self._bank.now <= trade.entered_at:
            return None
        position, market = position_view(trade), market_view(self._bank, row)
        return (
            rules.check_target(position, market)
            or self.check_momentum_exit(position, market, settings)
            or self.check_time_exit(position, market, settings, now)
            or self.check_volume_exit(position, row, settings)
        )

    def _refusal(self, trade: Trade, decision: ExitDecision | None) -> RuleNoteKind | None:
        """Why the rules may not act on a trade; None where they may."""
        if not trade.managed:
            return RuleNoteKind.TAKEN_OVER
        if trade.status == TradeStatus.EXITING:
            return RuleNoteKind.LEAVING
        if decision is not None and decision.rule is ExitReason.SESSION_CLOSE:
            return None
        row = self._bank.row_of.get(trade.symbol)
        return None if row is not None and self._bank.fresh[row] else RuleNoteKind.STALE_DATA

    def _near(self, mine: LiveTrade, settings: ExitSettings, now: datetime) -> list[RuleNote]:
        """Rules of a trade that has a bar of the last minute, and that none of them closes."""
        row = self._bank.row_of[mine.trade.symbol]
        if mine.trade.entered_at is None or self._bank.now <= mine.trade.entered_at:
            return []
        position = position_view(mine.trade)
        close, (mean_volume, reference) = float(self._bank.close[row]), self._volumes(position, row, settings)
        ways = rules.shares_of_ways(position, close, mean_volume, reference, settings, now)
        notes = []
        for rule, share in ways.items():
            if share >= NEAR and (rule, RuleNoteKind.NEAR) not in mine.notes:
                inputs = {
                    "share": share,
                    "close": close,
                    "entry": position.entry,
                    "stop": position.stop,
                    "target": position.target,
                    "risk": position.risk,
                    "minutes": (now - position.entered_at).total_seconds() / 60,
                    "mean_volume": mean_volume,
                    "reference_volume": reference,
                }
                known = {name: value for name, value in inputs.items() if value is not None and isfinite(value)}
                notes += self._first(mine, rule, RuleNoteKind.NEAR, known, now)
        return notes

    def check_volume_exit(self, position: PositionView, row: int, settings: ExitSettings) -> ExitDecision | None:
        """Rule `low_volume` for the symbol of a row of the universe; see positions.rules.check_volume."""
        return rules.check_volume(*self._volumes(position, row, settings), settings)

    def _volumes(self, position: PositionView, row: int, settings: ExitSettings) -> tuple[float, float | None]:
        """The mean volume of the last bars, and what it is held against."""
        bars, reference = settings.low_volume_bars, position.entry_volume
        if settings.low_volume_reference == VolumeReference.PROFILE:
            reference = self._bank.usual_volume(row, bars)
        return self._bank.mean_volume(row, bars), reference

    def check_time_exit(
        self, position: PositionView, market: MarketView, settings: ExitSettings, now: datetime
    ) -> ExitDecision | None:
        """Rule `time_limit`; see positions.rules.check_time."""
        return rules.check_time(position, market, settings, now)

    def check_momentum_exit(
        self, position: PositionView, market: MarketView, settings: ExitSettings
    ) -> ExitDecision | None:
        """Rule `momentum_reversal`; see positions.rules.check_momentum."""
        return rules.check_momentum(position, market, settings)

    def watched(self, now: datetime) -> list[dict[str, Any]]:
        """Every trade with shares as the rules see it at the last bar, ready for JSON: price, R to the stop, the rule
        that has come furthest or that it leaves by, and since when (ISO 8601) shares stand without a stop or its exit
        is held up, None where that is not so."""
        settings = self._settings()
        return [
            self._seen_so(mine, settings, now)
            for mine in self._store.live.values()
            if mine.trade.status in HELD and mine.trade.entered_at is not None
        ]

    def _seen_so(self, mine: LiveTrade, settings: ExitSettings, now: datetime) -> dict[str, Any]:
        unprotected, held_up = mine.unprotected_since, held_up_since(mine) if mine.alarmed else None
        told: dict[str, Any] = {
            "signal_key": mine.trade.signal_key,
            "unprotected_since": unprotected.isoformat() if unprotected else None,
            "held_up_since": held_up.isoformat() if held_up else None,
        }
        if mine.exit is not None:
            told["leaves_by"] = mine.exit.rule
        row = self._bank.row_of.get(mine.trade.symbol)
        close = float(self._bank.close[row]) if row is not None else float("nan")
        if row is None or not isfinite(close):
            return told
        position = position_view(mine.trade)
        mean_volume, reference = self._volumes(position, row, settings)
        near = rules.nearest_rule(position, close, mean_volume, reference, settings, now)
        to_stop = SIGN[position.side] * (close - position.stop) / position.risk
        return {**told, "price": close, "to_stop_r": to_stop, "rule": near.rule.value, "share": near.share}

    def leave_all(self, decision: ExitDecision) -> None:
        """Get out of every open trade that the rules watch, whatever its bars say."""
        for mine in list(self._store.live.values()):
            if mine.trade.status == TradeStatus.OPEN and mine.trade.managed:
                with self._isolate(Work("exits", mine.trade.symbol, mine.trade.signal_key)):
                    self.execute_early_exit(mine, decision)

    def execute_early_exit(self, mine: LiveTrade, decision: ExitDecision) -> bool:
        """Claim the exit and start it; False if the trade is leaving already."""
        return self._execution.exit(mine, decision, self._last_price(mine))

    def _last_price(self, mine: LiveTrade) -> float:
        """The last close of a trade's symbol; without one the broker's last price, else that of the entry."""
        row = self._bank.row_of.get(mine.trade.symbol)
        close = float("nan") if row is None else float(self._bank.close[row])
        if isfinite(close):
            return close
        return mine.last_price or float(mine.trade.entry_price or mine.trade.planned_entry)
