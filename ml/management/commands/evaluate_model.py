"""`evaluate_model`: what a stored model is worth on closed trades it was not fitted on."""

from argparse import ArgumentParser
from dataclasses import asdict
from typing import Any

from ml.gate import Evidence, in_one_sentence
from ml.live_record import live_record
from ml.management.model_options import add_model_options, find_model
from ml.predictor import ModelUnusable
from ml.tables import show_figures, show_live
from ml.unseen import NothingUnseen, evaluate_unseen
from tradingsite.kit.command import USUAL, SiteCommand
from tradingsite.kit.json_file import write_json
from tradingsite.kit.options import bad_input, new_york_date
from tradingsite.kit.terminal import console, progress


class Command(SiteCommand):
    help = (
        "Score closed trades of sessions that a stored model has not seen, and show the figures beside geometry "
        "and the majority class. Sessions it was fitted on are refused."
    )
    example = "20240216-1 --from 2024-03-01"
    exit_status = {**USUAL, 2: "no such model, or no session that it has not seen"}

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_model_options(parser)
        parser.add_argument(
            "--from",
            dest="first",
            type=new_york_date,
            metavar="D",
            help="first session (default: the first that the model has not seen)",
        )
        parser.add_argument(
            "--to", dest="last", type=new_york_date, metavar="D", help="last session (default: the newest)"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        model = find_model(options["book"], options["version"])
        try:
            with progress("Judging"):
                judged = evaluate_unseen(model, options["first"], options["last"])
        except NothingUnseen as nothing:
            raise bad_input(str(nothing)) from nothing
        except ModelUnusable as error:
            raise bad_input(f"Refused: {error}.") from error
        sentence = in_one_sentence(Evidence(judged.evaluation))
        metrics = {"in_one_sentence": sentence, **judged.evaluation.to_dict()}
        screen = console(self.stdout)
        screen.print(f"Model {model.version} ({model.algorithm}) on sessions {judged.first} to {judged.last}:")
        show_figures(metrics, model.algorithm, screen)
        for remark in judged.data.remarks():
            screen.print(f"  - {remark}", soft_wrap=True)
        live = live_record(model)
        show_live(live, screen)
        if options["json"]:
            about = {"version": model.version, "book": model.book, "from": str(judged.first), "to": str(judged.last)}
            write_json(options["json"], {**about, "metrics": metrics, "live": asdict(live) if live else None})
