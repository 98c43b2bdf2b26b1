"""Rows for tests: every field plausible and consistent, so that a test names only what it is about."""

import hashlib
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import factory
from factory.django import DjangoModelFactory

from ml.encoder import Encoder
from ml.features import FEATURE_SET, FEATURES, Kind
from ml.models import MLModel, TradeFeatures
from ml.words import MODEL_SKIPS, Algorithm, Gate, ModelStatus
from positions.models import ShadowTrade, Trade
from positions.words import ExitReason, Feed, Outcome, Side, TradeStatus

NEW_YORK = ZoneInfo("America/New_York")
PLAUSIBLE: dict[str, float | str] = {
    feature.name: feature.categories[0] if feature.kind is Kind.CATEGORICAL else 0.5 for feature in FEATURES
} | {"reward_to_risk": 2.0, "p_geometry": 1 / 3}
R_OF = {Outcome.WIN: 1.9, Outcome.LOSS: -1.05}
FIRST_SIGNAL = datetime(2024, 1, 3, 15, 0, tzinfo=UTC)  # 10:00 in New York, a Wednesday


def signal_key(row: Any) -> str:
    return f"{row.symbol}-{row.signal_at:%Y%m%dT%H%M%SZ}-{row.side}"


class TradeFactory(DjangoModelFactory[Trade]):
    """A closed long that won 1.9 R, unless `outcome=Outcome.LOSS`, `side=Side.SHORT` or `still_open=True` is given.

    Its plan ended as it did; `plan_outcome` says otherwise.
    """

    class Meta:
        model = Trade

    class Params:
        still_open = factory.Trait(
            status=TradeStatus.OPEN, exited_at=None, exit_price=None, exit_reason=None, pnl=None, outcome=None
        )

    book = "simulated"
    symbol = factory.Sequence(lambda n: f"S{n:03}")
    side = Side.LONG
    status = TradeStatus.CLOSED
    strategy = "positions.strategy.VwapCross"
    feed = Feed.SIMULATED
    exit_settings_hash = "0123456789abcdef"
    signal_at = factory.Sequence(lambda n: FIRST_SIGNAL + timedelta(minutes=n % 300))
    session = factory.LazyAttribute(lambda row: row.signal_at.astimezone(NEW_YORK).date())
    signal_key = factory.LazyAttribute(signal_key)

    planned_entry = Decimal(100)
    initial_stop = factory.LazyAttribute(lambda row: row.planned_entry - (1 if row.side == Side.LONG else -1))
    target = factory.LazyAttribute(lambda row: row.planned_entry + (2 if row.side == Side.LONG else -2))
    planned_quantity = 10
    equity = Decimal(100_000)
    entry_volume = 5000.0

    entered_at = factory.LazyAttribute(lambda row: row.signal_at + timedelta(minutes=1))
    entry_price = factory.SelfAttribute("planned_entry")
    quantity = factory.SelfAttribute("planned_quantity")
    risk_per_share = factory.LazyAttribute(lambda row: abs(row.planned_entry - row.initial_stop))
    stop_price = factory.SelfAttribute("initial_stop")

    exited_at = factory.LazyAttribute(lambda row: row.signal_at + timedelta(minutes=20))
    outcome = Outcome.WIN
    exit_reason = factory.LazyAttribute(
        lambda row: ExitReason.TARGET if row.outcome == Outcome.WIN else ExitReason.STOP
    )
    r_multiple = factory.LazyAttribute(lambda row: R_OF[row.outcome] if row.outcome else None)
    plan_outcome = factory.SelfAttribute("outcome")
    plan_r = factory.LazyAttribute(lambda row: R_OF[row.plan_outcome] if row.plan_outcome else None)
    plan_exit_reason = factory.LazyAttribute(
        lambda row: {Outcome.WIN: ExitReason.TARGET, Outcome.LOSS: ExitReason.STOP}.get(row.plan_outcome)
    )
    plan_ended_at = factory.LazyAttribute(
        lambda row: row.signal_at + timedelta(minutes=20) if row.plan_outcome else None
    )
    fees = Decimal(1)
    pnl = factory.LazyAttribute(lambda row: Decimal(str(row.r_multiple)) * row.quantity * row.risk_per_share)
    exit_price = factory.LazyAttribute(
        lambda row: row.entry_price + (row.pnl + row.fees) / row.quantity * (1 if row.side == Side.LONG else -1)
    )


