"""The page of the live settings: beside each its unit, range and default, and who last changed it and when."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from constance.admin import Config, ConstanceAdmin
from constance.forms import ConstanceForm
from constance.utils import get_values
from django import forms
from django.conf import settings
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.db import transaction
from django.db.models import CharField, TextField, Value
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from ml.models import DriftCheck
from tradingsite.kit.readable import rows_table

#: How the admin's log tells which settings were changed, for what the drift check changes.
STEPPED_DOWN = json.dumps([{"changed": {"fields": ["PREDICTION_MODE: filter to shadow"]}}])
#: So many changes are shown.
MOST = 200


class Change(NamedTuple):
    """`settings` each with what it was and became, `NAME: before to after`."""

    at: datetime
    by: str
    settings: tuple[str, ...]


def changes() -> list[Change]:
    """Those made on the page and by the drift check, the newest first; one query. What a shell did is not known."""
    people = LogEntry.objects.filter(content_type__app_label="constance", content_type__model="config")
    drift = DriftCheck.objects.filter(stepped_down=True)
    told = people.order_by().values_list("action_time", "user__username", "change_message")
    by_itself = drift.order_by().values_list(
        "checked_at", Value("check_drift", CharField()), Value(STEPPED_DOWN, TextField())
    )
    return [
        Change(at, by, tuple(name for part in json.loads(message) for name in part["changed"]["fields"]))
        for at, by, message in told.union(by_itself, all=True).order_by("-action_time")
    ]


def last_changes() -> dict[str, Change]:
    """The newest change of each setting."""
    return {setting.partition(":")[0]: change for change in reversed(changes()) for setting in change.settings}


def span(field: forms.Field) -> str:
    """What a field takes; empty for a switch."""
    if isinstance(field, forms.ChoiceField):
        choices: Any = field.choices  # the stubs allow what a field never holds
        return ", ".join(str(value) for value, _ in choices)
    low, high = getattr(field, "min_value", None), getattr(field, "max_value", None)
    return "" if low is None else f"{low} to {high}"


def _plain(default: object) -> str:
    """As docs/settings.md writes it."""
    return {True: "on", False: "off"}[default] if isinstance(default, bool) else str(default).removesuffix(".0")


def _beside(row: Mapping[str, Any], changes: Mapping[str, Change]) -> dict[str, Any]:
    return {
        "unit": settings.LIVE_UNITS.get(row["name"], ""),
        "span": span(row["form_field"].field),
        "by_default": _plain(settings.LIVE_SETTINGS[row["name"]][0]),
        "change": changes.get(row["name"]),
    }


class LiveSettingsForm(ConstanceForm):  # type: ignore[misc]  # constance has no types
    def save(self) -> list[str]:
        """What the log says of each that changed."""
        before = get_values()
        return [f"{name}: {_plain(before[name])} to {_plain(self.cleaned_data[name])}" for name in super().save()]


class LiveSettingsAdmin(ConstanceAdmin):  # type: ignore[misc]  # constance has no types
    change_list_form = LiveSettingsForm

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Two who save do so one after the other, for each locks one row: the second is told of the first."""
        if request.method != "POST":
            return self._page(request, extra_context)
        with transaction.atomic():
            Permission.objects.select_for_update().get(content_type__app_label="constance", codename="change_config")
            return self._page(request, extra_context)

    def _page(self, request: HttpRequest, extra_context: dict[str, Any] | None) -> HttpResponse:
        page: HttpResponse = super().changelist_view(request, extra_context)
        if isinstance(page, TemplateResponse) and page.context_data:
            changes = last_changes()
            for fieldset in page.context_data["fieldsets"]:
                for row in fieldset["config_values"]:
                    row.update(_beside(row, changes))
        return page

    def history_view(
        self, request: HttpRequest, object_id: str | None = None, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        rows = [(change.at, change.by, "; ".join(change.settings)) for change in changes()[:MOST]]
        context = {"changes": rows_table(("When", "Who", "What"), rows), **(extra_context or {})}
        page: HttpResponse = super().history_view(request, object_id, context)
        return page


Config._meta.verbose_name_plural = "live settings"
admin.site.unregister([Config])
admin.site.register([Config], LiveSettingsAdmin)
