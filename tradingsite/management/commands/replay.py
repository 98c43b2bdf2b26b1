"""Replay bars from a file through the very code that trades live."""

import time
from argparse import ArgumentParser, ArgumentTypeError
from datetime import date
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from tradingsite.console import BAD_CONFIGURATION, console, progress


def new_york_date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise ArgumentTypeError(f"{text!r} is not a date like 2018-02-16") from error


class Command(BaseCommand):
    help = (
        "Replay 1- or 5-minute bars (CSV or Parquet: symbol, timestamp, open, high, low, close, volume) through the "
        "code that trades live, into a book of its own. Running the same replay again replaces its book. Example: "
        "manage.py replay --bars bars.parquet --symbols symbols.csv --train. "
        "Exit status: 0 done, 2 bad input, 3 database not reachable."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--bars", type=Path, required=True, help="the bars; .csv, .csv.gz or .parquet")
        parser.add_argument("--market", type=Path, help="index and share above VWAP a minute")
        parser.add_argument("--vix", type=Path, help="daily VIX; a session sees the close before it")
        parser.add_argument("--symbols", type=Path, help="sector and sector ETF of each symbol")
        parser.add_argument("--from", dest="first", type=new_york_date, metavar="D", help="first session traded")
        parser.add_argument("--to", dest="last", type=new_york_date, metavar="D", help="last session traded")
        parser.add_argument("--train", action="store_true", help="train a model and score its test sessions")
        parser.add_argument("--seed", type=int, default=7, help="of the training (default 7)")
        parser.add_argument(
            "--protections", action="store_true", help="portfolio caps on: buying power, open positions, daily loss"
        )
        parser.add_argument("--skip-bad-rows", action="store_true", help="leave bad rows out and count them")
        parser.add_argument("--json", type=Path, metavar="FILE", help="write the summary there")

    def handle(self, *args: Any, **options: Any) -> None:
        from positions.leases import LeaseTaken
        from positions.market.feeds.file import BadBars, FileFeed
        from tradingsite.aftermath import conclude, write_json
        from tradingsite.replaying import ReplayOptions, replay

        screen = console()
        started = time.perf_counter()
        choices = ReplayOptions.in_force(protections=options["protections"])
        try:
            feed = FileFeed(
                options["bars"],
                market=options["market"],
                vix=options["vix"],
                symbols=options["symbols"],
                first=options["first"],
                last=options["last"],
                skip_bad_rows=options["skip_bad_rows"],
            )
            book = choices.book(feed.inputs_sha256, options["first"], options["last"])
            with progress("Replaying", feed.session_count) as advance:
                result = replay(feed, book, choices, started, advance)
        except (BadBars, LeaseTaken) as error:
            raise CommandError(str(error), returncode=BAD_CONFIGURATION) from error
        screen.print(f"Replayed {options['bars']} into book {book}: past bars, simulated fills.", soft_wrap=True)
        if feed.skipped_rows:
            screen.print(f"{feed.skipped_rows:,} bad rows were left out.")
        if feed.outside_session:
            screen.print(f"{feed.outside_session:,} bars outside the regular session were left out.")
        summary = conclude(screen, book, result, started, train=options["train"], seed=options["seed"])
        if options["json"]:
            write_json(options["json"], summary)
