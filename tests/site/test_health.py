"""How the site is, told to whoever starts processes and to whoever watches them."""

import sqlite3
from datetime import timedelta
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import DatabaseError, InterfaceError, OperationalError, ProgrammingError, connection
from django.db.migrations.recorder import MigrationRecorder
from django.test import Client
from django.utils import timezone
from knox.models import AuthToken
from prometheus_client.parser import text_string_to_metric_families
from rest_framework.test import APIClient

from positions import instructions
from positions.halting import Halt, halt
from positions.journal import Journal
from positions.models import Trade, WorkerLease
from tests.factories import TradeFactory
from tests.site.conftest import permit
from tests.site.test_api_problems import problem_of
from tradingsite import health
from tradingsite.health import NEEDED

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def folder(settings: Any, tmp_path: Path) -> Path:
    settings.VAR_DIR = tmp_path
    return tmp_path


@pytest.fixture
def watcher(newcomer: User) -> APIClient:
    """As Prometheus asks: a token, and its own idea of what it accepts."""
    permit(newcomer, *NEEDED)
    token = AuthToken.objects.create(newcomer)[1]
    accepted = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
    return APIClient(HTTP_AUTHORIZATION=f"Token {token}", HTTP_ACCEPT=accepted)


def lease(book: str, **changes: Any) -> WorkerLease:
    now = timezone.now()
    times = {"acquired_at": now, "heartbeat_at": now, "expires_at": now + timedelta(seconds=12), **changes}
    return WorkerLease.objects.create(book=book, name="trade", holder="host:1", **times)


def database_is_away(*_: Any) -> None:
    raise OperationalError("away")


def not_a_database() -> DatabaseError:
    """What SQLite says of a file that holds something else."""
    error = DatabaseError("file is not a database")
    with NamedTemporaryFile() as file, sqlite3.connect(file.name) as opened:
        file.write(b"something else" * 100)
        file.flush()
        try:
            opened.execute("SELECT 1 FROM trades")
        except sqlite3.DatabaseError as cause:
            error.__cause__ = cause
    return error


def test_the_process_is_up_whatever_the_database_does(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    with connection.execute_wrapper(database_is_away):
        assert client.get("/healthz").json() == {"status": "ok"}


def test_a_site_that_trades_nothing_is_ready_with_its_database(client: Client) -> None:
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()) == (200, {"database": "ok", "migrations": "ok", "trading": "ok"})


def test_without_a_database_it_is_not_ready(client: Client, monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    settings.BOOK = "paper:1"
    health._were_current.cache_clear()
    monkeypatch.setattr(health.connection, "close", lambda: None)  # the test's own
    with connection.execute_wrapper(database_is_away):
        answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["database"]) == (503, "It cannot be reached.")


def test_without_a_database_the_api_asks_to_be_asked_again(owner: User) -> None:
    api = APIClient(raise_request_exception=False)
    api.force_authenticate(owner)
    with connection.execute_wrapper(database_is_away):
        for address in ("/api/v1/trades/", "/api/v1/health/", "/metrics"):
            problem_of(api.get(address), 503, "database_away")


@pytest.mark.parametrize("error", [OperationalError("away"), InterfaceError("closed"), not_a_database()])
def test_without_a_database_pages_name_it_and_say_what_works_without_it(error: Exception, owner_client: Client) -> None:
    owner_client.raise_request_exception = False

    def away(*_: Any) -> None:
        raise error

    with connection.execute_wrapper(away):
        for address in ("/admin/", "/admin/positions/trade/", "/reports/", "/admin/login/"):
            answer = owner_client.get(address)
            assert answer.status_code == 503
            assert "The database does not answer" in answer.content.decode()
            assert "python manage.py halt" in answer.content.decode()
        problem_of(owner_client.get("/api/v1/trades/"), 503, "database_away")  # type: ignore[arg-type]


def test_a_mistake_of_ours_in_a_query_is_not_taken_for_the_databases(owner_client: Client) -> None:
    owner_client.raise_request_exception = False

    def mistaken(*_: Any) -> None:
        raise ProgrammingError("no such column")

    with connection.execute_wrapper(mistaken):
        assert owner_client.get("/admin/").status_code == 500


def test_with_a_migration_that_is_not_applied_it_is_not_ready(client: Client) -> None:
    health._were_current.cache_clear()
    MigrationRecorder.Migration.objects.filter(app="positions").delete()
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["migrations"]) == (503, "Run python manage.py migrate.")


def test_an_account_that_nobody_watches_is_not_ready(client: Client, settings: Any) -> None:
    settings.BOOK = "paper:1"
    lease("paper:2")
    assert (client.get("/readyz").status_code, client.get("/readyz").json()["trading"]) == (
        503,
        "Run python manage.py trade.",
    )
    held = lease("paper:1")
    assert client.get("/readyz").status_code == 200
    WorkerLease.objects.filter(pk=held.pk).update(expires_at=timezone.now())
    assert client.get("/readyz").status_code == 503


