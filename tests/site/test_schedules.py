import subprocess
import sys
from datetime import time
from typing import Any

import pytest
from django.core.management import call_command
from django.utils import timezone
from django.utils.module_loading import import_string
from django_q.models import Schedule

from tradingsite import schedules
from tradingsite.management.commands.setup_schedules import JOBS

pytestmark = pytest.mark.django_db


def rows() -> list[dict[str, Any]]:
    return list(Schedule.objects.order_by("name").values("id", "name", "func", "cron", "kwargs", "repeats"))


def test_each_job_is_scheduled_once_however_often_it_is_set_up(capsys: pytest.CaptureFixture[str]) -> None:
    call_command("setup_schedules")
    first = rows()
    call_command("setup_schedules")
    assert rows() == first
    assert [row["name"] for row in first] == sorted(JOBS)
    assert all(row["repeats"] == -1 for row in first)
    assert "nightly training" in capsys.readouterr().out


def test_a_schedule_that_was_bent_is_put_right() -> None:
    call_command("setup_schedules")
    Schedule.objects.filter(name="nightly training").update(func="os.system", cron="* * * * *")
    call_command("setup_schedules")
    row = Schedule.objects.get(name="nightly training")
    assert (row.func, row.cron) == ("tradingsite.schedules.train", "0 18 * * 1-5")


def test_setting_up_starts_nothing_at_once_and_keeps_to_new_york_time() -> None:
    call_command("setup_schedules")
    now = timezone.now()
    for row in Schedule.objects.all():
        assert row.next_run > now - timezone.timedelta(seconds=5)
    training = timezone.localtime(Schedule.objects.get(name="nightly training").next_run)
    assert (training.hour, training.minute) == (18, 0)
    assert training.weekday() < 5


def test_every_scheduled_function_can_be_imported() -> None:
    assert all(callable(import_string(job.func)) for job in JOBS.values())


def test_the_drift_check_runs_after_the_close_and_before_the_training_of_the_night() -> None:
    call_command("setup_schedules")
    check, training = (
        timezone.localtime(Schedule.objects.get(name=name).next_run).time()
        for name in ("drift check", "nightly training")
    )
    assert time(16, 0) < check < training


def test_where_no_account_is_traded_the_monitors_say_that_there_is_nothing_to_watch(settings: Any) -> None:
    settings.BOOK, settings.ALPACA_API_KEY = "simulated", "key"
    assert schedules.monitors() == "book simulated is no account: nothing to watch"


def test_where_an_account_is_traded_the_monitors_run_and_a_refusal_fails_in_plain_sight(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.BOOK = "paper:mine"
    monkeypatch.setenv("BOOK", "paper:mine")
    monkeypatch.setenv("ALPACA_API_KEY", "")
    with pytest.raises(schedules.CommandFailed, match=r"run_monitors --seconds 85: status 2: .* are not both set"):
        schedules.monitors()


def test_a_command_that_fails_fails_the_task_with_its_last_words() -> None:
    with pytest.raises(schedules.CommandFailed, match="status 2: CommandError: --days 0: a token lasts"):
        schedules._manage("create_api_token", "ada", "--days", "0")


def test_a_command_that_succeeds_hands_over_what_it_said() -> None:
    assert (
        schedules._manage("version")
        == subprocess.run(
            [sys.executable, "-m", "django", "--version"], capture_output=True, text=True, check=True
        ).stdout.strip()
    )


def test_a_command_ends_before_the_worker_would_be_stopped(settings: Any) -> None:
    assert settings.Q_CLUSTER["timeout"] > schedules.SECONDS_ALLOWED
