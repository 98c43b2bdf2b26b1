"""What Django itself answers to errors: a problem document under /api/, a page elsewhere."""

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.views import defaults

from tradingsite.kit.problems import problem


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
    if _is_api(request):
        return problem(500, "error", "Something went wrong here; the site's log has it.")
    return defaults.server_error(request)
