"""How the site and its book are: for whoever starts and watches processes, and for Prometheus."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

import numpy as np
from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection
from django.db.migrations.executor import MigrationExecutor
from django.db.models import Count
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from ml.feature_writer import Backlog, backlog
from ml.models import Performance, Prediction
from positions.books import is_at_alpaca
from positions.halting import halted
from positions.leases import TRADING
from positions.models import Instruction, Trade, WorkerLease
from positions.words import InstructionState, TradeStatus
from tradingsite.kit.api import StrictView
from tradingsite.kit.permissions import needs

OK, NOT_KNOWN = "ok", "not known"
PREDICTIONS_LOOKED_AT = 1000
NEEDED = (
    "positions.view_trade",
    "positions.view_workerlease",
    "positions.view_instruction",
    "ml.view_performance",
    "ml.view_prediction",
)


def healthz(request: HttpRequest) -> HttpResponse:
    """This process answers."""
    return JsonResponse({"status": OK})


def readyz(request: HttpRequest) -> HttpResponse:
    """Whether the site can do its work: 200, or 503 with what is in the way."""
    told = readiness(settings.BOOK, timezone.now())
    return JsonResponse(told, status=200 if set(told.values()) == {OK} else 503)


def readiness(book: str, now: datetime) -> dict[str, str]:
    """What must hold, each `ok` or a sentence on what to do: the database answers, its tables are those of this
    program, and an account's open trades are watched."""
    try:
        migrations = OK if _tables_are_current() else "Run python manage.py migrate."
        trading = OK if not is_at_alpaca(book) or _is_watched(book, now) else "Run python manage.py trade."
    except (DatabaseError, InterfaceError):
        connection.close()
        return {"database": "It cannot be reached.", "migrations": NOT_KNOWN, "trading": NOT_KNOWN}
    return {"database": OK, "migrations": migrations, "trading": trading}


def _is_watched(book: str, now: datetime) -> bool:
    return WorkerLease.objects.filter(book=book, name=TRADING, expires_at__gt=now).exists()


def _tables_are_current() -> bool:
    try:
        return _were_current()
    except _NotCurrent:
        return False


class _NotCurrent(Exception):
    """Not to be remembered."""


@cache
def _were_current() -> bool:
    """Once applied, migrations stay so for as long as this process runs."""
    executor = MigrationExecutor(connection)
    if executor.migration_plan(executor.loader.graph.leaf_nodes()):
        raise _NotCurrent
    return True


@dataclass(frozen=True, slots=True)
class Latency:
    """Of the last `n` predictions, from features to decision, in seconds; None without any."""

    n: int
    median: float | None
    p99: float | None


@dataclass(frozen=True, slots=True)
class Look:
    """How a book is at a moment (aware UTC)."""

    book: str
    at: datetime
    halted: bool
    trades: Mapping[str, int]
    leases: list[WorkerLease]
    waiting_instructions: int
    waiting_rows: Backlog
    last_session: Performance | None
    latency: Latency


def look(book: str, now: datetime) -> Look:
    """Five queries, each served by an index."""
    counts = Trade.objects.filter(book=book).order_by().values_list("status").annotate(Count("pk"))
    waiting = Instruction.objects.filter(book=book, state=InstructionState.WAITING, expires_at__gt=now)
    newest = Prediction.objects.filter(book=book).values_list("latency_us", flat=True)[:PREDICTIONS_LOOKED_AT]
    latencies = np.array(list(newest)) / 1e6
    median, p99 = np.quantile(latencies, [0.5, 0.99]).tolist() if len(latencies) else (None, None)
    return Look(
        book=book,
        at=now,
        halted=halted(book) is not None,
        trades={**dict.fromkeys(map(str, TradeStatus), 0), **dict(counts)},
        leases=list(WorkerLease.objects.filter(book=book)),
        waiting_instructions=waiting.count(),
        waiting_rows=backlog(settings.VAR_DIR / "journal"),
        last_session=Performance.objects.filter(book=book).first(),
        latency=Latency(len(latencies), median, p99),
    )


class _LeaseSerializer(serializers.ModelSerializer[WorkerLease]):
    class Meta:
        model = WorkerLease
        fields = (
            "name",
            "holder",
            "heartbeat_at",
            "expires_at",
            "tick_seconds",
            "calls_a_tick",
            "quarantined_bars",
            "last_error",
        )


class _BacklogSerializer(serializers.Serializer[Any]):
    rows = serializers.IntegerField()
    oldest_at = serializers.DateTimeField(allow_null=True)


class _LatencySerializer(serializers.Serializer[Any]):
    n = serializers.IntegerField(help_text="predictions looked at, the newest")
    median = serializers.FloatField(allow_null=True, help_text="seconds")
    p99 = serializers.FloatField(allow_null=True, help_text="seconds")


