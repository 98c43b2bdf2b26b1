"""`compare_exits`: the trades are those that `replay` stores, nothing is stored, and every figure is told."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.core.management import CommandError, call_command

from ml.impact import CAUTION
from positions.market.feeds.simulated import SimulatedMarket
from positions.models import Trade
from positions.rules import ExitSettings
from positions.words import ExitReason
from tests.bars_file import write_csv
from tests.runs import run
from tradingsite.exit_comparison import closed_trades, compare, variants
from tradingsite.replaying import ReplayOptions

pytestmark = pytest.mark.django_db

COLUMNS = ("signal_key", "exit_reason", "exited_at", "r_multiple", "plan_exit_reason", "plan_r", "plan_doubt")


def nothing() -> None:
    pass


@pytest.fixture(scope="module")
def bars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_csv(tmp_path_factory.mktemp("bars") / "bars.csv", SimulatedMarket(2, seed=5))


@pytest.mark.parametrize("protections", [False, True])
def test_the_trades_are_those_that_a_replay_stores(protections: bool) -> None:
    options = ReplayOptions.in_force(protections=protections)
    run(SimulatedMarket(2, seed=4), options=options)
    trades = closed_trades(SimulatedMarket(2, seed=4), options, nothing)
    stored = Trade.objects.filter(status="closed").order_by("signal_key").values_list(*COLUMNS)
    assert sorted(tuple(getattr(trade, name) for name in COLUMNS) for trade in trades) == list(stored)
    assert len(trades) > 50


def test_each_rule_is_tried_alone_and_with_other_thresholds() -> None:
    wanted = {variant.name: variant.exits for variant in variants(ExitSettings())}
    assert len(wanted) == 13
    assert wanted["in force"] == ExitSettings()
    assert wanted["no rule"] == ExitSettings(
        low_volume=False, time_limit=False, momentum_reversal=False, breakeven=False
    )
    assert wanted["only time_limit"] == replace(wanted["no rule"], time_limit=True)
    assert wanted["low_volume below 0.4"].low_volume_fraction == 0.4
    assert wanted["low_volume by profile"].low_volume_reference == "profile"
    assert wanted["breakeven at 1.5 R"].breakeven_at_r == 1.5


def test_thresholds_of_a_rule_that_is_off_or_that_are_in_force_are_not_tried() -> None:
    names = {variant.name for variant in variants(ExitSettings(low_volume=False, time_limit_minutes=10.0))}
    assert not any(name.startswith("low_volume") for name in names)
    assert "time_limit 10 min" not in names
    assert "only low_volume" in names


def test_other_settings_are_compared_on_the_trades_that_both_replays_made() -> None:
    feed, options = SimulatedMarket(2, seed=4), ReplayOptions.in_force()
    wanted = [variant for variant in variants(options.exits) if variant.name in {"in force", "no rule"}]
    in_force, none = compare(feed, options, wanted, nothing)
    assert in_force.paired is None
    assert none.paired is not None
    assert none.trades + in_force.trades == 2 * none.paired.n + none.unpaired
    before = {trade.signal_key: trade.r_multiple for trade in closed_trades(feed, options, nothing)}
    after = {
        trade.signal_key: trade.r_multiple
        for trade in closed_trades(feed, replace(options, exits=wanted[1].exits), nothing)
    }
    both = before.keys() & after.keys()
    assert none.paired.n == len(both) > 20
    assert none.paired.net == pytest.approx(sum(after[key] - before[key] for key in both) / len(both))


def test_with_no_rule_every_trade_is_its_plan() -> None:
    feed, options = SimulatedMarket(2, seed=4), ReplayOptions.in_force()
    (none,) = compare(feed, options, [variants(options.exits)[1]], nothing)
    assert none.impact.fidelity.n == none.impact.fidelity.same > 50
    assert none.impact.together is not None
    assert (none.impact.together.net, none.impact.rules) == (0.0, {})


def test_the_command_says_it_all_in_eighty_columns_and_stores_nothing(
    bars: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call_command("compare_exits", bars=bars, json=tmp_path / "found.json")
    told = capsys.readouterr().out
    assert CAUTION in told
    assert "…" not in told
    found = json.loads((tmp_path / "found.json").read_text())
    replays = {each["variant"]["name"]: each for each in found["replays"]}
    assert set(replays) == {variant.name for variant in variants(ExitSettings())}
    for name, each in replays.items():
        assert name in told
        assert f"{each['trades']:,}" in told
    together = replays["in force"]["impact"]["together"]
    assert f"{together['net']:+z.3f}±" in told
    assert together["saved"] - together["given_up"] == pytest.approx(together["net"], abs=1e-9)
    assert set(replays["in force"]["impact"]["reasons"]) <= set(ExitReason)
    assert not any(model._default_manager.exists() for model in _tables_with_a_book())


def _tables_with_a_book() -> list[Any]:
    return [model for model in apps.get_models() if any(field.name == "book" for field in model._meta.fields)]


def test_where_no_trade_was_made_there_is_no_figure_and_the_status_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bars = tmp_path / "bars.csv"
    head = "symbol,timestamp,open,high,low,close,volume"
    bars.write_text("\n".join([head, *(f"A,2024-01-03T15:1{minute}:00Z,10,11,9,10,100" for minute in range(5))]) + "\n")
    with pytest.raises(CommandError) as refused:
        call_command("compare_exits", bars=bars)
    assert refused.value.returncode == 1
    assert "No figure: no trade was left to its plan" in capsys.readouterr().out
