"""`rollback_model`: let the champion before serve again."""

from argparse import ArgumentParser
from typing import Any

from django.conf import settings

from ml.management.model_options import standing
from ml.registry import PromotionRefused, rollback
from tradingsite.kit.command import USUAL, SiteCommand
from tradingsite.kit.json_file import write_json
from tradingsite.kit.options import bad_input, book_name


class Command(SiteCommand):
    help = (
        "Withdraw the model that serves a book; the one that it had replaced serves again. A running trader hears "
        "of it within seconds."
    )
    example = "--book paper:MINE --who ada --why 'it skips winners'"
    exit_status = {**USUAL, 2: "bad input, or there is nothing to go back to"}

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--book", type=book_name, default=settings.BOOK, help="the book it serves (default: %(default)s)"
        )
        parser.add_argument("--who", required=True, help="your name, stored with the model that is withdrawn")
        parser.add_argument("--why", required=True, help="the reason, stored with it")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            done = rollback(options["book"], options["who"], options["why"])
        except PromotionRefused as refused:
            raise bad_input(str(refused)) from refused
        self.stdout.write(
            f"Model {done.restored.version} serves {options['book']} again; {done.withdrawn.version} is archived."
        )
        if options["json"]:
            write_json(options["json"], {"withdrawn": standing(done.withdrawn), "restored": standing(done.restored)})