def metrics(client: APIClient) -> dict[str, dict[tuple[str, ...], float]]:
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert answer["Content-Type"].startswith("text/plain; version=0.0.4")
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(answer.content.decode()):
        assert family.documentation
        for sample in family.samples:
            assert sample.labels.pop("book") == "simulated"
            found.setdefault(family.name, {})[tuple(sample.labels.values())] = sample.value
    return found


def test_metrics_say_how_the_book_is(rows: Trade, watcher: APIClient, folder: Path) -> None:
    opened = TradeFactory(still_open=True)
    TradeFactory(book="paper:1")
    lease("simulated", heartbeat_at=timezone.now() - timedelta(seconds=40), tick_seconds=0.2)
    instructions.ask_close(opened, instructions.Asked("ada", timezone.now()))
    halt("simulated", Halt("ada", timezone.now()))
    Journal.create(folder / "journal").append(b'{"at":1.5}')
    found = metrics(watcher)
    assert (found["trading_trades"]["open",], found["trading_trades"]["closed",]) == (1, 1)
    assert found["trading_trades"]["entering",] == 0
    assert found["trading_halted"] == {(): 1}
    assert found["trading_lease_age_seconds"]["trade",] == pytest.approx(40, abs=5)
    assert found["trading_look_seconds"] == {("trade",): 0.2}
    assert found["trading_instructions_waiting"] == {(): 1}
    assert found["trading_feature_rows_waiting"] == {(): 1}
    assert found["trading_feature_rows_waiting_seconds"][()] > 1e9
    assert found["trading_last_session_pnl_dollars"] == {(): 19}
    assert found["trading_last_session_trades"] == {(): 1}
    assert found["trading_prediction_seconds"] == {("0.5",): 180e-6, ("0.99",): 180e-6}
    assert found["trading_predictions_looked_at"] == {(): 1}


def test_a_metric_says_that_nobody_watches_whether_trade_ended_or_hangs(watcher: APIClient) -> None:
    assert metrics(watcher)["trading_watched"] == {(): 0}
    held = lease("simulated")
    assert metrics(watcher)["trading_watched"] == {(): 1}
    WorkerLease.objects.filter(pk=held.pk).update(expires_at=timezone.now())
    assert metrics(watcher)["trading_watched"] == {(): 0}
    WorkerLease.objects.create(
        book="simulated", name="training", holder="host:2", acquired_at=timezone.now(), heartbeat_at=timezone.now(),
        expires_at=timezone.now() + timedelta(seconds=12),
    )  # fmt: skip
    assert metrics(watcher)["trading_watched"] == {(): 0}


def test_what_is_not_known_is_absent(watcher: APIClient) -> None:
    found = metrics(watcher)
    assert found["trading_halted"] == {(): 0}
    assert not {"trading_last_session_pnl_dollars", "trading_prediction_seconds", "trading_lease_age_seconds"} & set(
        found
    )


def test_figures_cost_few_queries_however_much_there_is(
    rows: Trade, watcher: APIClient, django_assert_max_num_queries: Any
) -> None:
    for page in ("/metrics", "/api/v1/health/"):
        watcher.get(page)
        with django_assert_max_num_queries(12) as few:
            watcher.get(page, HTTP_ACCEPT="*/*")
        for _ in range(5):
            TradeFactory(still_open=True)
        with django_assert_max_num_queries(len(few.captured_queries)):
            watcher.get(page, HTTP_ACCEPT="*/*")


@pytest.mark.parametrize("page", ["/metrics", "/api/v1/health/"])
def test_figures_are_for_who_may_see_what_they_are_made_of(page: str, newcomer: User) -> None:
    problem_of(APIClient().get(page), 401, "not_authenticated")
    permit(newcomer, *NEEDED[:-1])
    client = APIClient()
    client.force_authenticate(User.objects.get(pk=newcomer.pk))
    problem_of(client.get(page), 403, "permission_denied")


def test_the_api_tells_the_same(rows: Trade, watcher: APIClient) -> None:
    held = lease("simulated", last_error="KO: odd", quarantined_bars=3)
    told = watcher.get("/api/v1/health/", HTTP_ACCEPT="application/json").json()
    assert told["readiness"] == {"database": "ok", "migrations": "ok", "trading": "ok"}
    assert (told["book"], told["halted"], told["trades"]["closed"]) == ("simulated", False, 1)
    assert (held.last_error, 3) in [(each["last_error"], each["quarantined_bars"]) for each in told["leases"]]
    assert told["last_session"]["pnl"] == "19.000000"
    assert told["latency"] == {"n": 1, "median": 180e-6, "p99": 180e-6}
    assert told["waiting_rows"] == {"rows": 0, "oldest_at": None}
