"""A stored model on closed trades of sessions it has not seen: what it says of them, beside what needs no learning."""

from dataclasses import dataclass
from datetime import date

import numpy as np
from numpy.typing import NDArray

from ml.evaluation import Evaluation, Rule, evaluate
from ml.models import MLModel
from ml.payoff import Payoff
from ml.predictor import Predictor, opened
from ml.training_data import TrainingData
from ml.training_rows import load_training_data
from ml.walk_forward import let_through, reward_to_risk
from ml.words import Label


class NothingUnseen(Exception):
    """There is nothing to judge the model by; the message says why."""


@dataclass(frozen=True)
class Judged:
    """What the model is worth on `rows` of `data`, sessions `first` to `last`."""

    evaluation: Evaluation
    data: TrainingData
    rows: NDArray[np.intp]
    first: date
    last: date


def evaluate_unseen(model: MLModel, first: date | None = None, last: date | None = None) -> Judged:
    """Judge a model on its book's closed trades from a session to another, by default all that it has not seen.

    Geometry lets through what the model's own payoff lets through at the plan's odds. Raises NothingUnseen for sessions
    it was fitted on, for a last one before the first and where no trade has closed, ModelUnusable for a model that must
    not score.
    """
    first = first or model.unseen_from
    if last is not None and last < first:
        raise NothingUnseen(
            f"Session {last} comes before {first}, the first to be judged; model {model.version} has not seen those "
            f"from {model.unseen_from} on."
        )
    if first < model.unseen_from:
        raise NothingUnseen(
            f"Model {model.version} has seen sessions from {first} on; what it says of them proves nothing. "
            f"Its first unseen session is {model.unseen_from}."
        )
    data = load_training_data(model.book, Label(model.label))
    inside = data.session >= np.datetime64(first)
    if last is not None:
        inside &= data.session <= np.datetime64(last)
    rows = np.flatnonzero(inside)
    if not len(rows):
        until = f" to {last}" if last else ""
        raise NothingUnseen(f"No trade of book {model.book} with complete features has closed from {first}{until}.")
    stored = opened(model).payoff
    payoff, columns = Payoff.from_dict(stored) if stored else None, data.columns_of(rows)
    base = np.full(len(rows), data.won[rows].mean())
    evaluation = evaluate(
        data.results_of(rows),
        Predictor(model).rule(columns),
        model.seed,
        geometry_taken=let_through(payoff, data.p_geometry[rows], reward_to_risk(data, rows)),
        others={"majority_class": Rule(base, np.ones(len(rows), dtype=bool))},
    )
    sessions = data.session[rows]
    return Judged(evaluation, data, rows, sessions.min().item(), sessions.max().item())
