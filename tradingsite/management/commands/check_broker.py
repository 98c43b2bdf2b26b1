"""Say in plain words whether the account at Alpaca is fit to be traded."""

from itertools import chain
from typing import Any

from django.conf import settings

from tradingsite.broker import alpaca_broker, show_account, trading_access
from tradingsite.fitness import State, account_findings, feed_findings, refuse_failed, show
from tradingsite.kit.command import SiteCommand
from tradingsite.kit.json_file import write_json
from tradingsite.kit.terminal import console, progress

#: Keys, account, clock, guard, and two feeds; where the keys are refused there are fewer.
MOST_FINDINGS = 6


class Command(SiteCommand):
    help = (
        "Check the account at Alpaca that the BOOK setting stands for: paper or live, keys, account, clock, "
        "guard, market data. To try the guard against flipped positions it sends an order that Alpaca must "
        "refuse, at a price that nobody pays."
    )
    example = "--json broker.json"
    exit_status = {
        0: "fit to trade, perhaps with warnings",
        1: "not fit, or Alpaca cannot be reached",
        2: "keys or settings are wrong",
    }

    def handle(self, *args: Any, **options: Any) -> None:
        from positions.clock import SystemClock

        access = trading_access(settings.BOOK)
        clock = SystemClock()
        screen = console()
        show_account(screen, access)
        findings = []
        with progress("Asking Alpaca", MOST_FINDINGS, screen) as advance:
            for finding in chain(account_findings(alpaca_broker(access, clock)), feed_findings(clock)):
                findings.append(finding)
                show(screen, finding)
                advance(1)
        if options["json"]:
            status = max((finding.status for finding in findings if finding.state is State.FAILED), default=0)
            about = {"book": settings.BOOK, "live": access.live, "status": status}
            write_json(options["json"], {**about, "checks": [finding.told for finding in findings]})
        refuse_failed(findings)
