"""manage.py daily_report: one session of a book as a page, Markdown or JSON."""

import json
import webbrowser
from argparse import ArgumentParser
from datetime import date
from typing import Any

from django.conf import settings
from django.utils import timezone

from ml.performance_tracker import PerformanceTracker
from positions.market.calendar import session_of
from reports.daily import build_report, render_json, render_markdown, write_missing, write_report
from tradingsite.kit.command import USUAL, SiteCommand
from tradingsite.kit.json_file import write_json
from tradingsite.kit.options import bad_input, book_name, new_york_date
from tradingsite.kit.terminal import progress


class Command(SiteCommand):
    help = "Report on one session of a book: every figure with its n and interval, beside the whole book so far."
    example = "--session 2026-11-20 --format md"
    exit_status = {**USUAL, 2: "bad input, or a book without signals (unless --missing)"}

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--book", type=book_name, default=settings.BOOK, help="which trades to report on (default: %(default)s)"
        )
        which = parser.add_mutually_exclusive_group()
        which.add_argument(
            "--session", type=new_york_date, help="New York date, YYYY-MM-DD (default: the last with a signal)"
        )
        which.add_argument("--missing", action="store_true", help="write the page of every session that has none")
        parser.add_argument(
            "--format", choices=("html", "md", "json"), default="html", help="html writes a page and prints its path"
        )
        parser.add_argument("--open", action="store_true", help="show the page in the browser")

    def handle(self, *args: Any, **options: Any) -> None:
        book = options["book"]
        if options["format"] != "html":
            if options["missing"] or options["open"]:
                raise bad_input("--missing and --open go with --format html")
            with progress("Reporting"):
                report = build_report(book, _day(book, options["session"]))
            as_json = render_json(report)
            self.stdout.write(as_json if options["format"] == "json" else render_markdown(report))
            if options["json"]:
                write_json(options["json"], {"book": book, "pages": [], "report": json.loads(as_json)})
            return
        with progress("Reporting") as advance:
            if options["missing"]:
                paths = write_missing(book, advance)
            else:
                paths = [write_report(book, _day(book, options["session"]))]
        for path in paths:
            self.stdout.write(str(path))
        if options["json"]:
            write_json(options["json"], {"book": book, "pages": [str(path) for path in paths], "report": None})
        if not paths:
            self.stderr.write(f"book {book}: no report is missing")
        elif options["open"]:
            webbrowser.open(paths[-1].as_uri())


def _day(book: str, asked: date | None) -> date:
    """The day that was asked for, or the last with a signal; CommandError (status 2) where the book has none."""
    last = PerformanceTracker(book).last_session()
    if last is None:
        raise bad_input(f"book {book} has no signals: run quickstart, replay or trade, or name another --book")
    return _held(asked) if asked else last


def _held(day: date) -> date:
    """The day, if the exchange has opened on it; else CommandError (status 2)."""
    try:
        session = session_of(day)
    except ValueError as error:
        raise bad_input(f"--session: {error}") from error
    if session is None or session.open > timezone.now():
        raise bad_input(f"--session {day}: the exchange has held no session on this day; name one that it has")
    return day
