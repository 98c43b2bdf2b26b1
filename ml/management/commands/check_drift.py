"""`check_drift`: hold the model that serves a book against what it was trained on."""

from argparse import ArgumentParser
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.utils import timezone

from ml.drift_watch import check_drift
from ml.models import DriftCheck
from tradingsite.kit.command import USUAL, SiteCommand
from tradingsite.kit.json_file import write_json
from tradingsite.kit.options import book_name
from tradingsite.kit.terminal import console, folding_table, progress

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

SHOWN = 10
STORED = (
    "rows", "sessions", "features", "errors", "mean_error", "errors_before", "mean_error_before", "alarms",
    "not_judged", "stepped_down", "reason",
)  # fmt: skip


def features(check: DriftCheck) -> "Table":
    """The features nearest to their bound, or furthest beyond it."""
    from rich.box import SIMPLE_HEAD

    table = folding_table(
        *("feature", "PSI", "without drift below", "worth", ""),
        numbers=True,
        title=f"The {SHOWN} features nearest to their bound",
        caption="Worth: in independent signals; those of a session, and of a week, resemble each other.",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    judged = {name: found for name, found in check.features.items() if found["bound"] is not None}
    for name, found in sorted(judged.items(), key=lambda item: -item[1]["psi"] / item[1]["bound"])[:SHOWN]:
        alarm = "alarm" if found["alarm"] else ""
        table.add_row(name, f"{found['psi']:.3f}", f"{found['bound']:.3f}", f"{found['worth']:,.0f}", alarm)
    return table


def show(check: DriftCheck, screen: "Console") -> None:
    """What was compared, every alarm, and what followed from it."""
    if check.features:
        screen.print(features(check))
    if check.mean_error is not None:
        before = f", {check.mean_error_before:+.3f} on {check.errors_before:,} before" if check.errors_before else ""
        error = f"{check.mean_error:+.3f} on {check.errors:,} closed predictions{before}"
        screen.print(f"Squared error beyond what the model's odds imply: {error}.", soft_wrap=True)
    for sentence in (*check.alarms, *check.not_judged):
        screen.print(f"  - {sentence}", soft_wrap=True)
    outcome = check.reason or "No alarm."
    screen.print(f"Model {check.model.version} on {check.book}, {check.compared}: {outcome}", soft_wrap=True)


class Command(SiteCommand):
    help = (
        "Compare the signals and errors of the model that serves a book with those of its training. On an alarm "
        "the live setting PREDICTION_MODE goes from filter to shadow, never back, and why is stored; it alarms "
        "again each time until the figures recover or another model is promoted."
    )
    example = "--book paper:MINE"
    exit_status = {**USUAL, 0: "done, alarm or not", 2: "bad input"}

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--book", type=book_name, default=settings.BOOK, help="whose model (default: %(default)s)")

    def handle(self, *args: Any, **options: Any) -> None:
        book = options["book"]
        with progress("Comparing"):
            check = check_drift(book, timezone.now())
        screen = console(self.stdout)
        if check:
            show(check, screen)
        else:
            screen.print(
                f"No model serves {book}: nothing to check. One that passed its gate is promoted with promote_model.",
                soft_wrap=True,
            )
        if options["json"]:
            version = check.model.version if check else None
            write_json(
                options["json"],
                {"book": book, "version": version, **{name: getattr(check, name, None) for name in STORED}},
            )
