"""Replay bars from a file through the very code that trades live."""

import time
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from tradingsite.bars_options import add_bars_options, open_feed
from tradingsite.console import BAD_CONFIGURATION, console, progress


class Command(BaseCommand):
    help = (
        "Replay 1- or 5-minute bars (CSV or Parquet: symbol, timestamp, open, high, low, close, volume) through the "
        "code that trades live, into a book of its own. Running the same replay again replaces its book. Example: "
        "manage.py replay --bars bars.parquet --symbols symbols.csv --train. "
        "Exit status: 0 done, 2 bad input, 3 database not reachable."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_bars_options(parser)
        parser.add_argument("--train", action="store_true", help="train a model and score its test sessions")
        parser.add_argument("--seed", type=int, default=7, help="of the training (default 7)")
        parser.add_argument("--json", type=Path, metavar="FILE", help="write the summary there")

    def handle(self, *args: Any, **options: Any) -> None:
        from positions.leases import LeaseTaken
        from tradingsite.aftermath import conclude, write_json
        from tradingsite.replaying import replay

        screen = console()
        started = time.perf_counter()
        feed, choices = open_feed(options)
        book = choices.book(feed.inputs_sha256, options["first"], options["last"])
        try:
            with progress("Replaying", feed.session_count) as advance:
                result = replay(feed, book, choices, started, advance)
        except LeaseTaken as error:
            raise CommandError(str(error), returncode=BAD_CONFIGURATION) from error
        screen.print(f"Replayed {options['bars']} into book {book}: past bars, simulated fills.", soft_wrap=True)
        if feed.skipped_rows:
            screen.print(f"{feed.skipped_rows:,} bad rows were left out.")
        if feed.outside_session:
            screen.print(f"{feed.outside_session:,} bars outside the regular session were left out.")
        summary = conclude(screen, book, result, started, train=options["train"], seed=options["seed"])
        if options["json"]:
            write_json(options["json"], summary)
