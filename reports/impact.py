"""The impact of the exit rules in words: rows and sentences that a page and a terminal share."""

from dataclasses import dataclass

from ml.impact import CAUTION, CLOSE_R, LEAST_SESSIONS, SMALL_R, Effect, Fidelity, Impact, Verdict
from ml.statistics import Interval
from reports.figures import dollars, plural


@dataclass(frozen=True, slots=True)
class ImpactRow:
    """What one rule did, or all together; R a trade, ± half the 95 % interval by session."""

    rule: str
    trades: str
    net: str
    average_loss: str
    saved: str
    given_up: str
    verdict: str


#: Signed, without a negative zero.
R_STYLE = "+z.3f"
ALL = "all trades"
HEADINGS = ("rule", "trades", "net effect", "average loss", "saved", "given up", "verdict")


def around(value: float, interval: Interval | None, style: str) -> str:
    """A figure and half the width of its interval, which lies evenly around it."""
    return f"{value:{style}}" if interval is None else f"{value:{style}}±{interval.width / 2:{style.lstrip('+')}}"


def rows(found: Impact) -> tuple[ImpactRow, ...]:
    """A row a rule that closed a trade, and the last for all trades together."""
    if found.together is None:
        return ()
    by_rule = [(str(rule), each) for rule, each in found.rules.items()]
    return tuple(_row(name, each) for name, each in [*by_rule, (ALL, found.together)])


def _row(name: str, each: Effect) -> ImpactRow:
    reduction = each.average_loss_reduction
    return ImpactRow(
        rule=name,
        trades=f"{each.n:,}",
        net=around(each.net, each.net_interval, R_STYLE),
        average_loss="–" if reduction is None else around(-reduction, each.average_loss_interval, "+z.1%"),
        saved=f"{each.saved:z.3f}",
        given_up=f"{each.given_up:z.3f}",
        verdict=str(each.verdict),
    )


def sentences(found: Impact) -> tuple[str, ...]:
    """What the rows rest on, and what they say."""
    left_out = ", ".join(f"{count:,} ({why})" for why, count in sorted(found.excluded.items()))
    said = [f"Left out: {left_out}."] if left_out else []
    if found.together is None:
        return (*said, in_one_sentence(found))
    said.append(f"{_check(found.fidelity)}: what plans would have made can be believed.")
    return (*said, _net_sentence(found.together), in_one_sentence(found), CAUTION)


def in_one_sentence(found: Impact) -> str:
    """The verdict on all trades together, or why there is none."""
    if not found.fidelity.n:
        return "No figure: no trade was left to its plan by every rule, so nothing shows that plans are true."
    if found.together is None:
        check = _check(found.fidelity)
        return f"No figure: {check[0].lower()}{check[1:]}, and plans that are not true prove nothing."
    return _verdict_sentence(found.together)


def _check(fidelity: Fidelity) -> str:
    return (
        f"Of {plural(fidelity.n, 'trade')} that no rule touched, {fidelity.same:,} ended as their plan did, "
        f"{fidelity.close:,} within {CLOSE_R} R of its result"
    )


def _net_sentence(together: Effect) -> str:
    percent = (
        "It has no meaning in percent, as what the plans would have made cannot be told from zero."
        if together.improvement is None
        else f"In percent of what the plans alone would have made: {together.improvement:+z.1%}."
    )
    net = around(together.net, together.net_interval, R_STYLE)
    return (
        f"By their plans alone these trades would have made {together.otherwise_mean_r:+z.3f} R on average, with the "
        f"rules they made {together.mean_r:+z.3f} R: a net effect of {net} "
        f"R a trade (95%, by session; {plural(together.n, 'trade')} in {plural(together.sessions, 'session')}), "
        f"{dollars(together.net_dollars)} in all. {percent}"
    )


def _verdict_sentence(together: Effect) -> str:
    match together.verdict:
        case Verdict.EFFECTIVE:
            return "Effective: the average loss is smaller, and trades made more than their plans by more than chance."
        case Verdict.HARMLESS:
            return f"Harmless: the average loss is smaller, and it cost less than {SMALL_R} R a trade, if anything."
        case Verdict.HARMFUL:
            return "Harmful: trades made less than their plans would have, by more than chance explains."
    if together.sessions < LEAST_SESSIONS:
        return f"Inconclusive: {plural(together.sessions, 'session')} of the {LEAST_SESSIONS} that a verdict takes."
    if together.trades_needed is None:
        return "Inconclusive: the effect is small, whichever way it goes, or the average loss is hardly smaller."
    return (
        f"Inconclusive: it takes about {together.trades_needed:,} more trades to know the effect to within {SMALL_R} R."
    )
