"""Signing in: after some wrong passwords for a name from one address it is refused there for a while.

How many and how long is in the AXES settings. django-axes counts in the database, so that all web processes and
restarts see the same. The address is that of the connection: what a visitor writes into a header is not believed.
"""

from datetime import timedelta
from typing import Any

import structlog
from axes.signals import user_locked_out
from django.conf import settings
from django.core.exceptions import ValidationError
from django.dispatch import receiver
from django.http import HttpRequest, HttpResponse
from unfold.forms import AuthenticationForm

TOO_MANY_REQUESTS = 429

log = structlog.get_logger(__name__)


class SignInForm(AuthenticationForm):  # type: ignore[misc]  # unfold says nothing of its types
    def clean_username(self) -> str:
        """A name that is longer than any user's is nobody's, and is not counted: django-axes has no room for it."""
        name: str = self.cleaned_data["username"]
        if len(name) > self.fields["username"].max_length:
            raise self.get_invalid_login_error()
        return name

    def get_invalid_login_error(self) -> ValidationError:
        """A right password is refused in the same words as a wrong one, so that guessing on learns nothing."""
        if not getattr(self.request, "axes_locked_out", False):
            wrong: ValidationError = super().get_invalid_login_error()
            return wrong
        minutes = settings.AXES_COOLOFF_TIME // timedelta(minutes=1)
        return ValidationError(
            f"Too many wrong passwords for this name from this address. Try again in {minutes} minutes.",
            code="too_many_wrong_passwords",
        )


def refused(request: HttpRequest, page: HttpResponse, credentials: Any) -> HttpResponse:
    """The sign-in page with its sentence, under the status that programs understand."""
    page.status_code = TOO_MANY_REQUESTS
    page["Retry-After"] = str(int(settings.AXES_COOLOFF_TIME.total_seconds()))
    return page


@receiver(user_locked_out)
def tell(username: str, ip_address: str | None, **signal: Any) -> None:
    log.warning("sign_in_refused", name=username, address=ip_address)
