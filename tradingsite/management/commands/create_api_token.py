"""`create_api_token`: make a token for the API and show it once."""

from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.contrib.auth.models import Group, User
from django.db import transaction

from tradingsite.groups import OPERATOR, VIEWER
from tradingsite.kit.command import USUAL, SiteCommand
from tradingsite.kit.json_file import write_json
from tradingsite.kit.options import bad_input

LONGEST_DAYS = 3650


class Command(SiteCommand):
    help = (
        "Make an API token for a user. It is printed once and nowhere else, not in the file of --json either. --group "
        "puts the user into a group: a viewer reads, an operator also halts, closes and sends signals."
    )
    example = "ada --days 30 --group viewer"
    exit_status = {**USUAL, 2: "no such user, or days that are none"}

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("user", help="user name; the token may do what the user may")
        parser.add_argument("--group", choices=[VIEWER, OPERATOR], help="put the user into this group")
        parser.add_argument("--days", type=int, default=90, help="days until it expires (default: 90)")

    def handle(self, *args: Any, **options: Any) -> None:
        from knox.models import AuthToken

        if not 1 <= options["days"] <= LONGEST_DAYS:
            raise bad_input(f"--days {options['days']}: a token lasts 1 to {LONGEST_DAYS} days")
        user = User.objects.filter(username=options["user"]).first()
        if user is None:
            raise bad_input(
                f"There is no user {options['user']}. Make one: python manage.py createsuperuser, or in the admin"
            )
        with transaction.atomic():
            if options["group"]:
                user.groups.add(Group.objects.get(name=options["group"]))
            row, token = AuthToken.objects.create(user, expiry=timedelta(days=options["days"]))
        if not any(".view_" in permission for permission in user.get_all_permissions()):
            self.stderr.write(f"{user} may not view any table yet: use --group, or give view permissions in the admin.")
        self.stderr.write(f"Valid until {row.expiry:%Y-%m-%d}. Send it as the header: Authorization: Token <token>")
        self.stdout.write(token)
        if options["json"]:
            write_json(
                options["json"],
                {"user": user.get_username(), "token_key": row.token_key, "expires": row.expiry.isoformat()},
            )
