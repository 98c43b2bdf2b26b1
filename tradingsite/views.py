"""Pages beside the admin: the daily reports that were written to disk, and the kill switch."""

from datetime import date

from django.contrib import admin
from django.contrib.admin.views.decorators import staff_member_required
from django.contrib.auth.decorators import permission_required
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBadRequest
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_POST

from positions.books import is_book
from positions.halting import Halt, halt, resume
from reports.daily import report_path, written_reports

# A report runs scripts that stand in it, and loads plotly.js from here; it asks nobody else for anything.
REPORT_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self'; connect-src 'self'; frame-ancestors 'none'"
)

HALTING = ("halt", "flatten", "resume")


@staff_member_required
@permission_required("positions.halt_trading", raise_exception=True)
@require_POST
def halting(request: HttpRequest) -> HttpResponse:
    """The kill switch on the dashboard: `halt`, `flatten` or `resume` a book."""
    book, action = request.POST.get("book", ""), request.POST.get("action", "")
    if not is_book(book) or action not in HALTING:
        return HttpResponseBadRequest("Give a book and one of halt, flatten, resume.")
    if action == "resume":
        resume(book)
    else:
        halt(book, Halt(request.user.get_username(), timezone.now(), "on the dashboard", action == "flatten"))
    return redirect(f"{reverse('admin:index')}?book={book}")


class SessionConverter:
    """A New York date in an address, written 2024-01-31."""

    regex = r"\d{4}-\d{2}-\d{2}"

    def to_python(self, value: str) -> date:
        return date.fromisoformat(value)

    def to_url(self, value: date) -> str:
        return value.isoformat()


@staff_member_required
@permission_required("positions.view_trade", raise_exception=True)
def report(request: HttpRequest, folder: str, day: date) -> HttpResponse:
    """A session's report. The address can name nothing but a book's folder and a date."""
    path = report_path(folder, day)
    if not path.is_file():
        raise Http404(f"No report of {day} for {folder}. Write it: python manage.py daily_report --session {day}")
    response = HttpResponse(path.read_bytes())
    response["Content-Security-Policy"] = REPORT_POLICY
    return response


@staff_member_required
@permission_required("positions.view_trade", raise_exception=True)
def reports(request: HttpRequest) -> HttpResponse:
    """Every report there is, newest first, book by book."""
    context = {**admin.site.each_context(request), "title": "Daily reports", "books": written_reports()}
    return render(request, "tradingsite/reports.html", context)
