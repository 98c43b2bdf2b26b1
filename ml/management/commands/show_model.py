"""`show_model`: a stored model's figures, verdicts and service; `--verify` proves that it is what it says."""

from argparse import ArgumentParser
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from django.core.management.base import CommandError

from ml.live_record import live_record
from ml.management.model_options import add_model_options, find_model, show_standing, standing
from ml.model_trainer import CannotRetrain, ModelTrainer
from ml.models import MLModel
from ml.predictor import ModelUnusable, Predictor
from ml.tables import show_figures, show_live
from ml.walk_forward import WALK_STEPS
from tradingsite.kit.command import USUAL, SiteCommand
from tradingsite.kit.json_file import write_json
from tradingsite.kit.terminal import Advance, console, progress

FIGURES = ("seed", "n_train", "n_validation", "n_test", "feature_set", "data_hash", "artifact_sha256")
DOCUMENTS = ("metrics", "folds", "importance", "manifest")


def loading_problem(model: MLModel) -> str:
    """Why the stored artifact does not serve (size, hash, signature, feature set, columns), "" if it does."""
    try:
        Predictor(model).load()
    except ModelUnusable as error:
        return str(error)
    return ""


def retraining_problem(model: MLModel, advance: Advance) -> str:
    """How a model trained again from the manifest differs, "" where it is the same to the byte."""
    try:
        again = ModelTrainer(model.book).train_again(model, advance)
    except CannotRetrain as error:
        return str(error)
    if again == model.artifact:
        return ""
    then: dict[str, str] = {name: used for name, used in model.manifest["libraries"].items() if name != "python"}
    changed = [f"{name} {used} (now {version(name)})" for name, used in then.items() if version(name) != used]
    return "trained again it is another model; other libraries since: " + (", ".join(changed) or "none")


class Command(SiteCommand):
    help = (
        "Show a stored model: its figures beside their baselines, both verdicts with their reasons, and where it "
        "serves. --verify checks hash, signature and feature set, trains the model again from its manifest and "
        "compares byte by byte."
    )
    example = "20240216-1 --verify"
    exit_status = {
        **USUAL,
        0: "shown, and what was verified is as it should be",
        1: "a difference",
        2: "no such model",
    }

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_model_options(parser)
        parser.add_argument("--verify", action="store_true", help="prove that the stored model is what it says")

    def handle(self, *args: Any, **options: Any) -> None:
        model = find_model(options["book"], options["version"])
        screen = console(self.stdout)
        show_figures(model.metrics, model.algorithm, screen)
        live = live_record(model)
        show_live(live, screen)
        screen.print(f"Trained on {model.trained_on}.", soft_wrap=True)
        screen.print(f"Tested on {model.tested_on}.", soft_wrap=True)
        show_standing(model, screen)
        problems = {}
        if options["verify"]:
            with progress("Training it again", WALK_STEPS) as advance:
                problems = {"artifact": loading_problem(model), "trained_again": retraining_problem(model, advance)}
            screen.print(
                problems["artifact"] or "Hash, signature and feature set are right, and it scores.", soft_wrap=True
            )
            same = f"Trained again it is the same to the byte ({len(model.artifact):,} characters)."
            screen.print(problems["trained_again"] or same, soft_wrap=True)
        if options["json"]:
            stored = {name: getattr(model, name) for name in (*FIGURES, *DOCUMENTS)}
            write_json(
                options["json"],
                {
                    **standing(model),
                    **stored,
                    "live": asdict(live) if live else None,
                    "problems": problems if options["verify"] else None,
                },
            )
        if any(problems.values()):
            raise CommandError(f"Model {model.version} is not what it says; see above.")
