"""Trade the account at Alpaca that the BOOK setting names."""

from argparse import ArgumentParser
from typing import Any

from django.conf import settings

from positions.books import is_at_alpaca
from tradingsite.kit.command import USUAL, SiteCommand
from tradingsite.kit.options import bad_input, number_of_sessions
from tradingsite.kit.terminal import console


class Command(SiteCommand):
    help = (
        "Trade the account of the BOOK setting (paper:<account>, or live:<account>): bars in, signals out, "
        "entries, stops, exits and breakeven, until it is told to stop. A second one stands by and takes over "
        "when the first ends. Stops stay at the broker however it ends. What each message means: docs/trading.md."
    )
    example = "--sessions 1"
    exit_status = {
        **USUAL,
        0: "ended by SIGTERM or after --sessions",
        1: "the account is not fit to trade, or the process cannot go on",
        2: "keys or settings are wrong",
    }

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--sessions", type=number_of_sessions, help="end after so many (default: go on)")

    def handle(self, *args: Any, **options: Any) -> None:
        from tradingsite.trading import Work, result_written, run

        if not is_at_alpaca(settings.BOOK):
            raise bad_input(f"BOOK={settings.BOOK} is no account at Alpaca; set BOOK=paper:<account>.")
        with result_written(options["json"], settings.BOOK):
            run(console(), settings.BOOK, Work(settings.STRATEGY, sessions=options["sessions"]))
