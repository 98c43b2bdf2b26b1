"""`tune_model`: choose parameters inside each walk-forward window, then train and judge as train_model does."""

from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

from django.core.management.base import CommandError
from django.db import connection

from ml.learners import XGBOOST
from ml.management.commands.train_model import add_training_options, show, summary
from ml.model_trainer import TRAINING_STEPS, ModelTrainer
from ml.splits import WINDOWS, NotEnoughData
from ml.tables import tuning_table
from ml.tuning import TRIALS, Search, Storage, StorageFailed, Tuned, WorkerFailed, searches, tune
from ml.words import Label
from positions.leases import LeaseTaken, held, renew
from tradingsite.kit.command import SiteCommand
from tradingsite.kit.json_file import write_json
from tradingsite.kit.options import NO_DATABASE, bad_input
from tradingsite.kit.terminal import console, progress

#: How long a trial may take before another process may go on with the search.
LEASE = timedelta(minutes=10)
GOES_ON = "What was tried is kept: run the same command again and it goes on from there."


def trials(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or not 1 <= int(text) <= 10_000:
        raise ArgumentTypeError(f"{text!r} is not a number of trials from 1 to 10000")
    return int(text)


class Command(SiteCommand):
    help = (
        "Choose the model's parameters (Optuna's TPE, pruned), then train and judge it as train_model does. Each "
        "walk-forward window has a search of its own, which sees only the window's training part. An interrupted "
        "search goes on where it was."
    )
    example = "--trials 50 --workers 2"
    exit_status = {
        0: "done, whatever the gate says",
        1: "tuning stopped; what was tried is kept",
        2: "bad input, or another search is at it",
        3: "the database failed; what was tried is kept",
    }

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_training_options(parser)
        parser.add_argument(
            "--trials", type=trials, default=TRIALS, help="of each window, those of earlier runs counted (default 30)"
        )
        parser.add_argument(
            "--workers",
            type=int,
            choices=range(1, WINDOWS + 1),
            default=1,
            help="processes; each searches whole windows, so their number changes no trial (default 1)",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        book, seed, label = options["book"], options["seed"], Label(options["label"])
        data = ModelTrainer(book, seed, label).load_training_data()
        try:
            jobs = searches(data, f"{book}, {label}, {data.data_hash}", seed, options["trials"])
        except NotEnoughData:
            jobs = []  # training says what is missing
        tuned = self._search(book, jobs, options["workers"]) if jobs else []
        chosen = {each.window: each.parameters for each in tuned}
        windows = [chosen.get(number, XGBOOST) for number in range(1, WINDOWS + 1)]
        with progress("Training", TRAINING_STEPS) as advance:
            result = ModelTrainer(book, seed, label, tuned=windows).train_on(data, advance)

        screen = console(self.stdout)
        if tuned:
            screen.print(tuning_table(tuned))
        show(result, screen)
        if options["json"]:
            write_json(options["json"], summary(book, result) | {"tuning": [asdict(each) for each in tuned]})

    @staticmethod
    def _search(book: str, jobs: Sequence[Search], workers: int) -> list[Tuned]:
        """Where each window stands in the end. Raises CommandError."""
        screen = console()
        standing: dict[int, Tuned] = {}
        try:
            with (
                held(book, "tune_model", LEASE) as lease,
                progress("Trials", sum(job.trials for job in jobs), screen) as advance,
            ):
                for each in tune(Storage.of(connection.settings_dict), jobs, workers):
                    renew(lease, datetime.now(UTC), LEASE)
                    before = standing.get(each.window)
                    standing[each.window] = each
                    advance(each.trials - (before.trials if before else 0))
                    if not screen.is_terminal and each.trials >= jobs[0].trials:
                        screen.print(f"Window {each.window} of {WINDOWS}: {each.trials} trials.", soft_wrap=True)
        except LeaseTaken as taken:
            raise bad_input(str(taken)) from taken
        except StorageFailed as failed:
            raise CommandError(f"The database failed: {failed}. {GOES_ON}", returncode=NO_DATABASE) from failed
        except WorkerFailed as failed:
            raise CommandError(f"Tuning stopped: {failed}. {GOES_ON}") from failed
        return [standing[window] for window in sorted(standing)]
