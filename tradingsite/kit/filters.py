"""Filters of the API: exact matches and ranges on indexed columns."""

from datetime import datetime
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.db import models
from django.utils.dateparse import parse_datetime
from django_filters.fields import IsoDateTimeField
from django_filters.rest_framework import DjangoFilterBackend, FilterSet, IsoDateTimeFilter, NumberFilter

LARGEST_ID = 2**63 - 1


class IdFilter(NumberFilter):  # type: ignore[misc]  # django-filter has no types
    """Of a row that need not exist: nothing belongs to one that does not."""

    field_class = forms.IntegerField

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, min_value=0, max_value=LARGEST_ID, **options)


class MomentField(IsoDateTimeField):  # type: ignore[misc]
    def to_python(self, value: Any) -> datetime | None:
        moment: datetime | None = super().to_python(value)
        if moment and parse_datetime(value.strip()).tzinfo is None:  # type: ignore[union-attr]  # it was just parsed
            raise ValidationError("Give the time with its zone, such as 2024-01-03T15:00:00Z.")
        return moment


class MomentFilter(IsoDateTimeFilter):  # type: ignore[misc]
    """Of a time with its zone: one without would be guessed."""

    field_class = MomentField


class RowFilterSet(FilterSet):  # type: ignore[misc]
    FILTER_DEFAULTS = {
        **FilterSet.FILTER_DEFAULTS,
        models.ForeignKey: {"filter_class": IdFilter},
        models.DateTimeField: {"filter_class": MomentFilter},
    }


class RowFilterBackend(DjangoFilterBackend):  # type: ignore[misc]
    filterset_base = RowFilterSet
