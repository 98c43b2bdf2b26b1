from datetime import datetime, timedelta
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from knox.models import AuthToken
from pytest_django import DjangoAssertNumQueries
from rest_framework.test import APIClient

from ml.models import MLModel
from positions.models import Trade
from tests.factories import MLModelFactory, TradeFactory
from tests.site.conftest import HUGE_ARTIFACT, fill_tables, permit
from tradingsite.api import router

#: Open positions are trades: tests of their own.
LISTS = {prefix: f"/api/v1/{prefix}/" for prefix, _, _ in router.registry if prefix != "positions"}
VIEWS = {prefix: view for prefix, view, _ in router.registry}


@pytest.fixture
def api(owner: User) -> APIClient:
    client = APIClient()
    client.force_authenticate(owner)
    return client


def test_every_table_has_its_address() -> None:
    assert set(LISTS) == {
        "trades", "shadow-trades", "rule-notes", "error-notes", "instructions", "exits", "stop-moves", "order-intents",
        "instruments", "leases",
        "features", "models", "predictions", "performance", "leakage-checks", "drift-checks",
    }  # fmt: skip


@pytest.mark.parametrize("prefix", LISTS)
def test_lists_and_rows_answer(prefix: str, rows: Trade, api: APIClient) -> None:
    found = api.get(LISTS[prefix]).json()["results"]
    assert len(found) == 1
    row = api.get(f"{LISTS[prefix]}{found[0]['id']}/").json()
    assert {name: row[name] for name in found[0]} == found[0]


@pytest.mark.parametrize("prefix", LISTS)
def test_nothing_can_be_written(prefix: str, rows: Trade, api: APIClient) -> None:
    row = VIEWS[prefix].queryset.first()
    for method in (api.post, api.put, api.patch, api.delete):
        if (prefix, method) != ("predictions", api.post):
            assert method(LISTS[prefix], {}).status_code == 405
        assert method(f"{LISTS[prefix]}{row.pk}/", {}).status_code == 405


@pytest.mark.parametrize("prefix", LISTS)
def test_a_stranger_gets_401_and_a_user_without_the_permission_403(prefix: str, rows: Trade, newcomer: User) -> None:
    client, row = APIClient(), VIEWS[prefix].queryset.first()
    pages = (LISTS[prefix], f"{LISTS[prefix]}{row.pk}/")
    for page in pages:
        assert client.get(page).status_code == 401
        assert client.head(page).status_code == 401
    client.force_authenticate(newcomer)
    for page in pages:
        assert client.get(page).status_code == 403
        assert client.head(page).status_code == 403
        assert client.options(page).status_code == 403


def test_the_view_permission_of_one_table_opens_that_table_alone(rows: Trade, newcomer: User) -> None:
    permit(newcomer, "ml.view_prediction")
    client = APIClient()
    client.force_authenticate(User.objects.get(pk=newcomer.pk))
    assert client.get("/api/v1/predictions/").status_code == 200
    assert client.get("/api/v1/trades/").status_code == 403


def test_a_token_lets_in_until_it_expires(rows: Trade, owner: User) -> None:
    row, token = AuthToken.objects.create(owner, expiry=timedelta(days=1))
    client = APIClient(HTTP_AUTHORIZATION=f"Token {token}")
    assert client.get("/api/v1/trades/").status_code == 200
    row.expiry = timezone.now() - timedelta(seconds=1)
    row.save()
    assert client.get("/api/v1/trades/").status_code == 401


@pytest.mark.parametrize("prefix", LISTS)
def test_an_unknown_query_parameter_is_refused_by_name(prefix: str, rows: Trade, api: APIClient) -> None:
    row = VIEWS[prefix].queryset.first()
    for page in (LISTS[prefix], f"{LISTS[prefix]}{row.pk}/"):
        answer = api.get(page, {"sybmol": "AAPL"})
        assert answer.status_code == 400
        assert "sybmol" in answer.json()["errors"]


@pytest.mark.parametrize(
    "query",
    [
        "symbol=",
        "symbol=KO&symbol=F",
        "page_size=0",
        "page_size=1.5",
        "page_size=1001",
        "page_size=-1",
        "page_size=" + "9" * 5000,
        "cursor=x",
        "cursor=cD0yMDI0",
        "trade=1",
    ],
)
def test_a_parameter_that_would_be_ignored_is_refused_by_name(api: APIClient, query: str) -> None:
    TradeFactory.create_batch(2)
    answer = api.get(f"/api/v1/trades/?{query}")
    assert answer.status_code == 400
    assert list(answer.json()["errors"]) == [query.partition("=")[0]]


def test_a_value_that_cannot_be_is_refused_by_name(rows: Trade, api: APIClient) -> None:
    answer = api.get("/api/v1/trades/", {"session": "yesterday"})
    assert answer.status_code == 400
    assert "session" in answer.json()["errors"]


def test_a_trade_tells_how_its_plan_ended(api: APIClient) -> None:
    early = TradeFactory(outcome="LOSS", exit_reason="time_limit", plan_outcome="WIN")
    told = api.get(f"/api/v1/trades/{early.pk}/").json()
    assert (told["outcome"], told["plan_outcome"], told["plan_exit_reason"]) == ("LOSS", "WIN", "target")
    assert told["plan_r"] == 1.9
    assert datetime.fromisoformat(told["plan_ended_at"]) == early.plan_ended_at


