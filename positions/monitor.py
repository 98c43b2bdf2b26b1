"""What the monitors of open trades have in common: one look at each bar, switched off and on as a whole."""

from collections.abc import Callable
from contextlib import nullcontext

from positions.execution import Execution
from positions.isolation import Isolate
from positions.market.indicators import IndicatorBank
from positions.rules import ExitSettings
from positions.store import Store


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
