"""What qcluster runs by the clock. Each job is a command in a process of its own: a model fitted in a worker that was
forked after OpenMP ran would hang for ever."""

import subprocess
import sys

from django.conf import settings

from positions.books import is_at_alpaca
from positions.clock import SystemClock
from tradingsite.notifying import notify_once

# The command must end before the worker is stopped, or it would go on without anyone waiting for it.
SECONDS_ALLOWED = settings.Q_CLUSTER["timeout"] - 60


def train() -> str:
    """Train on the trades of the BOOK setting if some have closed since; says what the command said last. Raises
    CommandFailed."""
    return _manage("train_model", "--book", settings.BOOK, "--if-due")


def daily_report() -> str:
    """Write every report of the BOOK setting that is missing, the last session's and those before it, and return what
    the command said. Raises CommandFailed."""
    return _manage("daily_report", "--book", settings.BOOK, "--missing")


def check_drift() -> str:
    """Hold the champion of the BOOK setting against what it was trained on; returns what the command said, an alarm
    too: that is a finding, not a failure. Raises CommandFailed."""
    return _manage("check_drift", "--book", settings.BOOK)


def monitors() -> str:
    """Watch the open positions of the account that the BOOK setting names; where `trade` does so, this ends at once. It
    lasts longer than the minute after which the next one is started, which takes over when this one ends. Raises
    CommandFailed."""
    if not is_at_alpaca(settings.BOOK):
        return f"book {settings.BOOK} is no account: nothing to watch"
    return _manage("run_monitors", "--seconds", "85")


def notify() -> str:
    """Tell what has happened to the BOOK setting, also while nobody trades it; says how many services there are."""
    if not settings.NOTIFY_URLS:
        return "NOTIFY_URLS is not set: nobody is told"
    return f"looked at {settings.BOOK} for {notify_once(settings.BOOK, SystemClock())} services"


class CommandFailed(RuntimeError):
    """A scheduled command ended with another status than 0."""


def _manage(*arguments: str) -> str:
    command = [sys.executable, str(settings.BASE_DIR / "manage.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS_ALLOWED, check=False)
    if done.returncode:
        raise CommandFailed(f"{' '.join(arguments)}: status {done.returncode}: {done.stderr.strip()[-2000:]}")
    return done.stdout.strip()[-2000:]
