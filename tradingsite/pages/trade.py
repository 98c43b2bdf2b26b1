"""A trade on one page: its bars, what was known and said at its signal, its like in the past, what happened to it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
from django.contrib import admin
from django.db.models import prefetch_related_objects
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from ml.admin import shown_value
from ml.encoder import Encoder
from ml.features import FEATURES, MODEL_FEATURES, Group, Kind
from ml.models import MLModel, Prediction, TradeFeatures
from ml.neighbours import nearest
from ml.registry import HEAVY
from positions.admin import TradeAdmin
from positions.market.calendar import NEW_YORK
from positions.models import Trade
from positions.words import SIGN, ExitReason, RuleNoteKind, TradeStatus
from reports.figures import in_r
from reports.trade_charts import Candles, Marks, Moment, candles, waterfall
from tradingsite import book_bars
from tradingsite.kit.readable import NOT_KNOWN, rows_table

admin.site.unregister(Trade)

LOOKED_THROUGH = 5_000  # signals before this one among which its like are sought
LIKE_SHOWN = 5
LIKE_READ = 50  # the closest, some of which had not closed yet
AROUND = timedelta(minutes=30)  # bars shown before the signal and after the end
LONGEST_SESSION = timedelta(hours=6.5)

#: What a rule did that is noted on a trade; `share` is how far of its way it had come.
NOTED = {
    RuleNoteKind.NEAR: "had come {share:.0%} of its way, and did not act",
    RuleNoteKind.STALE_DATA: "would have acted, but there was no bar in the last minute",
    RuleNoteKind.LEAVING: "would have acted, but the trade was leaving already",
    RuleNoteKind.TAKEN_OVER: "would have acted, but a user had taken the trade over",
}


@dataclass(frozen=True, slots=True)
class Event:
    at: datetime
    what: str


@admin.register(Trade)
class TradePage(TradeAdmin):
    change_form_before_template = "tradingsite/trade.html"

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        trade = self.get_object(request, object_id)
        more = {} if trade is None else trade_page(trade, request)
        answer: HttpResponse = super().change_view(request, object_id, form_url, {**(extra_context or {}), **more})
        return answer


def trade_page(trade: Trade, request: HttpRequest) -> dict[str, Any]:
    """What the page shows besides the trade's own fields, in a constant number of queries.

    What the model knew and said is shown to who may see features and predictions.
    """
    prefetch_related_objects([trade], "intents", "stop_moves", "exits", "rule_notes")
    figures: dict[str, Any] = {}
    now = timezone.now()
    bars = _bars(trade, now)
    if bars is not None:
        figures["candles"] = candles(bars, _marks(trade, now))
    page: dict[str, Any] = {"title": _title(trade), "has_bars": bars is not None, "figures": figures}
    predictions: list[Prediction] = []
    if request.user.has_perm("ml.view_prediction"):
        predictions = list(
            Prediction.objects.filter(book=trade.book, signal_key=trade.signal_key)
            .select_related("model")
            .defer(*(f"model__{name}" for name in HEAVY))
            .order_by("id")
        )
        explained = next((each for each in predictions if each.contributions), None)
        if explained and explained.contributions:
            figures["contributions"] = waterfall(explained.contributions)
        page |= {"may_see_predictions": True, "predictions": _predictions(predictions), "explained": explained}
    if request.user.has_perm("ml.view_tradefeatures"):
        features = TradeFeatures.objects.filter(book=trade.book, signal_key=trade.signal_key).first()
        model = _judge(trade, predictions)
        page |= {
            "may_see_features": True,
            "features": _features(features, model.manifest if model else None) if features else None,
            "measured_by": model,
            "alike": _alike(trade, features, model.manifest) if features and model else None,
        }
    return {**page, "timeline": _timeline(trade, predictions, now)}


def _title(trade: Trade) -> str:
    ended = f", {trade.outcome} {in_r(trade.r_multiple)}" if trade.outcome else f", {trade.status}"
    return f"{trade.symbol} {trade.side}, {timezone.localtime(trade.signal_at):%Y-%m-%d %H:%M}{ended}"


def _judge(trade: Trade, predictions: list[Prediction]) -> MLModel | None:
    """The model whose training part says what is usual: the one that judged the signal, or the book's newest."""
    asked = MLModel.objects.only("version", "book", "manifest")
    if predictions:
        return asked.get(pk=predictions[0].model_id)
    return asked.filter(book=trade.book).order_by("-created_at", "-id").first()


