"""Who speaks of a book's signals, and in which mode: read once for a replay; live, kept current behind the trader's
back, so that a promotion or a changed setting is in force within seconds and no signal waits for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from threading import Event, Thread

import structlog
from django.db import connection, connections

from ml.models import MLModel
from ml.predictor import Contribution, FeatureRow, ModelUnusable, Predictor
from ml.registry import on_duty
from ml.training_rows import load_training_data
from ml.words import Label, ModelStatus, PredictionMode
from positions import live_settings

log = structlog.get_logger(__name__)

EVERY_S = 2.0
NO_MODEL = "no model serves this book"
#: How long after its end a trade may reach the tables and still be learned from by a model that learns on.
LATE = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Served:
    """One moment's answer. `champion` is asked of every signal and decides as far as `mode` lets it; `candidate`
    shadows it and decides nothing. `reason` says why there is no champion."""

    mode: PredictionMode = PredictionMode.OFF
    champion: Predictor | None = None
    candidate: Predictor | None = None
    reason: str = ""

    def champion_at(self, moment: datetime) -> Predictor | None:
        """The champion, unless its override has ended."""
        return None if self.champion is None or self.champion.model.override_ended(moment) else self.champion


class Serving:
    """Holds a book's predictors, loaded and warm; `served` gives them as they are at the moment.

    `refresh` asks the database who serves now and loads what is new before it takes the place of what was. `start` has
    a thread do so every EVERY_S seconds until `close`; while that fails, as without a database, what is loaded goes on
    serving.
    """

    def __init__(self, book: str) -> None:
        self.book = book
        self._served = Served()
        self._loaded: dict[tuple[object, ...], Predictor | ModelUnusable] = {}
        self._closing = Event()
        self._thread = Thread(target=self._keep_current, name="serving", daemon=True)

    def served(self) -> Served:
        return self._served

    def start(self) -> None:
        """Read who serves, then keep it current. Raises django.db.Error if the database is away now."""
        self.refresh()
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()

    def refresh(self) -> None:
        """Two queries, more only for a model that is new. Raises django.db.Error."""
        connection.ensure_connection()  # without a database, constance would answer with its defaults
        mode, duty = PredictionMode(live_settings.prediction_mode()), on_duty(self.book)
        on_trial = duty.on_trial.model if duty.on_trial else None
        wanted = {_identity(model): model for model in (duty.champion, on_trial) if model}
        self._loaded = {key: self._loaded.get(key) or self._load(model) for key, model in wanted.items()}
        champion, reason = self._usable(duty.champion)
        candidate, _ = self._usable(on_trial)
        before, self._served = self._served, Served(mode, champion, candidate, reason)
        _tell(self.book, before, self._served)
        for predictor in (champion, candidate):
            if predictor and predictor.learns_on:
                self._catch_up(predictor)

    def _usable(self, model: MLModel | None) -> tuple[Predictor | None, str]:
        if model is None:
            return None, NO_MODEL
        if model.override_ended(datetime.now(UTC)):
            return None, f"the override of model {model} has ended"
        loaded = self._loaded[_identity(model)]
        return (None, str(loaded)) if isinstance(loaded, ModelUnusable) else (loaded, "")

    def _load(self, light: MLModel) -> Predictor | ModelUnusable:
        """The predictor after its first prediction; a model that learns on has caught up with the trades until now."""
        model = MLModel.objects.defer("metrics", "folds", "importance").filter(pk=light.pk).first()
        if model is None:
            return ModelUnusable(f"model {light} was deleted")
        predictor = Predictor(model)
        try:
            predictor.load()
            if predictor.learns_on:
                self._catch_up(predictor)
        except ModelUnusable as error:
            if model.status == ModelStatus.CANDIDATE:
                log.warning("candidate_unusable", book=self.book, reason=str(error))
            return error
        return predictor

    def _catch_up(self, predictor: Predictor) -> None:
        """Let a model learn from the trades that have ended since it last looked."""
        since = max(predictor.trained_until, predictor.learned_until - LATE)
        predictor.learn(load_training_data(self.book, Label(predictor.model.label), closed_after=since))

    def explain(self, model_id: int, rows: Sequence[FeatureRow]) -> list[list[Contribution]] | None:
        """What moved a model's scores of some signals most; None where it serves no more or cannot say."""
        for predictor in (self._served.champion, self._served.candidate):
            if predictor and predictor.model.pk == model_id:
                try:
                    return predictor.explain(rows)
                except ModelUnusable:
                    return None  # it could not score them either
        return None

    def _keep_current(self) -> None:
        away = False
        try:
            while not self._closing.wait(EVERY_S):
                try:
                    self.refresh()
                except Exception as error:  # noqa: BLE001  # a thread that ended would hear of nothing more
                    connections.close_all()
                    if not away:
                        log.warning("models_not_refreshed", book=self.book, error=repr(error))
                    away = True
                else:
                    if away:
                        log.warning("models_refreshed_again", book=self.book)
                    away = False
        finally:
            connections.close_all()


def _identity(model: MLModel) -> tuple[object, ...]:
    """What a loaded model depends on; a candidate that is promoted goes on as it is."""
    return model.pk, model.artifact_sha256, model.may_filter, model.override_until


def _tell(book: str, before: Served, now: Served) -> None:
    """Log who serves and why nobody does, once a change. To be without a model is nothing to warn of; to have one that
    may not speak is."""
    if now.champion is not before.champion and now.champion is not None:
        log.info("champion_serves", book=book, model=str(now.champion.model), mode=now.mode)
    if now.candidate is not before.candidate and now.candidate is not None:
        log.info("candidate_shadows", book=book, model=str(now.candidate.model))
    if now.reason and now.reason != before.reason:
        level = log.info if now.reason == NO_MODEL else log.warning
        level("no_usable_champion", book=book, reason=now.reason)
