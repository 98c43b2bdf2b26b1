"""What follows a replay: figures a session, a model, its predictions, the report, the summary."""

import json
import os
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from ml.model_trainer import ModelTrainer, TrainingResult
from ml.performance_tracker import PerformanceTracker
from ml.splits import WINDOWS
from positions.models import Trade
from reports.daily import write_report
from tradingsite.console import progress
from tradingsite.replaying import ReplayResult
from tradingsite.scoring import score_test_sessions
from tradingsite.summary import show, summarise


def conclude(
    console: Console, book: str, result: ReplayResult, started: float, *, train: bool, seed: int
) -> dict[str, Any]:
    """Train (if asked), score, record, report and print; returns the summary. `started`: time.perf_counter() then."""
    training = _train(book, seed) if train else None
    days = sorted(set(Trade.objects.filter(book=book).order_by().values_list("session", flat=True)))
    PerformanceTracker(book).record_sessions(days)
    report = write_report(book, days[-1]) if days else None
    summary = summarise(book, result, training, report, time.perf_counter() - started)
    show(console, summary)
    if report:
        console.print(f"Daily report: {report}", soft_wrap=True)
    return summary


def _train(book: str, seed: int) -> TrainingResult:
    with progress("Training", WINDOWS) as advance:
        training = ModelTrainer(book, seed).train(lambda done, total: advance(1))
    if training.model is not None:
        with progress("Scoring the test sessions") as advance:
            score_test_sessions(training.model, advance)
    return training


def write_json(path: Path, summary: dict[str, Any]) -> None:
    """Write aside and rename, so that a reader never meets half a file."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.write_text(json.dumps(summary, indent=2) + "\n")
    draft.replace(path)
