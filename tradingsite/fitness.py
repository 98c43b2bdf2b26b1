"""Whether an account at Alpaca is fit to be traded, one finding after the other, in plain words."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from itertools import chain
from typing import TYPE_CHECKING

from django.conf import settings
from django.core.management.base import CommandError

from positions.words import Feed
from tradingsite.kit.options import BAD_CONFIGURATION

if TYPE_CHECKING:
    from rich.console import Console

    from positions.broker.alpaca import AlpacaBroker
    from positions.clock import Clock
    from positions.market.feeds.alpaca.access import AlpacaAccess

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


def show(screen: "Console", finding: Finding) -> None:
    from rich.text import Text

    state = Text(f"{finding.state:>7}", _COLOUR[finding.state])
    screen.print(state.append(f"  {finding.name}: {finding.text}", "default"), soft_wrap=True)


def demand_fitness(screen: "Console", broker: "AlpacaBroker", data: "AlpacaAccess", clock: "Clock") -> None:
    """Show all findings. Raises CommandError where one failed, with its status."""
    findings = []
    for finding in chain(account_findings(broker), [feed_finding(data.feed, clock)]):
        show(screen, finding)
        findings.append(finding)
    refuse_failed(findings)


def refuse_failed(findings: list[Finding]) -> None:
    """Raises CommandError with the worst status of those that failed."""
    failed = [finding for finding in findings if finding.state is State.FAILED]
    if failed:
        names = ", ".join(finding.name for finding in failed)
        status = max(finding.status for finding in failed)
        raise CommandError(f"Not fit to trade: {names}; see above.", returncode=status)


def account_findings(broker: "AlpacaBroker") -> Iterator[Finding]:
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


def feed_findings(clock: "Clock") -> Iterator[Finding]:
    for feed in (Feed.IEX, Feed.SIP):
        yield feed_finding(feed, clock)


def feed_finding(feed: Feed, clock: "Clock") -> Finding:
    from positions.market.feeds.alpaca.access import AlpacaAccess
    from positions.market.feeds.alpaca.errors import AlpacaRefused, AlpacaUnreachable
    from positions.market.feeds.alpaca.history import AlpacaBars

    timeouts = (settings.ALPACA_CONNECT_TIMEOUT, settings.ALPACA_READ_TIMEOUT)
    wanted = feed == settings.ALPACA_FEED
    access = AlpacaAccess(settings.ALPACA_API_KEY, settings.ALPACA_SECRET_KEY, feed, settings.ALPACA_DATA_URL)
    now = clock.now().replace(second=0, microsecond=0)
    name = f"feed {feed}" + (" (ALPACA_FEED)" if wanted else "")
    try:
        AlpacaBars(access, clock, attempts=2, timeouts=timeouts).bars(["SPY"], now - ASKED_OF_A_FEED, now)
    except AlpacaRefused as error:
        return Finding(name, State.FAILED if wanted else State.OK, str(error), BAD_CONFIGURATION)
    except AlpacaUnreachable as error:
        return Finding(name, State.FAILED if wanted else State.WARNING, str(error))
    return Finding(name, State.OK, "allowed")
