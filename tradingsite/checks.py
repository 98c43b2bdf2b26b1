"""What can be known to be wrong before anything runs; part of `manage.py check`."""

import os
from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import Error, register
from django.utils.module_loading import import_string

from positions.books import is_book, is_live
from tradingsite.environment import env_str


@register
def retry_exceeds_timeout(app_configs: Sequence[AppConfig] | None, **options: Any) -> list[Error]:
    timeout, retry = settings.Q_CLUSTER["timeout"], settings.Q_CLUSTER["retry"]
    if retry > timeout:
        return []
    return [
        Error(
            f"Q_CLUSTER retry ({retry} s) is not above timeout ({timeout} s): a slow task would run twice at once.",
            hint="Raise retry above timeout.",
            id="tradingsite.E001",
        )
    ]


@register
def strategy_is_usable(app_configs: Sequence[AppConfig] | None, **options: Any) -> list[Error]:
    try:
        strategy = import_string(settings.STRATEGY)
    except ImportError as error:
        return [
            Error(
                f"STRATEGY={settings.STRATEGY} cannot be imported: {error}",
                hint="Give the dotted path of a class, such as positions.strategy.VwapCross.",
                id="tradingsite.E002",
            )
        ]
    if isinstance(strategy, type) and callable(getattr(strategy, "signals", None)):
        return []
    return [
        Error(
            f"STRATEGY={settings.STRATEGY} is not a class with a method signals(bank).",
            hint="See Strategy in positions/strategy.py.",
            id="tradingsite.E002",
        )
    ]


@register
def live_secrets_are_explicit(app_configs: Sequence[AppConfig] | None, **options: Any) -> list[Error]:
    if not is_live(settings.BOOK):
        return []
    return [
        Error(
            f"{name} is not set, though BOOK={settings.BOOK} trades real money.",
            hint=f"Set {name} in the environment or .env, so that it survives the loss of VAR_DIR.",
            id="tradingsite.E003",
        )
        for name in ("SECRET_KEY", "MODEL_SIGNING_KEY")
        if not env_str(name, "")
    ]


@register
def book_is_well_formed(app_configs: Sequence[AppConfig] | None, **options: Any) -> list[Error]:
    if is_book(settings.BOOK):
        return []
    return [
        Error(
            f"BOOK={settings.BOOK} is not a book.",
            hint="Use simulated, replay:<hash>, paper:<account> or live:<account>.",
            id="tradingsite.E004",
        )
    ]


@register
def var_dir_is_writable(app_configs: Sequence[AppConfig] | None, **options: Any) -> list[Error]:
    if os.access(settings.VAR_DIR, os.W_OK | os.X_OK):
        return []
    return [
        Error(
            f"VAR_DIR={settings.VAR_DIR} cannot be written to.",
            hint="Give the folder to the user that runs the site, or set VAR_DIR to another.",
            id="tradingsite.E005",
        )
    ]
