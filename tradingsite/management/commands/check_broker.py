"""Say in plain words whether the account at Alpaca is fit to be traded."""

from argparse import ArgumentParser
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from itertools import chain
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from positions.words import Feed
from tradingsite.broker import LIVE_WARNING, alpaca_broker, trading_access
from tradingsite.console import console
from tradingsite.kit.json_file import add_json_option, check_json_file, write_json
from tradingsite.kit.options import BAD_CONFIGURATION

if TYPE_CHECKING:
    from positions.broker.alpaca import AlpacaBroker
    from positions.clock import Clock

#: A clock that is further off than this makes bars late and orders look older than they are.
MOST_SKEW = timedelta(seconds=2)
#: What is asked of a feed to learn whether it is allowed.
ASKED_OF_A_FEED = timedelta(minutes=10)
FAILED = 1


class State(StrEnum):
    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


_COLOUR = {State.OK: "green", State.WARNING: "yellow", State.FAILED: "red"}


@dataclass(frozen=True, slots=True)
class Finding:
    """`status` is what the command ends with if this failed."""

    name: str
    state: State
    text: str
    status: int = FAILED

    @property
    def told(self) -> dict[str, str]:
        return {"name": self.name, "state": self.state.value, "text": self.text}


class Command(BaseCommand):
    help = (
        "Check the account at Alpaca that the BOOK setting stands for: paper or live, keys, account, clock, guard, "
        "market data. To try the guard against flipped positions it sends an order that Alpaca must refuse, at a price "
        "that nobody pays. Example: manage.py check_broker --json broker.json. Exit status: 0 fit to trade, perhaps "
        "with warnings; 1 not fit, or Alpaca cannot be reached; 2 keys or settings are wrong."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_json_option(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        from rich.markup import escape

        from positions.clock import SystemClock

        check_json_file(options["json"])
        access = trading_access(settings.BOOK)
        clock = SystemClock()
        screen = console()
        screen.print(LIVE_WARNING if access.live else "Paper account: orders are not real.")
        findings = []
        for finding in chain(_account_findings(alpaca_broker(access, clock)), _feed_findings(clock)):
            findings.append(finding)
            state = f"[{_COLOUR[finding.state]}]{finding.state:>7}[/]"
            screen.print(f"{state}  {finding.name}: {escape(finding.text)}", soft_wrap=True)
        failed = [finding for finding in findings if finding.state is State.FAILED]
        status = max((finding.status for finding in failed), default=0)
        if options["json"]:
            about = {"book": settings.BOOK, "live": access.live, "status": status}
            write_json(options["json"], {**about, "checks": [finding.told for finding in findings]})
        if failed:
            names = ", ".join(finding.name for finding in failed)
            raise CommandError(f"Not fit to trade: {names}; see above.", returncode=status)


def _account_findings(broker: "AlpacaBroker") -> Iterator[Finding]:
    from positions.broker.alpaca import NoGuard
    from positions.broker.port import BrokerError, KeysRefused

    try:
        account = broker.account()
    except KeysRefused as error:
        yield Finding("keys", State.FAILED, f"{error}; paper keys open paper accounts only", BAD_CONFIGURATION)
        return
    except BrokerError as error:
        yield Finding("keys", State.FAILED, f"cannot be tried: {error}")
        return
    yield Finding("keys", State.OK, "accepted")

    about = f"{account.number or 'without a number'} is {account.status or 'of unknown status'}"
    if account.blocked or account.status != "ACTIVE":
        yield Finding("account", State.FAILED, f"{about} {account.blocked}; ask Alpaca why".replace("  ", " "))
    else:
        money = f"equity ${account.equity:,.2f}, buying power ${account.buying_power:,.2f}"
        yield Finding("account", State.OK, f"{about}, {money}")

    try:
        seconds = broker.clock_skew().total_seconds()
        told = f"this machine's clock is {abs(seconds):.1f} s {'behind' if seconds > 0 else 'ahead of'} Alpaca's"
        if abs(seconds) > MOST_SKEW.total_seconds():
            yield Finding("clock", State.WARNING, f"{told}; synchronise it")
        else:
            yield Finding("clock", State.OK, told)
    except BrokerError as error:
        yield Finding("clock", State.FAILED, f"cannot be compared: {error}")

    try:
        yield Finding("guard", State.OK, broker.verify_guard())
    except NoGuard as error:
        yield Finding("guard", State.FAILED, str(error))
    except BrokerError as error:
        yield Finding("guard", State.FAILED, f"cannot be tried: {error}")


def _feed_findings(clock: "Clock") -> Iterator[Finding]:
    from positions.market.feeds.alpaca import AlpacaAccess, AlpacaBars, AlpacaRefused, AlpacaUnreachable

    timeouts = (settings.ALPACA_CONNECT_TIMEOUT, settings.ALPACA_READ_TIMEOUT)
    for feed in (Feed.IEX, Feed.SIP):
        wanted = feed == settings.ALPACA_FEED
        access = AlpacaAccess(settings.ALPACA_API_KEY, settings.ALPACA_SECRET_KEY, feed, settings.ALPACA_DATA_URL)
        now = clock.now().replace(second=0, microsecond=0)
        name = f"feed {feed}" + (" (ALPACA_FEED)" if wanted else "")
        try:
            AlpacaBars(access, clock, attempts=2, timeouts=timeouts).bars(["SPY"], now - ASKED_OF_A_FEED, now)
            yield Finding(name, State.OK, "allowed")
        except AlpacaRefused as error:
            yield Finding(name, State.FAILED if wanted else State.OK, str(error), BAD_CONFIGURATION)
        except AlpacaUnreachable as error:
            yield Finding(name, State.FAILED if wanted else State.WARNING, str(error))
