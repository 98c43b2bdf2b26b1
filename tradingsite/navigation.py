"""The side bar of the admin."""

from typing import Any, NamedTuple

from django.http import HttpRequest
from django.urls import reverse


class Page(NamedTuple):
    """An entry of the side bar; `permission` is what a user needs to see it, "" for none."""

    name: str
    address: str
    icon: str
    permission: str = ""


GROUPS = {
    "": [
        Page("Dashboard", "admin:index", "dashboard"),
        Page("Daily reports", "reports", "summarize", "positions.view_trade"),
    ],
    "Positions": [
        Page("Trades", "admin:positions_trade_changelist", "swap_vert", "positions.view_trade"),
        Page("Shadow trades", "admin:positions_shadowtrade_changelist", "blur_on", "positions.view_shadowtrade"),
        Page("Exits", "admin:positions_positionexit_changelist", "logout", "positions.view_positionexit"),
        Page("Stop moves", "admin:positions_stopmove_changelist", "shield", "positions.view_stopmove"),
        Page("Rule notes", "admin:positions_rulenote_changelist", "rule", "positions.view_rulenote"),
        Page("Orders", "admin:positions_orderintent_changelist", "receipt_long", "positions.view_orderintent"),
        Page(
            "External positions",
            "admin:positions_externalposition_changelist",
            "question_exchange",
            "positions.view_externalposition",
        ),
        Page(
            "Instructions", "admin:positions_instruction_changelist", "forward_to_inbox", "positions.view_instruction"
        ),
        Page("Watchlist", "admin:positions_instrument_changelist", "visibility", "positions.view_instrument"),
        Page("Errors", "admin:positions_errornote_changelist", "bug_report", "positions.view_errornote"),
        Page("Leases", "admin:positions_workerlease_changelist", "lock_clock", "positions.view_workerlease"),
    ],
    "Learning": [
        Page("Features", "admin:ml_tradefeatures_changelist", "dataset", "ml.view_tradefeatures"),
        Page("Models", "admin:ml_mlmodel_changelist", "model_training", "ml.view_mlmodel"),
        Page("Predictions", "admin:ml_prediction_changelist", "online_prediction", "ml.view_prediction"),
        Page("Drift checks", "admin:ml_driftcheck_changelist", "trending_down", "ml.view_driftcheck"),
        Page("Performance", "admin:ml_performance_changelist", "monitoring", "ml.view_performance"),
        Page("Leakage checks", "admin:ml_leakagecheck_changelist", "policy", "ml.view_leakagecheck"),
    ],
    "Site": [
        Page(
            "Notifications",
            "admin:tradingsite_notification_changelist",
            "notifications",
            "tradingsite.view_notification",
        ),
        Page("Live settings", "admin:constance_config_changelist", "tune", "constance.view_config"),
        Page("Changes of settings", "admin:constance_config_history", "history", "constance.view_config"),
        Page("Schedules", "admin:django_q_schedule_changelist", "schedule", "django_q.view_schedule"),
        Page("Tasks done", "admin:django_q_success_changelist", "task_alt", "django_q.view_success"),
        Page("Tasks failed", "admin:django_q_failure_changelist", "error", "django_q.view_failure"),
        Page("Tasks queued", "admin:django_q_ormq_changelist", "pending", "django_q.view_ormq"),
        Page("Users", "admin:auth_user_changelist", "person", "auth.view_user"),
        Page("Groups", "admin:auth_group_changelist", "group", "auth.view_group"),
        Page("API tokens", "admin:knox_authtoken_changelist", "key", "knox.view_authtoken"),
        Page(
            "Answers kept", "admin:tradingsite_idempotencykey_changelist", "done_all", "tradingsite.view_idempotencykey"
        ),
        Page("API", "docs", "api"),
    ],
}


def navigation(request: HttpRequest) -> list[dict[str, Any]]:
    """What this user may look at, grouped by floor; the page that is shown lies under the longest address."""
    links = {page: reverse(page.address) for pages in GROUPS.values() for page in pages}
    above = [link for link in links.values() if request.path.startswith(link) and link != reverse("admin:index")]
    here = max(above, key=len, default=request.path)
    return [
        {
            "title": title or None,
            "separator": bool(title),
            "items": [
                {"title": page.name, "link": links[page], "icon": page.icon, "active": links[page] == here}
                for page in pages
                if not page.permission or request.user.has_perm(page.permission)
            ],
        }
        for title, pages in GROUPS.items()
    ]
