"""Base classes of the API."""

from collections.abc import Mapping, Sequence
from typing import Any

from django.conf import settings
from django.db.models import Model, QuerySet
from rest_framework.exceptions import AuthenticationFailed, NotAuthenticated, PermissionDenied, ValidationError
from rest_framework.request import Request
from rest_framework.serializers import ModelSerializer
from rest_framework.views import APIView
from rest_framework.viewsets import ReadOnlyModelViewSet

from tradingsite.kit.filters import RowFilterBackend

TIME_RANGE = ["gte", "lte"]
DAY_RANGE = ["exact", "gte", "lte"]


def serializer_of(table: type[Model], without: tuple[str, ...] = ()) -> type[ModelSerializer[Any]]:
    """Every column of a table, but for those left out."""
    meta = type("Meta", (), {"model": table, "exclude": without} if without else {"model": table, "fields": "__all__"})
    return type(f"{table.__name__}Serializer", (ModelSerializer,), {"Meta": meta})


class StrictView(APIView):
    """A query parameter that does not exist, is empty or is there twice is an error, not a wish that is ignored.

    Who is refused is counted too, where rest_framework counts those alone whom it lets in.
    """

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        try:
            super().initial(request, *args, **kwargs)
        except (AuthenticationFailed, NotAuthenticated, PermissionDenied):
            self.check_throttles(request)
            raise
        wrong = {
            name: ["There is no such query parameter."]
            if name not in self.known_parameters()
            else ["Give it one value, or leave it out."]
            for name, values in sorted(request.query_params.lists())
            if name not in self.known_parameters() or len(values) > 1 or not values[0]
        }
        if wrong:
            raise ValidationError(wrong)

    def known_parameters(self) -> set[str]:
        return set()


class ReadOnlyViewSet(StrictView, ReadOnlyModelViewSet[Any]):
    """Rows of one book, where the table has books, newest first.

    Without `book` a list holds the rows of the BOOK setting, so that invented trades never mix with real ones.
    `filterset_fields` names columns that an index serves.
    """

    filterset_fields: Mapping[str, Sequence[str]]

    def filter_queryset(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        found = super().filter_queryset(queryset)
        if self.detail or self.request.query_params.get("book") or "book" not in self.filterset_fields:
            return found
        return found.filter(book=settings.BOOK)

    def known_parameters(self) -> set[str]:
        if self.detail:
            return set()
        filters = RowFilterBackend().get_filterset_class(self, self.get_queryset()).base_filters
        return {"cursor", "page_size", *filters}
