"""A model's figures as tables for the terminal: every figure beside its interval, its n and its baselines."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ml.gate_worth import GateWorth, Side
from ml.impact import LEAST_SESSIONS, Verdict
from ml.statistics import Interval
from tradingsite.kit.terminal import folding_table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from ml.models import MLModel
    from ml.tuning import Tuned

RULE_WORDS = {
    "xgboost": "XGBoost",
    "lightgbm": "LightGBM",
    "logistic": "logistic",
    "river": "River, online",
    "geometry_calibrated": "geometry, calibrated",
    "best_feature": "best feature",
    "majority_class": "majority class",
}


def figure(value: float | None, style: str = ".3f") -> str:
    return "-" if value is None else format(value, style)


def bounded(value: float | None, interval: Mapping[str, float] | None, style: str = ".3f") -> str:
    """A figure and half the width of its 95 % interval, which lies evenly around it."""
    if value is None or interval is None:
        return figure(value, style)
    return f"{value:{style}}±{(interval['high'] - interval['low']) / 2:.3f}"


def estimate(given: Mapping[str, Any] | None, style: str = "+.3f") -> tuple[str, str]:
    """Value and 95 % interval."""
    if given is None or given["value"] is None:
        return "-", "-"
    interval = given["interval"]
    between = f"{interval['low']:{style}} to {interval['high']:{style}}" if interval else "-"
    return figure(given["value"], style), between


def figures_table(title: str, *headings: str, caption: str = "") -> "Table":
    """An empty table: the first column left, figures right."""
    from rich.box import SIMPLE_HEAD

    look = {"box": SIMPLE_HEAD, "padding": (0, 0, 0, 0), "pad_edge": False}
    return folding_table(*headings, numbers=True, title=title, caption=caption or None, **look)


def rules_of(metrics: Mapping[str, Any], algorithm: str) -> list[tuple[str, Mapping[str, Any]]]:
    """The model and every baseline on the same out-of-sample rows, each under its name: `Scores` as stored."""
    own = {
        **{name: metrics[name] for name in ("auc", "auc_interval", "accuracy", "log_loss", "brier", "n_taken")},
        "mean_r_taken": metrics["mean_r_taken"],
        "accuracy_interval": metrics["intervals"]["accuracy"],
        "mean_r_taken_interval": metrics["intervals"]["mean_r_taken"],
    }
    baselines = metrics["baselines"]
    return [
        (f"model: {RULE_WORDS[algorithm]}", own),
        ("geometry", metrics["geometry"]),
        *((words, baselines[key]) for key, words in RULE_WORDS.items() if key in baselines),
    ]


def rules_table(metrics: Mapping[str, Any], algorithm: str) -> "Table":
    """`rules_of` with what shuffled outcomes gave."""
    table = figures_table(
        f"Out of sample: {metrics['n']:,} trades ({metrics['wins']:,} won) in {metrics['sessions']} sessions",
        "",
        "AUC",
        "accuracy",
        "log-loss",
        "Brier",
        "taken",
        "mean R",
        caption="±: 95 %, by session. Accuracy at P >= 0.5.\nTaken: not skipped; R after costs.\n"
        "Geometry is risk / (risk + reward), no learning.",
    )
    for words, row in rules_of(metrics, algorithm):
        table.add_row(
            words,
            bounded(row["auc"], row["auc_interval"]),
            bounded(row["accuracy"], row["accuracy_interval"]),
            figure(row["log_loss"]),
            figure(row["brier"]),
            f"{row['n_taken']:,}",
            bounded(row["mean_r_taken"], row["mean_r_taken_interval"], "+.3f"),
        )
    shuffled = metrics.get("shuffled_labels")
    if shuffled:
        table.add_row(f"shuffled, {shuffled['n']} fits", f"{shuffled['mean_auc']:.3f}")
    return table


def skill_table(metrics: Mapping[str, Any]) -> "Table":
    """What the model adds, each with its interval; above 0 is better."""
    table = figures_table("What it adds", "", "value", "95 %")
    for words, key in (
        ("AUC over geometry", "skill_auc"),
        ("log-loss saved over geometry", "skill_log_loss"),
        ("accuracy over the majority", "accuracy_over_majority"),
        ("mean R, let through - all", "taken_minus_all"),
    ):
        table.add_row(words, *estimate(metrics[key]))
    return table


def detail_table(metrics: Mapping[str, Any]) -> "Table":
    """The model's other figures."""
    table = figures_table("More of the model", "", "value", "95 %")
    for words, key in (
        ("precision", "precision"),
        ("recall", "recall"),
        ("F1", "f1"),
        ("MCC", "mcc"),
        ("average precision", "average_precision"),
        ("calibration error", "calibration_error"),
        ("mean R, all", "mean_r"),
    ):
        style = "+.3f" if key == "mean_r" else ".3f"
        table.add_row(words, *estimate({"value": metrics[key], "interval": metrics["intervals"][key]}, style))
    table.add_row("Spiegelhalter's p", figure(metrics["spiegelhalter_p"]))
    deflated = metrics.get("deflated_sharpe")
    if deflated:
        table.add_row(f"deflated Sharpe, {deflated['trials']} tried", figure(deflated["probability"]))
    return table


