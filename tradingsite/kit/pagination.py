"""Pages of the API."""

from typing import Any

from django.core.exceptions import ValidationError as DjangoValidationError
from django.db import DataError
from django.db.models import QuerySet
from rest_framework.exceptions import NotFound, ValidationError
from rest_framework.pagination import CursorPagination
from rest_framework.request import Request

NOT_A_CURSOR = "No cursor of ours: take it from next or previous."


class NewestFirstPagination(CursorPagination):
    """Pages that stay right while rows are added; the order is the model's own."""

    page_size = 100
    max_page_size = 1000
    page_size_query_param = "page_size"
    invalid_cursor_message = NOT_A_CURSOR

    def get_page_size(self, request: Request) -> int:
        """Raises ValidationError."""
        asked = request.query_params.get(self.page_size_query_param, str(self.page_size))
        is_number = asked.isascii() and asked.isdecimal() and len(asked) <= len(str(self.max_page_size))
        if not (is_number and 1 <= int(asked) <= self.max_page_size):
            raise ValidationError({self.page_size_query_param: [f"Not a number from 1 to {self.max_page_size}."]})
        return int(asked)

    def decode_cursor(self, request: Request) -> Any:
        """Raises ValidationError."""
        try:
            return super().decode_cursor(request)
        except NotFound as error:
            raise ValidationError({self.cursor_query_param: [str(error)]}) from error

    def paginate_queryset(self, queryset: Any, request: Request, view: Any = None) -> list[Any] | None:
        """Raises ValidationError."""
        try:
            return super().paginate_queryset(queryset, request, view)
        except (DjangoValidationError, OverflowError, DataError) as error:
            if self.cursor_query_param not in request.query_params:
                raise
            raise ValidationError({self.cursor_query_param: [NOT_A_CURSOR]}) from error

    def get_schema_operation_parameters(self, view: Any) -> list[dict[str, Any]]:
        parameters = super().get_schema_operation_parameters(view)
        for parameter in parameters:
            if parameter["name"] == self.page_size_query_param:
                parameter["schema"] = {"type": "integer", "minimum": 1, "maximum": self.max_page_size}
        return parameters

    def get_ordering(self, request: Request, queryset: QuerySet[Any], view: Any) -> tuple[str, ...]:
        """The model's ordering without the book, which is the same in every row of a list."""
        return tuple(field for field in queryset.model._meta.ordering if field != "book")
