"""The options by which commands are told what to replay."""

from argparse import ArgumentParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tradingsite.kit.options import bad_input, new_york_date

if TYPE_CHECKING:
    from positions.market.feeds.file import FileFeed
    from tradingsite.replaying import ReplayOptions


def add_file_options(parser: ArgumentParser, *, without_bars: str = "") -> None:
    """`without_bars` says what is taken where --bars is not given; without it, --bars must be."""
    parser.add_argument(
        "--bars",
        type=Path,
        required=not without_bars,
        help=f".csv, .csv.gz, .parquet, or a folder of fetch_bars{without_bars and f' (default: {without_bars})'}",
    )
    parser.add_argument("--market", type=Path, help="index and share above VWAP a minute")
    parser.add_argument("--vix", type=Path, help="daily VIX; a session sees the close before it")
    parser.add_argument("--symbols", type=Path, help="sector and sector ETF of each symbol")
    parser.add_argument("--skip-bad-rows", action="store_true", help="leave bad rows out and count them")


def add_date_options(parser: ArgumentParser) -> None:
    parser.add_argument("--from", dest="first", type=new_york_date, metavar="D", help="first session traded")
    parser.add_argument("--to", dest="last", type=new_york_date, metavar="D", help="last session traded")


def add_bars_options(parser: ArgumentParser) -> None:
    add_file_options(parser)
    add_date_options(parser)
    parser.add_argument(
        "--protections", action="store_true", help="portfolio caps on: buying power, open positions, daily loss"
    )


def open_feed(options: dict[str, Any]) -> "tuple[FileFeed, ReplayOptions]":
    """The bars and the settings in force. Raises CommandError (status 2) for files that are not what they should be,
    and for a result that would be written over one of them."""
    from tradingsite.replaying import ReplayOptions

    result = options.get("json")
    for name in ("bars", "market", "vix", "symbols"):
        if result is not None and options[name] is not None and result.resolve() == options[name].resolve():
            raise bad_input(f"--json {result} would be written over --{name}; name another file.")
    return file_feed(options), ReplayOptions.in_force(protections=options["protections"])


def file_feed(options: dict[str, Any]) -> "FileFeed":
    """Raises CommandError (status 2) for files that are not what they should be and for dates the wrong way round."""
    from positions.market.feeds.file import BadBars, FileFeed

    if options["first"] and options["last"] and options["last"] < options["first"]:
        raise bad_input(f"--from {options['first']} comes after --to {options['last']}; no session lies between them.")
    try:
        return FileFeed(
            options["bars"],
            market=options["market"],
            vix=options["vix"],
            symbols=options["symbols"],
            first=options["first"],
            last=options["last"],
            skip_bad_rows=options["skip_bad_rows"],
        )
    except BadBars as error:
        raise bad_input(str(error)) from error
