"""The API where it acts: who may, what the trading process is asked, and that asking twice acts once."""

import json
import threading
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.core.exceptions import ValidationError
from django.db import DataError, connections
from django.http import HttpResponse
from django.utils import timezone
from knox.models import AuthToken
from rest_framework.test import APIClient

from ml.asking import OLDEST
from ml.features import MODEL_FEATURES
from ml.models import Prediction
from positions.halting import halted
from positions.models import Instruction
from tests.factories import PLAUSIBLE, TradeFactory, TradeFeaturesFactory
from tests.ml.test_serving import artifacts, make  # noqa: F401  # fixtures
from tests.site.conftest import permit
from tests.site.test_api_problems import problem_of
from tradingsite.groups import ACTS, OPERATOR, VIEWER, complete_groups
from tradingsite.idempotency import KEPT
from tradingsite.models import IdempotencyKey

BOOK = "paper:1"
SIGNAL = {"symbol": "AAPL", "side": "long", "stop": 99.5, "target": 103}
ACTING = {
    "/api/v1/halt/": {"reason": "news"},
    "/api/v1/resume/": {},
    "/api/v1/positions/AAPL/close/": {},
    "/api/v1/signals/": SIGNAL,
    "/api/v1/predictions/": {"symbol": "AAPL"},
}


@pytest.fixture(autouse=True)
def paper(settings: Any, tmp_path: Any) -> None:
    settings.BOOK, settings.VAR_DIR = BOOK, tmp_path


def client_of(group: str, name: str = "eve") -> APIClient:
    user = User.objects.create_user(name)
    user.groups.add(Group.objects.get(name=group))
    client = APIClient()
    client.force_authenticate(user)
    return client


@pytest.fixture
def operator(db: None) -> APIClient:
    return client_of(OPERATOR)


def post(client: APIClient, address: str, body: object, key: str | None = "k1", **more: Any) -> HttpResponse:
    headers = {} if key is None else {"Idempotency-Key": key}
    return client.post(address, body, format="json", headers=headers, **more)


@pytest.mark.django_db
@pytest.mark.parametrize("address", ACTING)
def test_a_viewer_reads_and_does_nothing(address: str) -> None:
    viewer, stranger = client_of(VIEWER), APIClient()
    assert viewer.get("/api/v1/trades/").status_code == 200
    problem_of(post(viewer, address, ACTING[address]), 403, "permission_denied")
    problem_of(post(stranger, address, ACTING[address]), 401, "not_authenticated")
    assert halted(BOOK) is None
    assert not Instruction.objects.exists()
    assert not IdempotencyKey.objects.exists()


@pytest.mark.django_db
def test_the_groups_are_completed_and_what_an_administrator_adds_stays() -> None:
    viewer, operator = Group.objects.get(name=VIEWER), Group.objects.get(name=OPERATOR)
    names = set(operator.permissions.values_list("codename", flat=True))
    assert set(ACTS) <= names
    assert names - set(ACTS) == set(viewer.permissions.values_list("codename", flat=True))
    viewer.permissions.set(operator.permissions.filter(codename="ask_model"))
    complete_groups("default")
    assert viewer.permissions.filter(codename="ask_model").exists()
    assert viewer.permissions.filter(codename="view_trade").exists()


def test_halt_and_resume(operator: APIClient) -> None:
    told = post(operator, "/api/v1/halt/", {"reason": "news", "flatten": True}, key=None).json()
    assert (told["book"], told["halted"], told["by"], told["flatten"]) == (BOOK, True, "eve", True)
    found = halted(BOOK)
    assert found is not None
    assert (found.reason, found.flatten, found.at) == ("news", True, datetime.fromisoformat(told["at"]))
    assert post(operator, "/api/v1/resume/", {}, key=None).json()["halted"] is False
    assert halted(BOOK) is None
    TradeFactory(book="paper:2")
    assert post(operator, "/api/v1/halt/", {"book": "paper:2"}, key=None).json()["book"] == "paper:2"
    assert halted(BOOK) is None


