"""Prove on your own bars that no feature knows the future."""

from argparse import ArgumentParser
from dataclasses import asdict
from typing import Any

from django.core.management.base import CommandError
from django.utils import timezone

from tradingsite.bars_options import add_bars_options, open_feed
from tradingsite.kit.command import USUAL, SiteCommand
from tradingsite.kit.json_file import write_json
from tradingsite.kit.options import bad_input, seed
from tradingsite.kit.terminal import console, progress

LEAST_POINTS = 50


class Command(SiteCommand):
    help = (
        "Alter, cut off and shuffle all that comes after a moment (bars, market file, VIX from the session's day "
        "on, and with them the outcomes), run the session again and compare every feature of every signal before "
        "it, byte by byte. Planted leaks prove that the check can see; no model passes its gate unless this found "
        "its features clean."
    )
    example = "--bars bars.parquet"
    exit_status = {
        **USUAL,
        0: "no leak",
        1: "a leak, named with its signal, or a planted leak that was missed",
        2: "bad input",
    }

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_bars_options(parser)
        parser.add_argument("--points", type=int, default=60, help=f"moments, at least {LEAST_POINTS} (default 60)")
        parser.add_argument("--seed", type=seed, default=0, help="of the moments and alterations (default 0)")

    def handle(self, *args: Any, **options: Any) -> None:
        from ml.features import FEATURE_SET
        from ml.models import LeakageCheck
        from tradingsite import leakage

        if options["points"] < LEAST_POINTS:
            raise bad_input(f"--points {options['points']}: at least {LEAST_POINTS} are needed.")
        screen = console()
        feed, choices = open_feed(options)
        try:
            with progress("Altering the future", feed.session_count + options["points"]) as advance:
                report = leakage.check(feed, choices, options["points"], options["seed"], advance)
        except ValueError as error:
            raise bad_input(str(error)) from error
        screen.print(f"{report.compared:,} feature values compared at {report.points} moments.")
        for feature, leaks in leakage.by_feature(report.leaks).items():
            first = leaks[0]
            screen.print(
                f"LEAK: {feature} of {first.signal_key} was {first.before}, and {first.after} once the bars after it "
                f"were {first.alteration} ({len(leaks):,} such differences).",
                soft_wrap=True,
            )
        for name, times in report.caught.items():
            screen.print(
                f"planted leak: {name}: " + (f"caught at {times} moments" if times else "MISSED"), soft_wrap=True
            )
        for name in report.not_planted:
            screen.print(f"planted leak: {name}: not possible on these files", soft_wrap=True)
        LeakageCheck.objects.create(
            feature_set=FEATURE_SET,
            checked_at=timezone.now(),
            inputs_sha256=feed.inputs_sha256,
            points=report.points,
            compared=report.compared,
            is_clean=report.clean,
            leaks=sorted(leakage.by_feature(report.leaks)),
            caught=dict(report.caught),
        )
        if options["json"]:
            write_json(options["json"], asdict(report))
        if not report.clean:
            raise CommandError("A feature knows the future, or the check is blind; see above.")
        screen.print("No feature knows the future.")
