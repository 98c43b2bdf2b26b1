"""Pages of the API."""

from rest_framework.pagination import CursorPagination


class NewestFirstPagination(CursorPagination):
    """Pages that stay right while rows are added; the order is the model's own."""

    page_size = 100
    max_page_size = 1000
    page_size_query_param = "page_size"
