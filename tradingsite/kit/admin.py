"""Base classes of the admin: tables that are looked at and not edited, quick at a million rows."""

from collections.abc import Callable, Sequence
from functools import reduce
from operator import or_
from typing import Any

import structlog
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ERROR_FLAG
from django.core.exceptions import BadRequest, PermissionDenied, SuspiciousOperation
from django.core.paginator import Paginator
from django.db import connection, models
from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import redirect
from django.urls import URLPattern, path
from django.utils.functional import cached_property
from unfold.admin import ModelAdmin
from unfold.contrib.filters.admin import DropdownFilter
from unfold.views import ChangeList

from positions.books import is_book
from tradingsite.kit.database import is_database_away
from tradingsite.kit.export import AT_ONCE, csv_of, parquet_of
from tradingsite.kit.readable import NOT_KNOWN, readable, table

log = structlog.get_logger(__name__)

COUNTED_AT_MOST = 10_000
EXPORTS = {"csv": (csv_of, "text/csv; charset=utf-8"), "parquet": (parquet_of, "application/vnd.apache.parquet")}


class CappedPaginator(Paginator):  # type: ignore[type-arg]  # not generic when it runs
    """Counts to COUNTED_AT_MOST and no further; what lies beyond is reached by filters, not by pages."""

    template_name = "tradingsite/pagination.html"

    @cached_property
    def found(self) -> int:
        rows: models.QuerySet[Any] = self.object_list  # type: ignore[assignment]  # a list of the admin is a query
        return rows.order_by().values("pk")[: COUNTED_AT_MOST + 1].count()

    @property
    def count(self) -> int:
        return min(self.found, COUNTED_AT_MOST)

    @property
    def counted(self) -> str:
        return f"{COUNTED_AT_MOST:,}+" if self.found > COUNTED_AT_MOST else f"{self.found:,}"


def distinct(model: type[models.Model], column: str) -> list[str]:
    """The values of an indexed column in one query that jumps from value to value and reads no other row."""
    name, rows = connection.ops.quote_name(column), connection.ops.quote_name(model._meta.db_table)
    query = f"""
        WITH RECURSIVE found(value) AS (
            SELECT MIN({name}) FROM {rows}
            UNION ALL
            SELECT (SELECT MIN({name}) FROM {rows} WHERE {name} > found.value) FROM found WHERE found.value IS NOT NULL
        )
        SELECT value FROM found WHERE value IS NOT NULL
    """
    with connection.cursor() as cursor:
        cursor.execute(query)
        return [value for (value,) in cursor.fetchall()]


class BookFilter(DropdownFilter):  # type: ignore[misc]  # unfold has no types
    title = "book"
    parameter_name = "book"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(book, book) for book in filter(is_book, distinct(model_admin.model, "book"))]

    def queryset(self, request: HttpRequest, queryset: models.QuerySet[Any]) -> models.QuerySet[Any]:
        return queryset.filter(book=self.value()) if self.value() else queryset


def _readable_column(field: "models.Field[Any, Any]") -> Callable[[models.Model], Any] | str:
    """How a field is shown: numbers rounded, yes or no, words, JSON as a table, the rest as Django does."""
    words = dict(field.flatchoices)
    is_json = isinstance(field, models.JSONField)
    plain = (models.BooleanField, models.DecimalField, models.FloatField, models.IntegerField)
    if not (is_json or words or isinstance(field, plain)):
        return field.name

    @admin.display(description=field.verbose_name, empty_value=NOT_KNOWN)
    def column(row: models.Model) -> Any:
        value = getattr(row, field.attname)
        return table(value) if is_json else readable(words.get(value, value))

    column.__name__ = field.name  # by which the page finds the field's help text
    return column


def _holds_keys(search_field: str) -> bool:
    return search_field.rpartition("__")[0].endswith(("_key", "_id"))


class QuickChangeList(ChangeList):  # type: ignore[misc]  # unfold has no types
    """A list that says how many rows were found at its foot alone."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        self.full_result_count = self.result_count


class ListAdmin(ModelAdmin):  # type: ignore[misc]  # unfold has no types
    """A list that is shown whole, as Django has it, where its address or a choice of its rows means nothing."""

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        """No regular expressions: a slow one is a burden to the database."""
        is_regex = not {"regex", "iregex"}.isdisjoint(lookup.split("__"))
        return not is_regex and bool(super().lookup_allowed(lookup, value, request))

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        """No row has a NUL in its key; PostgreSQL would refuse to look for it."""
        return None if "\0" in object_id else super().get_object(request, object_id, from_field)

    def get_changelist_instance(self, request: HttpRequest) -> ChangeList:
        """Raises IncorrectLookupParameters for filters and chosen rows that mean nothing, of which only asking tells:
        Django takes every error in making a query for that, here every error in running it is too, and told in the log
        in case it was ours. The list that is shown then (ERROR_FLAG) has no filters, and an error in it is ours."""
        try:
            chosen = self.model._default_manager.filter(pk__in=request.POST.getlist(ACTION_CHECKBOX_NAME))
            chosen.exists()  # no query where none is chosen
            return super().get_changelist_instance(request)
        except (SuspiciousOperation, IncorrectLookupParameters):
            raise
        except Exception as error:
            if is_database_away(error) or not (set(request.GET) - {ERROR_FLAG} or request.POST):
                raise
            log.warning("filter_means_nothing", address=request.get_full_path(), exc_info=True)
            raise IncorrectLookupParameters from error

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Who is sent to the whole list, at ERROR_FLAG and nothing else, is told why."""
        filters = request.GET.copy()
        if filters.pop(ERROR_FLAG, None) and filters:
            return redirect(f"{request.path}?{filters.urlencode()}")
        answer: HttpResponse = super().changelist_view(request, extra_context)
        if answer.get("Location", "").endswith(f"?{ERROR_FLAG}=1"):
            messages.warning(request, "That filter means nothing here: all rows are shown.")
        return answer


