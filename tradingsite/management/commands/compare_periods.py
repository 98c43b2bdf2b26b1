"""A book's sessions from a date on beside those before it."""

from argparse import ArgumentParser
from dataclasses import asdict
from typing import Any

from django.conf import settings

from tradingsite.kit.command import USUAL, SiteCommand
from tradingsite.kit.json_file import write_json
from tradingsite.kit.options import bad_input, book_name, new_york_date
from tradingsite.kit.terminal import console, progress


class Command(SiteCommand):
    help = "Set a book's sessions from a date on, such as that of a changed setting, beside those before it."
    example = "--switch 2025-06-02"
    exit_status = {**USUAL, 0: "done, whatever the figures say", 2: "bad input"}

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--switch", type=new_york_date, required=True, metavar="D", help="first session after it")
        parser.add_argument(
            "--book", type=book_name, default=settings.BOOK, help="which trades to look at (default: %(default)s)"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        from ml.performance_tracker import PerformanceTracker, Sample
        from ml.tables import figures_table
        from reports.figures import lines, plural
        from reports.impact import around
        from reports.periods import CAUTION, changes

        book, switch = options["book"], options["switch"]
        with progress("Reading the book"):
            history = PerformanceTracker(book).read()
        before = Sample(record for day, record in history.items() if day < switch)
        after = Sample(record for day, record in history.items() if day >= switch)
        if not before.closed or not after.closed:
            side = "from it on" if before.closed else "before it"
            raise bad_input(f"--switch {switch}: book {book} has no closed trade {side}; name a date between trades.")
        found, figures = changes(before, after), lines(after, before)
        screen = console()
        table = figures_table(
            f"Book {book}: before {switch} ({plural(len(before.records), 'session')}) and from then on "
            f"({plural(len(after.records), 'session')})",
            "",
            "before",
            "after",
        )
        for line in figures:
            table.add_row(
                line.label, *(each.text if each.value is not None else "–" for each in (line.book, line.session))
            )
        screen.print(table)
        table = figures_table(
            "What changed", "", "before", "after", "change", "verdict", caption="Before, after: n. ±: 95 %, by session."
        )
        for each in found:
            change = "–" if each.change is None else around(each.change, each.interval, "+z.3f")
            table.add_row(each.label, f"{each.n_before:,}", f"{each.n_after:,}", change, each.verdict)
        screen.print(table)
        screen.print(CAUTION, soft_wrap=True)
        if options["json"]:
            content = {
                "book": book,
                "switch": switch.isoformat(),
                "changes": [asdict(each) | {"verdict": each.verdict} for each in found],
                "before": {line.key: asdict(line.book) for line in figures},
                "after": {line.key: asdict(line.session) for line in figures},
                "caution": CAUTION,
            }
            write_json(options["json"], content)
