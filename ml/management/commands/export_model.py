"""`export_model`: a stored model in its own library's format."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from ml.management.model_options import add_model_options, find_model
from ml.predictor import ModelUnusable, Predictor
from tradingsite.kit.command import USUAL, SiteCommand
from tradingsite.kit.files import write_whole
from tradingsite.kit.json_file import write_json
from tradingsite.kit.options import bad_input


class Command(SiteCommand):
    help = (
        "Write a stored model to a file in its own library's format: XGBoost's JSON, LightGBM's text, the weights "
        "of a linear model as JSON. What it takes are encoded columns and what it gives is not calibrated: "
        "encoder and calibrator are in the manifest (show_model --json)."
    )
    example = "20240216-1 --to model.json"
    exit_status = {**USUAL, 2: "no such model, or a file that must not be replaced"}

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_model_options(parser)
        parser.add_argument("--to", type=Path, required=True, metavar="FILE", help="where to; never over another file")
        parser.add_argument("--force", action="store_true", help="replace the file if there is one")

    def handle(self, *args: Any, **options: Any) -> None:
        path: Path = options["to"]
        if path.exists() and not (options["force"] and path.is_file()):
            raise bad_input(f"--to {path} exists; name another file" + (" or add --force." if path.is_file() else "."))
        if not path.parent.is_dir():
            raise bad_input(f"--to {path}: there is no folder {path.parent}.")
        model = find_model(options["book"], options["version"])
        try:
            exported = Predictor(model).exported()
        except ModelUnusable as error:
            raise bad_input(f"Refused: {error}.") from error
        write_whole(path, exported)
        self.stdout.write(f"Model {model.version} ({model.algorithm}) is in {path}.")
        if options["json"]:
            told = {"book": model.book, "version": model.version, "algorithm": model.algorithm, "file": str(path)}
            write_json(options["json"], told)