@pytest.mark.parametrize("address", ["/api/v1/halt/", "/api/v1/resume/"])
def test_a_mistyped_book_is_neither_halted_nor_resumed(operator: APIClient, address: str) -> None:
    told = problem_of(post(operator, address, {"book": "paper:12"}, key=None), 404, "not_found")
    assert told["detail"] == "There is no book paper:12 here; there are: paper:1."
    assert halted("paper:12") is None


def test_a_misspelt_field_halts_nothing(operator: APIClient) -> None:
    told = problem_of(post(operator, "/api/v1/halt/", {"flaten": True}), 400, "invalid")
    assert told["errors"] == {"flaten": ["There is no such field."]}
    problem_of(post(operator, "/api/v1/halt/", {"flatten": "yes"}), 400, "invalid")
    problem_of(post(operator, "/api/v1/halt/", {"book": "real"}), 400, "invalid")
    problem_of(post(operator, "/api/v1/halt/?dry_run=1", {}), 400, "invalid")
    problem_of(post(operator, "/api/v1/halt/", [1]), 400, "invalid")
    assert halted(BOOK) is None


def test_a_signal_is_asked_of_the_trading_process(operator: APIClient) -> None:
    answer = post(operator, "/api/v1/signals/", SIGNAL)
    assert answer.status_code == 202
    row = Instruction.objects.get()
    assert answer["Location"] == answer.json()["url"] == f"/api/v1/instructions/{row.pk}/"
    assert (row.book, row.kind, row.symbol, row.side, float(row.stop), float(row.target), row.asked_by) == (
        BOOK, "signal", "AAPL", "long", 99.5, 103.0, "eve",
    )  # fmt: skip
    told = operator.get(answer["Location"]).json()
    assert (told["state"], told["features"], told["predictions"]) == ("waiting", None, [])
    Instruction.objects.update(expires_at=timezone.now())
    assert operator.get(answer["Location"]).json()["state"] == "expired"
    assert operator.get("/api/v1/instructions/").json()["results"][0]["state"] == "expired"


def test_an_instruction_tells_what_it_led_to(operator: APIClient, make: Any) -> None:  # noqa: F811
    url = post(operator, "/api/v1/signals/", SIGNAL).json()["url"]
    row = TradeFeaturesFactory(book=BOOK, symbol="AAPL")
    Instruction.objects.update(signal_key=row.signal_key, state="accepted")
    Prediction.objects.create(
        book=BOOK, signal_key=row.signal_key, model=make(), mode="shadow", p_raw=0.4, p_win=0.41, p_geometry=0.33,
        decision="take", latency_us=180, predicted_at=timezone.now(),
    )  # fmt: skip
    told = operator.get(url).json()
    assert told["features"]["rsi14"] == row.rsi14
    assert [each["p_win"] for each in told["predictions"]] == [0.41]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"side": "buy"}, "side"), ({"symbol": "aapl"}, "symbol"),
        ({"stop": "99.5"}, "stop"), ({"stop": True}, "stop"), ({"target": 0}, "target"), ({"target": 1e9}, "target"),
        ({"stpo": 1}, "stpo"),
    ],
    ids=str,
)  # fmt: skip
def test_a_plan_that_cannot_be_is_refused_by_field(operator: APIClient, change: dict[str, Any], field: str) -> None:
    told = problem_of(post(operator, "/api/v1/signals/", {**SIGNAL, **change}), 400, "invalid")
    assert list(told["errors"]) == [field]
    assert not Instruction.objects.exists()


def test_a_plan_whose_stop_lies_on_the_side_of_its_target_is_refused(operator: APIClient) -> None:
    for change in ({"side": "short"}, {"stop": 104}, {"stop": 103}, {"side": "short", "stop": 103}):
        problem_of(post(operator, "/api/v1/signals/", {**SIGNAL, **change}), 422, "contradiction")
    assert not Instruction.objects.exists()


def test_where_nobody_trades_nothing_is_asked(operator: APIClient, settings: Any) -> None:
    settings.BOOK = "simulated"
    problem_of(post(operator, "/api/v1/signals/", SIGNAL), 409, "not_now")
    TradeFactory(symbol="AAPL", still_open=True)
    problem_of(post(operator, "/api/v1/positions/AAPL/close/", {}), 409, "not_now")
    assert not Instruction.objects.exists()


