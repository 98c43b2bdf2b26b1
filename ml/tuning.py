"""Tuning: one Optuna study for each walk-forward window, which sees nothing but that window's training part.

A window's validation sessions are the test sessions of the window before it: parameters chosen over all windows at
once would have seen test parts. So each window has parameters of its own, chosen on `ml.splits.inner_window`, and its
validation part stays for early stopping and calibration of the model that is fitted with them.

A study lives in tables of Optuna's own in any database. Its next trial depends on nothing but the trials before it, so
that a search that was interrupted, even by SIGKILL, goes on as if it had not been, and so that windows may be searched
side by side, each in a process of its own, with the same trials as one after the other.
"""

import multiprocessing
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any

import numpy as np

from ml.learners import XGBOOST, Examples, XGBoost
from ml.splits import inner_window, rolling_windows
from ml.training_data import TrainingData
from ml.walk_forward import encoded

if TYPE_CHECKING:
    import optuna
    import xgboost

TRIALS = 30
#: Where every search starts: the user's parameters, and XGBoost's own defaults for what the user left open.
START: Mapping[str, Any] = {"min_child_weight": 1.0, "reg_lambda": 1.0, "gamma": 0.0, **XGBOOST}
NOT_PRUNED = 5  # trials, the start among them, before any is compared with their median
WARM_UP = 20  # rounds before a trial is: earlier, slow learners would be pruned for being slow
REPORT_EVERY = 5  # rounds: a report costs 10 ms of SQL, a round over 1,000 trades 2 ms


def _suggested(trial: "optuna.trial.BaseTrial") -> dict[str, Any]:
    """The space that is searched; rounds are left to early stopping."""
    return {
        "max_depth": trial.suggest_int("max_depth", 2, 10),
        "learning_rate": trial.suggest_float("learning_rate", 0.02, 0.3, log=True),
        "min_child_weight": trial.suggest_float("min_child_weight", 0.5, 64.0, log=True),
        "subsample": trial.suggest_float("subsample", 0.5, 1.0),
        "colsample_bytree": trial.suggest_float("colsample_bytree", 0.3, 1.0),
        "reg_lambda": trial.suggest_float("reg_lambda", 0.1, 100.0, log=True),
        "gamma": trial.suggest_float("gamma", 0.0, 5.0),
    }


@dataclass(frozen=True)
class Storage:
    """A database that keeps studies: its URL as SQLAlchemy writes it, and what its driver is told when connecting."""

    url: str
    options: Mapping[str, Any]

    @classmethod
    def of(cls, database: Mapping[str, Any]) -> "Storage":
        """The database that one of Django's settings names, SQLite or PostgreSQL."""
        from sqlalchemy import URL

        if database["ENGINE"].endswith("sqlite3"):
            url, options = URL.create("sqlite", database=str(database["NAME"])), {"timeout": 20}
        else:
            url = URL.create(
                "postgresql+psycopg",
                username=database["USER"] or None,
                password=database["PASSWORD"] or None,
                host=database["HOST"] or None,
                port=int(database["PORT"]) if database["PORT"] else None,
                database=database["NAME"],
            )
            options = {name: value for name, value in database["OPTIONS"].items() if name != "pool"}
        return cls(url.render_as_string(hide_password=False), options)


class StorageFailed(Exception):
    """The database of the studies could not be read or written; the message says why."""


@dataclass(frozen=True)
class Search:
    """What the study of one window needs: `train` to fit on, `held_out` to stop and score on, trials to make."""

    window: int
    study: str
    seed: int
    trials: int
    train: Examples
    held_out: Examples
    columns: Sequence[str]


@dataclass(frozen=True)
class Tuned:
    """Where the search of a window stands: trials so far, those pruned among them, the best log-loss on the held out
    part and that of `START`, and what was chosen of the space: the values that gave the best."""

    window: int
    trials: int
    pruned: int
    log_loss: float
    start_log_loss: float
    chosen: Mapping[str, Any]

    @property
    def parameters(self) -> dict[str, Any]:
        """All that XGBoost is to be told."""
        return {**START, **self.chosen}


def searches(data: TrainingData, name: str, seed: int, trials: int) -> list[Search]:
    """One for each window whose training part can be split and learned from. Raises NotEnoughData.

    `name` tells these studies from those of other data, labels and books in the same storage.
    """
    found = []
    for number, window in enumerate(rolling_windows(data.session, data.end), start=1):
        inner = inner_window(window, data.session, data.end)
        won = data.won[inner.train.rows]
        if won.all() or not won.any() or not len(inner.validation.rows):
            continue
        parts = encoded(data, inner)
        study = f"{name}, seed {seed}, window {number}"
        found.append(Search(number, study, seed, trials, parts.train, parts.validation, parts.encoder.columns))
    return found


def tune(storage: Storage, searches: Sequence[Search], workers: int) -> Iterator[Tuned]:
    """Search every window up to its number of trials, in so many processes; tells where a window stands after each
    trial, and for what was there before. Raises StorageFailed and WorkerFailed; what was tried stays tried."""
    if workers == 1:
        for each in searches:
            yield from search(storage, each)
    else:
        with _opened(storage):
            pass  # the tables are made here, not by every worker at the same time
        shares = [searches[first::workers] for first in range(workers)]
        yield from _side_by_side(storage, [share for share in shares if share])


