"""How often a password may be guessed, over the sign-in page that people see."""

from datetime import timedelta
from typing import Any

import pytest
from axes.models import AccessAttempt
from django.contrib.auth.models import User
from django.core.cache import cache
from django.core.management import call_command
from django.http import HttpResponse
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from knox.models import AuthToken
from structlog.testing import capture_logs

PASSWORD, WRONG = "lovelace-1843", "babbage-1791"
SENTENCE = "Too many wrong passwords for this name from this address. Try again in 15 minutes."


@pytest.fixture(autouse=True)
def ada(db: None, settings: Any) -> User:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # a safe one takes half a second
    return User.objects.create_superuser("ada", password=PASSWORD)


def sign_in(password: str, name: str = "ada", **headers: str) -> HttpResponse:
    """A visitor without a cookie, as each guess may be."""
    return Client().post(reverse("admin:login"), {"username": name, "password": password}, **headers)  # type: ignore[arg-type,return-value]  # headers go into the request's environment


def refused(answer: HttpResponse) -> bool:
    told = SENTENCE in answer.content.decode()
    assert told == (answer.status_code == 429)
    return told


def test_after_five_wrong_passwords_even_the_right_one_is_refused_with_a_sentence() -> None:
    assert [refused(sign_in(WRONG)) for _ in range(5)] == [False] * 4 + [True]
    cache.clear()  # no process remembers it: it is in the database
    answer = sign_in(PASSWORD)
    assert refused(answer)
    assert answer["Retry-After"] == "900"
    assert "sessionid" not in answer.cookies


def test_a_right_password_in_between_begins_the_count_anew() -> None:
    for _ in range(4):
        sign_in(WRONG)
    assert sign_in(PASSWORD).status_code == 302
    assert not any(refused(sign_in(WRONG)) for _ in range(4))


def test_it_ends_after_fifteen_minutes_however_often_somebody_tries_meanwhile() -> None:
    for _ in range(5):
        sign_in(WRONG)
    AccessAttempt.objects.update(attempt_time=timezone.now() - timedelta(minutes=14, seconds=50))
    assert refused(sign_in(WRONG))
    AccessAttempt.objects.update(attempt_time=timezone.now() - timedelta(minutes=15, seconds=1))
    assert sign_in(PASSWORD).status_code == 302


def test_another_name_and_another_address_are_not_refused() -> None:
    User.objects.create_superuser("bob", password=PASSWORD)
    for _ in range(5):
        sign_in(WRONG)
    assert refused(sign_in(PASSWORD))
    assert sign_in(PASSWORD, "bob").status_code == 302
    assert sign_in(PASSWORD, REMOTE_ADDR="203.0.113.7").status_code == 302


def test_another_browser_or_what_it_says_of_its_address_makes_no_difference() -> None:
    for number in range(5):
        sign_in(WRONG, HTTP_USER_AGENT=f"browser {number}", HTTP_X_FORWARDED_FOR=f"203.0.113.{number}")
    assert refused(sign_in(PASSWORD, HTTP_X_FORWARDED_FOR="203.0.113.9"))


def test_a_name_that_nobody_has_is_refused_in_the_same_words() -> None:
    assert [refused(sign_in(WRONG, "nobody")) for _ in range(5)] == [False] * 4 + [True]


@pytest.mark.parametrize("length", [151, 255, 256, 5000])
def test_a_name_longer_than_any_is_refused_in_the_same_words_and_stored_nowhere(length: int) -> None:
    answer = sign_in(WRONG, "a" * length)
    assert "Please enter the correct username and password" in answer.content.decode()
    assert not AccessAttempt.objects.exists()


def test_the_log_tells_who_is_refused_and_where_and_no_table_holds_a_password() -> None:
    with capture_logs() as told:
        for _ in range(5):
            sign_in(WRONG)
    assert told == [
        {"event": "sign_in_refused", "log_level": "warning", "name": "ada", "address": "127.0.0.1"},
    ]
    assert WRONG not in str(list(AccessAttempt.objects.values()))


def test_who_is_signed_in_or_has_a_token_goes_on(ada: User) -> None:
    browser = Client()
    browser.force_login(ada)
    _, token = AuthToken.objects.create(ada)
    for _ in range(5):
        sign_in(WRONG)
    assert browser.get(reverse("admin:index")).status_code == 200
    trades = Client().get("/api/v1/trades/", HTTP_AUTHORIZATION=f"Token {token}")
    assert trades.status_code == 200


def test_whoever_has_a_shell_lets_a_name_in_again() -> None:
    for _ in range(5):
        sign_in(WRONG)
    call_command("axes_reset_username", "ada")
    assert sign_in(PASSWORD).status_code == 302
