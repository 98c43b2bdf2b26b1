"""What the site itself stores."""

from django.conf import settings
from django.db import models


class IdempotencyKey(models.Model):
    """A request that acted, with its answer: sent again with the same key it is answered again and does not act."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="+")
    key = models.CharField(max_length=128)
    request_sha256 = models.CharField(max_length=64, help_text="of address and body, without secrets")
    status = models.PositiveSmallIntegerField(default=0)
    answer = models.TextField(help_text="JSON, as it was sent")
    created_at = models.DateTimeField()

    class Meta:
        db_table = "idempotency_keys"
        ordering = ["-created_at", "-id"]
        constraints = [models.UniqueConstraint(fields=["user", "key"], name="idempotency_key_once_a_user")]
        indexes = [models.Index(fields=["-created_at", "-id"], name="idempotency_newest")]

    def __str__(self) -> str:
        return self.key
