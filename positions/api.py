"""Tables of positions in the read-only API."""

from positions.models import Instrument, OrderIntent, PositionExit, StopMove, Trade, WorkerLease
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


class PositionExitViewSet(ReadOnlyViewSet):
    """Exits that a rule decided: evidence and result. A stop that filled at the broker has none."""

    queryset = PositionExit.objects.all()
    serializer_class = serializer_of(PositionExit)
    filterset_fields = {"book": ["exact"], "trade": ["exact"], "decided_at": TIME_RANGE}


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
