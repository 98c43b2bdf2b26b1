"""A feed from its first bar to the summary: traded, learned from, recorded, put in the book's place, reported."""

import gc
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console

from ml.model_trainer import TRAINING_STEPS, ModelTrainer, TrainingResult
from ml.models import TradeFeatures
from ml.performance_tracker import PerformanceTracker
from positions.leases import LeaseTaken
from positions.market.feeds import ReplayFeed
from positions.strategy import BadSignal
from reports.daily import remove_reports, write_report
from tradingsite import books
from tradingsite.kit.options import bad_input
from tradingsite.kit.terminal import progress
from tradingsite.replaying import ReplayOptions, replay
from tradingsite.scoring import score_test_sessions
from tradingsite.summary import show, summarise


def run_whole(
    screen: Console,
    feed: ReplayFeed,
    book: str,
    options: ReplayOptions,
    *,
    sessions: int,
    started: float,
    first_bar: float,
    train: bool,
    seed: int,
) -> dict[str, Any]:
    """Replace a book by a run of a feed of so many `sessions`, print what it came to and return the summary.

    `started` and `first_bar` are readings of time.perf_counter(): when the command began and the first bar was read.
    Everything is computed on a draft that takes the book's place at once. Raises CommandError (status 2) if another
    process is at it or the strategy gives what is no signal; the book is then what it was.
    """
    gc.freeze()  # what was imported is garbage at no time: a third of a collection's work
    try:
        with books.held(book) as lease:
            with books.rewritten(book, lease) as draft:
                with progress("Trading", sessions) as advance:

                    def session_done() -> None:
                        books.keep(lease)
                        advance(1)

                    replayed = replay(feed, draft, options, session_done)
                seconds = time.perf_counter() - first_bar
                training = _train(draft, seed, lambda: books.keep(lease)) if train else None
                signals = TradeFeatures.objects.filter(book=draft).order_by()
                days = sorted(set(signals.values_list("session", flat=True)))
                PerformanceTracker(draft).record_sessions(days)
                ready = time.perf_counter()
            seconds += time.perf_counter() - ready
            remove_reports(book)
            report = write_report(book, days[-1]) if days else None
            summary = summarise(book, replayed, seconds, training, report, time.perf_counter() - started)
    except (LeaseTaken, BadSignal) as error:
        raise bad_input(str(error)) from error
    show(screen, summary)
    if report:
        screen.print(f"Daily report: {report}", soft_wrap=True)
    return summary


def _train(book: str, seed: int, alive: Callable[[], None]) -> TrainingResult:
    with progress("Training", TRAINING_STEPS) as advance:

        def step_done(done: int) -> None:
            alive()
            advance(done)

        training = ModelTrainer(book, seed).train(step_done)
    if training.model is not None:
        with progress("Scoring the test sessions") as advance:
            score_test_sessions(training.model, advance)
        alive()
    return training
