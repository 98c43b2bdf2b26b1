"""The live settings (edited in the admin, in force on the next tick) as the frozen values that rules take."""

from collections.abc import Callable
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


def exit_settings() -> ExitSettings:
    """One query."""
    value = _values(
        [
            "LOW_VOLUME_EXIT",
            "LOW_VOLUME_FRACTION",
            "LOW_VOLUME_BARS",
            "TIME_LIMIT_EXIT",
            "TIME_LIMIT_MINUTES",
            "MOMENTUM_EXIT",
            "BREAKEVEN",
            "BREAKEVEN_AT_R",
            "FLATTEN_MINUTES",
            "COST_PER_SHARE",
        ]
    )
    return ExitSettings(
        low_volume=value["LOW_VOLUME_EXIT"],
        low_volume_fraction=value["LOW_VOLUME_FRACTION"],
        low_volume_bars=value["LOW_VOLUME_BARS"],
        time_limit=value["TIME_LIMIT_EXIT"],
        time_limit_minutes=value["TIME_LIMIT_MINUTES"],
        momentum_reversal=value["MOMENTUM_EXIT"],
        breakeven=value["BREAKEVEN"],
        breakeven_at_r=value["BREAKEVEN_AT_R"],
        flatten_minutes=value["FLATTEN_MINUTES"],
        cost_per_share=value["COST_PER_SHARE"],
    )


def risk_settings() -> RiskSettings:
    """One query."""
    value = _values(
        [
            "RISK_PER_TRADE",
            "MAX_NOTIONAL",
            "MAX_OPEN_POSITIONS",
            "DAILY_LOSS_LIMIT",
            "MAX_ORDERS_PER_MINUTE",
            "COOLDOWN_LOSSES",
            "COOLDOWN_MINUTES",
        ]
    )
    return RiskSettings(
        risk_per_trade=value["RISK_PER_TRADE"],
        max_notional=value["MAX_NOTIONAL"],
        max_open_positions=value["MAX_OPEN_POSITIONS"],
        daily_loss_limit=value["DAILY_LOSS_LIMIT"],
        max_orders_per_minute=value["MAX_ORDERS_PER_MINUTE"],
        cooldown_losses=value["COOLDOWN_LOSSES"],
        cooldown_minutes=value["COOLDOWN_MINUTES"],
    )


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
