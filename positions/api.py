"""Tables of positions in the read-only API."""

from typing import Any

from django.conf import settings
from django.db.models import QuerySet
from django.urls import reverse
from django.utils import timezone
from rest_framework import serializers

from positions.models import (
    LIVE_STATUSES,
    ErrorNote,
    Instruction,
    Instrument,
    OrderIntent,
    PositionExit,
    RuleNote,
    ShadowTrade,
    StopMove,
    Trade,
    WorkerLease,
)
from positions.words import SYMBOL, InstructionState
from tradingsite.kit.api import DAY_RANGE, TIME_RANGE, ReadOnlyViewSet, serializer_of


class TradeViewSet(ReadOnlyViewSet):
    """Signals that were acted on, from entry order to outcome. Prices and money are decimal strings in dollars."""

    queryset = Trade.objects.all()
    serializer_class = serializer_of(Trade)
    filterset_fields = {
        "book": ["exact"],
        "symbol": ["exact"],
        "status": ["exact"],
        "signal_key": ["exact"],
        "session": DAY_RANGE,
        "signal_at": TIME_RANGE,
    }


class ShadowTradeViewSet(ReadOnlyViewSet):
    """Signals that were not taken, followed on paper by their plans alone. No order was ever sent."""

    queryset = ShadowTrade.objects.all()
    serializer_class = serializer_of(ShadowTrade)
    filterset_fields = {
        "book": ["exact"],
        "symbol": ["exact"],
        "not_taken_reason": ["exact"],
        "signal_key": ["exact"],
        "session": DAY_RANGE,
        "signal_at": TIME_RANGE,
    }


class OpenPositionViewSet(ReadOnlyViewSet):
    """Trades that are not over: their entry works, they are held, or their exit works. One a symbol."""

    queryset = Trade.objects.filter(status__in=LIVE_STATUSES)
    serializer_class = TradeViewSet.serializer_class
    filterset_fields = {"book": ["exact"], "symbol": ["exact"]}
    lookup_field = "symbol"
    lookup_value_regex = SYMBOL

    def filter_queryset(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """One position too is one of the BOOK setting."""
        found = super().filter_queryset(queryset)
        return found.filter(book=settings.BOOK) if self.detail else found


class InstructionSerializer(serializers.ModelSerializer[Instruction]):
    state = serializers.SerializerMethodField()
    url = serializers.SerializerMethodField()

    class Meta:
        model = Instruction
        fields = "__all__"

    def get_state(self, row: Instruction) -> InstructionState:
        return row.state_at(timezone.now())

    def get_url(self, row: Instruction) -> str:
        return reverse("instruction-detail", args=[row.pk])


class InstructionViewSet(ReadOnlyViewSet):
    """What was asked of the trading process, and what it answered."""

    queryset = Instruction.objects.all()
    serializer_class = InstructionSerializer
    filterset_fields = {"book": ["exact"], "asked_at": TIME_RANGE}


class PositionExitViewSet(ReadOnlyViewSet):
    """Exits that a rule decided: evidence and result. A stop that filled at the broker has none."""

    queryset = PositionExit.objects.all()
    serializer_class = serializer_of(PositionExit)
    filterset_fields = {"book": ["exact"], "trade": ["exact"], "decided_at": TIME_RANGE}


class RuleNoteViewSet(ReadOnlyViewSet):
    """The first time that a rule nearly acted on a trade, or would have acted and might not, with all that it knew."""

    queryset = RuleNote.objects.all()
    serializer_class = serializer_of(RuleNote)
    filterset_fields = {"book": ["exact"], "trade": ["exact"], "noted_at": TIME_RANGE}


class ErrorNoteViewSet(ReadOnlyViewSet):
    """Unexpected failures after which trading went on: one row a kind and session, and how often it failed."""

    queryset = ErrorNote.objects.all()
    serializer_class = serializer_of(ErrorNote)
    filterset_fields = {"book": ["exact"], "symbol": ["exact"], "session": DAY_RANGE, "last_at": TIME_RANGE}


class StopMoveViewSet(ReadOnlyViewSet):
    """Stops that moved, or were to move, and whether the broker confirmed it."""

    queryset = StopMove.objects.all()
    serializer_class = serializer_of(StopMove)
    filterset_fields = {"book": ["exact"], "trade": ["exact"], "decided_at": TIME_RANGE}


class OrderIntentViewSet(ReadOnlyViewSet):
    """The journal of orders: written before an order is sent, completed from what the broker says of it."""

    queryset = OrderIntent.objects.all()
    serializer_class = serializer_of(OrderIntent)
    filterset_fields = {
        "book": ["exact"],
        "trade": ["exact"],
        "client_order_id": ["exact"],
        "created_at": TIME_RANGE,
    }


class InstrumentViewSet(ReadOnlyViewSet):
    """The watchlist of a book."""

    queryset = Instrument.objects.all()
    serializer_class = serializer_of(Instrument)
    filterset_fields = {"book": ["exact"], "symbol": ["exact"]}


class WorkerLeaseViewSet(ReadOnlyViewSet):
    """Which process does a job that only one may do, and when it was last heard of."""

    queryset = WorkerLease.objects.all()
    serializer_class = serializer_of(WorkerLease)
    filterset_fields = {"book": ["exact"], "name": ["exact"]}
