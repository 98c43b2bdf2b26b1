"""docs/api.md is true: every address is in it, and its examples do what it says."""

import json
import re
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from django.conf import settings as site
from django.contrib.auth.models import User
from django.core.management import call_command
from knox.models import AuthToken
from pytest_django.live_server_helper import LiveServer

from positions.models import Instruction
from positions.words import InstructionState
from tests.factories import TradeFactory
from tests.site.conftest import permit
from tests.site.test_every_address import ADDRESSES

DOCUMENT = Path(site.BASE_DIR, "docs", "api.md").read_text()


def example(language: str, number: int = 0) -> str:
    return re.findall(rf"^```{language}\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)[number]


def test_every_address_of_the_api_is_in_it() -> None:
    ours = {
        each for each in ADDRESSES if not each.startswith(("/admin/", "/reports/")) and each not in ("/", "/halting/")
    }
    told = set(re.findall(r"`(?:GET |POST )?(/[^`]*)`", DOCUMENT))
    filled = {each.replace("{id}", "1").replace("{symbol}", "AAPL") for each in told}
    assert ours - filled == set()


def test_every_filter_is_in_it() -> None:
    schema = yaml.safe_load(Path(site.BASE_DIR, "docs", "openapi.yaml").read_text())
    for path, operations in schema["paths"].items():
        if "get" not in operations or "{" in path:
            continue
        names = {parameter["name"].partition("__")[0] for parameter in operations["get"].get("parameters", ())}
        (row,) = re.findall(rf"^\| `GET {re.escape(path)}`.*$", DOCUMENT, re.MULTILINE) or [""]
        told = {name.strip() for name in row.rpartition("| ")[2].strip(" |").split(",")} - {""}
        assert told == names - {"cursor", "page_size"} or path == "/metrics", path


def test_every_state_and_code_is_in_it() -> None:
    words = set(re.findall(r"`(\w+)`", DOCUMENT))
    assert set(InstructionState) <= words
    acting = "".join(
        Path(site.BASE_DIR, name).read_text() for name in ("tradingsite/acting.py", "tradingsite/idempotency.py")
    )
    assert set(re.findall(r'(?:default_code = |code=)"(\w+)"', acting)) <= words
    taker = Path(site.BASE_DIR, "positions/instruction_taker.py").read_text()
    answers = set(re.findall(r'_refused\("(\w+)"\)', taker))
    assert len(answers) >= 8
    assert answers <= words


@pytest.mark.django_db(transaction=True)
class TestExamples:
    def test_the_first_request_takes_two_commands(self, live_server: LiveServer) -> None:
        User.objects.create_user("ada")
        make, ask = example("").strip().splitlines()
        out = StringIO()
        call_command(*re.search(r"manage.py ([^)]*)\)", make)[1].split(), stdout=out, stderr=StringIO())
        header, address = re.fullmatch(r'curl -H "(.*): Token \$TOKEN" http://127.0.0.1:8000(\S*)', ask).groups()
        told = requests.get(live_server.url + address, headers={header: f"Token {out.getvalue().strip()}"}, timeout=10)
        assert (told.status_code, told.json()["results"]) == (200, [])

    def test_the_program_sums_up_every_page(self, live_server: LiveServer) -> None:
        trades = TradeFactory.create_batch(120)
        TradeFactory(book="paper:1")
        TradeFactory(still_open=True, signal_at=trades[0].signal_at + timedelta(days=1))
        user = User.objects.create_user("ada")
        permit(user, "positions.view_trade")
        program: dict[str, Any] = {}
        exec(example("python"), program)  # the document's own example
        found, dollars = program["results"](live_server.url, AuthToken.objects.create(user)[1])
        assert found == 120
        assert dollars == pytest.approx(float(sum(trade.pnl for trade in trades)))

    def test_the_alert_is_taken(self, live_server: LiveServer, settings: Any) -> None:
        settings.BOOK = "paper:1"
        user = User.objects.create_user("tradingview")
        permit(user, "positions.send_signal")
        message = example("json").replace("<the token>", AuthToken.objects.create(user)[1])
        told = requests.post(
            f"{live_server.url}/api/v1/signals/",
            data=message.replace("{{timenow}}", "2025-05-12T14:05:00Z"),
            headers={"Content-Type": "application/json; charset=utf-8"},
            timeout=10,
        )
        assert told.status_code == 202
        assert Instruction.objects.get().asked_by == "tradingview"

    def test_the_error_is_that_of_the_api(self, live_server: LiveServer) -> None:
        user = User.objects.create_superuser("ada")
        headers = {"Authorization": f"Token {AuthToken.objects.create(user)[1]}"}
        told = requests.get(f"{live_server.url}/api/v1/trades/?sybmol=KO", headers=headers, timeout=10)
        assert told.json() == json.loads(example("json", 1))
