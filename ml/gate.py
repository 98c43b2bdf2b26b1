"""Whether a model may be champion, and whether it may skip trades: pure rules that give every reason in a sentence."""

from ml.evaluation import Estimate, Evaluation
from ml.words import Gate

LEAST_ROWS, LEAST_OF_A_CLASS, LEAST_SESSIONS = 200, 50, 30
ACCURACY, AUC = 0.55, 0.60  # the bar that was asked for, to be passed out of sample


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
    n, auc, bounds = evaluation.n, evaluation.auc, evaluation.auc_interval
    reasons = []
    if evaluation.accuracy <= ACCURACY:
        reasons.append(f"Accuracy is {evaluation.accuracy:.3f} on {n} trades; it must be above {ACCURACY}.")
    if auc is None or bounds is None:
        reasons.append("AUC is undefined on these rows.")
    else:
        if auc <= AUC:
            edge = "; an edge is present, below the required level" if bounds.low > 0.5 else ""
            reasons.append(f"AUC is {auc:.3f} on {n} trades; it must be above {AUC:.2f}{edge}.")
        if bounds.low <= 0.5:
            reasons.append(
                f"No edge is shown: AUC {auc:.3f}, 95 % {bounds.low:.3f} to {bounds.high:.3f} on {n} trades; "
                "the lower bound must be above 0.5."
            )
    return reasons


def gate(evaluation: Evaluation) -> tuple[Gate, list[str]]:
    """Judge pooled out-of-sample figures: may the model be champion? The reasons are empty for PASS alone."""
    too_little = _too_little(evaluation)
    if too_little:
        return Gate.INSUFFICIENT_DATA, too_little
    reasons = _bar_missed(evaluation)
    over_majority = _not_above_zero(
        f"Accuracy over always saying the commoner outcome ({evaluation.majority_accuracy:.3f})",
        evaluation.accuracy_over_majority,
    )
    if over_majority:
        reasons.append(over_majority)
    for name, own, base in (
        ("Log-loss", evaluation.log_loss, evaluation.base_rate_log_loss),
        ("Brier score", evaluation.brier, evaluation.base_rate_brier),
    ):
        if own >= base:
            reasons.append(f"{name} is {own:.4f}; always saying the base rate has {base:.4f} and lower is better.")
    return (Gate.FAIL if reasons else Gate.PASS), reasons


def may_filter(evaluation: Evaluation) -> tuple[bool, list[str]]:
    """May the model skip trades? Only one that passes the gate, beats geometry and whose picks earn more than all."""
    verdict, _ = gate(evaluation)
    reasons = [f"The gate says {verdict}."] if verdict != Gate.PASS else []
    reasons += [
        reason
        for what, estimate in (
            ("Improvement in log-loss over geometry", evaluation.skill_log_loss),
            ("Improvement in AUC over geometry", evaluation.skill_auc),
            ("Mean R of the trades it would take minus that of all (costs included)", evaluation.taken_minus_all),
        )
        if (reason := _not_above_zero(what, estimate))
    ]
    return not reasons, reasons
