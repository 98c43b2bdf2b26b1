"""Watches open trades every 10 seconds and gets out of those that have stopped working."""

from datetime import datetime
from math import isfinite
from typing import Any

from positions import rules
from positions.market.indicators import IndicatorBank
from positions.models import Trade
from positions.monitor import Monitor
from positions.rules import ExitDecision, ExitSettings, MarketView, PositionView
from positions.store import LiveTrade
from positions.words import Side, TradeStatus, VolumeReference

INTERVAL_SECONDS = 10


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
    bar that ended before the entry.
    """

    def tick(self, now: datetime) -> None:
        """Look once at every open trade. Returns at once if no bar has come in since the last look."""
        if not self._has_news():
            return
        open_trades = [
            mine for mine in self._store.live.values() if mine.trade.status == TradeStatus.OPEN and mine.trade.managed
        ]
        if not open_trades:
            return
        settings = self._settings()
        for mine in open_trades:
            with self._isolate(mine.trade.signal_key):
                decision = self.decide(mine.trade, settings, now)
                if decision is not None:
                    self.execute_early_exit(mine, decision)

    def decide(self, trade: Trade, settings: ExitSettings, now: datetime) -> ExitDecision | None:
        row = self._bank.row_of[trade.symbol]
        over = rules.check_session_close(self._bank.minutes_to_close, settings)
        if over is not None:
            return over
        if not self._bank.fresh[row] or trade.entered_at is None or self._bank.now <= trade.entered_at:
            return None
        position = position_view(trade)
        market = market_view(self._bank, row)
        return (
            rules.check_target(position, market)
            or self.check_momentum_exit(position, market, settings)
            or self.check_time_exit(position, market, settings, now)
            or self.check_volume_exit(position, row, settings)
        )

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
        """Every open trade as the rules see it at the last bar, ready for JSON: price, R to the stop, the rule that has
        come furthest, and since when (ISO 8601) shares stand without a stop, None where none do."""
        settings = self._settings()
        return [
            self._seen_so(mine, settings, now)
            for mine in self._store.live.values()
            if mine.trade.status == TradeStatus.OPEN and mine.trade.entered_at is not None
        ]

    def _seen_so(self, mine: LiveTrade, settings: ExitSettings, now: datetime) -> dict[str, Any]:
        unprotected = mine.unprotected_since
        told: dict[str, Any] = {
            "signal_key": mine.trade.signal_key,
            "unprotected_since": unprotected.isoformat() if unprotected else None,
        }
        row = self._bank.row_of.get(mine.trade.symbol)
        close = float(self._bank.close[row]) if row is not None else float("nan")
        if row is None or not isfinite(close):
            return told
        position = position_view(mine.trade)
        mean_volume, reference = self._volumes(position, row, settings)
        near = rules.nearest_rule(position, close, mean_volume, reference, settings, now)
        to_stop = position.sign * (close - position.stop) / position.risk
        return {**told, "price": close, "to_stop_r": to_stop, "rule": near.rule.value, "share": near.share}

    def leave_all(self, decision: ExitDecision) -> None:
        """Get out of every open trade that the rules watch, whatever its bars say."""
        open_trades = [mine for mine in self._store.live.values() if mine.trade.status == TradeStatus.OPEN]
        for mine in [each for each in open_trades if each.trade.managed]:
            with self._isolate(mine.trade.signal_key):
                close = float(self._bank.close[self._bank.row_of[mine.trade.symbol]])
                known = mine.last_price or float(mine.trade.entry_price or mine.trade.planned_entry)
                self._execution.exit(mine, decision, close if isfinite(close) else known)

    def execute_early_exit(self, mine: LiveTrade, decision: ExitDecision) -> bool:
        """Claim the exit and start it; False if the trade is leaving already."""
        return self._execution.exit(mine, decision, float(self._bank.close[self._bank.row_of[mine.trade.symbol]]))
