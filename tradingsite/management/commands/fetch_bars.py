"""Download past bars from Alpaca into the files that replays, audits and live trading start from."""

from argparse import ArgumentParser, ArgumentTypeError
from dataclasses import asdict
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.management.base import CommandError

from tradingsite.broker import FEEDS, data_access
from tradingsite.kit.command import SiteCommand
from tradingsite.kit.json_file import write_json
from tradingsite.kit.options import bad_input, new_york_date
from tradingsite.kit.terminal import console, progress

if TYPE_CHECKING:
    from positions.market.calendar import Session

UNREACHABLE = 1


def symbol_list(text: str) -> list[str]:
    symbols = [symbol.strip().upper() for symbol in text.split(",") if symbol.strip()]
    if not symbols:
        raise ArgumentTypeError("no symbol; give some like AAPL,MSFT")
    return symbols


class Command(SiteCommand):
    help = (
        "Download bars of regular sessions from Alpaca into VAR_DIR/bars/<feed>, one file a session, from which "
        "`replay --bars` runs. Sessions that are there already are skipped, so an interrupted download goes on "
        "where it was."
    )
    example = "--symbols AAPL,MSFT,SPY --from 2025-05-01 --to 2025-05-30"
    exit_status = {
        0: "done",
        1: "Alpaca cannot be reached or has no bars",
        2: "bad input, keys or subscription",
        3: "the database cannot be reached (--watchlist)",
    }

    def add_arguments(self, parser: ArgumentParser) -> None:
        whose = parser.add_mutually_exclusive_group(required=True)
        whose.add_argument("--symbols", type=symbol_list, metavar="A,B", help="symbols, separated by commas")
        whose.add_argument("--watchlist", action="store_true", help="the watchlist of the BOOK setting")
        parser.add_argument(
            "--from", dest="first", type=new_york_date, metavar="D", required=True, help="first session"
        )
        parser.add_argument("--to", dest="last", type=new_york_date, metavar="D", required=True, help="last session")
        parser.add_argument("--feed", choices=FEEDS, help="default: the ALPACA_FEED setting, else iex")
        parser.add_argument("--timeframe", type=int, choices=[1, 5], default=1, help="minutes a bar (default 1)")

    def handle(self, *args: Any, **options: Any) -> None:
        from positions.clock import SystemClock
        from positions.market.bar_files import StoredBars
        from positions.market.feeds.alpaca.errors import AlpacaRefused, AlpacaUnreachable
        from positions.market.feeds.alpaca.history import AlpacaBars
        from positions.market.feeds.fetching import fetch
        from positions.market.feeds.reading import BadBars

        access = data_access(options["feed"] or "")
        symbols = options["symbols"] or _watchlist()
        clock, length = SystemClock(), timedelta(minutes=options["timeframe"])
        sessions = [each for each in _sessions(options["first"], options["last"]) if each.open < clock.now()]
        if not sessions:
            raise bad_input(f"No session has begun from {options['first']} to {options['last']}; give other dates.")
        stored = StoredBars(settings.VAR_DIR / "bars", access.feed, length)
        try:
            with progress("Fetching", len(sessions)) as advance:
                done = fetch(stored, AlpacaBars(access, clock, length), symbols, sessions, clock, advance)
        except (AlpacaRefused, BadBars) as error:
            raise bad_input(str(error)) from error
        except AlpacaUnreachable as error:
            raise CommandError(f"{error}. What was fetched stays.", returncode=UNREACHABLE) from error

        screen = console()
        screen.print(
            f"{done.downloaded} sessions downloaded, {done.already_there} were there: {done.bars:,} new {access.feed} "
            f"bars in {stored.folder}",
            soft_wrap=True,
        )
        if done.quarantined:
            screen.print(f"{done.quarantined:,} bad prints were left out.")
        for names, what in ((done.bad_symbols, "No symbols at Alpaca"), (done.empty, "No bars")):
            if names:
                screen.print(f"{what}: {', '.join(names)}", soft_wrap=True)
        if options["json"]:
            about = {"feed": access.feed.value, "folder": str(stored.folder), "sessions": len(sessions)}
            write_json(options["json"], {**about, **asdict(done)})
        if len(done.bad_symbols) + len(done.empty) == len(set(symbols)):
            raise CommandError("None of the symbols has bars in these sessions; check the symbols and dates.")


def _watchlist() -> list[str]:
    from positions.models import Instrument

    symbols = Instrument.objects.filter(book=settings.BOOK).exclude(symbol__startswith="^")
    names = list(symbols.values_list("symbol", flat=True))
    if not names:
        raise bad_input(f"The watchlist of book {settings.BOOK} is empty; give --symbols, or fill it in the admin.")
    return names


def _sessions(first: date, last: date) -> "list[Session]":
    from positions.market.calendar import sessions_between

    if first > last:
        raise bad_input(f"--from {first} lies after --to {last}.")
    try:
        return sessions_between(first, last)
    except ValueError as error:
        raise bad_input(
            f"{first} to {last}: the exchange calendar begins in 1990 and ends a year from today."
        ) from error