def test_a_position_is_listed_and_its_close_asked(operator: APIClient) -> None:
    trade = TradeFactory(book=BOOK, symbol="AAPL", still_open=True)
    TradeFactory(book=BOOK, symbol="MSFT")
    TradeFactory(symbol="KO", still_open=True)
    assert [row["symbol"] for row in operator.get("/api/v1/positions/").json()["results"]] == ["AAPL"]
    assert [row["symbol"] for row in operator.get("/api/v1/positions/?book=simulated").json()["results"]] == ["KO"]
    assert operator.get("/api/v1/positions/AAPL/").json()["id"] == trade.pk
    for symbol in ("MSFT", "KO"):
        problem_of(operator.get(f"/api/v1/positions/{symbol}/"), 404, "not_found")
        problem_of(post(operator, f"/api/v1/positions/{symbol}/close/", {}), 404, "not_found")
    assert post(operator, "/api/v1/positions/AAPL/close/", {"reason": "news"}).status_code == 202
    row = Instruction.objects.get()
    assert (row.kind, row.symbol, row.reason, row.asked_by) == ("close", "AAPL", "news", "eve")
    assert row.signal_key == trade.signal_key


class TestKeys:
    def test_the_same_request_acts_once_and_is_answered_the_same(self, operator: APIClient) -> None:
        TradeFactory(book=BOOK, symbol="AAPL", still_open=True)
        for address in ("/api/v1/positions/AAPL/close/", "/api/v1/signals/"):
            Instruction.objects.all().delete()
            first, second = (post(operator, address, ACTING[address], key=address[-7:-1]) for _ in range(2))
            assert (first.status_code, first.content) == (second.status_code, second.content)
            assert first["Location"] == second["Location"]
            assert (first.get("Idempotency-Replayed"), second["Idempotency-Replayed"]) == (None, "true")
            assert Instruction.objects.count() == 1

    def test_it_is_answered_the_same_when_the_position_is_closed_meanwhile(self, operator: APIClient) -> None:
        trade = TradeFactory(book=BOOK, symbol="AAPL", still_open=True)
        first = post(operator, "/api/v1/positions/AAPL/close/", {})
        trade.delete()
        assert post(operator, "/api/v1/positions/AAPL/close/", {}).content == first.content

    def test_a_halt_that_is_sent_again_after_resume_does_not_halt_again(self, operator: APIClient) -> None:
        post(operator, "/api/v1/halt/", {})
        post(operator, "/api/v1/resume/", {}, key="k2")
        assert post(operator, "/api/v1/halt/", {}).json()["halted"] is True
        assert halted(BOOK) is None

    def test_the_same_key_for_another_request_is_refused(self, operator: APIClient) -> None:
        post(operator, "/api/v1/signals/", SIGNAL)
        problem_of(post(operator, "/api/v1/signals/", {**SIGNAL, "target": 104}), 422, "key_reused")
        problem_of(post(operator, "/api/v1/halt/", {}), 422, "key_reused")
        assert halted(BOOK) is None
        assert Instruction.objects.count() == 1

    def test_a_key_is_its_users_own(self, operator: APIClient) -> None:
        for client in (operator, client_of(OPERATOR, "mallory")):
            assert post(client, "/api/v1/signals/", SIGNAL).status_code == 202
        assert Instruction.objects.count() == 2

    def test_what_would_act_twice_needs_one(self, operator: APIClient) -> None:
        TradeFactory(book=BOOK, symbol="AAPL", still_open=True)
        for address in ("/api/v1/positions/AAPL/close/", "/api/v1/signals/"):
            problem_of(post(operator, address, ACTING[address], key=None), 428, "key_missing")
        for key in ("k" * 129, "k 1", "ké", ""):
            problem_of(post(operator, "/api/v1/signals/", SIGNAL, key=key), 400, "invalid")
        assert not Instruction.objects.exists()

    def test_it_may_stand_in_the_body_and_must_not_differ(self, operator: APIClient) -> None:
        body = {**SIGNAL, "idempotency_key": "k1"}
        first = post(operator, "/api/v1/signals/", body, key=None)
        assert post(operator, "/api/v1/signals/", SIGNAL, key="k1").content == first.content
        problem_of(post(operator, "/api/v1/signals/", body, key="k2"), 422, "contradiction")

    def test_an_error_is_not_kept(self, operator: APIClient) -> None:
        problem_of(post(operator, "/api/v1/positions/AAPL/close/", {}), 404, "not_found")
        TradeFactory(book=BOOK, symbol="AAPL", still_open=True)
        assert post(operator, "/api/v1/positions/AAPL/close/", {}).status_code == 202

    def test_after_a_day_it_is_forgotten(self, operator: APIClient) -> None:
        post(operator, "/api/v1/signals/", SIGNAL)
        IdempotencyKey.objects.update(created_at=timezone.now() - KEPT)
        post(operator, "/api/v1/signals/", SIGNAL)
        assert Instruction.objects.count() == 2
        assert IdempotencyKey.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_of_many_requests_at_once_with_one_key_one_acts() -> None:
    user = User.objects.create_user("eve")
    user.groups.add(Group.objects.get(name=OPERATOR))
    together, answers = threading.Barrier(6), []

    def ask() -> None:
        client = APIClient()
        client.force_authenticate(user)
        together.wait()
        answers.append(post(client, "/api/v1/signals/", SIGNAL))
        connections.close_all()

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer.status_code for answer in answers] == [202] * 6
    assert len({answer.content for answer in answers}) == 1
    assert sum("Idempotency-Replayed" in answer for answer in answers) == 5
    assert Instruction.objects.count() == 1


