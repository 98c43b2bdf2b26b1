"""`train_model`: train on a book's closed trades, show the out-of-sample figures and the gate's verdict."""

from argparse import ArgumentParser
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.management.base import CommandError

from ml.model_trainer import TRAINING_STEPS, ModelTrainer, TrainingResult
from ml.models import MLModel
from ml.registry import PromotionRefused
from ml.succession import succeed
from ml.tables import show_figures, show_verdicts
from ml.training_rows import nothing_new
from ml.words import VERDICTS, Algorithm, Label
from positions import live_settings
from tradingsite.kit.command import USUAL, SiteCommand
from tradingsite.kit.json_file import write_json
from tradingsite.kit.options import book_name, seed
from tradingsite.kit.terminal import console, progress

if TYPE_CHECKING:
    from rich.console import Console


def show(result: TrainingResult, screen: "Console") -> None:
    """Figures, verdicts and every reason, in plain words."""
    model = result.model
    if model:
        show_figures(model.metrics, model.algorithm, screen)
        screen.print(f"Trained on {model.trained_on}.", soft_wrap=True)
        screen.print(f"Tested on {model.tested_on}.", soft_wrap=True)
    named = f"Model {model.version} ({model.algorithm}): " if model else "No model: "
    screen.print(f"{named}{result.gate}. {VERDICTS[result.gate]}", soft_wrap=True)
    for reason in result.reasons:
        screen.print(f"  - {reason}", soft_wrap=True)
    if model:
        show_verdicts(model, screen)


def summary(book: str, result: TrainingResult | None, promoted: MLModel | None = None) -> dict[str, Any]:
    """The result for machines; every key is always there, null where there is no model or nothing was due."""
    stored = (
        "version",
        "algorithm",
        "label",
        "status",
        "may_filter",
        "n_train",
        "n_validation",
        "n_test",
        "threshold",
        "data_hash",
        "seed",
    )
    return {
        "book": book,
        "due": result is not None,
        **{name: getattr(result and result.model, name, None) for name in stored},
        "gate": result and result.gate,
        "gate_reasons": result and result.reasons,
        "metrics": result and result.evaluation,
        "promoted": promoted and promoted.version,
    }


def add_training_options(parser: ArgumentParser) -> None:
    parser.add_argument("--book", type=book_name, default=settings.BOOK, help="whose trades (default: %(default)s)")
    parser.add_argument("--seed", type=seed, default=7, help="same data and seed give the same model (default 7)")
    parser.add_argument(
        "--label",
        choices=[label.value for label in Label],
        default=Label.NET.value,
        help="net: how trades ended as executed, after costs; plan: how their stop, target or the close would have "
        "ended them (default: %(default)s)",
    )


class Command(SiteCommand):
    help = "Train a WIN/LOSS model on a book's closed trades, walk forward, and say what it is worth out of sample."
    example = "--book paper:MINE --label plan"
    exit_status = {
        **USUAL,
        0: "done, whatever the gate says",
        1: "the promotion by AUTO_PROMOTE failed",
        2: "bad input",
    }

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_training_options(parser)
        parser.add_argument(
            "--algorithm",
            choices=[algorithm.value for algorithm in Algorithm],
            help="which learner becomes the candidate (default: xgboost, or logistic where that is shown to be better)",
        )
        parser.add_argument(
            "--if-due", action="store_true", help="only if trades have closed that the newest model did not learn from"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        book, label = options["book"], Label(options["label"])
        algorithm = Algorithm(options["algorithm"]) if options["algorithm"] else None
        screen = console(self.stdout)
        idle = nothing_new(book, label) if options["if_due"] else ""
        result = None if idle else self._train(ModelTrainer(book, options["seed"], label), algorithm)
        if result is None:
            screen.print(idle, soft_wrap=True)
        else:
            show(result, screen)
        promoted = self._succeed(book, screen) if live_settings.auto_promote() else None
        if options["json"]:
            write_json(options["json"], summary(book, result, promoted))

    @staticmethod
    def _train(trainer: ModelTrainer, algorithm: Algorithm | None) -> TrainingResult:
        with progress("Training", TRAINING_STEPS) as advance:
            return trainer.train(advance, algorithm)

    @staticmethod
    def _succeed(book: str, screen: "Console") -> MLModel | None:
        """What AUTO_PROMOTE allows: the candidate whose trial is over takes the champion's place, or why not."""
        try:
            succession = succeed(book)
        except PromotionRefused as refused:
            raise CommandError(str(refused)) from refused
        if succession is None:
            return None
        candidate, verdict = succession.candidate, succession.verdict
        done = "now serves" if verdict.takes_over else "does not take over"
        screen.print(f"Model {candidate.version} {done} {book}: {verdict.reason}.", soft_wrap=True)
        return candidate if verdict.takes_over else None
