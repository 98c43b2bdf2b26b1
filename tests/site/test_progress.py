"""The bar of a command that lasts, on a real terminal."""

import fcntl
import os
import pty
import re
import struct
import termios
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from datetime import date, timedelta
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from django.core.management import call_command

from ml.model_trainer import ModelTrainer
from tests.factories import TradeFactory, features_of
from tests.ml.synthetic import store, training_data
from tradingsite.kit.terminal import console, progress

FIRST = date(2026, 3, 2)
#: What a terminal is told of its cursor.
HIDDEN, SHOWN_AGAIN = "\x1b[?25l", "\x1b[?25h"


@contextmanager
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Standard output is a terminal of 100 columns; all that was shown is in the list in the end."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    reading, writing = pty.openpty()
    fcntl.ioctl(writing, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    parts: list[bytes] = []

    def read() -> None:
        with suppress(OSError):  # by which Linux tells that the terminal was closed
            while part := os.read(reading, 4096):
                parts.append(part)

    reader, shown = Thread(target=read), list[str]()
    reader.start()
    with open(writing, "w") as screen, redirect_stdout(screen):
        yield shown
    reader.join()
    os.close(reading)
    shown.append(b"".join(parts).decode())


def test_a_bar_says_how_much_is_done_and_how_long_the_rest_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(monkeypatch) as shown, progress("Working", 4) as advance:
        advance(1)
        advance(2)
    assert "Working" in shown[0]
    assert "75%" in shown[0]
    assert re.search(r"0:00:0\d.* left", shown[0])


@pytest.fixture
def traded(db: None, settings: Any, tmp_path: Path) -> None:
    """A book of three sessions without reports."""
    settings.VAR_DIR = tmp_path
    for number in range(3):
        features_of(TradeFactory(session=FIRST + timedelta(days=number)))


def test_what_is_printed_stands_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    console().print("Entries of paper:new: [red] alert is over")
    assert capsys.readouterr().out == "Entries of paper:new: [red] alert is over\n"


@pytest.mark.parametrize(
    ("label", "arguments"),
    [
        ("Reporting", ["daily_report", "--missing"]),
        ("Reporting", ["daily_report"]),
        ("Reading the book", ["compare_periods", "--switch", str(FIRST + timedelta(days=1))]),
        ("Comparing", ["check_drift"]),
        ("Training", ["train_model"]),
    ],
)
def test_on_a_terminal_a_command_shows_its_bar_and_takes_it_away(
    traded: None, monkeypatch: pytest.MonkeyPatch, label: str, arguments: list[str]
) -> None:
    with terminal(monkeypatch) as shown:
        call_command(*arguments)
    assert label in shown[0]
    assert "left" in shown[0]
    assert shown[0].count(HIDDEN) == shown[0].count(SHOWN_AGAIN) > 0


@pytest.mark.django_db
def test_a_model_is_judged_and_verified_under_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    store(training_data(1, sessions=22, per_session=12, edge=2.0))
    model = ModelTrainer("simulated").train().model
    assert model is not None
    with terminal(monkeypatch) as shown:
        call_command("evaluate_model", model.version)
        call_command("show_model", model.version, "--verify")
    assert "Judging" in shown[0]
    assert "Training it again" in shown[0]
    assert "100%" in shown[0]
