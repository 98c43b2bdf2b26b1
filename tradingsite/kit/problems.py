"""Errors of the API, all of them application/problem+json as RFC 9457 has it."""

import json
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any

from django.core.exceptions import ValidationError as DjangoValidationError
from django.db import DataError
from django.http import HttpResponse
from rest_framework.exceptions import APIException, ValidationError
from rest_framework.permissions import SAFE_METHODS
from rest_framework.views import exception_handler

from tradingsite.kit.database import is_database_away

CONTENT_TYPE = "application/problem+json"


class DatabaseAway(APIException):
    status_code = HTTPStatus.SERVICE_UNAVAILABLE
    default_code = "database_away"
    default_detail = "The database does not answer: ask again. /readyz says more."


def problem(status: int, code: str, detail: str, headers: Mapping[str, str] | None = None, **more: Any) -> HttpResponse:
    """`code` is for programs and does not change, `detail` for people; `more` stands beside them."""
    told = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "code": code, "detail": detail}
    return HttpResponse(json.dumps({**told, **more}), content_type=CONTENT_TYPE, status=status, headers=headers)


def explain(error: Exception, context: dict[str, Any]) -> HttpResponse | None:
    """The answer to an error of a view, None for a mistake of ours. A parameter of what reads that no row could
    have (a broken cursor, a time beyond the calendar, a character that no text has) is the caller's mistake too."""
    reads = context["request"].method in SAFE_METHODS
    if reads and isinstance(error, DjangoValidationError | OverflowError | DataError):
        error = ValidationError("A parameter has a value that no row can have.")
    if is_database_away(error):
        error = DatabaseAway()
    answer = exception_handler(error, context)
    if answer is None:
        return None
    headers = {name: value for name, value in answer.headers.items() if name in ("WWW-Authenticate", "Retry-After")}
    if not isinstance(error, ValidationError):
        detail = answer.data["detail"]
        return problem(answer.status_code, detail.code, detail, headers)
    errors: dict[str, list[str]] = {}
    for name, sentence in _sentences(answer.data):
        errors.setdefault(name, []).append(sentence)
    detail = " ".join(f"{name}: {' '.join(told)}".removeprefix(": ") for name, told in errors.items())
    return problem(answer.status_code, "invalid", detail, headers, errors=errors)


def _sentences(told: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """(field, sentence) of a ValidationError; fields of fields are joined by a dot, "" is the request as a whole."""
    if isinstance(told, Mapping):
        for part, inner in told.items():
            yield from _sentences(inner, name if part == "non_field_errors" else f"{name}.{part}".lstrip("."))
    elif isinstance(told, list):
        for inner in told:
            yield from _sentences(inner, name)
    else:
        yield name, str(told)
