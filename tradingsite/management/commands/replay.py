"""Replay bars from a file through the very code that trades live."""

import time
from argparse import ArgumentParser
from typing import Any

from tradingsite.bars_options import add_bars_options, open_feed
from tradingsite.kit.command import USUAL, SiteCommand
from tradingsite.kit.json_file import write_json
from tradingsite.kit.options import seed
from tradingsite.kit.terminal import console


class Command(SiteCommand):
    help = (
        "Replay 1- or 5-minute bars (CSV or Parquet: symbol, timestamp, open, high, low, close, volume) through "
        "the code that trades live, into a book of its own. Running the same replay again replaces its book."
    )
    example = "--bars bars.parquet --symbols symbols.csv --train"
    exit_status = {**USUAL, 2: "bad input"}

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_bars_options(parser)
        parser.add_argument("--train", action="store_true", help="train a model and score its test sessions")
        parser.add_argument("--seed", type=seed, default=7, help="of the training (default 7)")

    def handle(self, *args: Any, **options: Any) -> None:
        from tradingsite.whole_run import run_whole

        screen = console()
        started = time.perf_counter()
        feed, choices = open_feed(options)
        book = choices.book(feed.inputs_sha256, options["first"], options["last"])
        screen.print(f"Replaying {options['bars']} into book {book}: past bars, simulated fills.", soft_wrap=True)
        if feed.skipped_rows:
            screen.print(f"{feed.skipped_rows:,} bad rows were left out.")
        if feed.outside_session:
            screen.print(f"{feed.outside_session:,} bars outside the regular session were left out.")
        summary = run_whole(
            screen,
            feed,
            book,
            choices,
            sessions=feed.session_count,
            started=started,
            first_bar=started,
            train=options["train"],
            seed=options["seed"],
        )
        if options["json"]:
            write_json(options["json"], summary)
