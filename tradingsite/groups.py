"""Who may do what, as two groups that every `migrate` completes; what an administrator adds to them stays."""

from typing import Any

from django.contrib.auth.models import Group, Permission
from django.db.models import Q

VIEWER, OPERATOR = "viewer", "operator"
#: What an operator may do besides looking.
ACTS = (
    "send_signal",
    "close_position",
    "halt_trading",
    "ask_model",
    "add_instrument",
    "change_instrument",
    "delete_instrument",
    "change_externalposition",
)


def complete_groups(using: str, **_: Any) -> None:
    """A receiver of post_migrate, of the last app: the permissions of all others are there."""
    ours = Permission.objects.using(using).filter(
        Q(content_type__app_label__in=("positions", "ml", "tradingsite")) | Q(codename="view_config")
    )
    view = ours.filter(codename__startswith="view_")
    for name, permissions in ((VIEWER, view), (OPERATOR, view | ours.filter(codename__in=ACTS))):
        group, _is_new = Group.objects.using(using).get_or_create(name=name)
        group.permissions.add(*permissions)