def _bars(trade: Trade, now: datetime) -> Candles | None:
    path = book_bars.file_of(trade)
    if path is None:
        return None
    import pyarrow.parquet as pq

    names = ["start", "open", "high", "low", "close", "volume"]
    table = pq.read_table(
        path,
        columns=names,
        filters=[
            ("symbol", "==", trade.symbol),
            ("start", ">=", trade.signal_at - AROUND),
            ("start", "<=", _over(trade, now) + AROUND),
            ("revision", "==", 0),
        ],
    )
    columns = {name: table[name].to_pylist() for name in names}
    starts = [start.astimezone(NEW_YORK) for start in columns.pop("start")]
    return Candles(starts, *columns.values()) if starts else None


def _over(trade: Trade, now: datetime) -> datetime:
    """When nothing more is drawn of it; of an open trade that is now, and not days after its session."""
    known = [moment for moment in (trade.exited_at, trade.plan_ended_at) if moment]
    return max(known, default=min(now, (trade.entered_at or trade.signal_at) + LONGEST_SESSION))


def _marks(trade: Trade, now: datetime) -> Marks:
    entered_at, entry = trade.entered_at or trade.signal_at, trade.entry_price or trade.planned_entry
    stops = [_moment(entered_at, trade.initial_stop, "initial stop")]
    stops += [
        _moment(move.confirmed_at, move.new_stop, "stop moved")
        for move in sorted(trade.stop_moves.all(), key=lambda move: move.decided_at)
        if move.confirmed_at
    ]
    ended = None
    if trade.exited_at and trade.exit_price is not None:
        ended = _moment(trade.exited_at, trade.exit_price, f"out by {trade.exit_reason} at {trade.exit_price:.2f}")
    return Marks(
        entry=_moment(entered_at, entry, f"{trade.side} {trade.quantity} at {entry:.2f}"),
        stops=stops,
        target=float(trade.target),
        exit=ended,
        plan_end=_plan_end(trade, entry),
        over=_local(trade.exited_at or _over(trade, now)),
    )


def _plan_end(trade: Trade, entry: Decimal) -> Moment | None:
    """Where the plan would have ended, once the trade had left it; at the close, what its R after costs comes to."""
    if trade.plan_ended_at is None or trade.exited_at is None or trade.plan_ended_at <= trade.exited_at:
        return None
    if trade.plan_exit_reason == ExitReason.STOP:
        price = trade.initial_stop
    elif trade.plan_exit_reason == ExitReason.TARGET:
        price = trade.target
    else:
        assert trade.plan_r is not None  # it ended: a constraint of the table
        price = entry + SIGN[trade.side] * Decimal(trade.plan_r) * (trade.risk_per_share or Decimal(0))
    return _moment(trade.plan_ended_at, price, f"left to its plan: {trade.plan_exit_reason}, {in_r(trade.plan_r)}")


def _local(moment: datetime) -> datetime:
    return moment.astimezone(NEW_YORK)


def _moment(at: datetime, price: Decimal, text: str) -> Moment:
    local = _local(at)
    return Moment(local, float(price), f"{local:%H:%M:%S} {text}")


def _features(row: TradeFeatures, manifest: dict[str, Any] | None) -> list[tuple[str, SafeString]]:
    """By group: each value with its unit and where it lies among the training trades."""
    remembered = (manifest or {}).get("reference", {}).get("features", {})
    return [
        (
            group.value,
            rows_table(
                ("feature", "value", "unit", "among training trades"),
                [
                    [
                        feature.name.replace("_", " "),
                        shown_value(row, feature.name),
                        feature.unit or "category",
                        _standing(getattr(row, feature.name), feature.kind, remembered.get(feature.name)),
                    ]
                    for feature in FEATURES
                    if feature.group is group
                ],
            ),
        )
        for group in Group
    ]


def _standing(value: float | str | None, kind: Kind, remembered: dict[str, Any] | None) -> str:
    """Between which percentiles of the training part a number lies, or what share of it was of a category."""
    if value is None or remembered is None:
        return NOT_KNOWN
    bins, shares = remembered["bins"], remembered["shares"]
    if kind is Kind.CATEGORICAL:
        share = shares[bins.index(value)] if value in bins else 0.0
        return f"{share:.0%} of them alike"
    place = int(np.searchsorted(bins, float(value)))
    known = sum(shares[:-1]) or 1.0  # the last bin is what was unknown
    below = sum(shares[:place]) / known
    return f"{below:.0%} to {below + shares[place] / known:.0%}"


def _predictions(predictions: Iterable[Prediction]) -> SafeString:
    return rows_table(
        ("model", "mode", "P(win)", "geometry", "threshold", "decision", "why"),
        [
            [
                _link("admin:ml_mlmodel_change", each.model_id, each.model.version),
                each.mode,
                f"{each.p_win:.1%}",
                f"{each.p_geometry:.1%}",
                NOT_KNOWN if each.threshold is None else f"{each.threshold:.1%}",
                each.decision,
                each.reason or NOT_KNOWN,
            ]
            for each in predictions
        ],
    )


