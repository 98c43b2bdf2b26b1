"""The account at Alpaca that a book stands for, from the settings. Paper, unless two settings say otherwise."""

import re
from typing import TYPE_CHECKING

from django.conf import settings

from positions.books import is_live
from positions.words import Feed
from tradingsite.kit.options import bad_input

if TYPE_CHECKING:
    from rich.console import Console

    from positions.broker.alpaca import AlpacaBroker, TradingAccess
    from positions.clock import Clock
    from positions.market.feeds.alpaca.access import AlpacaAccess

FEEDS = [Feed.SIP.value, Feed.IEX.value]

#: What ALPACA_LIVE must be before an order goes to a real account.
ACCEPTANCE = "I_ACCEPT_REAL_ORDERS"


def show_account(screen: "Console", access: "TradingAccess") -> None:
    if access.live:
        screen.print("LIVE ACCOUNT: orders are real, and so is the money.", style="bold red", soft_wrap=True)
    else:
        screen.print("Paper account: orders are not real.", soft_wrap=True)


def trading_access(book: str) -> "TradingAccess":
    """The way to the account of a `paper:` or `live:` book; any other book gets the paper account of the keys.

    Raises CommandError (status 2) for missing keys, for a live book that nobody accepted and for a malformed address.
    """
    from positions.broker.alpaca import TradingAccess

    live = is_live(book)
    _demand_keys()
    if live and settings.ALPACA_LIVE != ACCEPTANCE:
        raise bad_input(
            f"BOOK={book} trades real money; set ALPACA_LIVE={ACCEPTANCE} too, or use a book paper:<account>."
        )
    origin = _origin("ALPACA_TRADING_URL")
    return TradingAccess(settings.ALPACA_API_KEY, settings.ALPACA_SECRET_KEY, live, origin)


def data_access(feed: str = "") -> "AlpacaAccess":
    """The way to the bars of a feed, by default of the ALPACA_FEED setting.

    Raises CommandError (status 2) for missing keys, for what is no feed and for a malformed address.
    """
    from positions.market.feeds.alpaca.access import AlpacaAccess

    _demand_keys()
    feed = feed or settings.ALPACA_FEED
    if feed not in FEEDS:
        raise bad_input(f"ALPACA_FEED={feed} is not a feed; use {' or '.join(FEEDS)}.")
    origin = _origin("ALPACA_DATA_URL")
    return AlpacaAccess(settings.ALPACA_API_KEY, settings.ALPACA_SECRET_KEY, Feed(feed), origin)


def _demand_keys() -> None:
    if not (settings.ALPACA_API_KEY and settings.ALPACA_SECRET_KEY):
        raise bad_input("ALPACA_API_KEY and ALPACA_SECRET_KEY are not both set; put them into .env (see .env.example).")


def _origin(setting: str) -> str:
    """An address without a path, "" for Alpaca's own."""
    origin = str(getattr(settings, setting)).rstrip("/")
    if origin and not re.fullmatch(r"https?://[^/\s]+", origin):
        raise bad_input(f"{setting}={origin} is not an origin; use something like http://127.0.0.1:9000.")
    return origin


def alpaca_broker(access: "TradingAccess", clock: "Clock") -> "AlpacaBroker":
    from positions.broker.alpaca import AlpacaBroker

    return AlpacaBroker(
        access,
        clock,
        timeouts=(settings.ALPACA_CONNECT_TIMEOUT, settings.ALPACA_READ_TIMEOUT),
        requests_a_minute=settings.ALPACA_REQUESTS_PER_MINUTE,
    )
