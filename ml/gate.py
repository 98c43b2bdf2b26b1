"""Whether a model may be champion, and whether it may skip trades: pure rules that give every reason in a sentence."""

from dataclasses import dataclass

from ml.evaluation import Estimate, Evaluation, ShuffledControl
from ml.words import Gate

LEAST_ROWS, LEAST_OF_A_CLASS, LEAST_SESSIONS = 200, 50, 30
ACCURACY, AUC = 0.55, 0.60  # the bar that was asked for, to be passed out of sample
CALIBRATED = 0.01  # Spiegelhalter's p below it: the probabilities are not what they say


@dataclass(frozen=True)
class Evidence:
    """What is known of a model. `leakage_free` is what check_leakage last found of its feature set, None where it never
    looked; `worse_than_champion` by how much its log-loss exceeds the champion's on rows that neither was fitted on,
    None where there are none."""

    evaluation: Evaluation
    shuffled: ShuffledControl | None = None
    leakage_free: bool | None = None
    worse_than_champion: Estimate | None = None


def _too_little(evaluation: Evaluation) -> list[str]:
    counts = [
        ("out-of-sample trades", evaluation.n, LEAST_ROWS),
        ("wins among the out-of-sample trades", evaluation.wins, LEAST_OF_A_CLASS),
        ("losses among the out-of-sample trades", evaluation.losses, LEAST_OF_A_CLASS),
        ("out-of-sample sessions", evaluation.sessions, LEAST_SESSIONS),
    ]
    return [f"Too little data: {have} {what}; {least} are needed." for what, have, least in counts if have < least]


def _not_above_zero(what: str, estimate: Estimate | None) -> str | None:
    """The sentence that refuses an estimate whose 95 % interval is not wholly above 0."""
    if estimate is None or estimate.interval is None:
        return f"{what} is undefined on these rows."
    if estimate.interval.low > 0:
        return None
    return (
        f"{what} is {estimate.value:+.4f}, 95 % {estimate.interval.low:+.4f} to {estimate.interval.high:+.4f}; "
        "its lower bound must be above 0."
    )


def _bar_missed(evaluation: Evaluation) -> list[str]:
    n, auc, bounds = evaluation.n, evaluation.auc, evaluation.auc_bound
    reasons = []
    if evaluation.accuracy <= ACCURACY:
        reasons.append(f"Accuracy is {evaluation.accuracy:.3f} on {n} trades; it must be above {ACCURACY}.")
    if auc is None or bounds is None:
        return [*reasons, "AUC is undefined on these rows."]
    if auc <= AUC:
        edge = "; an edge is present, below the required level" if bounds.low > 0.5 else ""
        reasons.append(f"AUC is {auc:.3f} on {n} trades; it must be above {AUC:.2f}{edge}.")
    if bounds.low <= 0.5:
        attempts = evaluation.attempts
        tried = f", widened for {attempts} candidates tried on these sessions" if attempts > 1 else ""
        reasons.append(
            f"No edge is shown: AUC {auc:.3f}, 95 % {bounds.low:.3f} to {bounds.high:.3f} on {n} trades{tried}; "
            "the lower bound must be above 0.5."
        )
    return reasons


def is_worse(difference: Estimate | None) -> bool:
    """Whether a difference in log-loss is shown to be above 0: its interval lies wholly above."""
    return difference is not None and difference.interval is not None and difference.interval.low > 0


def _worse(than: str, difference: Estimate | None) -> list[str]:
    if difference is None or difference.interval is None or not is_worse(difference):
        return []
    return [
        f"Log-loss is worse than {than} by {difference.value:.4f}, 95 % {difference.interval.low:+.4f} to "
        f"{difference.interval.high:+.4f} on the same trades."
    ]


def _probabilities_off(evaluation: Evaluation) -> list[str]:
    reasons = [
        f"{name} is {own:.4f}; always saying the base rate has {base:.4f} and lower is better."
        for name, own, base in (
            ("Log-loss", evaluation.log_loss, evaluation.base_rate_log_loss),
            ("Brier score", evaluation.brier, evaluation.base_rate_brier),
        )
        if own >= base
    ]
    p = evaluation.spiegelhalter_p
    if p is not None and p <= CALIBRATED:
        reasons.append(
            f"The probabilities are not what they say: Spiegelhalter's p is {p:.4f} on {evaluation.n} trades; "
            f"it must be above {CALIBRATED}."
        )
    return reasons


