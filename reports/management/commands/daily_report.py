"""manage.py daily_report: one session of a book as a page, Markdown or JSON."""

import webbrowser
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from ml.performance_tracker import PerformanceTracker
from reports.daily import build_report, render_json, render_markdown, write_missing, write_report
from tradingsite.kit.options import bad_input, book_name, new_york_date


class Command(BaseCommand):
    help = "Report on one session of a book: every figure with its n and interval, beside the whole book so far."

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
        last = PerformanceTracker(book).last_session()
        if last is None:
            raise bad_input(f"book {book} has no signals: run quickstart, replay or trade, or name another --book")
        if options["format"] != "html":
            if options["missing"] or options["open"]:
                raise bad_input("--missing and --open go with --format html")
            report = build_report(book, options["session"] or last)
            self.stdout.write(render_json(report) if options["format"] == "json" else render_markdown(report))
            return
        paths = write_missing(book) if options["missing"] else [write_report(book, options["session"] or last)]
        for path in paths:
            self.stdout.write(str(path))
        if not paths:
            self.stderr.write(f"book {book}: every session has its report")
        elif options["open"]:
            webbrowser.open(paths[-1].as_uri())
