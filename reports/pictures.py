"""The pictures of the daily report and the words around them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np

from ml.performance_tracker import Sample, SessionRecord
from positions.words import Outcome
from reports import charts
from reports.figures import exit_figure, plural


@dataclass(frozen=True, slots=True)
class Picture:
    """A Plotly figure and the words around it."""

    key: str
    title: str
    caption: str
    figure: charts.Chart


def pictures(
    day: date, history: Mapping[date, SessionRecord], session: Sample, so_far: Sample, spans: Sequence[charts.Span]
) -> Iterator[Picture]:
    """Those of which there is something to show; `spans` are the session's closed trades."""
    if so_far.closed:
        yield _equity(day, history)
    if session.closed:
        yield _timeline(spans)
        yield _exits(session)
    if session.measured:
        yield _distribution(session, so_far)
    judged = _judged(so_far)
    if judged:
        yield _calibration(judged)


def _equity(day: date, history: Mapping[date, SessionRecord]) -> Picture:
    samples = [Sample([record]) for record in history.values()]
    mark = "; the diamond is this one" if day in history else ""
    return Picture(
        "equity",
        "The book so far",
        f"Running result after fees over {plural(len(samples), 'session')}{mark}.",
        charts.equity(list(history), [float(s.r.sum()) for s in samples], [float(s.pnl.sum()) for s in samples], day),
    )


def _timeline(spans: Sequence[charts.Span]) -> Picture:
    return Picture(
        "timeline",
        "The day",
        "Each bar is a trade from entry to exit, New York time; losses are hatched.",
        charts.timeline(spans),
    )


def _exits(session: Sample) -> Picture:
    bars = [
        charts.ExitBar(reason, count, exit_figure(session, reason).value)
        for reason, count in sorted(session.exits.items(), key=lambda item: -item[1])
    ]
    return Picture(
        "exits",
        "Exits of the session",
        "How many trades each rule closed and what they made. Rules close different trades: that one's mean is "
        "lower does not say that the rule did harm.",
        charts.exits(bars),
    )


def _distribution(session: Sample, so_far: Sample) -> Picture:
    return Picture(
        "distribution",
        "Results in R",
        "The session's trades beside the book's; the outermost bars hold everything beyond them.",
        charts.r_distribution(session.r, so_far.r),
    )


def _judged(so_far: Sample) -> list[tuple[float, str]]:
    """P(win) and outcome of the newest model's predictions whose outcome is known."""
    outcomes = {trade.signal_key: trade.outcome for trade in so_far.closed}
    known = [(score, score.outcome or outcomes.get(score.signal_key)) for score in so_far.scores]
    newest = max((score.model_id for score, outcome in known if outcome), default=None)
    return [(score.p_win, outcome) for score, outcome in known if outcome and score.model_id == newest]


def _calibration(judged: list[tuple[float, str]]) -> Picture:
    return Picture(
        "calibration",
        "Predictions against outcomes",
        f"{plural(len(judged), 'prediction')} of the newest model whose outcome is known; on the dashed line a "
        "predicted 40% wins 40 times in 100.",
        charts.calibration(
            np.array([p_win for p_win, _ in judged]), np.array([outcome == Outcome.WIN for _, outcome in judged])
        ),
    )
