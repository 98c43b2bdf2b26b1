"""How long the pages of million-row tables take, filtered and not; on the database that DATABASE_URL names.

    python -m pytest tests/benchmarks/test_pages_benchmark.py -m slow -s

The bound that was asked for is asserted of the median of some requests; beside it stands the same page of a table with
a hundred rows, measured in the same run: it is the page's own cost, which no table changes.
"""

import time
from datetime import timedelta
from statistics import median
from typing import Any

import pytest
from django.db import connection, models
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from ml.models import MLModel, Performance, Prediction, TradeFeatures
from ml.performance_tracker import PerformanceTracker
from ml.words import ModelStatus
from positions.models import OrderIntent, PositionExit, StopMove, Trade
from tests.factories import TradeFactory, features_of
from tests.site.conftest import *  # noqa: F403  # its fixtures: a row in every table, and the owner's client

pytestmark = pytest.mark.slow

ROWS, FEW, REQUESTS, LONGEST_S = 1_000_000, 100, 7, 0.150
SESSIONS = 750  # three years
TODAY = 100  # trades that have closed in the session that runs
#: What must differ between copies of a row for the table's unique keys to hold.
KEYS = {
    Trade: {"signal_key": "'COPY-' || n", "symbol": "'S' || (n % 500)"},
    TradeFeatures: {"signal_key": "'COPY-' || n", "symbol": "'S' || (n % 500)"},
    Prediction: {"signal_key": "'COPY-' || n"},
    PositionExit: {"status": "'superseded'"},
    StopMove: {"status": "'confirmed'"},
    OrderIntent: {"client_order_id": "'COPY-' || n"},
}
QUERIES = {
    Trade: ("", "?book=simulated", "?q=s7", "?outcome__exact=LOSS"),
    TradeFeatures: ("", "?book=simulated", "?q=s7", "?taken__exact=0"),
    Prediction: ("", "?book=simulated", "?q=COPY-77", "?decision__exact=skip"),
    PositionExit: ("", "?book=simulated", "?rule__exact=target"),
    StopMove: ("", "?book=simulated"),
    OrderIntent: ("", "?book=simulated", "?q=COPY-77", "?status__exact=rejected"),
}


def multiply(model: type[models.Model], times: int) -> None:
    """Copies of the table's newest row, each with keys of its own."""
    names = [field.column for field in model._meta.concrete_fields if not field.primary_key]
    values = [KEYS[model].get(name, f'"{name}"') for name in names]
    table, columns = model._meta.db_table, ", ".join(f'"{name}"' for name in names)
    count = f"WITH RECURSIVE many(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM many WHERE n < {times})"
    newest = f'(SELECT * FROM "{table}" ORDER BY id DESC LIMIT 1) AS one'
    with connection.cursor() as cursor:
        cursor.execute(
            f'{count} INSERT INTO "{table}" ({columns}) SELECT {", ".join(values)} FROM many CROSS JOIN {newest}'
            if connection.vendor == "postgresql"
            else f'INSERT INTO "{table}" ({columns}) {count} SELECT {", ".join(values)} FROM many CROSS JOIN {newest}'
        )
        cursor.execute(f"ANALYZE {table}")


def seconds(client: Client, where: str) -> float:
    taken = []
    for _ in range(REQUESTS):
        started = time.perf_counter()
        assert client.get(where).status_code == 200
        taken.append(time.perf_counter() - started)
    return median(taken)


@pytest.mark.parametrize("model", KEYS)
def test_every_page_of_a_million_rows_answers_in_time(model: type, rows: Trade, owner_client: Client) -> None:
    where = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")
    multiply(model, FEW)
    few = {query: seconds(owner_client, where + query) for query in QUERIES[model]}
    model.objects.exclude(pk=model.objects.order_by("pk").values("pk")[:1]).delete()
    multiply(model, ROWS)
    newest = model.objects.order_by("-pk").first()
    detail = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_change", args=[newest.pk])
    many = {query: seconds(owner_client, where + query) for query in QUERIES[model]}
    own = seconds(owner_client, detail)
    print(f"\n{connection.vendor} {model._meta.db_table}: one row's page {own * 1000:.0f} ms")  # noqa: T201  # with -s
    for query, taken in many.items():
        print(f"  list{query or ' as it is'}: {taken * 1000:.0f} ms; of {FEW} rows {few[query] * 1000:.0f} ms")  # noqa: T201
    assert max(own, *many.values()) <= LONGEST_S


@pytest.mark.parametrize("book", ["simulated", "paper:first"])
def test_the_dashboard_over_a_million_trades_answers_in_time(
    book: str, rows: Trade, owner_client: Client, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an account in the middle of a session, of which many trades have closed: only these are read."""
    settings.BOOK = book
    for model in (*KEYS, MLModel, Performance):
        model.objects.update(book=book)
    now = rows.signal_at + timedelta(days=1)
    monkeypatch.setattr(timezone, "now", lambda: now)
    PerformanceTracker(book).record_session(rows.session)
    MLModel.objects.update(status=ModelStatus.CHAMPION, serving_book=book)
    few = seconds(owner_client, "/admin/")
    multiply(Trade, ROWS)
    for trade in TradeFactory.create_batch(TODAY, book=book, signal_at=now - timedelta(minutes=20)):
        features_of(trade)
    session = Performance.objects.get()
    side = {"model": MLModel.objects.get().pk, "n": 90, "won": 40, "r": 1.5, "p_geometry": 30.0}
    session.judged = [{**side, "refused": False}, {**side, "refused": True}]
    for _ in range(SESSIONS):
        session.pk, session.session = None, session.session - timedelta(days=1)
        session.save()
    taken = seconds(owner_client, "/admin/")
    shows_today = b"Session of 2024-01-04 so far" in owner_client.get("/admin/").content
    assert shows_today == (book != "simulated")
    print(f"\n{connection.vendor} dashboard of {book}: {taken * 1000:.0f} ms; of one trade {few * 1000:.0f} ms")  # noqa: T201  # with -s
    assert taken <= LONGEST_S
