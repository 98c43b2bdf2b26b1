"""The whole thing in one command, on an invented market: no account, no server, no network."""

import secrets
import time
from argparse import ArgumentParser
from itertools import chain, count
from typing import Any

from django.core.management import call_command

from tradingsite.kit.command import USUAL, SiteCommand
from tradingsite.kit.json_file import write_json
from tradingsite.kit.options import number_of_sessions, seed
from tradingsite.kit.terminal import console

BOOK = "simulated"
ADDRESS = "127.0.0.1:8000"


class Command(SiteCommand):
    help = (
        "Migrate, create an admin user, trade 30 sessions of a simulated market through the code that trades "
        f"live, train and judge a model, write the daily report, serve the admin on {ADDRESS}."
    )
    example = "--sessions 10 --no-serve"
    exit_status = {**USUAL, 1: "`trade` failed (--over-http)", 2: "bad input"}
    requires_migrations_checks = False

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--no-serve", action="store_true", help="end when the report is written")
        parser.add_argument("--sessions", type=number_of_sessions, default=30, help="trading days (default 30)")
        parser.add_argument("--seed", type=seed, default=7, help="of the market and the training (default 7)")
        parser.add_argument(
            "--over-http",
            action="store_true",
            help="instead, trade one short session at a simulated Alpaca in another process, four minutes",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        started = time.perf_counter()
        screen = console()
        call_command("migrate", verbosity=0)
        self._admin_user(screen)

        summary = (self._over_http if options["over_http"] else self._replay)(screen, started, options)
        if options["json"]:
            write_json(options["json"], summary)
        screen.print(
            "All of this was a simulated market: it shows that the machine works, not that it earns.", soft_wrap=True
        )
        if not options["no_serve"]:
            screen.print(f"Admin: http://{ADDRESS}/admin/ (Ctrl-C ends it)")
            call_command("runserver", ADDRESS, use_reloader=False)

    @staticmethod
    def _over_http(screen: Any, started: float, options: dict[str, Any]) -> dict[str, Any]:
        from tradingsite.over_http import trade_over_http

        return trade_over_http(screen, options["seed"])

    @staticmethod
    def _replay(screen: Any, started: float, options: dict[str, Any]) -> dict[str, Any]:
        from positions.market.feeds.simulated import SimulatedMarket
        from tradingsite.replaying import ReplayOptions
        from tradingsite.whole_run import run_whole

        screen.print(
            f"This market is simulated (seed {options['seed']}): symbols, prices and results are invented.",
            style="bold",
        )
        first_bar = time.perf_counter()
        feed = SimulatedMarket(options["sessions"], options["seed"])
        return run_whole(
            screen,
            feed,
            BOOK,
            ReplayOptions.in_force(),
            sessions=options["sessions"],
            started=started,
            first_bar=first_bar,
            train=True,
            seed=options["seed"],
        )

    @staticmethod
    def _admin_user(screen: Any) -> None:
        from django.contrib.auth import get_user_model

        users = get_user_model()._default_manager
        existing = users.filter(is_superuser=True, is_active=True).order_by("pk").first()
        if existing is not None:
            screen.print(f"Admin user: {existing.get_username()} (exists already, password unchanged)", soft_wrap=True)
            return
        taken = set(users.filter(username__startswith="admin").values_list("username", flat=True))
        name = next(name for name in chain(["admin"], (f"admin{n}" for n in count(2))) if name not in taken)
        password = secrets.token_urlsafe(12)
        users.create_superuser(name, "", password)
        screen.print(f"Admin user: {name}   password: {password}   (shown this once)", markup=False)