def _alike(trade: Trade, row: TradeFeatures, manifest: dict[str, Any]) -> SafeString:
    """The nearest signals whose trades had closed before this one was given, with what became of them."""
    names = [feature.name for feature in MODEL_FEATURES]
    before = TradeFeatures.objects.filter(book=trade.book, taken=True, signal_at__lt=trade.signal_at)
    past = list(before.order_by("-signal_at", "-id")[:LOOKED_THROUGH].values_list("signal_key", *names))
    if not past:
        return SafeString("")
    columns = {name: [values[place] for _, *values in past] for place, name in enumerate(names)}
    found = nearest(
        Encoder.from_dict(manifest["encoder"]), {name: [getattr(row, name)] for name in names}, columns, LIKE_READ
    )
    distances = {past[each.place][0]: each.distance for each in found}
    closed = {
        other.signal_key: other
        for other in Trade.objects.filter(
            book=trade.book, signal_key__in=distances, status=TradeStatus.CLOSED, exited_at__lt=trade.signal_at
        )
    }
    shown = [(closed[key], distance) for key, distance in distances.items() if key in closed][:LIKE_SHOWN]
    return rows_table(
        ("trade", "signal", "distance", "exit", "result", "outcome"),
        [
            [
                _link("admin:positions_trade_change", other.pk, f"{other.symbol} {other.side}"),
                other.signal_at,
                distance,
                other.exit_reason,
                in_r(other.r_multiple),
                other.outcome,
            ]
            for other, distance in shown
        ],
    )


def _link(page: str, key: int, text: str) -> SafeString:
    return format_html('<a class="text-link" href="{}">{}</a>', reverse(page, args=[key]), text)


def _timeline(trade: Trade, predictions: Iterable[Prediction], now: datetime) -> SafeString:
    events = sorted(_events(trade, predictions, now), key=lambda event: event.at)
    return rows_table(("when", "what"), [[event.at, event.what] for event in events])


def _events(trade: Trade, predictions: Iterable[Prediction], now: datetime) -> Iterator[Event]:
    yield Event(
        trade.signal_at,
        f"Signal of {trade.strategy.rpartition('.')[2]}: {trade.side} at {trade.planned_entry:.2f}, stop "
        f"{trade.initial_stop:.2f}, target {trade.target:.2f}, {trade.planned_quantity:,} shares",
    )
    for each in predictions:
        said = f"P(win) {each.p_win:.1%}, {each.decision} ({each.mode})"
        afterwards = ", scored afterwards" if each.predicted_at > _over(trade, now) else ""
        yield Event(each.predicted_at, f"Model {each.model.version}: {said}{afterwards}")
    for intent in trade.intents.all():
        price = f" at {intent.stop_price:.2f}" if intent.stop_price is not None else ""
        yield Event(intent.created_at, f"Order written: {intent.step}, {intent.quantity:,} shares{price}")
        if intent.finished_at:
            filled = (
                f", {intent.filled_quantity:,} filled at {intent.filled_price:.4f}"
                if intent.filled_quantity and intent.filled_price is not None
                else ""
            )
            error = f": {intent.error}" if intent.error else ""
            yield Event(intent.finished_at, f"Order {intent.step} {intent.status}{filled}{error}")
    yield from _rule_events(trade)
    if trade.exited_at:
        yield Event(trade.exited_at, f"Closed by {trade.exit_reason}: {trade.outcome}, {in_r(trade.r_multiple)}")
    if trade.plan_ended_at:
        came_to = f"{trade.plan_exit_reason}, {trade.plan_outcome}, {in_r(trade.plan_r)}"
        yield Event(trade.plan_ended_at, f"Its plan alone would have ended here: {came_to}")


def _rule_events(trade: Trade) -> Iterator[Event]:
    for move in trade.stop_moves.all():
        yield Event(move.decided_at, f"Stop to move from {move.old_stop:.2f} to {move.new_stop:.2f}")
        if move.confirmed_at:
            yield Event(move.confirmed_at, f"Stop stands at {move.new_stop:.2f}")
    for note in trade.rule_notes.all():
        said = NOTED[RuleNoteKind(note.kind)].format(share=note.evidence.get("share", 1.0))
        yield Event(note.noted_at, f"Rule {note.rule} {said}")
    for leaving in trade.exits.all():
        yield Event(leaving.decided_at, f"Rule {leaving.rule} decided to leave at {leaving.decided_price:.2f}")
        if leaving.finished_at:
            yield Event(leaving.finished_at, f"Exit by {leaving.rule} {leaving.status}")
