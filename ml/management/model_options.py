"""What the commands about one stored model share."""

from argparse import ArgumentParser
from datetime import datetime
from typing import TYPE_CHECKING, Any

from django.conf import settings

from ml.models import MLModel
from ml.registry import SERVICE
from ml.tables import show_verdicts
from tradingsite.kit.options import bad_input, book_name

if TYPE_CHECKING:
    from rich.console import Console

#: What anybody may know of a model's standing.
STANDING = ("version", "book", "algorithm", "label", "gate", "gate_reasons", "may_filter", *SERVICE)


def add_model_options(parser: ArgumentParser) -> None:
    parser.add_argument("version", help="the model's version, such as 20240216-1")
    parser.add_argument(
        "--book", type=book_name, default=settings.BOOK, help="where it was trained (default: %(default)s)"
    )


def find_model(book: str, version: str) -> MLModel:
    """The model of that version. Raises CommandError (status 2) that names the newest there are."""
    model = MLModel.objects.filter(book=book, version=version).first()
    if model is None:
        known = ", ".join(MLModel.objects.filter(book=book).values_list("version", flat=True)[:5])
        raise bad_input(
            f"Book {book} has no model {version}. Its newest: {known}."
            if known
            else f"Book {book} has no models. Train one: python manage.py train_model --book {book}"
        )
    return model


def standing(model: MLModel) -> dict[str, Any]:
    """The same for machines; times in ISO 8601."""
    values = {name: getattr(model, name) for name in STANDING}
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in values.items()}


def show_standing(model: MLModel, screen: "Console") -> None:
    """Both verdicts with every reason, and where it serves."""
    screen.print(f"Model {model.version} of {model.book} ({model.algorithm}): {model.gate}.", soft_wrap=True)
    for reason in model.gate_reasons:
        screen.print(f"  - {reason}", soft_wrap=True)
    show_verdicts(model, screen)
    screen.print(model.service, soft_wrap=True)
