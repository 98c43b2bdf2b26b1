"""Whatever goes wrong at the API is told as application/problem+json."""

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.http import HttpResponse
from django.test import Client
from rest_framework.test import APIClient

from tests.site.conftest import permit


@pytest.fixture
def api(owner: User) -> APIClient:
    client = APIClient(raise_request_exception=False)
    client.force_authenticate(owner)
    return client


def problem_of(answer: HttpResponse, status: int, code: str) -> dict[str, Any]:
    assert answer["Content-Type"] == "application/problem+json"
    told = answer.json()
    assert (answer.status_code, told["status"], told["code"]) == (status, status, code)
    assert told["type"] == "about:blank"
    assert told["title"]
    assert told["detail"]
    return told


def test_errors_are_problem_documents(api: APIClient, monkeypatch: pytest.MonkeyPatch) -> None:
    problem_of(api.get("/api/v1/trades/77/"), 404, "not_found")
    problem_of(api.get("/api/v1/no-such-thing/"), 404, "not_found")
    problem_of(api.delete("/api/v1/trades/"), 405, "method_not_allowed")
    problem_of(api.get("/api/v1/trades/", HTTP_ACCEPT="text/html"), 406, "not_acceptable")
    problem_of(api.get("/api/v1/trades/", HTTP_HOST="elsewhere.example"), 400, "bad_request")
    monkeypatch.setattr("positions.api.TradeViewSet.get_queryset", lambda self: 1 / 0)
    told = problem_of(api.get("/api/v1/trades/"), 500, "error")
    assert "ZeroDivisionError" not in str(told)


def test_the_schema_and_its_page_answer_errors_likewise(newcomer: User) -> None:
    stranger, client = APIClient(), APIClient()
    client.force_authenticate(newcomer)
    for page in ("/api/v1/schema/", "/api/v1/docs/"):
        assert stranger.get(page)["WWW-Authenticate"] == "Token"
        problem_of(stranger.get(page), 401, "not_authenticated")
        problem_of(client.get(page), 403, "permission_denied")
        permitted = User.objects.get(pk=newcomer.pk)
        permit(permitted, "ml.view_prediction")
        client.force_authenticate(permitted)
        assert client.get(page).status_code == 200
        problem_of(client.get(page, {"format": "xml"}), 400, "invalid")
        newcomer.user_permissions.clear()
        client.force_authenticate(User.objects.get(pk=newcomer.pk))


def test_what_is_wrong_with_a_value_is_told_of_that_value(api: APIClient) -> None:
    told = problem_of(api.get("/api/v1/trades/", {"session": "yesterday"}), 400, "invalid")
    assert told["errors"] == {"session": ["Enter a valid date."]}
    assert told["detail"] == "session: Enter a valid date."
    told = problem_of(api.get("/api/v1/trades/", {"symbol": "K\0O"}), 400, "invalid")
    assert list(told["errors"]) == ["symbol"]


def test_pages_of_the_site_keep_their_error_pages(client: Client, db: None) -> None:
    assert client.get("/no-such-page/")["Content-Type"].startswith("text/html")
    assert client.get("/no-such-page/", HTTP_HOST="elsewhere.example")["Content-Type"].startswith("text/html")


def test_who_asks_too_often_is_told_when_to_ask_again(owner: User, newcomer: User, settings: Any) -> None:
    settings.API_READS_PER_MINUTE = 2
    often, other = APIClient(), APIClient()
    often.force_authenticate(owner)
    for _ in range(2):
        assert often.get("/api/v1/trades/").status_code == 200
    answer = often.get("/api/v1/trades/")
    problem_of(answer, 429, "throttled")
    assert 0 < int(answer["Retry-After"]) <= 60
    permit(newcomer, "positions.view_trade")
    other.force_authenticate(User.objects.get(pk=newcomer.pk))
    assert other.get("/api/v1/trades/").status_code == 200


@pytest.mark.parametrize("address", ["/api/v1/trades/", "/api/v1/health/", "/api/v1/schema/", "/metrics"])
@pytest.mark.parametrize("token", [{}, {"authorization": f"Token {'0' * 64}"}], ids=["none", "wrong"])
def test_who_has_no_valid_token_is_counted_by_address(
    address: str, token: dict[str, str], owner_client: Client, settings: Any
) -> None:
    settings.API_READS_PER_MINUTE = 2
    stranger = Client(headers=token)
    for _ in range(2):
        assert stranger.get(address).status_code == 401
    answer = stranger.get(address, headers={"X-Forwarded-For": "192.0.2.7"})
    problem_of(answer, 429, "throttled")
    assert 0 < int(answer["Retry-After"]) <= 60
    assert Client(REMOTE_ADDR="192.0.2.7", headers=token).get(address).status_code == 401
    assert owner_client.get(address).status_code == 200


def test_who_may_not_is_counted_too(newcomer_client: Client, settings: Any) -> None:
    settings.API_READS_PER_MINUTE = 1
    problem_of(newcomer_client.get("/api/v1/trades/"), 403, "permission_denied")
    problem_of(newcomer_client.get("/api/v1/trades/"), 429, "throttled")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"reason": ' + '{"a": ' * 2000, "nested too deeply"),
        ('{"book": "simulated", "book": "paper:1"}', "twice"),
        ('{"reason": NaN}', "JSON"),
        (b"\xff", "JSON"),
    ],
)
def test_a_body_that_is_no_plain_json_is_refused(api: APIClient, body: str | bytes, words: str) -> None:
    answer = api.post("/api/v1/halt/", body, content_type="application/json")
    assert words in problem_of(answer, 400, "parse_error")["detail"]
