"""The kill switch: no entry until `resume`."""

from argparse import ArgumentParser
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from django.conf import settings

from positions.halting import Halt, halt
from positions.words import LONGEST_REASON
from tradingsite.kit.command import SiteCommand
from tradingsite.kit.json_file import write_json
from tradingsite.kit.options import book_name
from tradingsite.kit.terminal import console, user_name
from tradingsite.known_books import NOT_CHECKED, was_checked


def _kept(reason: str) -> str:
    """Never an error: the halt matters more than its reason."""
    return reason.encode(errors="replace").decode()[:LONGEST_REASON]


class Command(SiteCommand):
    help = (
        "Block entries of a book from the next tick on, until `resume`, over restarts and without a database. "
        "Exits, stops and breakeven go on. With --flatten every open trade that the rules watch is closed too, as "
        "soon as the market is open."
    )
    example = "--flatten --reason news"
    exit_status = {0: "done", 2: "bad input, no such book, or VAR_DIR cannot be written"}
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--book", type=book_name, default=settings.BOOK, help="default: the BOOK setting")
        parser.add_argument("--flatten", action="store_true", help="close every open trade too")
        parser.add_argument(
            "--reason", type=_kept, default="", help=f"kept and shown, its first {LONGEST_REASON} characters"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        book = options["book"]
        checked = was_checked(book)
        told = halt(book, Halt(user_name(), datetime.now(UTC), options["reason"], options["flatten"]))
        console().print(f"Entries of {book} are blocked until `resume`; {told.extent}.", soft_wrap=True)
        if told.flatten:
            console().print("Where no trade runs, close them at Alpaca's own page.", soft_wrap=True)
        if not checked:
            console().print(NOT_CHECKED, soft_wrap=True)
        if options["json"]:
            write_json(options["json"], {"book": book, "checked": checked, **asdict(told), "at": told.at.isoformat()})