def search(storage: Storage, job: Search) -> Iterator[Tuned]:
    """Go on with one window's study until it has its trials. Raises StorageFailed."""
    import optuna
    from optuna.trial import TrialState

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with _opened(storage) as studies:
        study = optuna.create_study(
            storage=studies,
            study_name=job.study,
            load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(NOT_PRUNED, WARM_UP),
        )
        for interrupted in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            study.tell(interrupted.number, state=TrialState.FAIL)
        while True:
            standing = _standing(study, job)
            if standing is not None:
                yield standing
                if standing.trials >= job.trials:
                    return
            _try_once(study, job, standing.trials if standing else 0)


def _try_once(study: "optuna.Study", job: Search, made: int) -> None:
    """The trial after `made` others."""
    import optuna
    from optuna.trial import TrialState

    if not made and not study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
        study.enqueue_trial(_suggested(optuna.trial.FixedTrial(dict(START))))
    # Drawn anew for each trial: what is tried next does not depend on how often the search was interrupted.
    drawn = np.random.SeedSequence([job.seed, job.window, made]).generate_state(1)
    study.sampler = optuna.samplers.TPESampler(seed=int(drawn[0]))
    trial = study.ask()
    try:
        study.tell(trial, _log_loss(job, trial))
    except optuna.TrialPruned:
        study.tell(trial, state=TrialState.PRUNED)


def _log_loss(job: Search, trial: "optuna.Trial") -> float:
    """Of the best round on the held out part. Raises TrialPruned."""
    learner = XGBoost(job.seed, {**START, **_suggested(trial)})
    fitted = learner.fit(job.train, job.held_out, job.columns, callbacks=[_report_to(trial)])
    return fitted.booster.best_score


def _report_to(trial: "optuna.Trial") -> "xgboost.callback.TrainingCallback":
    """Reports how a fit does and stops it where its study prunes it or its process has lost its parent."""
    import optuna
    import xgboost

    parent = multiprocessing.parent_process()

    class Report(xgboost.callback.TrainingCallback):
        def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
            if parent is not None and not parent.is_alive():
                raise SystemExit(1)
            rounds = epoch + 1
            if rounds % REPORT_EVERY == 0:
                trial.report(evals_log["validation"]["logloss"][-1], rounds)
                if trial.should_prune():
                    raise optuna.TrialPruned
            return False

    return Report()


def _standing(study: "optuna.Study", job: Search) -> Tuned | None:
    """None before the first trial, which is that of START and never pruned, has been finished."""
    from optuna.trial import TrialState

    made = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
    complete = [trial for trial in made if trial.state == TrialState.COMPLETE]
    if not complete:
        return None
    best = min(complete, key=lambda trial: trial.values[0])
    return Tuned(
        window=job.window,
        trials=len(made),
        pruned=len(made) - len(complete),
        log_loss=best.values[0],
        start_log_loss=complete[0].values[0],
        chosen=best.params,
    )


@contextmanager
def _opened(storage: Storage) -> Iterator["optuna.storages.RDBStorage"]:
    """Optuna's tables in a database, made where they are missing. Raises StorageFailed for the block."""
    from optuna.exceptions import StorageInternalError
    from optuna.storages import RDBStorage
    from sqlalchemy.exc import SQLAlchemyError

    engine: dict[str, Any] = {"connect_args": dict(storage.options)}
    if storage.url.startswith("sqlite"):
        engine["pool_events"] = [(_without_waiting_for_the_disk, "connect")]
    try:
        studies = RDBStorage(storage.url, engine_kwargs=engine)
        try:
            yield studies
        finally:
            studies.remove_session()
            studies.engine.dispose()
    except (StorageInternalError, SQLAlchemyError) as error:
        cause = error.__cause__ if isinstance(error, StorageInternalError) and error.__cause__ else error
        raise StorageFailed(str(cause).partition("\n")[0]) from error


def _without_waiting_for_the_disk(connection: Any, record: Any) -> None:
    """As Django's own connections are set: each report is a commit, and a lost one is only a trial to repeat."""
    connection.execute("PRAGMA synchronous=NORMAL")


class WorkerFailed(Exception):
    """A process that searched ended before it was done; its own error stands on stderr."""


def _side_by_side(storage: Storage, shares: Sequence[Sequence[Search]]) -> Iterator[Tuned]:
    context = multiprocessing.get_context("spawn")  # a fit in a process forked after OpenMP ran hangs for ever
    processes = {}
    try:
        interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)  # in the workers for good: Ctrl-C is for their parent
        for share in shares:
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=_search_in_turn, args=(storage, share, sender), daemon=True)
            process.start()
            sender.close()
            processes[receiver] = process
        signal.signal(signal.SIGINT, interrupt)
        while processes:
            wait(list(processes))
            for receiver in [each for each in processes if each.poll()]:
                try:
                    said = receiver.recv()
                except EOFError:
                    ended = processes.pop(receiver)
                    ended.join()
                    if ended.exitcode:
                        raise WorkerFailed(f"a worker process ended with status {ended.exitcode}") from None
                    continue
                if isinstance(said, StorageFailed):
                    raise said
                yield said
    finally:
        for process in processes.values():
            process.terminate()
            process.join()


def _search_in_turn(storage: Storage, share: Sequence[Search], sender: Connection) -> None:
    try:
        for each in share:
            for standing in search(storage, each):
                sender.send(standing)
    except StorageFailed as failed:
        sender.send(failed)
