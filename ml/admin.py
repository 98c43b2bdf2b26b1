"""Tables of learning in the admin, all read-only. The text of a model's artifact is never loaded here."""

from collections.abc import Callable
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import ChoicesDropdownFilter, RangeDateFilter

from ml.features import FEATURES, Group
from ml.models import DriftCheck, LeakageCheck, MLModel, Performance, Prediction, TradeFeatures
from ml.registry import HEAVY, SERVICE
from tradingsite.kit.admin import BookFilter, RecordAdmin
from tradingsite.kit.readable import FILLED_BY_A_RUN, readable, rows_table

HEAVY_OF_A_MODEL = tuple(f"model__{name}" for name in HEAVY)


def shown_value(row: TradeFeatures, name: str) -> str:
    why = row.missing.get(name)
    return f"missing: {why.replace('_', ' ')}" if why else readable(getattr(row, name))


def _group(group: Group) -> Callable[[TradeFeatures], SafeString]:
    """The features of a group with their units; where one is null, why."""

    @admin.display(description=group.value)
    def column(row: TradeFeatures) -> SafeString:
        return rows_table(
            ("feature", "value", "unit"),
            (
                (feature.name, shown_value(row, feature.name), feature.unit or "category")
                for feature in FEATURES
                if feature.group is group
            ),
        )

    return column


@admin.register(TradeFeatures)
class TradeFeaturesAdmin(RecordAdmin):
    when_empty = f"No signal yet. {FILLED_BY_A_RUN}"
    list_display = (
        "signal_at",
        "symbol",
        "side",
        "taken",
        "not_taken_reason",
        "complete",
        "p_geometry",
        "reward_to_risk",
        "book",
    )
    list_filter = (BookFilter, ("session", RangeDateFilter), ("side", ChoicesDropdownFilter), "taken", "complete")
    search_fields = ("symbol__exact", "signal_key__exact")
    search_help_text = "A symbol, or the key of a signal"
    fieldsets = (
        (
            "Signal",
            {
                "fields": (
                    "symbol",
                    "signal_at",
                    "taken",
                    "not_taken_reason",
                    "complete",
                    "bars_used",
                    "feed",
                    "feature_set",
                    "book",
                    "signal_key",
                )
            },
        ),
        *((f"{group.capitalize()} features", {"fields": (_group(group),)}) for group in Group),
    )


@admin.register(MLModel)
class MLModelAdmin(RecordAdmin):
    not_exported = ("artifact",)
    when_empty = "No model yet. Run python manage.py train_model; setup_schedules does it every night."
    list_display = (
        "created_at",
        "version",
        "algorithm",
        "label",
        "status",
        "gate",
        "trained_on",
        "tested_on",
        "serving_book",
        "book",
    )
    list_filter = (
        BookFilter,
        ("status", ChoicesDropdownFilter),
        ("gate", ChoicesDropdownFilter),
        ("algorithm", ChoicesDropdownFilter),
        ("label", ChoicesDropdownFilter),
    )
    search_fields = ("version__exact",)
    search_help_text = "A version"
    fieldsets = (
        ("Service", {"fields": SERVICE}),
        (
            "What retraining needs",
            {
                "classes": ("collapse",),
                "fields": (
                    "version",
                    "algorithm",
                    "label",
                    "book",
                    "created_at",
                    "seed",
                    "feature_set",
                    "data_hash",
                    "artifact_sha256",
                    "manifest",
                ),
            },
        ),
    )

    @admin.display(description="trained on")
    def trained_on(self, model: MLModel) -> str:
        return model.trained_on

    @admin.display(description="tested on")
    def tested_on(self, model: MLModel) -> str:
        return model.tested_on

    def get_queryset(self, request: HttpRequest) -> QuerySet[MLModel]:
        rows: QuerySet[MLModel] = super().get_queryset(request)
        return rows.defer("artifact")


class OfAModelAdmin(RecordAdmin):
    """Rows of a model, which is read without its artifact."""

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows: QuerySet[Any] = super().get_queryset(request)
        return rows.select_related("model").defer(*HEAVY_OF_A_MODEL)


@admin.register(Prediction)
class PredictionAdmin(OfAModelAdmin):
    when_empty = (
        "No prediction yet: it takes a model, of python manage.py train_model, and a signal. "
        "PREDICTION_MODE must not be off."
    )
    list_display = (
        "predicted_at",
        "signal_key",
        "model",
        "mode",
        "p_win",
        "p_geometry",
        "threshold",
        "decision",
        "overridden",
        "outcome",
        "book",
    )
    list_filter = (
        BookFilter,
        ("mode", ChoicesDropdownFilter),
        ("decision", ChoicesDropdownFilter),
        ("outcome", ChoicesDropdownFilter),
    )
    search_fields = ("signal_key__exact",)
    search_help_text = "The key of a signal"


@admin.register(DriftCheck)
class DriftCheckAdmin(OfAModelAdmin):
    when_empty = "No drift check yet: it takes a champion. Run python manage.py check_drift, or setup_schedules."
    list_display = (
        "checked_at",
        "model",
        "alarms",
        "stepped_down",
        "compared",
        "mean_error_before",
        "mean_error",
        "book",
    )
    list_filter = (BookFilter, "stepped_down")
    fieldsets = (
        ("Outcome", {"fields": ("checked_at", "model", "alarms", "stepped_down", "reason", "not_judged", "book")}),
        ("Features", {"fields": ("rows", "sessions", "features")}),
        ("Errors", {"fields": ("errors_before", "mean_error_before", "errors", "mean_error")}),
    )

    @admin.display(description="compared")
    def compared(self, check: DriftCheck) -> str:
        return check.compared


@admin.register(Performance)
class PerformanceAdmin(RecordAdmin):
    when_empty = f"No session yet. {FILLED_BY_A_RUN}"
    list_display = (
        "session",
        "trades",
        "win_rate",
        "pnl",
        "average_r",
        "profit_factor",
        "max_drawdown_r",
        "breakeven_moves",
        "unprotected_seconds",
        "errors",
        "book",
    )
    list_filter = (BookFilter, ("session", RangeDateFilter))


@admin.register(LeakageCheck)
class LeakageCheckAdmin(RecordAdmin):
    when_empty = "Nobody has looked for leaks yet, so no model can pass its gate. Run python manage.py check_leakage."
    list_display = ("checked_at", "is_clean", "points", "compared", "feature_set")
    list_filter = ("is_clean",)
    search_fields = ("feature_set__exact",)
    search_help_text = "A feature set"
