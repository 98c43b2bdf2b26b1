"""What the monitors of open trades have in common: one look at each bar, switched off and on as a whole."""

from collections.abc import Callable
from contextlib import nullcontext
from datetime import datetime
from typing import Any

from positions.execution import Execution
from positions.isolation import Isolate
from positions.market.indicators import IndicatorBank
from positions.models import RuleNote
from positions.rules import ExitSettings
from positions.store import LiveTrade, Store
from positions.words import Rule, RuleNoteKind

#: A rule that has come so far of its way nearly acted.
NEAR = 0.9


class Monitor:
    """One object for live trading and replay. `settings` is asked anew in every tick that has something to look at."""

    def __init__(
        self,
        bank: IndicatorBank,
        store: Store,
        execution: Execution,
        settings: Callable[[], ExitSettings],
        isolate: Isolate = nullcontext,
    ) -> None:
        self._bank = bank
        self._store = store
        self._execution = execution
        self._settings = settings
        self._isolate = isolate
        self.active = True
        self._seen = -1

    def _has_news(self) -> bool:
        """Whether a bar has come in since this was last asked; False while switched off."""
        if self._seen == self._bank.version or not self.active:
            return False
        self._seen = self._bank.version
        return True

    @staticmethod
    def _first(
        mine: LiveTrade, rule: Rule, kind: RuleNoteKind, evidence: dict[str, Any], now: datetime
    ) -> list[RuleNote]:
        """The note, unless this trade has one of its rule and kind."""
        if (rule, kind) in mine.notes:
            return []
        note = RuleNote(book=mine.trade.book, trade=mine.trade, rule=rule, kind=kind, evidence=evidence, noted_at=now)
        mine.notes[rule, kind] = note
        return [note]
