"""How often a user may ask the API; who has no valid token counts by address. Each web process counts for itself."""

from django.conf import settings
from rest_framework.throttling import UserRateThrottle


class ReadThrottle(UserRateThrottle):
    scope = "reads"

    def get_rate(self) -> str:
        return f"{settings.API_READS_PER_MINUTE}/min"


class ActThrottle(UserRateThrottle):
    scope = "acts"

    def get_rate(self) -> str:
        return f"{settings.API_ACTS_PER_MINUTE}/min"
