"""The API is what its schema says, and the schema that is committed is the API's."""

import os
import subprocess
import sys
from base64 import b64encode
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as site
from django.contrib.auth.models import User
from django.core.management import call_command
from django.core.servers.basehttp import WSGIRequestHandler
from django.utils import timezone
from knox.models import AuthToken
from pytest_django.live_server_helper import LiveServer

from positions import instructions
from tests.factories import MLModelFactory, TradeFactory
from tests.site.conftest import fill_tables

#: Of each operation in each phase; CI takes fewer.
EXAMPLES = int(os.environ.get("API_EXAMPLES", "20"))
COMMITTED = Path(site.BASE_DIR, "docs", "openapi.yaml")

#: No schema can say that the stop of a long lies below its target, that a key is new or stands in header or body, or
#: what a cursor is made of.
BEYOND_SCHEMAS = f"""
[generation]
allow-x00 = false

[checks]
positive_data_acceptance.expected-statuses = ["2xx", "401", "403", "404", "409", "422", "428"]
missing_required_header.expected-statuses = ["401", "428"]

[parameters]
"query.cursor" = "{b64encode(b"p=2024-01-03T00:00:00Z").decode()}"

[[operations]]
include-path = "/api/v1/performance/"
parameters = {{ "query.cursor" = "{b64encode(b"p=2024-01-03").decode()}" }}
"""


def test_the_committed_schema_is_that_of_the_api() -> None:
    made = StringIO()
    call_command("spectacular", "--validate", "--fail-on-warn", stdout=made)
    assert made.getvalue() == COMMITTED.read_text(), "run python manage.py spectacular --file docs/openapi.yaml"


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_nothing_is_found_that_the_schema_does_not_say(
    live_server: LiveServer, settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("schemathesis", reason="schemathesis stands in pyproject.toml's dev group")
    monkeypatch.setattr(WSGIRequestHandler, "disable_nagle_algorithm", True)  # it would wait 40 ms an answer
    settings.API_READS_PER_MINUTE = settings.API_ACTS_PER_MINUTE = 10**6
    settings.BOOK, settings.VAR_DIR = "paper:1", tmp_path / "var"
    settings.VAR_DIR.mkdir()
    opened = TradeFactory(book="paper:1", symbol="AAPL", still_open=True)
    fill_tables(opened, MLModelFactory(book="paper:1"))
    instructions.ask_close(opened, instructions.Asked("ada", timezone.now()))
    token = AuthToken.objects.create(User.objects.create_superuser("ada"))[1]
    (tmp_path / "schemathesis.toml").write_text(BEYOND_SCHEMAS)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{live_server.url}/api/v1/schema/"),
            *("--header", f"Authorization: Token {token}", "--max-examples", str(EXAMPLES), "--seed", "1"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-12_000:] + done.stderr[-2000:]
