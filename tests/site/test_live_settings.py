"""The live settings: what the rules get is what the admin shows, and nonsense is refused."""

import pytest
from constance import config
from constance.forms import ConstanceForm
from django.conf import settings

from positions import live_settings
from positions.rules import ExitSettings, RiskSettings

pytestmark = pytest.mark.django_db

DEFAULTS = {name: default for name, (default, *_) in settings.LIVE_SETTINGS.items()}


def errors(**changes: object) -> dict[str, list[str]]:
    form = ConstanceForm(initial=DEFAULTS, data={**DEFAULTS, "version": "", **changes})
    form.is_valid()
    return {name: list(told) for name, told in form.errors.items() if name in changes}


def test_the_defaults_of_the_rules_are_those_of_the_live_settings():
    assert live_settings.exit_settings() == ExitSettings()
    assert live_settings.risk_settings() == RiskSettings()


def test_a_change_is_in_force_at_the_next_look(django_assert_num_queries):
    config.TIME_LIMIT_MINUTES = 20.0
    with django_assert_num_queries(1):
        assert live_settings.exit_settings().time_limit_minutes == 20.0


@pytest.mark.parametrize(
    ("name", "wrong", "right"),
    [
        ("LOW_VOLUME_FRACTION", [-0.1, 1.1, "nan"], 0.4),
        ("LOW_VOLUME_BARS", [0, 31, 2.5], 30),
        ("TIME_LIMIT_MINUTES", [0, -5], 10),
        ("BREAKEVEN_AT_R", [0], 0.5),
        ("FLATTEN_MINUTES", [-1, 61], 10),
        ("COST_PER_SHARE", [-0.01], 0),
        ("RISK_PER_TRADE", [0.06, "inf"], 0.01),
        ("MAX_NOTIONAL", [4.1], 1),
        ("MAX_OPEN_POSITIONS", [0], 1),
        ("MAX_ORDERS_PER_MINUTE", [0], 1),
        ("COOLDOWN_LOSSES", [-1], 0),
        ("LOW_VOLUME_REFERENCE", ["yesterday"], "profile"),
        ("EXTERNAL_POSITIONS", ["sell"], "manage"),
        ("DAILY_LOSS_LIMIT", [1.5], 0.02),
        ("PREDICTION_MODE", ["on"], "filter"),
    ],
)
def test_a_number_outside_its_range_is_refused(name, wrong, right):
    assert all(errors(**{name: value}) for value in wrong)
    assert not errors(**{name: right})