def _controls_failed(evidence: Evidence) -> list[str]:
    reasons = []
    shuffled = evidence.shuffled
    if shuffled is None:
        reasons.append("The control with shuffled outcomes could not be made on these rows.")
    elif not shuffled.passed:
        reasons.append(
            f"Shuffled outcomes were learned: mean AUC {shuffled.mean_auc:.3f} over {shuffled.n} refits, where 0.5 "
            f"within three standard errors ({3 * shuffled.standard_error:.3f}) is what a sound pipeline gives."
        )
    if evidence.leakage_free is None:
        reasons.append("Nobody has looked for leaks in this feature set: run check_leakage on your bars.")
    elif not evidence.leakage_free:
        reasons.append("check_leakage found a feature that knows the future, or missed a planted leak.")
    return reasons


def gate(evidence: Evidence) -> tuple[Gate, list[str]]:
    """Judge pooled out-of-sample figures: may the model be champion? The reasons are empty for PASS alone."""
    evaluation = evidence.evaluation
    too_little = _too_little(evaluation)
    if too_little:
        return Gate.INSUFFICIENT_DATA, too_little
    over_majority = _not_above_zero(
        f"Accuracy over always saying the commoner outcome ({evaluation.majority_accuracy:.3f})",
        evaluation.accuracy_over_majority,
    )
    reasons = [
        *_bar_missed(evaluation),
        *([over_majority] if over_majority else []),
        *_probabilities_off(evaluation),
        *_worse("logistic regression's", evaluation.worse_than.get("logistic")),
        *_worse("the champion's", evidence.worse_than_champion),
        *_controls_failed(evidence),
    ]
    return (Gate.FAIL if reasons else Gate.PASS), reasons


def may_filter(evidence: Evidence) -> tuple[bool, list[str]]:
    """May the model skip trades? Only one that passes the gate, beats geometry and whose picks earn more than all."""
    evaluation = evidence.evaluation
    verdict, _ = gate(evidence)
    reasons = [f"The gate says {verdict}."] if verdict != Gate.PASS else []
    reasons += [
        reason
        for what, estimate in (
            ("Improvement in log-loss over geometry", evaluation.skill_log_loss),
            ("Improvement in AUC over geometry", evaluation.skill_auc),
            (
                "Mean R, costs included, of the trades it would let through minus that of all",
                evaluation.taken_minus_all,
            ),
        )
        if (reason := _not_above_zero(what, estimate))
    ]
    calibrated = evaluation.worse_than.get("geometry_calibrated")
    if calibrated is not None:
        saved = _not_above_zero("Improvement in log-loss over geometry calibrated", calibrated.turned())
        reasons += [saved] if saved else []
    if evaluation.n_taken < LEAST_OF_A_CLASS:
        reasons.append(
            f"Costs eat it: {evaluation.n_taken} of {evaluation.n} trades would be let through; {LEAST_OF_A_CLASS} are "
            "needed to say what they earn."
        )
    elif evaluation.mean_r_taken is not None and evaluation.mean_r_taken <= 0:
        reasons.append(
            f"Costs eat it: the {evaluation.n_taken} trades it would let through make {evaluation.mean_r_taken:+.3f} R "
            "on average after costs."
        )
    return not reasons, reasons


def in_one_sentence(evidence: Evidence) -> str:
    """What a trader must know first: is there skill beyond the plan's own odds, and does it earn anything?"""
    evaluation = evidence.evaluation
    skill, gained = evaluation.skill_auc, evaluation.taken_minus_all
    n = f"{evaluation.n:,} trades of {evaluation.sessions:,} sessions"
    if skill is None or skill.interval is None:
        return f"Nothing can be said on {n}: it takes wins and losses, and two sessions or more."
    bounds = f"{skill.value:+.3f} in AUC over geometry, 95 % {skill.interval.low:+.3f} to {skill.interval.high:+.3f}"
    if skill.interval.low <= 0:
        return f"No skill is shown beyond the plan's own odds: {bounds}, on {n}."
    if gained is None or gained.interval is None or gained.interval.low <= 0:
        return f"It ranks trades better than the plan's own odds ({bounds}, on {n}), but earns no more by it."
    return f"It ranks trades better than the plan's own odds ({bounds}, on {n}), and what it lets through earns more."
