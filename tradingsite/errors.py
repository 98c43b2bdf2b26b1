"""What Django itself answers to errors: a problem document under /api/, a page elsewhere."""

import sys

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.template.loader import render_to_string
from django.views import defaults

from tradingsite.kit.database import is_database_away
from tradingsite.kit.problems import DatabaseAway, problem


def _is_api(request: HttpRequest) -> bool:
    return request.path.startswith("/api/")


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    if _is_api(request):
        return problem(400, "bad_request", "The request cannot be read.")
    return defaults.bad_request(request, exception)


def not_found(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    if _is_api(request):
        return problem(404, "not_found", "There is no such address. /api/v1/docs/ lists them all.")
    return defaults.page_not_found(request, exception)


def server_error(request: HttpRequest) -> HttpResponseBase:
    """Called by Django while it handles the error."""
    error = sys.exception()
    if error and is_database_away(error):
        return _database_away(request)
    if _is_api(request):
        return problem(500, "error", "Something went wrong here; the site's log has it.")
    return defaults.server_error(request)


def _database_away(request: HttpRequest) -> HttpResponseBase:
    status = DatabaseAway.status_code
    if _is_api(request):
        return problem(status, DatabaseAway.default_code, DatabaseAway.default_detail)
    return HttpResponse(render_to_string("503.html"), status=status)