class TableAdmin(ListAdmin):
    """A table whose lists stay quick: newest first (the model's ordering, which has an index), exact searches only.

    `when_empty` says what to do when there is nothing yet.
    """

    list_after_template = "tradingsite/columns.html"
    when_empty = ""
    actions: Sequence[str] | None = None
    empty_value_display = NOT_KNOWN
    list_filter_submit = True
    list_per_page = 25
    paginator = CappedPaginator
    show_full_result_count = False
    sortable_by: Sequence[str] = ()

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return QuickChangeList

    def get_list_display(self, request: HttpRequest) -> list[Any]:
        return [self._shown(name) for name in self.list_display]

    def meanings(self) -> list[tuple[str, str]]:
        """What the help texts say of the columns of the list, most with a unit: their names and it."""
        fields = {field.name: field for field in self.model._meta.concrete_fields}
        shown = [fields[name] for name in self.list_display if name in fields]
        return [(str(field.verbose_name), str(field.help_text)) for field in shown if field.help_text]

    def get_search_results(
        self, request: HttpRequest, queryset: models.QuerySet[Any], search_term: str
    ) -> tuple[models.QuerySet[Any], bool]:
        """The whole term as it stands; symbols, which are stored in capitals, may be typed in small letters. Without a
        dash it is no key, so that no column of keys is asked."""
        term = search_term.strip()
        has_dash = "-" in term
        names = [name for name in self.search_fields if has_dash or not _holds_keys(name)] or self.search_fields
        asked = [models.Q(**{name: term.upper() if "symbol" in name else term}) for name in names if term]
        if has_dash and len(asked) > 1:  # a database asked for one key or another reads every row
            found_by = [self.model._default_manager.filter(each).order_by() for each in asked]
            keys = [key for found in found_by for key in found.values_list("pk", flat=True)[:COUNTED_AT_MOST]]
            return queryset.filter(pk__in=keys), False
        return queryset.filter(reduce(or_, asked, models.Q())), False

    def _shown(self, name: Any) -> Any:
        fields = {field.name: field for field in self.model._meta.concrete_fields}
        return _readable_column(fields[name]) if name in fields else name


class ReadOnlyAdmin(TableAdmin):
    """A table that may be viewed by those who hold its view permission and changed by nobody."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        return [
            (title, {**options, "fields": [self._shown(name) for name in options["fields"]]})
            for title, options in super().get_fieldsets(request, obj)
        ]


class RecordAdmin(ReadOnlyAdmin):
    """A table of what the program recorded: the rows that the filters leave can be taken away as a file."""

    list_after_template = "tradingsite/export.html"
    not_exported: Sequence[str] = ()

    def get_urls(self) -> list[URLPattern]:
        name = f"{self.opts.app_label}_{self.opts.model_name}_export"
        return [
            path("export/<str:form>/", self.admin_site.admin_view(self.export_view), name=name),
            *super().get_urls(),
        ]

    def export_view(self, request: HttpRequest, form: str) -> StreamingHttpResponse:
        """What the list shows under the same query, every page of it, as `csv` or `parquet`."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        if form not in EXPORTS:
            raise Http404(f"Rows are exported as one of {', '.join(EXPORTS)}.")
        write, kind = EXPORTS[form]
        fields = [field for field in self.opts.concrete_fields if field.name not in self.not_exported]
        try:
            found = self.get_changelist_instance(request).get_queryset(request).select_related(None).defer(None)
        except IncorrectLookupParameters as error:
            raise BadRequest("A filter has a value that no row can have.") from error
        rows = found.values_list(*(field.attname for field in fields)).iterator(AT_ONCE)
        name = f"{self.opts.db_table}.{form}"
        return StreamingHttpResponse(
            write(fields, rows),
            content_type=kind,
            headers={"Content-Disposition": f'attachment; filename="{name}"', "Rows-Found": str(found.count())},
        )
