"""The options by which commands are told what to replay."""

from argparse import ArgumentParser, ArgumentTypeError
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.core.management.base import CommandError

from tradingsite.console import BAD_CONFIGURATION

if TYPE_CHECKING:
    from positions.market.feeds.file import FileFeed
    from tradingsite.replaying import ReplayOptions


def _new_york_date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise ArgumentTypeError(f"{text!r} is not a date like 2018-02-16") from error


def add_bars_options(parser: ArgumentParser) -> None:
    parser.add_argument("--bars", type=Path, required=True, help=".csv, .csv.gz, .parquet, or a folder of fetch_bars")
    parser.add_argument("--market", type=Path, help="index and share above VWAP a minute")
    parser.add_argument("--vix", type=Path, help="daily VIX; a session sees the close before it")
    parser.add_argument("--symbols", type=Path, help="sector and sector ETF of each symbol")
    parser.add_argument("--from", dest="first", type=_new_york_date, metavar="D", help="first session traded")
    parser.add_argument("--to", dest="last", type=_new_york_date, metavar="D", help="last session traded")
    parser.add_argument(
        "--protections", action="store_true", help="portfolio caps on: buying power, open positions, daily loss"
    )
    parser.add_argument("--skip-bad-rows", action="store_true", help="leave bad rows out and count them")


def open_feed(options: dict[str, Any]) -> "tuple[FileFeed, ReplayOptions]":
    """The bars and the settings in force. Raises CommandError (status 2) for files that are not what they should be."""
    from positions.market.feeds.file import BadBars, FileFeed
    from tradingsite.replaying import ReplayOptions

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
    except BadBars as error:
        raise CommandError(str(error), returncode=BAD_CONFIGURATION) from error
    return feed, ReplayOptions.in_force(protections=options["protections"])
