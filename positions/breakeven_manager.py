"""Moves the stop of a trade that is far enough ahead to breakeven, looked at every 30 seconds."""

from decimal import Decimal

from positions.exit_monitor import position_view
from positions.isolation import Work
from positions.models import RuleNote
from positions.monitor import NEAR, Monitor
from positions.rules import ExitSettings, breakeven_stop, share_of_breakeven
from positions.store import LiveTrade
from positions.words import Rule, RuleNoteKind, TradeStatus

INTERVAL_SECONDS = 30


class BreakevenStopManager(Monitor):
    """At `breakeven_at_r` the stop goes to entry plus round-trip costs, once a trade; a stop never loosens.

    The first time that it comes near, or would move the stop and may not, is noted.
    """

    def monitor_for_breakeven(self) -> None:
        """Look once at every open trade. Returns at once if no bar has come in since the last look."""
        if not self._has_news():
            return
        candidates = [
            mine
            for mine in self._store.live.values()
            if mine.trade.status == TradeStatus.OPEN and not mine.trade.breakeven_set
        ]
        if not candidates:
            return
        settings, notes = self._settings(), list[RuleNote]()
        for mine in candidates:
            with self._isolate(Work("breakeven", mine.trade.symbol, mine.trade.signal_key)):
                notes += self._look_at(mine, settings)
        if notes:
            self._store.note_rules(notes)

    def _look_at(self, mine: LiveTrade, settings: ExitSettings) -> list[RuleNote]:
        """Move the stop of a trade that is far enough; returns what is to be noted."""
        row, entered_at = self._bank.row_of[mine.trade.symbol], mine.trade.entered_at
        if entered_at is None or self._bank.now <= entered_at:
            return []
        position, close = position_view(mine.trade), float(self._bank.close[row])
        share = share_of_breakeven(position, close, settings)
        if share is None:
            return []
        evidence = {
            "close": close,
            "profit_r": position.profit(close) / position.risk,
            "at_r": settings.breakeven_at_r,
            "share": share,
            "entry": position.entry,
            "stop": position.stop,
            "risk": position.risk,
        }
        stop, refusal = breakeven_stop(position, close, settings), self._refusal(mine, row)
        if stop is None:
            is_near = share >= NEAR and refusal is None
            return self._first(mine, Rule.BREAKEVEN, RuleNoteKind.NEAR, evidence, self._bank.now) if is_near else []
        if refusal is not None:
            return self._first(mine, Rule.BREAKEVEN, refusal, evidence, self._bank.now)
        self.move_stop_to_breakeven(mine, stop, evidence)
        return []

    def _refusal(self, mine: LiveTrade, row: int) -> RuleNoteKind | None:
        """Why it may not act on a trade; None where it may."""
        if not mine.trade.managed:
            return RuleNoteKind.TAKEN_OVER
        return None if self._bank.fresh[row] else RuleNoteKind.STALE_DATA

    def move_stop_to_breakeven(self, mine: LiveTrade, stop: Decimal, evidence: dict[str, float]) -> bool:
        """Replace the stop at the broker; False if it refused, the old stop then stands."""
        return self._execution.move_to_breakeven(mine, stop, evidence)
