"""Send one message to every service of NOTIFY_URLS."""

from dataclasses import asdict
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError

from tradingsite.kit.command import SiteCommand
from tradingsite.kit.json_file import write_json
from tradingsite.kit.options import bad_input
from tradingsite.kit.terminal import console, folding_table, progress


class Command(SiteCommand):
    help = (
        "Send one message to every service of the NOTIFY_URLS setting and say what came back. No address is "
        "shown: services are named and counted. What is told, and how: docs/notifications.md."
    )
    exit_status = {
        0: "every service took it",
        1: "one did not",
        2: "NOTIFY_URLS is not set, or a part of it is no Apprise URL",
    }
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        from tradingsite.notifying import Services

        if not settings.NOTIFY_URLS:
            raise bad_input("NOTIFY_URLS is not set; give Apprise URLs, separated by commas (docs/notifications.md).")
        services = Services(settings.NOTIFY_URLS)
        if services.not_understood or not len(services):
            places = ", ".join(map(str, services.not_understood)) or "1"
            raise bad_input(
                f"NOTIFY_URLS: number {places} is no Apprise URL; nothing was sent. Forms: docs/notifications.md."
            )
        with progress("Sending", len(services)) as advance:
            text = "Notifications of the trading site arrive here."
            answers = services.send(f"{settings.BOOK}: a test", text, advance)
        table = folding_table("number", "service", "what came back")
        for number, answer in enumerate(answers, start=1):
            table.add_row(str(number), answer.service, answer.problem or "it took the message")
        console().print(table)
        if options["json"]:
            write_json(options["json"], {"services": [asdict(answer) for answer in answers]})
        failed = sum(bool(answer.problem) for answer in answers)
        if failed:
            raise CommandError(f"{failed} of {len(answers)} services did not take the message; see above.")
