"""The README is true: its commands and settings are all there are, and its strategy trades."""

import re
from dataclasses import fields
from pathlib import Path

import pytest
from django.conf import settings
from django.core.management import get_commands
from django.utils.module_loading import import_string
from packaging.requirements import Requirement

from positions.broker.standin.faults import Fault
from positions.broker.standin.rules import Rules
from positions.market.feeds.simulated import SimulatedMarket
from positions.models import Trade
from tests.runs import run
from tradingsite.management.commands.versions import required
from tradingsite.replaying import ReplayOptions

README = Path(settings.BASE_DIR, "README.md").read_text()


def test_the_two_commands_stand_at_the_top():
    first_block = README.split("```")[1].strip().splitlines()
    assert first_block == [
        "pip install -r requirements.txt && python manage.py quickstart",
        "pip install -r requirements.txt && python -m pytest",
    ]


def test_every_command_of_ours_is_in_the_readme():
    ours = {name for name, app in get_commands().items() if app in {"positions", "ml", "reports", "tradingsite"}}
    assert len(ours) > 5
    assert {name for name in ours if f"| `{name}` |" not in README} == set()


def test_the_versions_are_those_of_every_package_that_is_required():
    table = dict(re.findall(r"^\| ([\w-]+) \| ([\d.]+) \|$", README.split("## Versions")[1], re.MULTILINE))
    requirements = Path(settings.BASE_DIR, "requirements.txt")
    assert list(table) == required(requirements)
    for line in requirements.read_text().splitlines():
        wanted = line.partition("#")[0].strip()
        if wanted:
            requirement = Requirement(wanted)
            assert requirement.specifier.contains(table[requirement.name]), line


def test_every_live_setting_and_its_default_is_in_the_readme():
    rows = [line for line in README.splitlines() if line.startswith("| `") and "`, `" not in line.split("|")[2]]
    told = {}
    for row in rows:
        names, defaults = row.split("|")[1:3]
        values = [value.strip() for value in defaults.split(",")]
        told |= dict(zip(re.findall(r"`([A-Z_]+)`", names), values, strict=False))
    assert set(told) == set(settings.LIVE_SETTINGS)
    for name, (default, _, kind) in settings.LIVE_SETTINGS.items():
        expected = {True: "on", False: "off"}[default] if kind is bool else str(default)
        assert told[name] in {expected, expected.removesuffix(".0")}, name


@pytest.mark.django_db
def test_the_strategy_in_the_readme_trades(monkeypatch):
    code = README.split("```python\n")[1].split("```")[0]
    namespace: dict[str, object] = {}
    exec(code, namespace)  # the README's own example
    monkeypatch.setattr("positions.strategy.NewHighs", namespace["NewHighs"], raising=False)
    options = ReplayOptions.in_force()
    options = ReplayOptions(options.exits, options.risk, "positions.strategy.NewHighs")
    assert import_string(options.strategy) is namespace["NewHighs"]
    run(SimulatedMarket(1, seed=3), options=options)
    assert Trade.objects.count() > 10
    assert set(Trade.objects.values_list("side", flat=True)) == {"long"}


def test_every_rule_and_fault_of_the_simulated_alpaca_is_in_its_document():
    document = Path(settings.BASE_DIR, "docs", "alpaca_server.md").read_text()
    named = set(re.findall(r"`([\w]+)`", document))
    assert {field.name for field in fields(Rules)} | set(Fault) <= named