class _LastSessionSerializer(serializers.ModelSerializer[Performance]):
    class Meta:
        model = Performance
        fields = ("session", "trades", "wins", "losses", "pnl", "average_r", "errors")


class HealthSerializer(serializers.Serializer[Any]):
    readiness = serializers.DictField(child=serializers.CharField(), help_text="what /readyz says")
    book = serializers.CharField()
    at = serializers.DateTimeField()
    halted = serializers.BooleanField()
    trades = serializers.DictField(child=serializers.IntegerField(), help_text="by status")
    leases = _LeaseSerializer(many=True)
    waiting_instructions = serializers.IntegerField()
    waiting_rows = _BacklogSerializer(help_text="feature rows that are journaled and not stored yet")
    last_session = _LastSessionSerializer(allow_null=True)
    latency = _LatencySerializer(help_text="of predictions, from features to decision")


class HealthView(StrictView):
    """How the BOOK setting's trading is: who is at work, what waits, what the last session came to."""

    permission_classes = (needs(*NEEDED),)

    @extend_schema(responses=HealthSerializer)
    def get(self, request: Request) -> Response:
        now = timezone.now()
        found = look(settings.BOOK, now)
        told = {name: getattr(found, name) for name in Look.__slots__}
        return Response(HealthSerializer({**told, "readiness": readiness(settings.BOOK, now)}).data)


class _Prometheus(BaseRenderer):
    media_type, format, charset = "text/plain", "txt", "utf-8"

    def render(self, data: Any, *_: Any) -> bytes:
        text: bytes = data
        return text


class MetricsView(StrictView):
    """The same for Prometheus, which sends an API token as its credentials."""

    permission_classes = (needs(*NEEDED),)
    renderer_classes = (_Prometheus,)

    @extend_schema(responses={(200, "text/plain"): str})
    def get(self, request: Request) -> Response:
        from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, generate_latest

        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Collector(look(settings.BOOK, timezone.now())))
        return Response(generate_latest(registry), content_type=CONTENT_TYPE_PLAIN_0_0_4)


class _Collector:
    """Implements prometheus_client's Collector."""

    def __init__(self, found: Look) -> None:
        self._found = found

    def collect(self) -> Iterator[Any]:
        found, book = self._found, self._found.book
        yield _gauge(
            "trades", "Trades of the book by status.", {(book, s): n for s, n in found.trades.items()}, "status"
        )
        yield _gauge("halted", "1 while entries of the book are blocked by its kill switch.", {(book,): found.halted})
        watched = any(each.name == TRADING and each.expires_at > found.at for each in found.leases)
        yield _gauge("watched", "1 while a process watches the book's open trades.", {(book,): watched})
        ages = {(book, each.name): (found.at - each.heartbeat_at).total_seconds() for each in found.leases}
        yield _gauge("lease_age_seconds", "Seconds since a job of the book was last heard of.", ages, "job")
        looks = {(book, each.name): each.tick_seconds for each in found.leases}
        yield _gauge("look_seconds", "Longest look at the positions since the heartbeat before.", looks, "job")
        waiting = {(book,): found.waiting_instructions}
        yield _gauge("instructions_waiting", "Instructions that the trading process has not taken yet.", waiting)
        rows, oldest = found.waiting_rows.rows, found.waiting_rows.oldest_at
        yield _gauge("feature_rows_waiting", "Feature rows that are journaled and not stored yet.", {(book,): rows})
        age = (found.at - oldest).total_seconds() if oldest else 0.0
        yield _gauge("feature_rows_waiting_seconds", "Age of the oldest of them.", {(book,): age})
        last = found.last_session
        pnl, trades = (float(last.pnl), last.trades) if last else (None, None)
        yield _gauge("last_session_pnl_dollars", "Result of the book's last session after fees.", {(book,): pnl})
        yield _gauge("last_session_trades", "Closed trades that this result is of.", {(book,): trades})
        latency = found.latency
        quantiles = {(book, "0.5"): latency.median, (book, "0.99"): latency.p99}
        yield _gauge("prediction_seconds", "From features to decision, the newest predictions.", quantiles, "quantile")
        yield _gauge("predictions_looked_at", "Predictions that this figure is of.", {(book,): latency.n})


def _gauge(name: str, text: str, values: Mapping[Any, float | None], *labels: str) -> Any:
    """A metric of the book; a value that is not known is absent."""
    from prometheus_client.core import GaugeMetricFamily

    family = GaugeMetricFamily(f"trading_{name}", text, labels=("book", *labels))
    for told, value in values.items():
        if value is not None:
            family.add_metric(told, value)
    return family
