"""Filters of the API: exact matches and ranges on indexed columns."""

from typing import Any

from django import forms
from django.db import models
from django_filters.rest_framework import DjangoFilterBackend, FilterSet, NumberFilter

LARGEST_ID = 2**63 - 1


class IdFilter(NumberFilter):  # type: ignore[misc]  # django-filter has no types
    """Of a row that need not exist: nothing belongs to one that does not."""

    field_class = forms.IntegerField

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, min_value=0, max_value=LARGEST_ID, **options)


class RowFilterSet(FilterSet):  # type: ignore[misc]
    FILTER_DEFAULTS = {**FilterSet.FILTER_DEFAULTS, models.ForeignKey: {"filter_class": IdFilter}}


class RowFilterBackend(DjangoFilterBackend):  # type: ignore[misc]
    filterset_base = RowFilterSet
