"""Recompute a session's stored features from the stored bars and say what differs."""

from argparse import ArgumentParser
from dataclasses import asdict
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError

from tradingsite.bars_options import add_file_options
from tradingsite.kit.command import USUAL, SiteCommand
from tradingsite.kit.json_file import write_json
from tradingsite.kit.options import bad_input, book_name, new_york_date
from tradingsite.kit.terminal import console, folding_table, progress


class Command(SiteCommand):
    help = (
        "Compute the features of a session's signals again from the stored bars, by the code that trades, and "
        "compare them with what was stored when the signals were given: equal, different, or right then and other "
        "since the bars were corrected. An account is audited with its watchlist as it is now: a symbol added, changed "
        "or removed since `trade` read it makes features of the market and of the sectors differ."
    )
    example = "--session 2026-11-20 --book paper:MINE"
    exit_status = {
        **USUAL,
        0: "all equal",
        1: "a difference above 1e-9, named with its signal",
        2: "bad input, or nothing to compare",
    }

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--session", type=new_york_date, required=True, metavar="D", help="New York date")
        parser.add_argument("--book", type=book_name, default=settings.BOOK, help=f"default {settings.BOOK}")
        add_file_options(parser, without_bars="those that fetch_bars or trading stored")

    def handle(self, *args: Any, **options: Any) -> None:
        from ml.models import TradeFeatures
        from positions.books import is_at_alpaca
        from positions.market.feeds.file import BadBars, FileFeed
        from tradingsite.audit import NothingToAudit, audit
        from tradingsite.watchlist import watchlist

        book, day = options["book"], options["session"]
        stored = TradeFeatures.objects.filter(book=book, session=day).first()
        if stored is None:
            raise bad_input(f"book {book} has no features of {day}")
        bars = options["bars"] or settings.VAR_DIR / "bars" / stored.feed
        if not bars.exists():
            raise bad_input(f"There are no stored bars in {bars}; give --bars, or download them with fetch_bars.")
        files = {name: options[name] for name in ("market", "vix", "symbols", "skip_bad_rows")}
        if is_at_alpaca(book):
            for name in ("market", "vix", "symbols"):
                if files[name]:
                    raise bad_input(f"Book {book} was traded by its watchlist alone; leave --{name} out.")
            files["universe"] = watchlist(book)
        try:
            first_seen = FileFeed(bars, last=day, **files)
            revised = FileFeed(bars, last=day, revised=True, **files) if bars.is_dir() else None
            with progress("Reading sessions", first_seen.session_count * (1 if revised is None else 2)) as advance:
                result = audit(book, day, settings.STRATEGY, first_seen, revised, advance)
        except (BadBars, NothingToAudit) as error:
            raise bad_input(str(error)) from error
        screen = console()
        _show(screen, result, day)
        if options["json"]:
            write_json(options["json"], asdict(result))
        if not result.clean:
            raise CommandError("Stored features are not what the bars say; see above.")


def _show(screen: Any, result: Any, day: Any) -> None:
    from reports.figures import plural

    title = f"Features of {result.signals} signals on {day}"
    table = folding_table("feature", "equal", "differs", "data arrived late", numbers=True, title=title)
    for feature in result.features:
        table.add_row(feature.feature, str(feature.equal), str(feature.differs), str(feature.late))
    screen.print(table)
    if result.by_api:
        screen.print(f"Not among them: {plural(result.by_api, 'signal')} that came by the API.")
    for feature in result.features:
        if feature.example:
            key, stored, known = feature.example
            screen.print(f"{feature.feature} of {key}: stored {stored}, the bars say {known}", soft_wrap=True)
    for key in result.unexplained:
        screen.print(f"{key}: the bars do not give this signal", soft_wrap=True)
