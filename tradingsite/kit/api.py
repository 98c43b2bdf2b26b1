"""Base classes of the API."""

from collections.abc import Mapping, Sequence
from typing import Any

from django.conf import settings
from django.db.models import Model, QuerySet
from django_filters.rest_framework import DjangoFilterBackend
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_view
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.serializers import ModelSerializer
from rest_framework.views import APIView
from rest_framework.viewsets import ReadOnlyModelViewSet

TIME_RANGE = ["gte", "lte"]
DAY_RANGE = ["exact", "gte", "lte"]

_BOOK = OpenApiParameter("book", str, description="Whose rows; without it, those of the BOOK setting.")


def serializer_of(table: type[Model], without: tuple[str, ...] = ()) -> type[ModelSerializer[Any]]:
    """Every column of a table, but for those left out."""
    meta = type("Meta", (), {"model": table, "exclude": without} if without else {"model": table, "fields": "__all__"})
    return type(f"{table.__name__}Serializer", (ModelSerializer,), {"Meta": meta})


class StrictView(APIView):
    """A query parameter that does not exist is an error, not a wish that is ignored."""

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        unknown = sorted(set(request.query_params) - self.known_parameters())
        if unknown:
            raise ValidationError({name: ["There is no such query parameter."] for name in unknown})

    def known_parameters(self) -> set[str]:
        return set()


@extend_schema_view(list=extend_schema(parameters=[_BOOK]))
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
        filters = DjangoFilterBackend().get_filterset_class(self, self.get_queryset()).base_filters
        return {"cursor", "page_size", *filters}
