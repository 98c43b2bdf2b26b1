"""Training data whose truth is known: with a planted edge or without any, in arrays and in the database."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
from django.db import transaction
from numpy.typing import NDArray
from pytest_django import DjangoDbBlocker

from ml.features import MODEL_FEATURES, Kind
from ml.models import MLModel, TradeFeatures
from ml.training_data import TrainingData
from positions.models import Trade
from positions.words import Outcome
from tests.factories import TradeFactory, TradeFeaturesFactory

MONDAY = date(2024, 1, 1)


def weekdays(count: int) -> list[date]:
    days = (MONDAY + timedelta(days=n) for n in range(count * 2))
    return [day for day in days if day.weekday() < 5][:count]


def feature_columns(rng: np.random.Generator, n: int) -> dict[str, NDArray[Any]]:
    """Every model feature, n rows of noise; optional ones have gaps."""
    columns: dict[str, NDArray[Any]] = {}
    for feature in MODEL_FEATURES:
        if feature.kind is Kind.CATEGORICAL:
            columns[feature.name] = rng.choice(np.array(feature.categories, dtype=object), n)
        else:
            columns[feature.name] = rng.normal(size=n)
    columns["sector_strength"][rng.random(n) < 0.1] = np.nan
    columns["reward_to_risk"] = rng.uniform(0.8, 2.0, n)
    columns["p_geometry"] = 1 / (1 + columns["reward_to_risk"])
    return columns


def training_data(
    seed: int, *, sessions: int = 200, per_session: int = 15, edge: float = 0.0, level: float = 0.0
) -> TrainingData:
    """Trades of 19 minutes. Log-odds of a win: those of geometry + `level` + `edge` times a known shape of features."""
    rng = np.random.default_rng(seed)
    n = sessions * per_session
    columns = feature_columns(rng, n)
    shape = columns["rsi14"] + columns["adx14"] * np.sign(columns["macd_atr"]) + 0.7 * columns["vwap_distance"]
    shape += 0.8 * np.where(columns["side"] == "long", columns["index_return_12"], -columns["index_return_12"])
    odds = np.log(columns["p_geometry"] / (1 - columns["p_geometry"])) + level + edge * shape
    won = rng.random(n) < 1 / (1 + np.exp(-odds))
    session = np.repeat(np.array(weekdays(sessions), dtype="datetime64[D]"), per_session)
    minute = np.tile(np.arange(per_session) * 20, sessions)
    start = session.astype("datetime64[us]") + np.timedelta64(15 * 60, "m") + minute.astype("timedelta64[m]")
    return TrainingData(
        columns=columns,
        won=won,
        signal_key=np.array([f"S-{i:06}" for i in range(n)]),
        session=session,
        start=start,
        end=start + np.timedelta64(19, "m"),
        r=np.where(won, columns["reward_to_risk"], -1.0) - 0.02,
        p_geometry=columns["p_geometry"],
        data_hash="0" * 64,
        n_incomplete=0,
        n_other_feature_set=0,
        n_unlabelled=0,
        shadow=np.zeros(n, dtype=bool),
        missing={},
        exit_settings={},
        feeds={},
    )


def store(data: TrainingData, book: str = "simulated") -> None:
    """The same trades and feature rows in the tables."""
    trades, features = [], []
    for i in range(len(data.won)):
        values = {name: column[i] for name, column in data.columns.items()}
        values = {name: None if isinstance(v, float) and np.isnan(v) else v for name, v in values.items()}
        signal_at = data.start[i].astype("datetime64[us]").item().replace(tzinfo=UTC)
        same: dict[str, Any] = {
            "book": book,
            "symbol": f"S{i:05}",
            "side": values["side"],
            "signal_at": signal_at,
            "session": data.session[i].item(),
        }
        exited_at: datetime = data.end[i].astype("datetime64[us]").item().replace(tzinfo=UTC)
        outcome = Outcome.WIN if data.won[i] else Outcome.LOSS
        trades.append(TradeFactory.build(**same, exited_at=exited_at, outcome=outcome, r_multiple=float(data.r[i])))
        features.append(TradeFeaturesFactory.build(**{**same, **values}))
    Trade.objects.bulk_create(trades)
    TradeFeatures.objects.bulk_create(features)


@contextmanager
def undone(blocker: DjangoDbBlocker) -> Iterator[None]:
    """What is done here leaves no trace in the tables: for a module's tests to share what takes seconds."""
    with blocker.unblock(), transaction.atomic():
        yield
        transaction.set_rollback(True)


def stored_again(model: MLModel) -> MLModel:
    """A model whose row was undone, in the tables of a test."""
    stored = copy(model)
    stored.pk = None
    stored.save(force_insert=True)
    return stored
