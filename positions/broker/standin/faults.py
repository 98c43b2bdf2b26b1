"""What can be made to go wrong at the simulated Alpaca: faults are armed for a route and happen as calls come in."""

import re
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase


class Fault(StrEnum):
    """The comment says what the client sees; `seconds` is the fault's own number, for ever where none is given."""

    # On the way
    HANG = "hang"  # no reply, ever; the request does nothing
    HANG_AFTER = "hang_after"  # no reply, ever; the request took effect
    RESET_BEFORE = "reset_before"  # the connection breaks, the request does nothing
    RESET_AFTER = "reset_after"  # the connection breaks, the request took effect
    LATE = "late"  # the connection breaks, the request takes effect `seconds` later
    TIMEOUT_BEFORE = "504_before"  # 504 with HTML, the request does nothing
    TIMEOUT_AFTER = "504_after"  # 504 with HTML, the request took effect
    TOO_MANY = "429"  # 429, whatever the rate was
    SERVER_ERROR = "500"  # 500 with HTML, the request does nothing
    UNAUTHORIZED = "401"  # 401, as with revoked keys
    EMPTY = "empty"  # 200 with an empty body, the request took effect
    NOT_JSON = "not_json"  # 200 with HTML, the request took effect

    # In the reply
    UNKNOWN_ENUM = "unknown_enum"  # a status, exchange or class that no client knows
    EXTRA_FIELDS = "extra_fields"  # keys that no client knows
    STALE = "stale"  # orders and positions as they were when the fault was armed, for `seconds`

    # At the venue
    REJECTED_LATER = "rejected_later"  # 200, then the order is rejected
    CANCELED_BY_VENUE = "canceled_by_venue"  # 200, then the order is canceled, nobody asked
    PARTIAL_FILL = "partial_fill"  # half of the order fills, the rest `seconds` later
    LATE_VISIBLE = "late_visible"  # the order works, and nobody is told of it for `seconds`
    FILLS_FIRST = "fills_first"  # 200 or 204, but the order fills before it is replaced or canceled
    STUCK_CANCEL = "stuck_cancel"  # 204, then the order stays pending_cancel for `seconds`
    SLOW_RELEASE = "slow_release"  # the canceled order's quantity stays held for `seconds`

    # On a stream
    SILENT = "silent"  # a message is not sent, the connection stays
    DUPLICATE = "duplicate"  # a message is sent twice
    DROPPED = "dropped"  # the connection breaks instead of a message


ON_THE_WAY = frozenset(
    {
        Fault.HANG, Fault.HANG_AFTER, Fault.RESET_BEFORE, Fault.RESET_AFTER, Fault.LATE, Fault.TIMEOUT_BEFORE,
        Fault.TIMEOUT_AFTER, Fault.TOO_MANY, Fault.SERVER_ERROR, Fault.UNAUTHORIZED, Fault.EMPTY, Fault.NOT_JSON,
    }
)  # fmt: skip
IN_THE_REPLY = frozenset({Fault.UNKNOWN_ENUM, Fault.EXTRA_FIELDS})
OF_THE_VIEW = frozenset({Fault.STALE})
AT_THE_VENUE = frozenset(
    {
        Fault.REJECTED_LATER, Fault.CANCELED_BY_VENUE, Fault.PARTIAL_FILL, Fault.LATE_VISIBLE, Fault.FILLS_FIRST,
        Fault.STUCK_CANCEL, Fault.SLOW_RELEASE,
    }
)  # fmt: skip
ON_A_STREAM = frozenset({Fault.SILENT, Fault.DUPLICATE, Fault.DROPPED})


@dataclass(slots=True)
class Armed:
    """A fault that waits for its route: "POST /v2/orders", "WS /stream", with * for any text.

    It happens `count` times, without end where that is None.
    """

    fault: Fault
    route: str
    count: int | None = 1
    seconds: float | None = None

    @classmethod
    def parse(cls, text: str) -> "Armed":
        """From `fault@route`, `fault:count@route` or `fault:count:seconds@route`; a count of * is without end.

        Raises ValueError for anything else.
        """
        match = re.fullmatch(r"(\w+)(?::(\d+|\*)(?::(\d+(?:\.\d+)?))?)?@(.+)", text)
        if match is None or match[1] not in set(Fault):
            raise ValueError(
                f"{text!r} is no fault[:count[:seconds]]@route, like 504_after:1@POST /v2/orders, of {', '.join(Fault)}"
            )
        name, count, seconds, route = match.groups(default="")
        return cls(Fault(name), route, None if count == "*" else int(count or 1), float(seconds) if seconds else None)


class FaultPlan:
    """The faults that are armed, in the order in which they were."""

    def __init__(self) -> None:
        self.armed: list[Armed] = []

    def take(self, of: frozenset[Fault], route: str) -> Armed | None:
        """The first armed fault of these for a route; it has then happened once more."""
        for place, armed in enumerate(self.armed):
            if armed.fault in of and fnmatchcase(route, armed.route):
                if armed.count is not None:
                    armed.count -= 1
                    if armed.count == 0:
                        del self.armed[place]
                return armed
        return None