class TestAlerts:
    """Who cannot send headers, as TradingView's alerts cannot."""

    @pytest.fixture
    def secret(self, newcomer: User) -> str:
        permit(newcomer, "positions.send_signal")
        return AuthToken.objects.create(newcomer)[1]

    def test_an_alert_carries_its_secret_and_its_key_in_the_body(self, secret: str) -> None:
        body = {**SIGNAL, "secret": secret, "idempotency_key": "AAPL-2025-05-12T14:05:00Z"}
        answers = [post(APIClient(), "/api/v1/signals/", body, key=None) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [202, 202]
        assert Instruction.objects.get().asked_by == "bob"
        assert not any(secret in answer.content.decode() for answer in answers)
        assert secret not in str(list(IdempotencyKey.objects.values()))
        assert secret not in str(list(Instruction.objects.values()))

    def test_a_wrong_secret_is_refused_and_not_told_back(self, secret: str) -> None:
        other = "1" if secret.endswith("0") else "0"
        for wrong in (secret[:-1] + other, "", "é", 7):
            answer = post(APIClient(), "/api/v1/signals/", {**SIGNAL, "secret": wrong})
            assert answer.status_code == 401
            assert secret[:-1] not in answer.content.decode()
        assert not Instruction.objects.exists()

    def test_a_secret_that_no_text_has_is_refused(self, db: None) -> None:
        body = json.dumps({**SIGNAL, "secret": "\ud800"})
        answer = APIClient().post("/api/v1/signals/", body, content_type="application/json")
        problem_of(answer, 401, "authentication_failed")

    def test_a_secret_that_may_not_is_refused(self, newcomer: User) -> None:
        secret = AuthToken.objects.create(newcomer)[1]
        problem_of(post(APIClient(), "/api/v1/signals/", {**SIGNAL, "secret": secret}), 403, "permission_denied")

    def test_it_opens_nothing_but_signals(self, secret: str) -> None:
        problem_of(post(APIClient(), "/api/v1/halt/", {"secret": secret}), 401, "not_authenticated")

    def test_what_is_no_json_is_refused(self) -> None:
        answer = APIClient().post("/api/v1/signals/", "buy AAPL", content_type="text/plain")
        problem_of(answer, 401, "not_authenticated")
        problem_of(APIClient().post("/api/v1/signals/", "{", content_type="application/json"), 401, "not_authenticated")


class TestAskingTheModel:
    FEATURES = {feature.name: PLAUSIBLE[feature.name] for feature in MODEL_FEATURES}

    def test_without_a_model_it_says_so(self, operator: APIClient) -> None:
        told = problem_of(post(operator, "/api/v1/predictions/", {"features": self.FEATURES}), 409, "no_model")
        assert told["detail"] == "no model serves this book."

    def test_it_is_asked_about_features_and_stores_no_prediction(self, operator: APIClient, make: Any) -> None:  # noqa: F811
        model = make(champion=True, book=BOOK)
        told = post(operator, "/api/v1/predictions/", {"features": self.FEATURES}, key=None).json()
        assert (told["book"], told["model"], told["signal_key"]) == (BOOK, model.version, None)
        assert 0 < told["p_win"] < 1
        assert told["p_geometry"] == pytest.approx(1 / 3)
        assert told["decision"] in {"take", "skip", "abstain"}
        unknown = {**self.FEATURES, "rsi14": None}
        assert post(operator, "/api/v1/predictions/", {"features": unknown}, key=None).status_code == 200
        assert not Prediction.objects.exists()

    def test_of_a_symbol_those_of_its_newest_signal_are_taken(self, operator: APIClient, make: Any) -> None:  # noqa: F811
        make(champion=True, book=BOOK)
        row = TradeFeaturesFactory(book=BOOK, symbol="AAPL")
        told = post(operator, "/api/v1/predictions/", {"symbol": "AAPL"}).json()
        assert told["signal_key"] == row.signal_key
        by_features = post(operator, "/api/v1/predictions/", {"features": self.FEATURES}, key=None).json()
        assert told["p_win"] == by_features["p_win"]
        problem_of(post(operator, "/api/v1/predictions/", {"symbol": "KO"}, key="k2"), 404, "not_found")
        TradeFeaturesFactory(book=BOOK, signal_at=row.signal_at + OLDEST + timedelta(seconds=1))
        problem_of(post(operator, "/api/v1/predictions/", {"symbol": "AAPL"}, key="k3"), 404, "not_found")
        assert post(operator, "/api/v1/predictions/", {"symbol": "AAPL"}).json() == told

    @pytest.mark.parametrize(
        ("change", "field"),
        [
            ({"rsi14": "50"}, "features.rsi14"), ({"rsi14": 101}, "features.rsi14"), ({"rsi14": ...}, "features.rsi14"),
            ({"side": None}, "features.side"), ({"regime": "calm"}, "features.regime"), ({"x": 5}, "features.x"),
        ],
        ids=str,
    )  # fmt: skip
    def test_features_that_cannot_be_are_refused_by_name(
        self, operator: APIClient, change: dict[str, Any], field: str
    ) -> None:
        given = {name: value for name, value in {**self.FEATURES, **change}.items() if value is not ...}
        told = problem_of(post(operator, "/api/v1/predictions/", {"features": given}), 400, "invalid")
        assert list(told["errors"]) == [field]


def test_acting_has_a_rate_of_its_own(operator: APIClient, settings: Any) -> None:
    settings.API_ACTS_PER_MINUTE = 1
    post(operator, "/api/v1/halt/", {}, key=None)
    problem_of(post(operator, "/api/v1/resume/", {}, key=None), 429, "throttled")
    problem_of(post(operator, "/api/v1/predictions/", {}, key=None), 429, "throttled")
    assert operator.get("/api/v1/predictions/").status_code == 200


def test_wrong_secrets_are_counted_by_address(operator: APIClient, settings: Any) -> None:
    settings.API_ACTS_PER_MINUTE = 1
    guess = {**SIGNAL, "secret": "0" * 64}
    problem_of(post(APIClient(), "/api/v1/signals/", guess), 401, "authentication_failed")
    problem_of(post(APIClient(), "/api/v1/signals/", guess), 429, "throttled")
    assert post(operator, "/api/v1/signals/", SIGNAL).status_code == 202


@pytest.mark.parametrize("mistake", [DataError("value too long"), OverflowError("too large"), ValidationError("odd")])
def test_a_mistake_of_ours_in_acting_is_not_taken_for_the_callers(
    mistake: Exception, operator: APIClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def mistaken(*_: object) -> None:
        raise mistake

    monkeypatch.setattr("tradingsite.acting.ask_signal", mistaken)
    operator.raise_request_exception = False
    problem_of(post(operator, "/api/v1/signals/", SIGNAL), 500, "error")
    assert any(record.exc_info and record.exc_info[1] is mistake for record in caplog.records)
