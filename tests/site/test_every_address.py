"""Every address of the site, walked by a user who may do nothing."""

import re
from collections.abc import Iterator
from typing import Any

from django.conf import settings as site
from django.contrib.auth.models import User
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

#: What is open to whoever is there, and why.
OPEN = {
    "/": "leads to the dashboard",
    "/admin/": "the dashboard, which says what the user lacks, and shows nothing",
    "/admin/login/": "has to be",
    "/admin/search/": "finds what the user may see",
    "/admin/password_change/": "of one's own",
    "/admin/password_change/done/": "of one's own",
    "/admin/jsi18n/": "words of Django's own",
    "/healthz": "says that the process answers",
    "/readyz": "says whether the site can work, in words",
}
#: Where there is no such page to who may not see it.
NOT_THERE = re.compile(r"/admin/(?:\w+/|r/1/1/|no-such-page|autocomplete/)$")
ARGUMENTS = {
    "pk": "1", "object_id": "1", "content_type_id": "1", "app_label": "positions", "symbol": "AAPL", "id": "1",
    "folder": "simulated", "day": "2024-01-03", "url": "no-such-page", "form": "csv",
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


ADDRESSES = sorted(set(addresses(get_resolver())) - {"/admin/logout/"})


def test_the_walk_finds_them_all() -> None:
    assert len(ADDRESSES) > 100
    assert {"/api/v1/trades/1/", "/api/v1/positions/AAPL/close/", "/metrics", "/halting/"} <= set(ADDRESSES)
    assert {"/admin/positions/trade/1/change/", "/reports/simulated/2024-01-03/", *OPEN} <= set(ADDRESSES)
    assert not [address for address in ADDRESSES if re.search(r"[<>()?\\^$]", address)]


def test_who_may_nothing_gets_403(everything: None, newcomer_client: Client) -> None:
    """Where the admin leads on, it leads to 403 or to what is open."""
    let_in = []
    for address in ADDRESSES:
        told = newcomer_client.get(address, follow=True)
        if told.request["PATH_INFO"] in OPEN:
            if told.status_code != 200:
                let_in.append(f"{address} is open and answers {told.status_code}")
            continue
        if told.status_code not in ((403, 404) if NOT_THERE.match(address) else (403,)):
            let_in.append(f"GET {address}: {told.status_code}")
        sent = newcomer_client.post(address, {}, content_type="application/json", follow=True)
        if sent.status_code not in (403, 404, 405) and sent.request["PATH_INFO"] not in OPEN:
            let_in.append(f"POST {address}: {sent.status_code}")
    assert not let_in


def test_a_stranger_gets_nothing_but_the_way_to_log_in(everything: None, client: Client) -> None:
    let_in = []
    for address in ADDRESSES:
        told = client.get(address)
        if address.startswith("/api/") or address == "/metrics":
            refused = told.status_code == 401
        else:
            refused = told.status_code == 302 and told["Location"].startswith("/admin/login/")
        if not refused and address not in OPEN:
            let_in.append(f"{address}: {told.status_code}")
    assert not let_in


def test_no_answer_holds_a_secret(everything: None, owner: User, owner_client: Client, settings: Any) -> None:
    settings.ALPACA_API_KEY, settings.ALPACA_SECRET_KEY = "PKHUSHHUSHHUSH", "hush-alpaca-1843"
    settings.NOTIFY_URLS = "json://ada:hush-notify-1843@127.0.0.1:9/"
    secrets = (site.SECRET_KEY, site.MODEL_SIGNING_KEY, owner.password, "PKHUSHHUSHHUSH", "hush-alpaca", "hush-notify")
    told_too_much = []
    for address in ADDRESSES:
        told = owner_client.get(address)
        text = b"".join(told) if told.streaming else told.content
        if told.status_code >= 500 or any(secret.encode() in text for secret in secrets):
            told_too_much.append(f"{address}: {told.status_code}")
    assert not told_too_much
