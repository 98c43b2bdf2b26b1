"""Every address of the site, walked by a user who may do nothing."""

import re
from collections.abc import Iterator

import pytest
from django.conf import settings as site
from django.contrib.auth.models import User
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

from positions.models import Trade

#: What is open to whoever is there, and why.
OPEN = {
    "/": "leads to the dashboard",
    "/admin/": "the dashboard, which says what the user lacks, and shows nothing",
    "/admin/login/": "has to be",
    "/admin/logout/": "has to be",
    "/admin/password_change/": "of one's own",
    "/admin/password_change/done/": "of one's own",
    "/admin/jsi18n/": "words of Django's own",
    "/healthz": "says that the process answers",
    "/readyz": "says whether the site can work, in words",
}
#: Leads on to an address of this list, or finds nothing to lead to.
LEADS_ON = re.compile(r"/admin/(?:\w+/\w+/1/|r/1/1/|.*/no-such-page)$")
ARGUMENTS = {
    "pk": "1", "object_id": "1", "content_type_id": "1", "app_label": "positions", "symbol": "AAPL", "id": "1",
    "folder": "simulated", "day": "2024-01-03", "url": "no-such-page",
}  # fmt: skip


def addresses(resolver: URLResolver, before: str = "/") -> Iterator[str]:
    for pattern in resolver.url_patterns:
        address = before + filled(str(pattern.pattern))
        if isinstance(pattern, URLResolver):
            yield from addresses(pattern, address)
        elif isinstance(pattern, URLPattern):
            yield address


def filled(pattern: str) -> str:
    """A route or a regular expression with something in each of its gaps."""
    named = re.sub(r"<(?:\w+:)?(\w+)>(?!\[|\.|\w+\||\()", lambda gap: ARGUMENTS[gap[1]], pattern)
    named = re.sub(r"\(\?P<(\w+)>(?:[^()]|\([^()]*\))*\)", lambda gap: ARGUMENTS[gap[1]], named)
    return named.lstrip("^").replace("\\Z", "").rstrip("$").replace("/?", "/")


ADDRESSES = sorted(set(addresses(get_resolver())))


def test_the_walk_finds_them_all() -> None:
    assert len(ADDRESSES) > 100
    assert {"/api/v1/trades/1/", "/api/v1/positions/AAPL/close/", "/metrics", "/halting/"} <= set(ADDRESSES)
    assert {"/admin/positions/trade/1/change/", "/reports/simulated/2024-01-03/", *OPEN} <= set(ADDRESSES)
    assert not [address for address in ADDRESSES if re.search(r"[<>()?\\^$]", address)]


@pytest.mark.parametrize("address", ADDRESSES)
def test_who_may_nothing_gets_403(address: str, rows: Trade, newcomer_client: Client) -> None:
    told = newcomer_client.get(address)
    if address in OPEN:
        assert told.status_code < 400
        return
    if LEADS_ON.match(address):
        assert told.status_code in (302, 403, 404)
        return
    assert told.status_code == 403
    assert newcomer_client.post(address, {}, content_type="application/json").status_code == 403


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_stranger_gets_nothing_but_the_way_to_log_in(address: str, rows: Trade, client: Client) -> None:
    told = client.get(address)
    if address.startswith("/api/") or address == "/metrics":
        assert told.status_code == 401
    elif address not in OPEN:
        assert told.status_code == 302
        assert told["Location"].startswith("/admin/login/")


@pytest.mark.parametrize("address", [each for each in ADDRESSES if each not in ("/admin/logout/",)])
def test_no_answer_holds_a_secret(address: str, rows: Trade, owner: User, owner_client: Client) -> None:
    told = owner_client.get(address)
    assert told.status_code < 500
    text = b"".join(told) if told.streaming else told.content
    for secret in (site.SECRET_KEY, site.MODEL_SIGNING_KEY, owner.password):
        assert secret.encode() not in text
