"""Watch the open trades of the account that the BOOK setting names, and enter none."""

from argparse import ArgumentParser, ArgumentTypeError
from datetime import timedelta
from typing import Any

from django.conf import settings

from positions.books import is_at_alpaca
from tradingsite.kit.command import USUAL, SiteCommand
from tradingsite.kit.options import bad_input
from tradingsite.kit.terminal import console


def number(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or int(text) < 1:
        raise ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


class Command(SiteCommand):
    help = (
        "Watch the open trades of the BOOK setting (paper:<account>, or live:<account>): exits every 10 seconds, "
        "breakeven every 30, no entries. Where `trade` or another one is at it, it says so and ends."
    )
    example = "--max-ticks 9"
    exit_status = {
        **USUAL,
        0: "ended, or another process watches",
        1: "the account is not fit, or the process cannot go on",
        2: "keys or settings are wrong",
    }

    def add_arguments(self, parser: ArgumentParser) -> None:
        length = parser.add_mutually_exclusive_group()
        length.add_argument("--once", action="store_true", help="one look, once today's bars are in")
        length.add_argument("--max-ticks", type=number, metavar="N", help="so many looks (default: go on)")
        length.add_argument(
            "--seconds", type=number, metavar="N", help="so many seconds; waits for one that began within the last N"
        )
        parser.add_argument("--only", choices=["exits", "breakeven"], help="one of the two monitors")

    def handle(self, *args: Any, **options: Any) -> None:
        from tradingsite.trading import Work, result_written, run

        if not is_at_alpaca(settings.BOOK):
            raise bad_input(f"BOOK={settings.BOOK} is no account at Alpaca; set BOOK=paper:<account>.")
        work = Work(
            strategy="positions.strategy.OnlyWatching",
            patience=timedelta(seconds=options["seconds"] or 0),
            exits=options["only"] != "breakeven",
            breakeven=options["only"] != "exits",
            ticks=1 if options["once"] else options["max_ticks"],
            seconds=options["seconds"],
        )
        with result_written(options["json"], settings.BOOK):
            run(console(), settings.BOOK, work)
