"""Tables of positions in the admin: read-only, but for the watchlist."""

import re
from argparse import ArgumentTypeError
from typing import Any

from django import forms
from django.conf import settings
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest
from unfold.contrib.filters.admin import ChoicesDropdownFilter, RangeDateFilter

from positions.models import (
    ErrorNote,
    ExternalPosition,
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
from positions.words import SYMBOL
from tradingsite.kit.admin import BookFilter, RecordAdmin, TableAdmin
from tradingsite.kit.options import book_name
from tradingsite.kit.readable import FILLED_BY_A_RUN, rows_table


@admin.register(Trade)
class TradeAdmin(RecordAdmin):
    when_empty = f"No trade yet. {FILLED_BY_A_RUN}"
    list_display = (
        "signal_at",
        "symbol",
        "side",
        "status",
        "quantity",
        "entry_price",
        "exit_price",
        "exit_reason",
        "pnl",
        "r_multiple",
        "outcome",
        "book",
    )
    list_filter = (
        BookFilter,
        ("session", RangeDateFilter),
        ("side", ChoicesDropdownFilter),
        ("status", ChoicesDropdownFilter),
        ("outcome", ChoicesDropdownFilter),
        ("exit_reason", ChoicesDropdownFilter),
    )
    search_fields = ("symbol__exact", "signal_key__exact")
    search_help_text = "A symbol, or the key of a signal"
    fieldsets = (
        (
            "Result",
            {
                "fields": (
                    "outcome",
                    "exit_reason",
                    "pnl",
                    "r_multiple",
                    "mae_r",
                    "mfe_r",
                    "fees",
                    "exited_at",
                    "exit_price",
                )
            },
        ),
        (
            "Trade",
            {
                "fields": (
                    "symbol",
                    "side",
                    "status",
                    "entered_at",
                    "entry_price",
                    "quantity",
                    "risk_per_share",
                    "stop_price",
                    "breakeven_set",
                    "unprotected_seconds",
                )
            },
        ),
        (
            "Plan",
            {
                "fields": (
                    "signal_at",
                    "planned_entry",
                    "initial_stop",
                    "target",
                    "planned_quantity",
                    "equity",
                    "entry_volume",
                )
            },
        ),
        (
            "Left to its plan",
            {
                "description": "How it would have ended by its initial stop, its target and the session's close alone.",
                "fields": (
                    *("plan_outcome", "plan_exit_reason", "plan_r", "plan_ended_at", "plan_doubt"),
                    *("worst_after_r", "best_after_r"),
                ),
            },
        ),
        ("What happened to it", {"classes": ("collapse",), "fields": ("exits", "stop_moves", "orders")}),
        (
            "Where it comes from",
            {"fields": ("book", "session", "signal_key", "strategy", "feed", "exit_settings_hash")},
        ),
    )

    def exits(self, trade: Trade) -> str:
        rows = trade.exits.values_list("decided_at", "rule", "decided_price", "exit_price", "r_multiple", "status")
        head = ("decided", "rule", "dollars a share then", "exit, dollars a share", "R", "status")
        return rows_table(head, rows) or "No rule decided to leave it."

    def stop_moves(self, trade: Trade) -> str:
        rows = trade.stop_moves.values_list("decided_at", "old_stop", "new_stop", "status")
        head = ("decided", "from, dollars a share", "to, dollars a share", "status")
        return rows_table(head, rows) or "Its stop was not moved."

    def orders(self, trade: Trade) -> str:
        rows = trade.intents.order_by("created_at", "id").values_list(
            "created_at", "step", "status", "quantity", "stop_price", "filled_quantity", "filled_price", "error"
        )
        head = ("written", "step", "status", "shares", "stop, dollars a share", "shares filled", "at dollars", "error")
        return rows_table(head, rows) or "No order was written for it."


@admin.register(ShadowTrade)
class ShadowTradeAdmin(RecordAdmin):
    when_empty = (
        "No signal was passed over yet. Those that are not taken are followed on paper by their plans. "
        f"{FILLED_BY_A_RUN}"
    )
    list_display = (
        "signal_at",
        "symbol",
        "side",
        "not_taken_reason",
        "entry_price",
        "plan_exit_reason",
        "plan_r",
        "plan_outcome",
        "plan_doubt",
        "book",
    )
    list_filter = (
        BookFilter,
        ("session", RangeDateFilter),
        ("plan_outcome", ChoicesDropdownFilter),
    )
    search_fields = ("symbol__exact", "signal_key__exact", "not_taken_reason__exact")
    search_help_text = "A symbol, the key of a signal, or a reason"


class OfATradeAdmin(RecordAdmin):
    """Rows of a trade, found by the trade's symbol or signal."""

    list_select_related = ("trade",)
    search_fields = ("trade__symbol__exact", "trade__signal_key__exact")
    search_help_text = "A symbol, or the key of a signal"


@admin.register(PositionExit)
class PositionExitAdmin(OfATradeAdmin):
    when_empty = (
        "No exit yet: rules are judged while a trade is open. Stops that filled at the broker are not listed here. "
        f"{FILLED_BY_A_RUN}"
    )
    list_display = ("decided_at", "trade", "rule", "status", "decided_price", "exit_price", "pnl", "r_multiple", "book")
    list_filter = (
        BookFilter,
        ("trade__session", RangeDateFilter),
        ("rule", ChoicesDropdownFilter),
        ("status", ChoicesDropdownFilter),
    )


@admin.register(StopMove)
class StopMoveAdmin(OfATradeAdmin):
    when_empty = f"No stop was moved yet: a stop moves to breakeven once a trade has earned its risk. {FILLED_BY_A_RUN}"
    list_display = ("decided_at", "trade", "status", "old_stop", "new_stop", "confirmed_at", "book")
    list_filter = (BookFilter, ("trade__session", RangeDateFilter), ("status", ChoicesDropdownFilter))


@admin.register(RuleNote)
class RuleNoteAdmin(OfATradeAdmin):
    when_empty = f"No rule has nearly acted yet, or would have acted and might not. {FILLED_BY_A_RUN}"
    list_display = ("noted_at", "trade", "rule", "kind", "evidence", "book")
    list_filter = (
        BookFilter,
        ("trade__session", RangeDateFilter),
        ("rule", ChoicesDropdownFilter),
        ("kind", ChoicesDropdownFilter),
    )


@admin.register(ErrorNote)
class ErrorNoteAdmin(RecordAdmin):
    when_empty = (
        "Nothing has failed unexpectedly. python manage.py trade and run_monitors note here what they went on after."
    )
    list_display = (
        "last_at",
        "job",
        "symbol",
        "error",
        "message",
        "subject",
        "count",
        "first_at",
        "session",
        "book",
    )
    list_filter = (BookFilter, ("session", RangeDateFilter))
    search_fields = ("symbol__exact", "subject__exact")
    search_help_text = "A symbol, or the key of a signal"


@admin.register(OrderIntent)
class OrderIntentAdmin(RecordAdmin):
    when_empty = f"No order yet. {FILLED_BY_A_RUN}"
    list_display = (
        "created_at",
        "trade",
        "step",
        "status",
        "quantity",
        "stop_price",
        "filled_quantity",
        "filled_price",
        "error",
        "book",
    )
    list_filter = (
        BookFilter,
        ("trade__session", RangeDateFilter),
        ("step", ChoicesDropdownFilter),
        ("status", ChoicesDropdownFilter),
    )
    list_select_related = ("trade",)
    search_fields = ("trade__symbol__exact", "client_order_id__exact", "broker_order_id__exact")
    search_help_text = "A symbol, or the id of an order (ours or the broker's)"


@admin.register(ExternalPosition)
class ExternalPositionAdmin(RecordAdmin):
    """What is not ours; who may change positions can have it adopted, which the trading process does."""

    when_empty = "Nothing at the broker that is not ours. python manage.py trade and run_monitors compare every minute."
    list_display = ("first_seen_at", "symbol", "quantity", "price", "gone_at", "adopt", "trade", "book")
    list_filter = (BookFilter,)
    list_select_related = ("trade",)
    search_fields = ("symbol__exact",)
    search_help_text = "A symbol"
    actions = ("adopt_positions",)

    @admin.action(description="Adopt: trade it as ours from the next minute on", permissions=["adopt"])
    def adopt_positions(self, request: HttpRequest, queryset: QuerySet[ExternalPosition]) -> None:
        asked = queryset.filter(gone_at__isnull=True).update(adopt=True)
        self.message_user(request, f"{asked} to be adopted, once none of their own orders works.")

    def has_adopt_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("positions.change_externalposition")


@admin.register(Instruction)
class InstructionAdmin(RecordAdmin):
    when_empty = "Nothing was asked of the trading process yet: the API takes signals and closes (docs/api.md)."
    list_display = ("asked_at", "kind", "symbol", "side", "state", "answer", "asked_by", "expires_at", "book")
    list_filter = (BookFilter, ("kind", ChoicesDropdownFilter), ("state", ChoicesDropdownFilter))
    search_fields = ("symbol__exact", "signal_key__exact")
    search_help_text = "A symbol, or the key of a signal"


@admin.register(WorkerLease)
class WorkerLeaseAdmin(RecordAdmin):
    when_empty = "No job has run yet that only one process may do. Run python manage.py trade or run_monitors."
    list_display = (
        "name",
        "book",
        "holder",
        "heartbeat_at",
        "expires_at",
        "tick_seconds",
        "calls_a_tick",
        "last_error",
    )
    list_filter = (BookFilter,)


class InstrumentForm(forms.ModelForm):  # type: ignore[type-arg]  # not generic when it runs
    """Symbols may be typed in small letters; a slip in the book would leave its watchlist empty."""

    def clean_book(self) -> str:
        try:
            return book_name(self.cleaned_data["book"])
        except ArgumentTypeError as error:
            raise ValidationError(str(error)) from error

    def clean_symbol(self) -> str:
        return _symbol(self.cleaned_data["symbol"])

    def clean_sector_etf(self) -> str:
        given = self.cleaned_data["sector_etf"]
        return _symbol(given) if given else ""


def _symbol(text: str) -> str:
    symbol = text.upper()
    if not re.fullmatch(SYMBOL, symbol):
        raise ValidationError(f"{text!r} is not a symbol; write it as Alpaca does, such as AAPL or BRK.B.")
    return symbol


@admin.register(Instrument)
class InstrumentAdmin(TableAdmin):
    """The watchlist, edited by those who may."""

    when_empty = "The watchlist is empty. Of an account it is filled here, of a replay by python manage.py replay."
    form = InstrumentForm
    list_display = ("symbol", "sector", "sector_etf", "tradable", "book")
    list_filter = (BookFilter, "tradable")
    search_fields = ("symbol__exact", "sector__iexact", "sector_etf__iexact")
    search_help_text = "A symbol, a sector or a sector ETF"

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return ("book", "symbol") if obj else ()

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        return {"book": settings.BOOK, **super().get_changeform_initial_data(request)}
