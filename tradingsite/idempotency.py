"""Acting once however often one is asked: a key of the caller's names the request, and its answer is kept a day."""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction
from django.http import HttpResponse
from django.utils import timezone
from rest_framework import request as http
from rest_framework.exceptions import APIException, ValidationError
from rest_framework.renderers import JSONRenderer

from tradingsite.models import IdempotencyKey

HEADER, FIELD = "Idempotency-Key", "idempotency_key"
KEY = "[!-~]{1,128}"
KEPT = timedelta(hours=24)
#: Not part of what a request asks for.
NOT_ASKED = ("secret", FIELD)

#: Status and body of an answer.
Answer = tuple[int, Mapping[str, Any]]


class Contradiction(APIException):
    status_code = 422
    default_code = "contradiction"


class KeyMissing(APIException):
    status_code = 428
    default_code = "key_missing"
    default_detail = f"Send a key of your own making as {HEADER}, a new one for each request."


class KeyReused(APIException):
    status_code = 422
    default_code = "key_reused"
    default_detail = "This idempotency key stands for another request; send this one with a new key."


@dataclass(frozen=True, slots=True)
class Request:
    """Who asks for what, and the key that names it. The fingerprint is of address and body, without secrets."""

    user: User
    key: str | None
    fingerprint: str


def keyed(request: http.Request, told: Mapping[str, Any], *, required: bool) -> Request:
    """The key stands in the header, or in the body of who cannot send headers; `told` is the body, validated. Raises
    ValidationError, Contradiction and KeyMissing."""
    assert isinstance(request.user, User)
    in_header, in_body = request.headers.get(HEADER), told.get(FIELD)
    if None not in (in_header, in_body) and in_header != in_body:
        raise Contradiction(f"The {FIELD} of the body differs from the header {HEADER}.")
    key = in_body if in_header is None else in_header
    if required and key is None:
        raise KeyMissing
    if key is not None and not re.fullmatch(KEY, key):
        raise ValidationError({HEADER: ["Not printable ASCII, without spaces, of at most 128 characters."]})
    asked = {name: value for name, value in told.items() if name not in NOT_ASKED}
    text = json.dumps([request.path, asked], sort_keys=True, default=str)
    return Request(request.user, key, hashlib.sha256(text.encode()).hexdigest())


def answered(request: Request) -> HttpResponse | None:
    """The answer that was given to this very request before. Raises KeyReused."""
    kept = IdempotencyKey.objects.filter(user=request.user, created_at__gt=timezone.now() - KEPT)
    row = kept.filter(key=request.key).first() if request.key else None
    return None if row is None else _again(row, request)


def once(request: Request, act: Callable[[], Answer]) -> HttpResponse:
    """Act and keep the answer, or give the answer that was kept; of two at once the second waits for the first.

    An error is not kept, and nothing of what led to it: the same request may be sent again. Raises KeyReused.
    """
    if request.key is None:
        status, body = act()
        return _answer(status, _rendered(body))
    now = timezone.now()
    with transaction.atomic():
        IdempotencyKey.objects.filter(created_at__lte=now - KEPT).delete()
        row, is_new = IdempotencyKey.objects.get_or_create(
            user=request.user,
            key=request.key,
            defaults={"request_sha256": request.fingerprint, "created_at": now},
        )
        if not is_new:
            return _again(row, request)
        row.status, body = act()
        row.answer = _rendered(body)
        row.save(update_fields=["status", "answer"])
    return _answer(row.status, row.answer)


def _again(row: IdempotencyKey, request: Request) -> HttpResponse:
    if row.request_sha256 != request.fingerprint:
        raise KeyReused
    answer = _answer(row.status, row.answer)
    answer["Idempotency-Replayed"] = "true"
    return answer


def _rendered(body: Mapping[str, Any]) -> str:
    text: str = JSONRenderer().render(body).decode()
    return text


def _answer(status: int, body: str) -> HttpResponse:
    answer = HttpResponse(body, content_type="application/json", status=status)
    if status == 202:
        answer["Location"] = json.loads(body)["url"]
    return answer
