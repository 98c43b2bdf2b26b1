"""Moves the stop of a trade that is far enough ahead to breakeven, looked at every 30 seconds."""

from decimal import Decimal

from positions.exit_monitor import position_view
from positions.isolation import Work
from positions.monitor import Monitor
from positions.rules import ExitSettings, breakeven_stop
from positions.store import LiveTrade
from positions.words import TradeStatus

INTERVAL_SECONDS = 30


class BreakevenStopManager(Monitor):
    """At `breakeven_at_r` the stop goes to entry plus round-trip costs, once a trade; a stop never loosens."""

    def monitor_for_breakeven(self) -> None:
        """Look once at every open trade. Returns at once if no bar has come in since the last look."""
        if not self._has_news():
            return
        candidates = [
            mine
            for mine in self._store.live.values()
            if mine.trade.status == TradeStatus.OPEN and mine.trade.managed and not mine.trade.breakeven_set
        ]
        if not candidates:
            return
        settings = self._settings()
        for mine in candidates:
            with self._isolate(Work("breakeven", mine.trade.symbol, mine.trade.signal_key)):
                self._look_at(mine, settings)

    def _look_at(self, mine: LiveTrade, settings: ExitSettings) -> None:
        row = self._bank.row_of[mine.trade.symbol]
        if not self._bank.fresh[row] or mine.trade.entered_at is None or self._bank.now <= mine.trade.entered_at:
            return
        position, close = position_view(mine.trade), float(self._bank.close[row])
        stop = breakeven_stop(position, close, settings)
        if stop is not None:
            evidence = {"close": close, "profit_r": position.profit(close) / position.risk}
            self.move_stop_to_breakeven(mine, stop, evidence)

    def move_stop_to_breakeven(self, mine: LiveTrade, stop: Decimal, evidence: dict[str, float]) -> bool:
        """Replace the stop at the broker; False if it refused, the old stop then stands."""
        return self._execution.move_to_breakeven(mine, stop, evidence)
