"""Pages beside the admin: the daily reports that were written to disk, and the kill switch."""

from datetime import date
from os.path import isfile

from django.contrib import admin, messages
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
from tradingsite.known_books import why_not_known

HALTING = ("halt", "flatten", "resume")


@staff_member_required
@permission_required("positions.halt_trading", raise_exception=True)
@require_POST
def halting(request: HttpRequest) -> HttpResponse:
    """The kill switch on the dashboard: `halt`, `flatten` or `resume` a book."""
    book, action = request.POST.get("book", ""), request.POST.get("action", "")
    if not is_book(book) or action not in HALTING:
        return HttpResponseBadRequest("Give a book and one of halt, flatten, resume.")
    page, why_not = redirect(f"{reverse('admin:index')}?book={book}"), why_not_known(book)
    if why_not:
        messages.error(request, why_not)
        return page
    who = request.user.get_username()
    try:
        if action == "resume":
            resume(book, who)
            done = f"Entries of {book} are allowed again."
        else:
            stands = halt(book, Halt(who, timezone.now(), "on the dashboard", action == "flatten"))
            done = f"Entries of {book} are halted by {stands.by}; {stands.extent}."
    except OSError as error:
        messages.error(request, f"NOT done, {action} {book}: {error}. Orders and positions are at Alpaca's own page.")
        return page
    messages.success(request, done)
    return page


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
    if not isfile(path):  # Path.is_file fails at a name that is too long
        raise Http404(f"No report of {day} for {folder}. Write it: python manage.py daily_report --session {day}")
    return HttpResponse(path.read_bytes())


@staff_member_required
@permission_required("positions.view_trade", raise_exception=True)
def reports(request: HttpRequest) -> HttpResponse:
    """Every report there is, newest first, book by book."""
    context = {**admin.site.each_context(request), "title": "Daily reports", "books": written_reports()}
    return render(request, "tradingsite/reports.html", context)
