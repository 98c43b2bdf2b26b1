"""Requests as the endpoints see them, read whole, and what they answer."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from positions.broker.standin.faults import Armed
from positions.broker.standin.rules import BAD_PARAMETER, Refused

Body = dict[str, Any] | list[Any] | None


class Answer(NamedTuple):
    status: int
    body: Body


class DataRefused(Exception):
    """What the data API answers instead of data: a message without a code."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


@dataclass(frozen=True, slots=True)
class Call:
    """One request, read whole; `mishap` is what it meets at the venue."""

    route: str
    path: Mapping[str, str]
    query: Mapping[str, str]
    body: Mapping[str, Any]
    mishap: Armed | None = None

    def whole(self, name: str, default: int) -> int:
        text = self.query.get(name, "")
        if text and not text.isdecimal():
            raise Refused(BAD_PARAMETER, f"invalid {name}: {text}")
        return int(text) if text else default

    def moment(self, name: str) -> datetime | None:
        text = self.query.get(name)
        if not text:
            return None
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise Refused(BAD_PARAMETER, f"invalid {name}: {text}") from None
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
