"""The end of a halt."""

from argparse import ArgumentParser
from typing import Any

from django.conf import settings

from positions.halting import resume
from tradingsite.kit.command import SiteCommand
from tradingsite.kit.json_file import write_json
from tradingsite.kit.options import book_name
from tradingsite.kit.terminal import console, user_name
from tradingsite.known_books import NOT_CHECKED, was_checked


class Command(SiteCommand):
    help = "Allow entries of a book again after `halt`."
    exit_status = {0: "done", 2: "bad input, no such book, or VAR_DIR cannot be written"}
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--book", type=book_name, default=settings.BOOK, help="default: the BOOK setting")

    def handle(self, *args: Any, **options: Any) -> None:
        book = options["book"]
        checked = was_checked(book)
        was_halted = resume(book, user_name())
        told = "are allowed again" if was_halted else "were not blocked"
        console().print(f"Entries of {book} {told}.", soft_wrap=True)
        if not checked:
            console().print(NOT_CHECKED, soft_wrap=True)
        if options["json"]:
            write_json(options["json"], {"book": book, "checked": checked, "was_halted": was_halted})
