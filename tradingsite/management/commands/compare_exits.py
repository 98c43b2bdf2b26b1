"""What the exit rules are worth on your own bars, with intervals, whatever it says."""

from argparse import ArgumentParser
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from django.core.management.base import CommandError

from tradingsite.bars_options import add_bars_options, open_feed
from tradingsite.kit.command import USUAL, SiteCommand
from tradingsite.kit.json_file import write_json
from tradingsite.kit.options import bad_input
from tradingsite.kit.terminal import console, progress

if TYPE_CHECKING:
    from rich.table import Table

    from tradingsite.exit_comparison import Compared


class Command(SiteCommand):
    help = (
        "Replay bars under the exit settings in force, with no rule, with each rule alone and with other "
        "thresholds, and compare trade by trade: each with what its own plan would have made, and with what it "
        "made under the settings in force. Works in memory: no book is written or changed."
    )
    example = "--bars bars.parquet --symbols symbols.csv"
    exit_status = {
        **USUAL,
        0: "done, whatever the figures say",
        1: "no figure can be trusted",
        2: "bad input",
    }

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_bars_options(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        from ml.impact import CAUTION
        from ml.tables import figures_table
        from positions.strategy import BadSignal
        from reports import impact
        from reports.figures import plural
        from tradingsite.exit_comparison import compare, variants

        screen = console()
        feed, choices = open_feed(options)
        wanted = variants(choices.exits)
        screen.print(
            f"{len(wanted)} replays of {options['bars']}, past bars and simulated fills. Nothing is stored.",
            soft_wrap=True,
        )
        try:
            with progress("Replaying", len(wanted) * feed.session_count) as advance:
                found = list(compare(feed, choices, wanted, lambda: advance(1)))
        except BadSignal as error:
            raise bad_input(str(error)) from error
        in_force = found[0]
        rows = impact.rows(in_force.impact)
        if rows:
            table = figures_table(
                f"The rules in force: {plural(in_force.trades, 'trade')} in {plural(in_force.sessions, 'session')}",
                *impact.HEADINGS,
                caption="Beside the trades' own plans, in R a trade after costs; ±: 95 %, by session. A rule's "
                "trades are those that it closed.",
            )
            for row in rows:
                table.add_row(*asdict(row).values())
            screen.print(table)
        for sentence in impact.sentences(in_force.impact):
            screen.print(sentence, soft_wrap=True)
        screen.print(_settings_table(found))
        if options["json"]:
            write_json(
                options["json"],
                {"inputs_sha256": feed.inputs_sha256, "caution": CAUTION, "replays": [asdict(each) for each in found]},
            )
        if not rows:
            raise CommandError("No figure: the plans do not reproduce the trades that no rule touched; see above.")


def _settings_table(found: "list[Compared]") -> "Table":
    from ml.tables import figures_table
    from reports.impact import R_STYLE, around

    table = figures_table(
        "Other settings",
        "replay",
        "trades",
        "mean R",
        "net effect",
        "in both",
        "difference",
        caption="In R a trade, ±: 95 %, by session. Net effect: beside the trades' own plans. Difference: beside the "
        "replay in force, on the trades that are in both.",
    )
    for each in found:
        together, paired = each.impact.together, each.paired
        table.add_row(
            each.variant.name,
            f"{each.trades:,}",
            "–" if each.mean_r is None else around(each.mean_r, each.mean_r_interval, R_STYLE),
            "–" if together is None else around(together.net, together.net_interval, R_STYLE),
            "–" if paired is None else f"{paired.n:,}",
            "–" if paired is None else around(paired.net, paired.net_interval, R_STYLE),
        )
    return table
