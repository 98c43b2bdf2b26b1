"""`train_model`: train on a book's closed trades, show the out-of-sample figures and the gate's verdict."""

from argparse import ArgumentParser
from typing import IO, TYPE_CHECKING, Any, cast

from django.conf import settings
from django.core.management.base import BaseCommand

from ml.model_trainer import ModelTrainer, TrainingResult
from ml.words import VERDICTS
from tradingsite.kit.json_file import add_json_option, check_json_file, write_json
from tradingsite.kit.options import book_name, seed

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def _figure(value: float | None, style: str = ".3f") -> str:
    return "-" if value is None else format(value, style)


def _interval(bounds: dict[str, float] | None, style: str = ".3f") -> str:
    return f"{bounds['low']:{style}} to {bounds['high']:{style}}" if bounds else "-"


def _estimate(estimate: dict[str, Any] | None) -> tuple[str, str]:
    if estimate is None:
        return "-", "-"
    return _figure(estimate["value"], "+.3f"), _interval(estimate["interval"], "+.3f")


def figures(metrics: dict[str, Any]) -> "Table":
    """Model and baselines on the same out-of-sample rows."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    geometry, logistic = metrics["geometry"], metrics["logistic_regression"]
    table = Table(
        title=f"Out of sample: {metrics['n']} trades ({metrics['wins']} won) in {metrics['sessions']} sessions",
        title_justify="left",
        caption="Skill is the improvement over geometry, risk / (risk + reward).",
        caption_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 0, 0, 0),
        pad_edge=False,
    )
    table.add_column("", no_wrap=True)
    for heading in ("model", "95 %", "geometry", "logistic", "base rate"):
        table.add_column(heading, justify="right", no_wrap=True)
    for label, name, baseline in (
        ("AUC-ROC", "auc", "0.500"),
        ("accuracy at P >= 0.5", "accuracy", _figure(metrics["majority_accuracy"])),
        ("log-loss", "log_loss", _figure(metrics["base_rate_log_loss"])),
        ("Brier score", "brier", _figure(metrics["base_rate_brier"])),
    ):
        bounds = _interval(metrics["auc_interval"]) if name == "auc" else ""
        table.add_row(label, _figure(metrics[name]), bounds, _figure(geometry[name]), _figure(logistic[name]), baseline)
    for label, name in (
        ("precision", "precision"),
        ("recall", "recall"),
        ("F1", "f1"),
        ("calibration error", "calibration_error"),
    ):
        table.add_row(label, _figure(metrics[name]))
    table.add_row("mean R, all", _figure(metrics["mean_r"], "+.3f"))
    table.add_row(f"mean R, {metrics['n_taken']} taken", _figure(metrics["mean_r_taken"], "+.3f"))
    table.add_section()
    for label, name in (
        ("accuracy - majority", "accuracy_over_majority"),
        ("skill in AUC", "skill_auc"),
        ("skill in log-loss", "skill_log_loss"),
        ("mean R, taken - all", "taken_minus_all"),
    ):
        table.add_row(label, *_estimate(metrics[name]))
    return table


def show(result: TrainingResult, console: "Console") -> None:
    """Figures, verdicts and every reason, in plain words."""
    if result.evaluation:
        console.print(figures(result.evaluation))
    if result.model:
        console.print(f"Trained on {result.model.trained_on}.", soft_wrap=True)
        console.print(f"Tested on {result.model.tested_on}.", soft_wrap=True)
    named = f"Model {result.model.version}: " if result.model else "No model: "
    console.print(f"{named}{result.gate}. {VERDICTS[result.gate]}", soft_wrap=True)
    for reason in result.reasons:
        console.print(f"  - {reason}", soft_wrap=True)
    if result.model and result.evaluation:
        console.print(f"May skip trades: {'yes' if result.model.may_filter else 'no'}.", soft_wrap=True)
        for reason in result.evaluation["may_filter_reasons"]:
            console.print(f"  - {reason}", soft_wrap=True)


def summary(book: str, result: TrainingResult) -> dict[str, Any]:
    """The result for machines; every key is always there, null where there is no model."""
    stored = ("version", "status", "may_filter", "n_train", "n_validation", "n_test", "threshold", "data_hash", "seed")
    return {
        "book": book,
        **{name: getattr(result.model, name, None) for name in stored},
        "gate": result.gate,
        "gate_reasons": result.reasons,
        "metrics": result.evaluation,
    }


class Command(BaseCommand):
    help = "Train a WIN/LOSS model on a book's closed trades, walk forward, and say what it is worth out of sample."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--book", type=book_name, default=settings.BOOK, help="whose trades (default: %(default)s)")
        parser.add_argument("--seed", type=seed, default=7, help="same data and seed give the same model (default 7)")
        add_json_option(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        from rich.console import Console
        from rich.progress import Progress

        book = options["book"]
        check_json_file(options["json"])
        terminal = Console(stderr=True)
        with Progress(console=terminal, disable=not terminal.is_terminal, transient=True) as bar:
            task = bar.add_task("Windows fitted", total=None)
            trainer = ModelTrainer(book, options["seed"])
            result = trainer.train(lambda done, total: bar.update(task, completed=done, total=total))
        show(result, Console(file=cast(IO[str], self.stdout), highlight=False))
        if options["json"]:
            write_json(options["json"], summary(book, result))
