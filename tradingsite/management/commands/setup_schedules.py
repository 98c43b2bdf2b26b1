"""`setup_schedules`: put the site's jobs into django-q's table; running it again changes nothing twice."""

from dataclasses import asdict, dataclass
from typing import Any

from django.db import transaction
from django.utils import timezone

from tradingsite.kit.command import SiteCommand
from tradingsite.kit.json_file import write_json
from tradingsite.kit.terminal import console, folding_table


@dataclass(frozen=True, slots=True)
class Job:
    """A row of django-q's schedule; `cron` is New York time. `kwargs` is a Python literal, as django-q stores it."""

    func: str
    cron: str
    kwargs: str = ""


JOBS = {
    "daily report": Job("tradingsite.schedules.daily_report", "15 16 * * 1-5"),
    "drift check": Job("tradingsite.schedules.check_drift", "30 16 * * 1-5"),
    "nightly training": Job("tradingsite.schedules.train", "0 18 * * 1-5"),
    # Of these only failures are kept: a success a minute would push the other jobs' results out of the table.
    "notifications": Job("tradingsite.schedules.notify", "* * * * *", "q_options={'save': False}"),
    "monitors": Job("tradingsite.schedules.monitors", "* * * * *", "q_options={'save': False}"),
}


class Command(SiteCommand):
    help = (
        "Schedule the daily report, the drift check, nightly training, notifications and the monitors (New York "
        "time); again, it changes nothing twice. Run `qcluster` to have them done."
    )

    @transaction.atomic
    def handle(self, *args: Any, **options: Any) -> None:
        from django_q.models import Schedule

        table = folding_table("name", "cron (New York)", "next run (New York)")
        scheduled = []
        for name, job in JOBS.items():
            row = Schedule(schedule_type=Schedule.CRON, next_run=timezone.now(), **asdict(job))
            job_row, _ = Schedule.objects.update_or_create(
                name=name,
                defaults={
                    **asdict(job),
                    "schedule_type": Schedule.CRON,
                    "repeats": -1,
                    "next_run": row.calculate_next_run(),
                },
            )
            next_run = timezone.localtime(job_row.next_run)
            table.add_row(name, job.cron, f"{next_run:%a %Y-%m-%d %H:%M}")
            scheduled.append({"name": name, "cron": job.cron, "next_run": next_run.isoformat(), "function": job.func})
        console().print(table)
        if options["json"]:
            write_json(options["json"], {"schedules": scheduled})
