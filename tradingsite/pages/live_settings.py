"""The page of the live settings: beside each its unit, range and default, and who last changed it and when."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from constance.admin import Config, ConstanceAdmin
from django import forms
from django.conf import settings
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.db.models import CharField, TextField, Value
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from ml.models import DriftCheck

#: How the admin's log tells which settings were changed, for what the drift check changes.
STEPPED_DOWN = json.dumps([{"changed": {"fields": ["PREDICTION_MODE"]}}])


@dataclass(frozen=True, slots=True)
class Change:
    by: str
    at: datetime


def last_changes() -> dict[str, Change]:
    """The newest change of each setting on its page or by the drift check; one query. What a shell did is not known."""
    people = LogEntry.objects.filter(content_type__app_label="constance", content_type__model="config")
    drift = DriftCheck.objects.filter(stepped_down=True)
    told = people.order_by().values_list("change_message", "user__username", "action_time")
    by_itself = drift.order_by().values_list(
        Value(STEPPED_DOWN, TextField()), Value("check_drift", CharField()), "checked_at"
    )
    changes = {}
    for message, by, at in told.union(by_itself, all=True).order_by("action_time"):
        for part in json.loads(message):
            changes.update(dict.fromkeys(part["changed"]["fields"], Change(by, at)))
    return changes


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


class LiveSettingsAdmin(ConstanceAdmin):  # type: ignore[misc]  # constance has no types
    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        page: HttpResponse = super().changelist_view(request, extra_context)
        if isinstance(page, TemplateResponse) and page.context_data:
            changes = last_changes()
            for fieldset in page.context_data["fieldsets"]:
                for row in fieldset["config_values"]:
                    row.update(_beside(row, changes))
        return page


admin.site.unregister([Config])
admin.site.register([Config], LiveSettingsAdmin)
