"""What other packages put into the admin, in the site's look and hardened.

Whoever may add or change a schedule can run any importable function: schedules are made by `setup_schedules` alone, and
tasks are looked at, not resubmitted.
"""

import json
from typing import Any

from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group, User
from django.http import HttpRequest
from django.utils.safestring import SafeString
from django_q.models import Failure, OrmQ, Schedule, Success, Task
from knox.models import AuthToken
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from tradingsite.kit.admin import BookFilter, ListAdmin, ReadOnlyAdmin, TableAdmin
from tradingsite.kit.readable import table
from tradingsite.models import IdempotencyKey, Notification
from tradingsite.pages import live_settings as live_settings_page  # noqa: F401  # registers its page
from tradingsite.pages import model as model_page  # noqa: F401  # registers its page
from tradingsite.pages import trade as trade_page  # noqa: F401  # registers its page

RUN_TASKS = "Run python manage.py setup_schedules, then python manage.py qcluster."

for model in (User, Group, Schedule, Success, Failure, OrmQ, AuthToken):
    admin.site.unregister(model)


@admin.register(User)
class UserAdmin(DjangoUserAdmin, ListAdmin):  # type: ignore[misc, type-arg]  # unfold is untyped, Django not generic
    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    when_empty = "No user yet. Run python manage.py createsuperuser."


@admin.register(Group)
class GroupAdmin(DjangoGroupAdmin, ListAdmin):  # type: ignore[misc]  # unfold has no types
    when_empty = "No group. Run python manage.py migrate, which makes viewer and operator."


@admin.register(Schedule)
class ScheduleAdmin(ReadOnlyAdmin):
    when_empty = f"Nothing is scheduled. {RUN_TASKS}"
    list_display = ("name", "func", "cron", "next_run")
    fields = ("name", "func", "cron", "next_run", "task")


@admin.register(Success)
class SuccessAdmin(ReadOnlyAdmin):
    when_empty = f"No task has run yet. {RUN_TASKS}"
    list_display = ("started", "stopped", "name", "group", "func", "came_to")
    fields = ("name", "group", "func", "started", "stopped", "attempt_count", "came_to")
    search_fields = ("group__exact", "func__exact")
    search_help_text = "A schedule's name, or a function"

    @admin.display(description="result")
    def came_to(self, task: Task) -> SafeString:
        return table(task.result)


@admin.register(Failure)
class FailureAdmin(SuccessAdmin):
    when_empty = f"No task has failed. {RUN_TASKS}"


@admin.register(OrmQ)
class OrmQAdmin(ReadOnlyAdmin):
    when_empty = f"Nothing waits to be run. {RUN_TASKS}"
    list_display = ("name", "group", "func", "lock", "key")
    fields = ("name", "group", "func", "lock", "key")


@admin.register(Notification)
class NotificationAdmin(ReadOnlyAdmin):
    when_empty = "Nobody was told of anything yet. Set NOTIFY_URLS and run python manage.py notify_test."
    list_display = ("happened_at", "kind", "text", "sent_at", "error", "book")
    list_filter = (BookFilter, "kind")
    fields = ("book", "kind", "subject", "number", "state", "text", "happened_at", "noted_at", "sent_at", "error")
    search_fields = ("subject__exact",)
    search_help_text = "A subject, such as: halt"


@admin.register(IdempotencyKey)
class IdempotencyKeyAdmin(ReadOnlyAdmin):
    when_empty = "No request of the API has acted yet; docs/api.md says how one does."
    list_display = ("created_at", "user", "key", "status")
    fields = ("created_at", "user", "key", "status", "answered", "request_sha256")
    list_select_related = ("user",)
    search_fields = ("key__exact",)
    search_help_text = "An idempotency key"

    @admin.display(description="answer")
    def answered(self, kept: IdempotencyKey) -> SafeString:
        return table(json.loads(kept.answer))


@admin.register(AuthToken)
class AuthTokenAdmin(TableAdmin):
    """Tokens are made by `create_api_token`, which shows them once, and revoked here."""

    when_empty = "No token yet. Run python manage.py create_api_token USER."
    list_display = ("token_key", "user", "created", "expiry")
    fields = ("token_key", "user", "created", "expiry")
    list_select_related = ("user",)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False
