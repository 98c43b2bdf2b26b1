from dataclasses import asdict
from datetime import date
from decimal import Decimal

import pytest
from django.contrib.auth.models import Permission, User
from django.core.cache import cache
from django.test import Client
from django.utils import timezone
from django_q.models import OrmQ, Schedule, Task
from knox.models import AuthToken

from ml.features import FEATURE_SET
from ml.impact import session_impact
from ml.models import DriftCheck, LeakageCheck, MLModel, Performance, Prediction
from positions.models import (
    ErrorNote,
    ExternalPosition,
    Instruction,
    Instrument,
    OrderIntent,
    PositionExit,
    RuleNote,
    StopMove,
    Trade,
    WorkerLease,
)
from tests.factories import MLModelFactory, ShadowTradeFactory, TradeFactory, features_of
from tradingsite.models import IdempotencyKey, Notification

HUGE_ARTIFACT = "QVJUSUZBQ1Q" * 1000


@pytest.fixture(autouse=True)
def nothing_counted() -> None:
    """Each test begins without a request counted against anybody."""
    cache.clear()


@pytest.fixture
def owner(db: None) -> User:
    return User.objects.create_superuser("ada", password="lovelace-1843")


@pytest.fixture
def owner_client(owner: User) -> Client:
    client = Client()
    client.force_login(owner)
    return client


@pytest.fixture
def newcomer(db: None) -> User:
    """Staff without any permission."""
    return User.objects.create_user("bob", password="newcomer-2024", is_staff=True)


@pytest.fixture
def newcomer_client(newcomer: User) -> Client:
    client = Client()
    client.force_login(newcomer)
    return client


def permit(user: User, *names: str) -> None:
    for name in names:
        app, codename = name.split(".")
        user.user_permissions.add(Permission.objects.get(content_type__app_label=app, codename=codename))


@pytest.fixture
def trained(db: None) -> MLModel:
    return MLModelFactory(
        artifact=HUGE_ARTIFACT, metrics={"n": 450, "sessions": 30, "auc": 0.5234, "geometry": {"auc": 0.5111}}
    )


@pytest.fixture
def rows(trained: MLModel) -> Trade:
    """One row in every table; hands over the trade."""
    trade = TradeFactory(symbol="AAPL")
    fill_tables(trade, trained)
    IdempotencyKey.objects.create(
        user=User.objects.create_user("program"),
        key="one",
        request_sha256="0" * 64,
        answer='{"id": 1}',
        created_at=trade.signal_at,
    )
    return trade


@pytest.fixture
def everything(rows: Trade, owner: User) -> None:
    """A row in every table, and it is the first."""
    day = timezone.now()
    AuthToken.objects.create(owner)
    Schedule.objects.create(
        pk=1, name="monitors", func="tradingsite.schedules.monitors", schedule_type="C", cron="* * * * *"
    )
    OrmQ.objects.create(pk=1, key="tradingsite", payload="", lock=day)
    task = {
        "name": "n",
        "func": "tradingsite.schedules.monitors",
        "started": day,
        "stopped": day,
        "result": {"sent": [1]},
    }
    Task.objects.create(id="1", success=True, **task)
    Task.objects.create(id="2", success=False, **task)


def fill_tables(trade: Trade, model: MLModel) -> None:
    book, at, price = trade.book, trade.signal_at, Decimal("101.25")
    ShadowTradeFactory(book=book, symbol=trade.symbol, signal_at=at)
    features_of(trade, spread=None, missing={"spread": "no_quote"})
    PositionExit.objects.create(
        book=book,
        trade=trade,
        rule="low_volume",
        status="done",
        evidence={"volume": 2200.5, "bars": [1, 2]},
        decided_at=at,
        decided_price=price,
        quantity=10,
    )
    RuleNote.objects.create(book=book, trade=trade, rule="stop", kind="near", evidence={"share": 0.93}, noted_at=at)
    ErrorNote.objects.create(
        book=book, session=trade.session, job="exits", symbol=trade.symbol, error="ValueError", message="odd",
        subject=trade.signal_key, count=3, first_at=at, last_at=at,
    )  # fmt: skip
    StopMove.objects.create(
        book=book, trade=trade, old_stop=price, new_stop=price + 1, evidence={"profit_r": 1.02}, decided_at=at
    )
    OrderIntent.objects.create(
        book=book, trade=trade, client_order_id=f"{trade.signal_key}-entry", step="entry", quantity=10, created_at=at
    )
    Instrument.objects.create(book=book, symbol=trade.symbol, sector="Technology", sector_etf="XLK")
    Instruction.objects.create(
        book=book, kind="close", symbol=trade.symbol, asked_by="ada", asked_at=at, expires_at=at, state="refused"
    )
    ExternalPosition.objects.create(
        book=book, symbol=trade.symbol, quantity=-3, first_seen_at=at, last_seen_at=at, gone_at=at, trade=trade
    )
    WorkerLease.objects.create(
        book=book, name=f"monitors {trade.pk}", holder="host:1", acquired_at=at, heartbeat_at=at, expires_at=at
    )
    Prediction.objects.create(
        book=book,
        signal_key=trade.signal_key,
        model=model,
        mode="shadow",
        p_raw=0.4,
        p_win=0.41,
        p_geometry=0.3333,
        decision="take",
        latency_us=180,
        predicted_at=at,
    )
    LeakageCheck.objects.create(
        feature_set=FEATURE_SET, checked_at=at, inputs_sha256="0" * 64, points=50, compared=2300, is_clean=True
    )
    DriftCheck.objects.create(
        book=book,
        model=model,
        checked_at=at,
        rows=400,
        sessions=20,
        features={"rsi14": {"psi": 0.02, "bound": 0.15, "worth": 210.0, "alarm": False}},
        errors=350,
        mean_error=0.004,
        errors_before=0,
    )
    Notification.objects.create(
        book=book, kind="exit", subject=f"exit of {trade.signal_key}", number=1, state="WIN", text="closed by target",
        happened_at=at, noted_at=at,
    )  # fmt: skip
    make_session(book, trade.session)


def make_session(book: str, day: date, **given: object) -> Performance:
    values: dict[str, object] = {
        "signals": 5,
        "feature_rows": 4,
        "complete_feature_rows": 3,
        "trades": 1,
        "wins": 1,
        "losses": 0,
        "pnl": Decimal("19.00"),
        "win_rate": 1.0,
        "average_r": 1.9,
        "exits": {"target": 1},
        "exit_effects": asdict(session_impact([])),
        "judged": [],
        "breakeven_moves": 0,
        "predictions": 1,
        "unprotected_seconds": 0.0,
        "errors": 0,
    }
    session, _ = Performance.objects.update_or_create(book=book, session=day, defaults={**values, **given})
    return session