def test_a_list_holds_one_book(rows: Trade, api: APIClient, settings: Any) -> None:
    real = TradeFactory(book="live:1")

    def found(**query: str) -> list[int]:
        return [row["id"] for row in api.get("/api/v1/trades/", query).json()["results"]]

    assert found() == [rows.pk]
    assert found(book="live:1") == [real.pk]
    settings.BOOK = "live:1"
    assert found() == [real.pk]


def test_filters_narrow(rows: Trade, api: APIClient) -> None:
    later = TradeFactory(symbol="MSFT", signal_at=rows.signal_at + timedelta(days=2))

    def found(**query: str) -> list[int]:
        return [row["id"] for row in api.get("/api/v1/trades/", query).json()["results"]]

    assert found(symbol="MSFT") == [later.pk]
    assert found(session__lte=str(rows.session)) == [rows.pk]
    assert found(signal_at__gte=later.signal_at.isoformat()) == [later.pk]
    assert [row["trade"] for row in api.get("/api/v1/exits/", {"trade": rows.pk}).json()["results"]] == [rows.pk]
    assert api.get("/api/v1/exits/", {"trade": rows.pk + 1000}).json()["results"] == []


def test_pages_are_newest_first_and_lose_or_repeat_nothing_while_rows_are_added(rows: Trade, api: APIClient) -> None:
    for _ in range(24):
        TradeFactory()
    expected = list(Trade.objects.values_list("pk", flat=True))
    page, seen = api.get("/api/v1/trades/", {"page_size": 10}).json(), []
    while True:
        seen += [row["id"] for row in page["results"]]
        TradeFactory(signal_at=timezone.now())
        if page["next"] is None:
            break
        page = api.get(page["next"]).json()
    assert seen == expected


def test_the_artifact_of_a_model_is_neither_shown_nor_loaded(
    trained: MLModel, api: APIClient, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    for page in ("/api/v1/models/", f"/api/v1/models/{trained.pk}/"):
        with django_assert_max_num_queries(5) as queries:
            answer = api.get(page)
        assert "artifact_sha256" in answer.content.decode()
        assert HUGE_ARTIFACT not in answer.content.decode()
        assert not any('"artifact"' in query["sql"] for query in queries.captured_queries)


@pytest.mark.parametrize("prefix", LISTS)
def test_a_page_takes_one_query_however_many_rows_it_holds(
    prefix: str, rows: Trade, api: APIClient, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    for _ in range(5):
        fill_tables(TradeFactory(), MLModelFactory())
    with django_assert_num_queries(1):
        assert api.get(LISTS[prefix]).json()["results"]


def test_the_schema_describes_every_address_and_is_for_users_only(api: APIClient) -> None:
    schema = api.get("/api/v1/schema/", HTTP_ACCEPT="application/vnd.oai.openapi+json").json()
    assert set(schema["paths"]) >= set(LISTS.values())
    names = {each["name"] for each in schema["paths"]["/api/v1/trades/"]["get"]["parameters"]}
    assert names >= {"book", "symbol", "session__gte", "cursor", "page_size"}
    assert APIClient().get("/api/v1/schema/").status_code == 401


def test_the_documentation_page_loads_nothing_from_elsewhere(api: APIClient) -> None:
    page = api.get("/api/v1/docs/").content.decode()
    assert "/static/drf_spectacular_sidecar/" in page
    assert "https://" not in page
    assert "http://" not in page.replace("http://testserver", "")


@pytest.mark.parametrize(
    "query",
    [
        {"cursor": "cD0yMDI0"},
        {"cursor": "cD1hYmM="},
        {"signal_at__lte": "9999-12-31T23:59:59-12:00"},
        {"signal_at__gte": "0001-01-01T00:00:00+14:00"},
        {"symbol": "K\0O"},
    ],
    ids=str,
)
def test_a_value_that_no_row_can_have_is_no_error_of_ours(owner_client: Client, query: dict[str, str]) -> None:
    TradeFactory.create_batch(2, book=settings.BOOK)
    # A time beyond the calendar is too much for SQLite, and simply later than everything for PostgreSQL.
    assert owner_client.get("/api/v1/trades/", query).status_code in (
        {400} if "signal_at" not in str(query) else {200, 400}
    )


@pytest.mark.parametrize("moment", ["2024-01-03T15:00:00", "2024-01-03"])
def test_a_time_without_its_zone_is_refused_not_guessed(moment: str, owner_client: Client) -> None:
    answer = owner_client.get("/api/v1/trades/", {"signal_at__gte": moment})
    assert answer.status_code == 400
    assert "with its zone" in answer.content.decode()
    assert owner_client.get("/api/v1/trades/", {"signal_at__gte": f"{moment[:10]}T15:00:00-05:00"}).status_code == 200


def test_a_regular_expression_or_a_month_of_99_in_an_admin_address_is_not_run(owner_client: Client) -> None:
    TradeFactory()
    parts = "signal_at__year=9999999&signal_at__month=99&signal_at__day=99"
    assert owner_client.get(f"/admin/positions/trade/?{parts}").status_code == 302
    assert owner_client.get("/admin/positions/trade/?symbol__regex=(").status_code == 400
    assert owner_client.get("/admin/?book=%00").status_code == 200
