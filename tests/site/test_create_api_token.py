from datetime import timedelta
from io import StringIO

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.core.management.base import CommandError
from django.utils import timezone
from knox.models import AuthToken
from rest_framework.test import APIClient

from tests.site.conftest import permit


def made(*arguments: str) -> tuple[str, str]:
    out, told = StringIO(), StringIO()
    call_command("create_api_token", *arguments, stdout=out, stderr=told)
    return out.getvalue(), told.getvalue()


def test_the_token_alone_is_printed_works_and_is_stored_hashed(owner: User) -> None:
    out, _ = made("ada", "--days", "7")
    token = out.removesuffix("\n")
    assert APIClient(HTTP_AUTHORIZATION=f"Token {token}").get("/api/v1/trades/").status_code == 200
    row = AuthToken.objects.get()
    assert token not in row.digest
    assert abs(row.expiry - timezone.now() - timedelta(days=7)) < timedelta(minutes=1)


def test_who_may_not_view_anything_yet_is_told_so(newcomer: User) -> None:
    assert "bob may not view any table yet" in made("bob")[1]
    permit(newcomer, "positions.view_trade")
    assert "may not view" not in made("bob")[1]


def test_a_user_can_be_put_into_a_group_at_once(newcomer: User) -> None:
    out, told = made("bob", "--group", "viewer")
    assert "may not view" not in told
    client = APIClient(HTTP_AUTHORIZATION=f"Token {out.strip()}")
    assert client.get("/api/v1/trades/").status_code == 200
    assert client.post("/api/v1/halt/").status_code == 403
    made("bob", "--group", "operator")
    assert User.objects.get(pk=newcomer.pk).has_perm("positions.halt_trading")


@pytest.mark.django_db
@pytest.mark.parametrize("arguments", [("nobody",), ("ada", "--days", "0")])
def test_bad_input_is_refused_with_status_2(arguments: tuple[str, ...]) -> None:
    User.objects.create_user("ada")
    with pytest.raises(CommandError) as refused:
        made(*arguments)
    assert refused.value.returncode == 2
    assert not AuthToken.objects.exists()
