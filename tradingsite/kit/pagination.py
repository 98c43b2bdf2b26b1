"""Pages of the API."""

from typing import Any

from django.db.models import QuerySet
from rest_framework.pagination import CursorPagination
from rest_framework.request import Request


class NewestFirstPagination(CursorPagination):
    """Pages that stay right while rows are added; the order is the model's own."""

    page_size = 100
    max_page_size = 1000
    page_size_query_param = "page_size"

    def get_ordering(self, request: Request, queryset: QuerySet[Any], view: Any) -> tuple[str, ...]:
        """The model's ordering without the book, which is the same in every row of a list."""
        return tuple(field for field in queryset.model._meta.ordering if field != "book")
