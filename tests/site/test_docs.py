"""The documents are complete and true: what there is stands in them, what they name exists, what they show runs."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.management import get_commands
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver
from packaging.requirements import Requirement

from docs.examples.new_extremes import NewExtremes
from positions.broker.standin.faults import Fault
from positions.broker.standin.rules import Rules
from positions.market.bars import BarHistory
from positions.market.feeds.simulated import SimulatedMarket
from positions.market.indicators import IndicatorBank
from positions.models import Trade
from reports.figures import DEFINITIONS
from tests.runs import run
from tests.site.documents import PAGES, ROOT, Example, examples_of, text_of
from tradingsite.management.commands.setup_schedules import JOBS
from tradingsite.management.commands.versions import required
from tradingsite.replaying import ReplayOptions

OURS = ("positions", "ml", "reports", "tradingsite")
ALL = "\n".join(map(text_of, PAGES))
EXAMPLES = [example for page in PAGES for example in examples_of(page)]


def rows(page: str) -> list[list[str]]:
    """The cells of each line of each table, of which a stroke inside code is no border."""
    lines = [line for line in text_of(page).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


# -- what there is stands in the documents


def test_every_command_of_ours_is_explained():
    ours = {name for name, app in get_commands().items() if app in OURS}
    assert len(ours) > 20
    explained = {name for row in rows("docs/commands.md") for name in names(row[0])}
    assert ours - explained == set()


def test_every_live_setting_is_explained_with_its_default_and_range():
    told = {names(row[0])[0]: row for row in rows("docs/settings.md") if len(row) == 5 and names(row[0])}
    assert set(told) == set(settings.LIVE_SETTINGS)
    for name, (default, _, kind) in settings.LIVE_SETTINGS.items():
        field = settings.CONSTANCE_ADDITIONAL_FIELDS[kind]
        shown = {True: "on", False: "off"}[default] if kind is bool else str(default).removesuffix(".0")
        unit = {bool: "switch"}.get(kind) or settings.LIVE_UNITS.get(name, "word")
        assert told[name][1:4] == [shown, unit, span(field[1])], name


def span(options: dict[str, Any]) -> str:
    if "choices" in options:
        return ", ".join(value for value, _ in options["choices"])
    return f"{options['min_value']} to {options['max_value']}" if "min_value" in options else ""


def test_every_variable_of_the_environment_is_explained_and_in_the_example_file():
    source = "\n".join(path.read_text() for path in sources())
    read = set(re.findall(r'\benv_(?:str|bool|list|number)\("([A-Z_]+)"', source))
    assert {"VAR_DIR", "ALPACA_LIVE", "HTTPS"} < read
    explained = {name for row in rows("docs/settings.md") if len(row) == 3 for name in names(row[0])}
    assert explained == read
    assert set(re.findall(r"^#([A-Z_]+)=", text_of(".env.example"), re.MULTILINE)) == read


def test_every_schedule_is_explained_with_its_time():
    told = {names(row[0])[0]: row[1] for row in rows("docs/deployment.md") if names(row[0])}
    for name, job in JOBS.items():
        minute, hour, *_ = job.cron.split()
        assert told[name].startswith("every minute" if hour == "*" else f"{hour}:{minute:0>2}, Monday to Friday"), name


def addresses(patterns: list[URLPattern | URLResolver], before: str = "") -> Iterator[str]:
    for each in patterns:
        address = before + str(each.pattern)
        if isinstance(each, URLResolver):
            yield from addresses(each.url_patterns, address)
        else:
            yield address


def test_every_address_of_the_api_is_explained():
    found = [address for address in addresses(get_resolver().url_patterns) if address.startswith("api/v1/")]
    plain = {re.sub(r"\(\?P<(\w+)>[^)]*\)", r"{\1}", address[len("api/v1/") :]).strip("^$") for address in found}
    plain = {address for address in plain if not address.endswith(("{pk}/", "{format}", "positions/{symbol}/"))}
    plain = {address.replace("^", "") for address in plain} - {""}
    assert {"trades/", "models/", "schema/"} < plain
    assert {address for address in plain if f"`{address}`" not in ALL} == set()


def test_every_figure_of_the_report_has_its_formula():
    told = {name.strip() for row in rows("docs/figures.md") for name in row[0].split(",")} | {
        row[0] for row in rows("docs/figures.md")
    }
    assert {definition.label for definition in DEFINITIONS} - told == set()


def test_every_warning_and_error_of_the_log_is_explained():
    """By the event that the line names; what is only information is not."""
    source = "\n".join(path.read_text() for path in sources())
    events = set(re.findall(r'\blog\.(?:warning|error|exception)\(\s*"(\w+)"', source))
    assert len(events) > 30
    pages = ("docs/trading.md", "docs/troubleshooting.md")
    explained = {name for page in pages for row in rows(page) for name in names(row[0])}
    assert events - explained == set()


def test_the_versions_are_those_of_every_package_that_is_required():
    table = {row[0]: row[1] for row in rows("docs/versions.md")[2:]}
    requirements = Path(settings.BASE_DIR, "requirements.txt")
    assert list(table) == required(requirements)
    for line in requirements.read_text().splitlines():
        wanted = line.partition("#")[0].strip()
        if wanted:
            requirement = Requirement(wanted)
            assert requirement.specifier.contains(table[requirement.name]), line


def test_every_rule_and_fault_of_the_simulated_alpaca_is_in_its_document():
    document = text_of("docs/alpaca_server.md")
    named = set(re.findall(r"`([\w]+)`", document))
    assert {field.name for field in fields(Rules)} | set(Fault) <= named


# -- what the documents name exists


def sources() -> list[Path]:
    return [path for app in OURS for path in sorted((ROOT / app).rglob("*.py")) if "migrations" not in path.parts]


def texts_of_the_source() -> str:
    """Every text of the program, what is filled in written as `…`, and the templates."""
    found = [
        re.sub(r"<[^>]+>", "", re.sub(r"{{.*?}}", "…", each.read_text())) for each in ROOT.glob("*/templates/**/*.html")
    ]
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(found)


#: Django's own words.
FROM_ELSEWHERE = {"Bad Request (400)", "CSRF verification failed"}


def test_every_message_of_the_troubleshooting_is_one_that_the_program_gives():
    quoted = [names(row[0])[0] for row in rows("docs/troubleshooting.md") if len(row) == 3 and names(row[0])]
    assert len(quoted) > 50
    source = texts_of_the_source()
    assert [text for text in quoted if text not in FROM_ELSEWHERE and text not in source] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str):
    for text, target in re.findall(r"\[([^\]]+)\]\(([^)]+)\)", text_of(page)):
        if target.startswith("http"):
            continue
        path, _, heading = target.partition("#")
        there = (ROOT / page).parent / path if path else ROOT / page
        assert there.exists(), (text, target)
        if heading:
            titles = re.findall(r"^#+ (.+)$", there.read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
            assert heading in anchors, (text, target)


def test_every_file_that_the_figures_come_from_exists():
    paths = set(re.findall(r"`((?:positions|ml|reports|tradingsite)/[\w/]+\.py)`", ALL))
    assert len(paths) > 5
    assert {path for path in paths if not (ROOT / path).exists()} == set()


def test_every_command_that_an_example_calls_exists():
    called = {name for example in EXAMPLES for name in re.findall(r"manage\.py (\w+)", example.script)}
    assert called <= set(get_commands())


@pytest.mark.django_db
def test_the_content_security_policy_is_the_one_that_pages_are_sent_with(client: Client):
    sent = client.get("/admin/login/").headers["Content-Security-Policy"]
    told = text_of("docs/security.md").split("holds it to that:\n\n")[1].split("\n\n")[0]
    assert sorted(" ".join(part.split()) for part in told.split(";")) == sorted(
        " ".join(part.split()) for part in sent.split(";")
    )


# -- what the documents show runs


def test_every_shell_example_is_run_or_says_why_not():
    assert len(EXAMPLES) > 20
    assert [example for example in EXAMPLES if not example.is_runnable and not example.why_not] == []


def shell(example: Example, environment: dict[str, str]) -> str:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", example.script],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{example.script}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


RUN_HERE = {
    page: examples for page in PAGES if (examples := [each for each in examples_of(page) if each.words == ["runnable"]])
}  # backup and restore are run by test_deployment.py


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN_HERE)
def test_the_examples_of_a_page_run_one_after_the_other(page: str, tmp_path: Path):
    kept = {name: value for name, value in os.environ.items() if name not in {"DATABASE_URL", "BOOK", "STRATEGY"}}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**kept, "PATH": path, "VAR_DIR": str(tmp_path), "COLUMNS": "120"}
    said = "".join(shell(example, environment) for example in RUN_HERE[page])
    if page == "docs/getting_started.md":
        shown = text_of("README.md").split("## What it looks like\n\n```")[1].split("```")[0]
        figures = re.findall(r"[-+]?\d[\d,.]*\d", shown)
        assert len(figures) > 8
        assert [figure for figure in figures if figure not in said] == []


@pytest.mark.django_db
def test_the_strategy_that_is_shown_trades_both_sides():
    options = ReplayOptions.in_force()
    own = f"{NewExtremes.__module__}.{NewExtremes.__qualname__}"
    assert f"STRATEGY={own}" in text_of("docs/your_strategy.md")
    run(SimulatedMarket(3, seed=3), options=ReplayOptions(options.exits, options.risk, own))
    assert Trade.objects.count() > 10
    assert set(Trade.objects.values_list("side", flat=True)) == {"long", "short"}


def test_what_a_strategy_may_read_is_what_the_bank_has():
    told = [name for row in rows("docs/your_strategy.md")[2:] for name in names(row[0])]
    plain = {re.sub(r"\(.*", "", name).partition(".")[0] for name in told}
    market = SimulatedMarket(1, seed=3)
    bank = IndicatorBank(market.universe)
    (bars, *_), *_ = market.sessions()
    bank.open_session(bars.session, bars.length, BarHistory())
    assert len(plain) > 20
    assert {name for name in plain if not hasattr(bank, name)} == set()