class ShadowTradeFactory(DjangoModelFactory[ShadowTrade]):
    """A long that a model skipped and that would have lost 1.05 R, unless `plan_outcome` says otherwise."""

    class Meta:
        model = ShadowTrade

    book = "simulated"
    symbol = factory.Sequence(lambda n: f"S{n:03}")
    side = Side.LONG
    strategy = "positions.strategy.VwapCross"
    not_taken_reason = MODEL_SKIPS
    feed = Feed.SIMULATED
    signal_at = factory.Sequence(lambda n: FIRST_SIGNAL + timedelta(minutes=n % 300))
    session = factory.LazyAttribute(lambda row: row.signal_at.astimezone(NEW_YORK).date())
    signal_key = factory.LazyAttribute(signal_key)

    planned_entry = Decimal(100)
    initial_stop = Decimal(99)
    target = Decimal(102)

    entered_at = factory.LazyAttribute(lambda row: row.signal_at + timedelta(minutes=1))
    entry_price = factory.SelfAttribute("planned_entry")
    risk_per_share = Decimal(1)
    plan_outcome = Outcome.LOSS
    plan_r = factory.LazyAttribute(lambda row: R_OF[row.plan_outcome])
    plan_exit_reason = factory.LazyAttribute(
        lambda row: ExitReason.TARGET if row.plan_outcome == Outcome.WIN else ExitReason.STOP
    )
    plan_ended_at = factory.LazyAttribute(lambda row: row.signal_at + timedelta(minutes=20))


class TradeFeaturesFactory(DjangoModelFactory[TradeFeatures]):
    """A complete row: every feature has a value; `features_of(trade)` makes the row of a trade."""

    class Meta:
        model = TradeFeatures

    book = "simulated"
    symbol = factory.Sequence(lambda n: f"S{n:03}")
    side = Side.LONG
    signal_at = factory.Sequence(lambda n: FIRST_SIGNAL + timedelta(minutes=n % 300))
    session = factory.LazyAttribute(lambda row: row.signal_at.astimezone(NEW_YORK).date())
    signal_key = factory.LazyAttribute(signal_key)
    feed = Feed.SIMULATED
    feature_set = FEATURE_SET
    bars_used = 800
    complete = True
    taken = True

    @classmethod
    def _adjust_kwargs(cls, **given: Any) -> dict[str, Any]:
        return {**PLAUSIBLE, **given}


def features_of(trade: Trade | ShadowTrade, **values: Any) -> TradeFeatures:
    """The stored feature row of a trade's signal."""
    same = {name: getattr(trade, name) for name in ("book", "signal_key", "symbol", "signal_at", "session", "side")}
    return TradeFeaturesFactory(**{**same, "feed": trade.feed, **values})


class MLModelFactory(DjangoModelFactory[MLModel]):
    """A candidate that passed its gate. Its artifact is no artifact: what needs a real one trains it.

    `champion=True` makes it the champion of its own book.
    """

    class Meta:
        model = MLModel

    class Params:
        champion = factory.Trait(
            status=ModelStatus.CHAMPION,
            serving_book=factory.SelfAttribute("book"),
            promoted_at=factory.SelfAttribute("created_at"),
            promoted_by="ada",
            promotion_reason="passed its gate",
        )

    book = "simulated"
    version = factory.Sequence(lambda n: f"20240103-{n + 1}")
    algorithm = Algorithm.XGBOOST
    gate = Gate.PASS
    feature_set = FEATURE_SET
    artifact = "bm8gYXJ0aWZhY3Q="
    artifact_sha256 = factory.LazyAttribute(lambda row: hashlib.sha256(row.artifact.encode()).hexdigest())
    data_hash = "0" * 64
    seed = 7
    n_train, n_validation, n_test = 700, 150, 750
    tested_from = factory.LazyAttribute(lambda row: row.created_at.date() - timedelta(days=90))
    test_from = factory.LazyAttribute(lambda row: row.created_at.date() - timedelta(days=30))
    test_to = factory.LazyAttribute(lambda row: row.created_at.date())
    threshold = 0.36
    metrics = factory.LazyFunction(lambda: {"n": 750, "sessions": 45, "auc": 0.64, "accuracy": 0.61})
    folds = factory.LazyFunction(lambda: [{"best_iteration": number} for number in range(5)])
    importance = factory.LazyFunction(lambda: {"rsi14": 12.5})
    manifest = factory.LazyFunction(lambda: {"encoder": Encoder.plain().to_dict()})
    created_at = factory.Sequence(lambda n: FIRST_SIGNAL + timedelta(minutes=n))
