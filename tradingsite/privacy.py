"""What must not be shown: on an error page, and in the message of an error."""

import re

from django.conf import settings
from django.views.debug import SafeExceptionReporterFilter


class SecretsHidden(SafeExceptionReporterFilter):
    """Django's, and addresses that hold passwords."""

    hidden_settings = re.compile(f"{SafeExceptionReporterFilter.hidden_settings.pattern}|_URLS?$", re.IGNORECASE)


def without_secrets(text: str) -> str:
    """A text with this installation's keys and passwords blotted out."""
    secrets = [
        settings.SECRET_KEY,
        settings.MODEL_SIGNING_KEY,
        settings.ALPACA_API_KEY,
        settings.ALPACA_SECRET_KEY,
        settings.DATABASES["default"].get("PASSWORD", ""),
        *settings.NOTIFY_URLS.split(","),
    ]
    for secret in filter(None, map(str.strip, secrets)):
        text = text.replace(secret, "***")
    return text
