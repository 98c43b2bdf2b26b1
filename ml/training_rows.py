"""Reads a book's closed trades, joined with what was known at their signals, out of the tables."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
from django.db.models import Q, QuerySet
from numpy.typing import NDArray

from ml.features import FEATURE_SET, MODEL_FEATURES, Kind
from ml.models import MLModel, TradeFeatures
from ml.training_data import TrainingData
from ml.words import Label
from positions.models import ShadowTrade, Trade
from positions.words import Outcome, TradeStatus

NAMES = tuple(feature.name for feature in MODEL_FEATURES)

LARGEST = 1e30  # a number that no feature reaches, and whose square a float still holds

#: Where each label stands on a trade: its outcome, its result in R, and when they were known.
LABEL_COLUMNS = {
    Label.NET: ("outcome", "r_multiple", "exited_at"),
    Label.PLAN: ("plan_outcome", "plan_r", "plan_ended_at"),
}
#: The label of a shadow trade, whichever is learned: it has no other.
SHADOW_COLUMNS = LABEL_COLUMNS[Label.PLAN]

#: A row's values, and whether it is a shadow trade's.
Used = tuple[tuple[Any, ...], list[Any], bool]


def _utc(times: Sequence[datetime]) -> NDArray[np.datetime64]:
    return np.array([each.astimezone(UTC).replace(tzinfo=None) for each in times], dtype="datetime64[us]")


def _column(kind: Kind, values: Sequence[Any]) -> NDArray[Any]:
    return np.array(values, dtype=np.float64 if kind is Kind.CONTINUOUS else object)


def _readable(values: Sequence[Any]) -> bool:
    return all(abs(value) < LARGEST for value in values if isinstance(value, float))


def _hash(label: Label, rows: Sequence[tuple[Any, ...]]) -> str:
    digest = hashlib.sha256(json.dumps([FEATURE_SET, NAMES, label]).encode())
    for row in rows:
        digest.update(json.dumps(row, default=str).encode())
    return digest.hexdigest()


def _joined(
    book: str, label: Label, closed: QuerySet[Trade], followed: QuerySet[ShadowTrade]
) -> tuple[list[Used], Counter[str]]:
    """The trades that can be learned from, by signal time, each with its features' values; how many were left out for
    which reason."""
    features = {
        key: (complete, feature_set, values)
        for key, complete, feature_set, *values in TradeFeatures.objects.filter(
            Q(signal_key__in=closed.order_by().values("signal_key"))
            | Q(signal_key__in=followed.order_by().values("signal_key")),
            book=book,
        )
        .order_by()
        .values_list("signal_key", "complete", "feature_set", *NAMES)
    }
    of_signal = ("signal_at", "signal_key", "session")
    traded = list(closed.order_by().values_list(*of_signal, *LABEL_COLUMNS[label], "exit_settings_hash", "feed"))
    keys = {trade[1] for trade in traded}
    on_paper = [
        (*shadow[:-1], "", shadow[-1])  # no exit rule closed it
        for shadow in followed.order_by().values_list(*of_signal, *SHADOW_COLUMNS, "feed")
        if shadow[1] not in keys
    ]
    trades = sorted(  # here, not in the database: engines collate text differently
        [*((trade, False) for trade in traded), *((shadow, True) for shadow in on_paper)], key=lambda each: each[0][:2]
    )
    used, left_out = list[Used](), Counter[str]()
    for trade, is_shadow in trades:
        complete, feature_set, values = features.get(trade[1], (False, FEATURE_SET, []))
        if feature_set != FEATURE_SET:
            left_out["other_feature_set"] += 1
        elif not complete or not _readable(values):
            left_out["incomplete"] += 1
        elif trade[3] is None:
            left_out["unlabelled"] += 1
        else:
            used.append((trade, values, is_shadow))
    return used, left_out


def _ended(column: str, after: datetime | None, until: datetime | None) -> Q:
    """The rows that ended after a moment, and not after another."""
    bounds = {f"{column}__gt": after, f"{column}__lte": until}
    return Q(**{name: moment for name, moment in bounds.items() if moment is not None})


def load_training_data(
    book: str,
    label: Label = Label.NET,
    closed_until: datetime | None = None,
    closed_after: datetime | None = None,
    *,
    shadow: bool | None = None,
) -> TrainingData:
    """A book's closed trades, joined with their complete feature rows; three queries, two without shadow trades.

    With `shadow` also its shadow trades whose plans have ended, flagged, their plan's result as label; None: where the
    label is the plan's.

    A row is complete when nothing is null but what ml.features.OPTIONAL_NEEDS explains, and no number is infinite: the
    columns of a database can hold what a learner cannot read. A trade whose label is not known is refused.
    `closed_until` (aware UTC) leaves out the trades that ended after a moment, as when a model is trained again,
    `closed_after` those that had ended by then, as when a model learns on.
    """
    closed = Trade.objects.filter(book=book, status=TradeStatus.CLOSED)
    followed = ShadowTrade.objects.filter(book=book, plan_outcome__isnull=False)
    if not (label is Label.PLAN if shadow is None else shadow):
        followed = followed.none()
    used, left_out = _joined(
        book,
        label,
        closed.filter(_ended(LABEL_COLUMNS[label][2], closed_after, closed_until)),
        followed.filter(_ended(SHADOW_COLUMNS[2], closed_after, closed_until)),
    )
    start, key, session, outcome, r, end, exit_settings, feeds = (
        zip(*(trade for trade, _, _ in used), strict=True) if used else ((),) * 8
    )
    table = list(zip(*(values for _, values, _ in used), strict=True)) if used else [()] * len(NAMES)
    columns = {
        feature.name: _column(feature.kind, values) for feature, values in zip(MODEL_FEATURES, table, strict=True)
    }
    return TrainingData(
        columns=columns,
        won=np.array([each == Outcome.WIN for each in outcome], dtype=bool),
        signal_key=np.array(key, dtype=np.str_),
        session=np.array(session, dtype="datetime64[D]"),
        start=_utc(start),
        end=_utc(end),
        r=np.array(r, dtype=np.float64),
        p_geometry=columns["p_geometry"],
        shadow=np.array([is_shadow for _, _, is_shadow in used], dtype=bool),
        data_hash=_hash(label, [(*trade, *values) for trade, values, _ in used]),
        n_incomplete=left_out["incomplete"],
        n_other_feature_set=left_out["other_feature_set"],
        n_unlabelled=left_out["unlabelled"],
        missing={name: n for name, values in zip(NAMES, table, strict=True) if (n := sum(v is None for v in values))},
        exit_settings=Counter(filter(None, exit_settings)),
        feeds=Counter(feeds),
    )


def nothing_new(book: str, label: Label) -> str:
    """Why training now would learn nothing new, in a sentence; "" where it would. No model at all is a reason to."""
    newest = MLModel.objects.filter(book=book, label=label, feature_set=FEATURE_SET).defer("artifact").first()
    if newest is None:
        return ""
    ended = newest.manifest.get("last_closed_at")
    if ended is None:
        return ""
    until = datetime.fromisoformat(ended).replace(tzinfo=UTC)
    if len(load_training_data(book, label, closed_after=until).won):
        return ""
    return (
        f"Nothing to do: no trade of book {book} with complete features has closed since {until:%Y-%m-%d %H:%M} UTC, "
        f"the newest that model {newest.version} learned from."
    )
