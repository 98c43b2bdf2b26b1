"""`promote_model`: make a candidate the champion of a book."""

from argparse import ArgumentParser
from datetime import date, datetime, time, timedelta
from typing import Any

from django.utils import timezone

from ml.management.model_options import add_model_options, find_model, standing
from ml.registry import PromotionRefused, promote
from tradingsite.kit.command import USUAL, SiteCommand
from tradingsite.kit.json_file import write_json
from tradingsite.kit.options import bad_input, book_name, new_york_date


def end_of(day: date) -> datetime:
    """When a New York day is over."""
    return timezone.make_aware(datetime.combine(day + timedelta(days=1), time()))


class Command(SiteCommand):
    help = (
        "Make a candidate the model that serves a book; the one that served before is archived. A running trader "
        "hears of it within seconds."
    )
    example = "20240216-1 --who ada --why 'beats geometry'"
    exit_status = {**USUAL, 2: "bad input, or the promotion is refused"}

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_model_options(parser)
        parser.add_argument("--to", type=book_name, help="the book it is to serve (default: where it was trained)")
        parser.add_argument("--who", required=True, help="your name, stored with the promotion")
        parser.add_argument("--why", required=True, help="the reason, stored with the promotion")
        parser.add_argument(
            "--foreign",
            action="store_true",
            help="say that the model learned from another book's trades, perhaps in an invented market or a replay, "
            "and is to judge this book's all the same; without this word that is refused",
        )
        parser.add_argument(
            "--override",
            action="store_true",
            help="let a model serve that did not pass its gate; every prediction it makes says so, it never skips a "
            "trade, and its service ends by itself (--until)",
        )
        parser.add_argument(
            "--until", type=new_york_date, metavar="D", help="with --override: the last day of it, New York date"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if options["override"] != (options["until"] is not None):
            raise bad_input("--override and --until D belong together: an override ends on a named day.")
        model = find_model(options["book"], options["version"])
        try:
            champion = promote(
                model,
                options["to"] or options["book"],
                options["who"],
                options["why"],
                foreign=options["foreign"],
                override_until=end_of(options["until"]) if options["override"] else None,
            )
        except PromotionRefused as refused:
            raise bad_input(str(refused)) from refused
        trained = f", trained on {champion.book}," if champion.book != champion.serving_book else ""
        until = f" until the end of {options['until']}, though it did not pass its gate" if options["override"] else ""
        self.stdout.write(f"Model {champion.version}{trained} now serves {champion.serving_book}{until}.")
        if options["json"]:
            write_json(options["json"], standing(champion))
