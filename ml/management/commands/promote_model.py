"""`promote_model`: make a candidate the champion of a book."""

from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from ml.models import MLModel
from ml.registry import PromotionRefused, promote
from tradingsite.kit.options import bad_input, book_name


class Command(BaseCommand):
    help = "Make a candidate the model that serves a book; the one that served before is archived."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("version", help="the model's version, such as 20240216-1")
        parser.add_argument(
            "--book", type=book_name, default=settings.BOOK, help="where it was trained (default: %(default)s)"
        )
        parser.add_argument("--to", type=book_name, help="the book it is to serve (default: where it was trained)")
        parser.add_argument("--who", required=True, help="your name, stored with the promotion")
        parser.add_argument("--why", required=True, help="the reason, stored with the promotion")
        parser.add_argument(
            "--foreign",
            action="store_true",
            help="say that the model learned from another book's trades, perhaps in an invented market or a replay, "
            "and is to judge this book's all the same; without this word that is refused",
        )

    def handle(
        self, *, version: str, book: str, to: str | None, who: str, why: str, foreign: bool, **options: Any
    ) -> None:
        model = MLModel.objects.filter(book=book, version=version).first()
        if model is None:
            known = ", ".join(MLModel.objects.filter(book=book).values_list("version", flat=True)[:5])
            raise bad_input(
                f"Book {book} has no model {version}. Its newest: {known}."
                if known
                else f"Book {book} has no models. Train one: python manage.py train_model --book {book}"
            )
        try:
            champion = promote(model, to or book, who, why, foreign=foreign)
        except PromotionRefused as refused:
            raise bad_input(str(refused)) from refused
        trained = f", trained on {champion.book}," if champion.book != champion.serving_book else ""
        self.stdout.write(f"Model {champion.version}{trained} now serves {champion.serving_book}.")