def deciles_table(metrics: Mapping[str, Any]) -> "Table":
    """The test rows in tenths by P(win), the highest first."""
    table = figures_table("By predicted P(win), in tenths", "", "trades", "mean P", "won", "lift", "mean R")
    for number, row in enumerate(reversed(metrics["deciles"]), start=1):
        table.add_row(
            f"{number}",
            f"{row['n']:,}",
            figure(row["mean_p"]),
            figure(row["win_rate"]),
            figure(row["lift"], ".2f"),
            figure(row["mean_r"], "+.3f"),
        )
    return table


def tuning_table(tuned: Sequence["Tuned"]) -> "Table":
    """What tuning chose for each window, and what that is worth on sessions inside the window's training part."""
    table = figures_table(
        "Tuning: log-loss inside each window's training part",
        "",
        *(f"window {each.window}" for each in tuned),
    )
    table.add_row("trials", *(f"{each.trials}" for each in tuned))
    table.add_row("of these pruned", *(f"{each.pruned}" for each in tuned))
    table.add_row("log-loss, best", *(figure(each.log_loss, ".4f") for each in tuned))
    table.add_row("log-loss, defaults", *(figure(each.start_log_loss, ".4f") for each in tuned))
    for name in tuned[0].chosen:
        table.add_row(name, *(f"{each.chosen[name]:.3g}" for each in tuned))
    return table


LIVE_TITLE = "Live signals since it was trained, by how their plans ended"
LIVE_HEAD = ("", "signals", "right", "95 %", "all", "odds", "mean R")
NOTHING_LIVE = (
    "What its word on live signals is worth is not known: no session that was stored after those it was trained and "
    "judged on has a signal that it scored and whose plan's end is certain."
)


def _share(of: float, interval: Interval | None) -> tuple[str, str]:
    return f"{of:.1%}", f"{interval.low:.1%} to {interval.high:.1%}" if interval else "-"


def live_rows(worth: GateWorth) -> list[tuple[str, ...]]:
    """Both sides beside what the same share is of all signals, and by the plans' own odds."""
    sides = (("let through: won", worth.let_through, worth.won), ("refused: lost", worth.refused, 1 - worth.won))
    return [
        (
            words,
            f"{side.n:,}",
            *_share(side.right, side.right_interval),
            f"{of_all:.1%}",
            f"{side.by_geometry:.1%}",
            _around(side.mean_r, side.mean_r_interval),
        )
        if side
        else (words, "0", *("-" for _ in LIVE_HEAD[2:]))
        for words, side, of_all in sides
    ]


def _around(value: float, interval: Interval | None) -> str:
    return bounded(value, asdict(interval) if interval else None, "+.3f")


def live_sentence(worth: GateWorth | None) -> str:
    """What a model's word was worth on live signals, its verdict included; or that nothing is known of it."""
    if worth is None:
        return NOTHING_LIVE
    said = [
        f"Live, {worth.sessions} sessions since it was trained: "
        f"{_side_words(worth.let_through, 'let through', 'won', worth.won)}; "
        f"{_side_words(worth.refused, 'refused', 'lost', 1 - worth.won)}."
    ]
    if worth.difference is not None:
        said.append(f"Plans let through less plans refused: {_around(worth.difference, worth.difference_interval)} R.")
    return " ".join([*said, _live_verdict(worth)])


def _side_words(side: Side | None, what: str, came: str, of_all: float) -> str:
    if side is None:
        return f"it {what} none whose plan's end is certain"
    share, between = _share(side.right, side.right_interval)
    known = f"95 %: {between}; " if side.right_interval else ""
    return (
        f"of {side.n:,} that it {what} {share} {came} ({known}of all signals {of_all:.1%}, by their plans' "
        f"own odds {side.by_geometry:.1%})"
    )


def _live_verdict(worth: GateWorth) -> str:
    if worth.sessions < LEAST_SESSIONS:
        return f"No verdict: {worth.sessions} of the {LEAST_SESSIONS} sessions that one takes."
    match worth.verdict:
        case Verdict.EFFECTIVE:
            return (
                "Effective: what it refused lost, and made less than what it let through, beyond what chance explains."
            )
        case Verdict.HARMFUL:
            return "Harmful: what it refused made money, or more than what it let through, beyond what chance explains."
    return "Inconclusive: it is not shown that what it refused both lost and made less than what it let through."


def show_live(worth: GateWorth | None, console: "Console") -> None:
    """The sentence, and both sides where there is anything."""
    console.print(live_sentence(worth), soft_wrap=True)
    if worth is not None:
        table = figures_table(
            LIVE_TITLE, *LIVE_HEAD, caption="Odds: risk / (risk + reward), no learning; ±: 95 %, by session."
        )
        for row in live_rows(worth):
            table.add_row(*row)
        console.print(table)


def show_figures(metrics: Mapping[str, Any], name: str, console: "Console") -> None:
    """The sentence to know first, then all tables."""
    if "in_one_sentence" in metrics:
        console.print(metrics["in_one_sentence"], soft_wrap=True)
    for table in (rules_table(metrics, name), skill_table(metrics), detail_table(metrics), deciles_table(metrics)):
        console.print(table)


def show_verdicts(model: "MLModel", console: "Console") -> None:
    """Whether it may skip trades, and why not."""
    console.print(f"May skip trades: {'yes' if model.may_filter else 'no'}.", soft_wrap=True)
    for reason in model.metrics["may_filter_reasons"]:
        console.print(f"  - {reason}", soft_wrap=True)
