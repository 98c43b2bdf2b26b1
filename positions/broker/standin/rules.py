"""How the simulated Alpaca behaves, as settings, and what it answers when it refuses."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from math import isfinite
from typing import Any, Literal, get_args, get_origin, get_type_hints

#: Alpaca's codes. Each covers many causes.
BAD_PARAMETER, BAD_ORDER, FORBIDDEN, NOT_FOUND = 40010001, 42210000, 40310000, 40410000


@dataclass(frozen=True, slots=True)
class Rules:
    """How this Alpaca behaves. Delays are seconds of the market's clock, None for never; money is dollars.

    What carries "unknown" has no source: each choice is one that a client must survive.
    """

    cash: Decimal = Decimal(100_000)
    multiplier: int = 2  # of equity, gives buying power; 1 is a cash account, which cannot sell short
    spread: Decimal = Decimal("0.02")  # market orders pay half of it: the replay's cost a share and side
    accept_delay: float | None = 0.02  # from pending_new to new
    cancel_delay: float | None = 0.015  # from pending_cancel to canceled
    release_delay: float | None = 0.06  # from canceled to qty_available
    replace_delay: float | None = 0.05  # from pending_replace to replaced
    chain_delay: float | None = 3.0  # until a replacement may be replaced
    partial_fills: float = 0.0  # share of orders that fill in two parts; paper says 0.1
    partial_delay: float | None = 3.0  # between the two parts
    fees: bool = False  # TAF and CAT, booked at the end of the day; paper charges none
    no_shorting: bool = False  # the account is long only
    suspend_trade: bool = False  # the account takes no new orders
    not_shortable: tuple[str, ...] = ()
    not_fractionable: tuple[str, ...] = ()
    wash_trade_check: bool = True  # refuses an order that could trade against a resting one of the same account
    stop_through_market: Literal["refuse", "trigger"] = "refuse"  # a simple stop beyond the market; unknown
    repeat_cancel: Literal["refuse", "accept"] = "refuse"  # of a canceled order; measured both ways
    replacement_fills: Literal["carried", "reset"] = "carried"  # in a replacement's filled_qty; unknown
    short_available: Literal["negative", "positive"] = "negative"  # sign of a short position's qty_available; unknown
    related_orders: Literal["original", "current"] = "original"  # which id of a replace chain a refusal names
    clock_ahead: float = 0.0  # seconds that /v2/clock is wrong by
    bar_delay: float | None = 1.0  # from a bar's end until it is told
    corrected_bars: float = 0.0  # share of bars that are told again with late prints after half a minute
    recent_sip: bool = False  # the subscription has SIP data of the last 15 minutes
    stream_limit: int = 1  # data streams at a time
    rate_limit: int = 200  # requests a minute, of trading and of data each; 0 is without limit
    rate_headers_on_429: bool = True  # unknown
    rate_code_on_429: bool = True  # whether the body has a code; unknown
    binary_trade_updates: bool = True  # JSON in binary frames, as at Alpaca, or in text frames
    keys: str = ""  # "key:secret" that is let in; empty lets every key in

    def let_in(self, key: str, secret: str) -> bool:
        return f"{key}:{secret}" == self.keys if self.keys else bool(key and secret)


class Refused(Exception):
    """What Alpaca answers instead of doing what it was asked; `more` is what the body has beside code and message."""

    def __init__(self, code: int, message: str, **more: object) -> None:
        super().__init__(message)
        self.code, self.message, self.more = code, message, more

    @property
    def status(self) -> int:
        """Of HTTP: the first three digits of the code, except that bad parameters are 422."""
        return 422 if self.code == BAD_PARAMETER else self.code // 100_000


def changed(rules: Rules, values: Mapping[str, object]) -> Rules:
    """The rules with some of them set from text or JSON: `never` is None, words of a list are split at commas.

    Raises ValueError that names the rule and what it takes.
    """
    kinds = get_type_hints(Rules)
    for name in values:
        if name not in kinds:
            raise ValueError(f"there is no rule {name}; there are {', '.join(kinds)}")
    parsed: dict[str, Any] = {name: _parsed(name, kinds[name], value) for name, value in values.items()}
    return replace(rules, **parsed)


def _parsed(name: str, kind: Any, value: object) -> object:
    text = "" if value is None else str(value).strip()
    if get_origin(kind) is Literal:
        if text not in get_args(kind):
            raise ValueError(f"{name} is {' or '.join(get_args(kind))}, not {text!r}")
        return text
    if get_origin(kind) is tuple:
        return tuple(word for word in text.split(",") if word)
    if kind == float | None and (value is None or text == "never"):
        return None
    try:
        parsed = _READERS[kind](text.lower() if kind is bool else text)
        if isinstance(parsed, Decimal | float) and not isfinite(parsed):
            raise ValueError
        return parsed
    except (ValueError, KeyError, InvalidOperation):
        raise ValueError(f"{text!r} is no value for {name}; its default is {getattr(Rules(), name)}") from None


_READERS: dict[Any, Callable[[str], object]] = {
    str: str,
    int: int,
    Decimal: Decimal,
    float: float,
    float | None: float,
    bool: {"true": True, "false": False}.__getitem__,
}
