"""What a program that gathers logs reads: JSON on stderr and nothing else anywhere."""

import json
import os
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from django.conf import settings

SAY = """
import logging, structlog
from datetime import date
structlog.get_logger("positions.execution").warning("stop refused", symbol="KO", session=date(2024, 1, 3))
structlog.get_logger("positions.execution").info("only when asked for")
logging.getLogger("some.library").error("gave up after %d tries", 3)
logging.getLogger("django.server").warning('"GET /nowhere HTTP/1.1" 404', extra={"status_code": 404})
try:
    {}["lost"]
except KeyError:
    structlog.get_logger("positions.journal").exception("unreadable row")
for trouble in (ConnectionRefusedError("gone"), KeyError("ours")):
    try:
        raise trouble
    except Exception:
        logging.getLogger("alpaca.trading.stream").exception("error during websocket communication")
"""


def said(tmp_path: Path, level: str) -> list[dict[str, str]]:
    done = subprocess.run(
        [sys.executable, str(settings.BASE_DIR / "manage.py"), "shell", "-v0", "-c", SAY],
        env={**os.environ, "VAR_DIR": str(tmp_path), "LOG_LEVEL": level, "TZ": "Asia/Tokyo"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == ""
    return [json.loads(line) for line in done.stderr.splitlines()]


def test_every_event_is_one_json_object_a_line_on_stderr(tmp_path: Path) -> None:
    events = said(tmp_path, "WARNING")
    assert [(event["logger"], event["level"], event["event"]) for event in events] == [
        ("positions.execution", "warning", "stop refused"),
        ("some.library", "error", "gave up after 3 tries"),
        ("django.server", "warning", '"GET /nowhere HTTP/1.1" 404'),
        ("positions.journal", "error", "unreadable row"),
        ("alpaca.trading.stream", "error", "error during websocket communication"),
    ]
    assert (events[0]["symbol"], events[0]["session"]) == ("KO", "2024-01-03")
    assert events[3]["exception"].endswith("KeyError: 'lost'")


def test_a_lost_connection_of_a_stream_is_told_once_by_us_and_not_by_the_sdk(tmp_path: Path) -> None:
    exceptions = [event["exception"] for event in said(tmp_path, "WARNING") if event["logger"].startswith("alpaca")]
    assert len(exceptions) == 1
    assert exceptions[0].endswith("KeyError: 'ours'")


def test_times_are_utc_whatever_the_machines_zone(tmp_path: Path) -> None:
    for event in said(tmp_path, "WARNING"):
        moment = datetime.fromisoformat(event["timestamp"])
        assert moment.utcoffset() == timedelta(0)
        assert abs(datetime.now(moment.tzinfo) - moment) < timedelta(minutes=1)


@pytest.mark.parametrize(("level", "count"), [("INFO", 6), ("ERROR", 3)])
def test_the_level_holds_for_structlog_and_logging_alike(tmp_path: Path, level: str, count: int) -> None:
    assert len(said(tmp_path, level)) == count
