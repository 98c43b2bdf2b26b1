"""The whole thing in one command, on an invented market: no account, no server, no network."""

import secrets
import time
from argparse import ArgumentParser, ArgumentTypeError
from pathlib import Path
from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError

from tradingsite.console import BAD_CONFIGURATION, console, progress

BOOK = "simulated"
ADDRESS = "127.0.0.1:8000"


def count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 250:
        raise ArgumentTypeError(f"{text!r} is not a number of sessions from 1 to 250")
    return int(text)


def seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**31:
        raise ArgumentTypeError(f"{text!r} is not a whole number from 0 to {2**31 - 1}")
    return int(text)


class Command(BaseCommand):
    help = (
        "Migrate, create an admin user, trade 30 sessions of a simulated market through the code that trades live, "
        f"train and judge a model, write the daily report, serve the admin on {ADDRESS}. "
        "Example: manage.py quickstart --sessions 10 --no-serve. "
        "Exit status: 0 done, 2 bad input, 3 database not reachable."
    )
    requires_migrations_checks = False

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--no-serve", action="store_true", help="end when the report is written")
        parser.add_argument("--sessions", type=count, default=30, help="trading days (default 30)")
        parser.add_argument("--seed", type=seed, default=7, help="of the market and the training (default 7)")
        parser.add_argument("--json", type=Path, metavar="FILE", help="write the summary there")

    def handle(self, *args: Any, **options: Any) -> None:
        started = time.perf_counter()
        screen = console()
        call_command("migrate", verbosity=0)
        self._admin_user(screen)

        from positions.leases import LeaseTaken
        from positions.market.feeds.simulated import SimulatedMarket
        from tradingsite.aftermath import conclude, write_json
        from tradingsite.replaying import ReplayOptions, replay

        screen.print(
            f"[bold]This market is simulated[/bold] (seed {options['seed']}): symbols, prices and results are invented."
        )
        began = time.perf_counter()
        feed = SimulatedMarket(options["sessions"], options["seed"])
        try:
            with progress("Trading", options["sessions"]) as advance:
                result = replay(feed, BOOK, ReplayOptions.in_force(), began, advance)
        except LeaseTaken as error:
            raise CommandError(str(error), returncode=BAD_CONFIGURATION) from error
        summary = conclude(screen, BOOK, result, started, train=True, seed=options["seed"])
        if options["json"]:
            write_json(options["json"], summary)
        screen.print("All of this was a simulated market: it shows that the machine works, not that it earns.")
        if not options["no_serve"]:
            screen.print(f"Admin: http://{ADDRESS}/admin/ (Ctrl-C ends it)")
            call_command("runserver", ADDRESS, use_reloader=False)

    @staticmethod
    def _admin_user(screen: Any) -> None:
        from django.contrib.auth import get_user_model

        users = get_user_model()._default_manager
        existing = users.filter(is_superuser=True, is_active=True).order_by("pk").first()
        if existing is not None:
            screen.print(f"Admin user: {existing.get_username()} (exists already, password unchanged)")
            return
        password = secrets.token_urlsafe(12)
        users.create_superuser("admin", "", password)
        screen.print(f"Admin user: admin   password: {password}   (shown this once)", markup=False)
