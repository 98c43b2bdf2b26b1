"""What the site itself stores."""

from enum import StrEnum

from django.conf import settings
from django.db import models
from django.db.models import Q

from positions.models import allowed, book_field, word_field


class IdempotencyKey(models.Model):
    """A request that acted, with its answer: sent again with the same key it is answered again and does not act."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="+")
    key = models.CharField(max_length=128)
    request_sha256 = models.CharField(max_length=64, help_text="of address and body, without secrets")
    status = models.PositiveSmallIntegerField(default=0, help_text="number of the answer's kind; 200 to 299 is done")
    answer = models.TextField(help_text="JSON, as it was sent")
    created_at = models.DateTimeField()

    class Meta:
        db_table = "idempotency_keys"
        ordering = ["-created_at", "-id"]
        constraints = [models.UniqueConstraint(fields=["user", "key"], name="idempotency_key_once_a_user")]
        indexes = [models.Index(fields=["-created_at", "-id"], name="idempotency_newest")]

    def __str__(self) -> str:
        return self.key


class NewsKind(StrEnum):
    """What a notification is of, the gravest first."""

    FAILURE = "failure"
    HALT = "halt"
    DRIFT = "drift"
    REFUSAL = "refusal"
    EXIT = "exit"


class Notification(models.Model):
    """A change of state that people are told of.

    `number` counts the states of a subject: of all processes that notice a change, one stores it. `claim` is the
    delivery that took it, empty while it waits; what was claimed is never sent again, whatever became of it.
    """

    book = book_field()
    kind = word_field(NewsKind)
    subject = models.CharField(max_length=160)
    number = models.PositiveIntegerField(help_text="number of the subject's states so far")
    state = models.CharField(max_length=64)
    text = models.CharField(max_length=300)
    happened_at = models.DateTimeField()
    noted_at = models.DateTimeField()
    claim = models.CharField(max_length=32, blank=True)
    sent_at = models.DateTimeField(null=True, help_text="when a service took it; empty where none did")
    error = models.CharField(max_length=300, blank=True, help_text="which services did not take it, and why")

    class Meta:
        db_table = "notifications"
        ordering = ["-happened_at", "-id"]
        constraints = [
            models.UniqueConstraint(fields=["book", "subject", "number"], name="notification_once_a_change"),
            allowed("kind", NewsKind, "notification_kind"),
        ]
        indexes = [
            models.Index(fields=["book"], condition=Q(claim=""), name="notification_waiting"),
            models.Index(fields=["claim"], name="notification_claim"),
            models.Index(fields=["book", "-happened_at", "-id"], name="notification_newest_of_a_book"),
            models.Index(fields=["-happened_at", "-id"], name="notification_newest"),
        ]

    def __str__(self) -> str:
        return f"{self.subject}: {self.state}"
