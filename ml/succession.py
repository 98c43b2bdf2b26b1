"""Whether a candidate that has shadowed long enough takes the champion's place: judged on signals that both scored
before anybody could know the outcome, done without being asked only where AUTO_PROMOTE says so."""

from dataclasses import dataclass

import numpy as np
from django.utils import timezone
from numpy.typing import NDArray

from ml.evaluation import SessionBootstrap, compared_log_loss
from ml.features import FEATURE_SET
from ml.gate import is_worse
from ml.models import MLModel, Prediction
from ml.registry import LONGEST_REASON, TRIAL, on_duty, promote
from ml.training_rows import LABEL_COLUMNS
from ml.words import Label, PredictionMode
from positions.models import Trade
from positions.words import Outcome, TradeStatus

SEED = 7
AUTOMATIC = "automatic"


@dataclass(frozen=True)
class Trial:
    """n signals that a candidate scored in shadow before their trades ended: whether they won (n,), its P(win) `p`
    (n,), the `other`'s (n,) by the name `against`, and their New York `session` (n,)."""

    won: NDArray[np.bool_]
    p: NDArray[np.float64]
    other: NDArray[np.float64]
    against: str
    session: NDArray[np.datetime64]


@dataclass(frozen=True)
class Verdict:
    takes_over: bool
    reason: str


def judge_trial(trial: Trial) -> Verdict:
    """It takes over with TRIAL signals or more on which its log-loss is not shown to be worse: the paired 95 %
    interval, by session, does not lie wholly above 0."""
    n, sessions = len(trial.won), len(np.unique(trial.session))
    on = f"on {n} live signals of {sessions} sessions scored before their trades ended"
    if n < TRIAL:
        return Verdict(False, f"{TRIAL} are needed {on}")
    difference = compared_log_loss(trial.won, trial.p, trial.other, SessionBootstrap(trial.session, SEED))
    if difference.interval is None:
        return Verdict(False, f"one session has no interval, {on}")
    worse = is_worse(difference)
    found = f"{difference.value:+.4f}, 95 % {difference.interval.low:+.4f} to {difference.interval.high:+.4f}"
    return Verdict(not worse, f"log-loss {'' if worse else 'not '}worse than {trial.against}'s: {found}, {on}")


def trial_of(book: str, candidate: MLModel, champion: MLModel | None) -> Trial:
    """What a candidate said of a book's live signals, beside the champion's word or, without one, geometry; three
    queries."""
    outcome, _, ended = LABEL_COLUMNS[Label(candidate.label)]
    of_book = Prediction.objects.filter(book=book).order_by()
    shadow = of_book.filter(model=candidate, mode=PredictionMode.SHADOW)
    said = {
        key: (p, geometry, at)
        for key, p, geometry, at in shadow.values_list("signal_key", "p_win", "p_geometry", "predicted_at")
    }
    if champion is None:
        other = {key: geometry for key, (_, geometry, _) in said.items()}
    else:
        other = dict(of_book.filter(model=champion).values_list("signal_key", "p_win"))
    closed = Trade.objects.filter(book=book, status=TradeStatus.CLOSED, signal_key__in=shadow.values("signal_key"))
    rows = [
        (won == Outcome.WIN, said[key][0], other[key], session)
        for key, won, end, session in closed.order_by("signal_at", "signal_key").values_list(
            "signal_key", outcome, ended, "session"
        )
        if won is not None and end > said[key][2] and key in other
    ]
    won, p, others, session = zip(*rows, strict=True) if rows else ((),) * 4
    return Trial(
        np.array(won, dtype=bool),
        np.array(p, dtype=np.float64),
        np.array(others, dtype=np.float64),
        f"champion {champion.version}" if champion else "geometry",
        np.array(session, dtype="datetime64[D]"),
    )


@dataclass(frozen=True)
class Succession:
    candidate: MLModel
    verdict: Verdict


def succeed(book: str) -> Succession | None:
    """Judge the newest candidate whose trial is over and promote it if it may take over; None where there is none.

    A champion that may not speak any more is compared with no longer. Raises PromotionRefused if somebody promotes at
    the same moment.
    """
    duty = on_duty(book)
    tried = next((each.model for each in duty.candidates if each.closed >= TRIAL), None)
    if tried is None:
        return None
    champion = duty.champion
    if champion and (champion.feature_set != FEATURE_SET or champion.override_ended(timezone.now())):
        champion = None
    verdict = judge_trial(trial_of(book, tried, champion))
    if verdict.takes_over:
        seen = duty.champion.pk if duty.champion else None
        promote(tried, book, AUTOMATIC, verdict.reason[:LONGEST_REASON], seen=seen)
    return Succession(tried, verdict)
