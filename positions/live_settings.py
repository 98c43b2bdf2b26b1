"""The live settings (edited in the admin, in force on the next tick) as the frozen values that rules take."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any, TypeVar

import structlog
from constance import config
from constance import settings as constance_settings
from constance.codecs import loads
from constance.models import Constance
from django.db import InterfaceError, OperationalError

from positions.rules import ExitSettings, RiskSettings
from positions.words import ExternalMode

log = structlog.get_logger(__name__)

Value = TypeVar("Value")
Settings = TypeVar("Settings", ExitSettings, RiskSettings)

#: Fields whose live setting is not called as they are, in capitals.
_SWITCHES = {"low_volume": "LOW_VOLUME_EXIT", "time_limit": "TIME_LIMIT_EXIT", "momentum_reversal": "MOMENTUM_EXIT"}


def last_known(read: Callable[[], Value]) -> Callable[[], Value]:
    """The same, but what it said before where the database does not answer: exits go on. Reads once at once."""
    known = read()

    def read_or_remember() -> Value:
        nonlocal known
        try:
            known = read()
        except (OperationalError, InterfaceError) as error:
            log.warning("settings_not_read", instead="those read last", error=str(error))
        return known

    return read_or_remember


def _values(keys: list[str]) -> dict[str, Any]:
    """One query. Unlike constance's own it raises where the database does not answer, and does not say the defaults."""
    defaults = {key: constance_settings.CONFIG[key][0] for key in keys}
    stored = Constance.objects.filter(key__in=keys).values_list("key", "value")
    return defaults | {key: loads(value) for key, value in stored}


def _filled(kind: type[Settings]) -> Settings:
    names = {field.name: _SWITCHES.get(field.name, field.name.upper()) for field in fields(kind)}
    value = _values(list(names.values()))
    return kind(**{field: value[name] for field, name in names.items()})


def exit_settings() -> ExitSettings:
    """One query."""
    return _filled(ExitSettings)


def risk_settings() -> RiskSettings:
    """One query."""
    return _filled(RiskSettings)


def external_positions() -> ExternalMode:
    """One query."""
    return ExternalMode(_values(["EXTERNAL_POSITIONS"])["EXTERNAL_POSITIONS"])


def prediction_mode() -> str:
    """`off`, `shadow` or `filter`. One query."""
    mode: str = _values(["PREDICTION_MODE"])["PREDICTION_MODE"]
    return mode


def auto_promote() -> bool:
    """Whether a candidate whose trial is over may take the champion's place by itself. One query."""
    allowed: bool = _values(["AUTO_PROMOTE"])["AUTO_PROMOTE"]
    return allowed


def set_prediction_mode(mode: str) -> None:
    """What the admin does when somebody changes PREDICTION_MODE."""
    config.PREDICTION_MODE = mode
