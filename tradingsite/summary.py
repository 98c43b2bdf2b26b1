"""What a run came to: the machine-readable summary and the tables that say the same to a person."""

import hashlib
import json
import resource
import sys
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
from django.db.models import Count
from rich.console import Console
from rich.table import Table

from ml.model_trainer import TrainingResult
from ml.models import MLModel, Prediction, TradeFeatures
from ml.statistics import clustered_interval
from ml.words import tested_on, trained_on
from positions.models import StopMove, Trade
from positions.words import Outcome, StopMoveStatus, TradeStatus
from tradingsite.kit.terminal import folding_table
from tradingsite.replaying import Replayed

_HASHED = (
    "signal_key", "symbol", "side", "session", "signal_at", "planned_entry", "initial_stop", "target", "entered_at",
    "entry_price", "quantity", "stop_price", "exited_at", "exit_price", "exit_reason", "fees", "pnl", "outcome",
)  # fmt: skip
MODEL_KEYS = (
    "version", "status", "n_train", "n_test", "test_sessions", "windows", "auc", "auc_ci", "auc_geometry", "accuracy",
    "majority_accuracy", "brier", "gate", "gate_reasons",
)  # fmt: skip


def trades_sha256(book: str) -> str:
    """One hash over every closed trade of a book as stored, the same on every engine."""
    trades = Trade.objects.filter(book=book, status=TradeStatus.CLOSED).values_list(*_HASHED)
    lines = sorted(json.dumps([_canonical(value) for value in trade]) for trade in trades)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _canonical(value: Any) -> str | int | None:
    if isinstance(value, Decimal):
        return f"{value:.6f}"
    return value if value is None or isinstance(value, int) else str(value)


def summarise(
    book: str,
    replayed: Replayed,
    seconds: float,
    training: TrainingResult | None,
    report: Path | None,
    wall_seconds: float,
) -> dict[str, Any]:
    """Every key is always present, null where the figure is undefined.

    `seconds` from the first bar read to the last row committed, training and report not counted.
    """
    trades = list(
        Trade.objects.filter(book=book, status=TradeStatus.CLOSED)
        .order_by("session")
        .values_list("outcome", "exit_reason", "r_multiple", "session")
    )
    wins = sum(outcome == Outcome.WIN for outcome, *_ in trades)
    results = np.array([r for _, _, r, _ in trades], dtype=np.float64)
    between = clustered_interval(results, [session for *_, session in trades])
    latencies = list(Prediction.objects.filter(book=book).values_list("latency_us", flat=True))
    return {
        "book": book,
        "sessions": replayed.sessions,
        "symbols": replayed.symbols,
        "bars": replayed.bars,
        "bars_per_second": round(replayed.bars / seconds),
        "signals": replayed.signals,
        "feature_rows": TradeFeatures.objects.filter(book=book).count(),
        "trades": len(trades),
        "wins": wins,
        "losses": len(trades) - wins,
        "exits": dict(Counter(reason for _, reason, _, _ in trades).most_common()),
        "not_taken": _not_taken(book),
        "breakeven_moves": StopMove.objects.filter(book=book, status=StopMoveStatus.CONFIRMED).count(),
        "win_rate": wins / len(trades) if trades else None,
        "avg_r": float(np.mean(results)) if trades else None,
        "avg_r_ci": [between.low, between.high] if between else None,
        "model": _model(training),
        "predictions": len(latencies),
        "prediction_p99_ms": float(np.percentile(latencies, 99)) / 1000 if latencies else None,
        "report": str(report) if report else None,
        "trades_sha256": trades_sha256(book),
        "wall_s": round(wall_seconds, 2),
        "peak_mb": peak_mb(),
    }


def _not_taken(book: str) -> dict[str, int]:
    """Signals that were not entered, by what was against it, the most frequent first."""
    signals = TradeFeatures.objects.filter(book=book, taken=False).order_by()
    return dict(signals.values_list("not_taken_reason").annotate(n=Count("pk")).order_by("-n", "not_taken_reason"))


def _model(training: TrainingResult | None) -> dict[str, Any]:
    if training is None:
        return dict.fromkeys(MODEL_KEYS)
    verdict = {"gate": training.gate.value, "gate_reasons": training.reasons}
    model: MLModel | None = training.model
    if model is None:
        return {**dict.fromkeys(MODEL_KEYS), **verdict}
    metrics = model.metrics
    interval = metrics["auc_interval"]
    return {
        "version": model.version,
        "status": model.status,
        "n_train": model.n_train,
        "n_test": model.n_test,
        "test_sessions": metrics["sessions"],
        "windows": len(model.folds),
        "auc": metrics["auc"],
        "auc_ci": [interval["low"], interval["high"]] if interval else None,
        "auc_geometry": metrics["geometry"]["auc"],
        "accuracy": metrics["accuracy"],
        "majority_accuracy": metrics["majority_accuracy"],
        "brier": metrics["brier"],
        **verdict,
    }


def peak_mb() -> float:
    """The most memory this process has held, in MB (Linux counts in KiB, macOS in bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1024**2 if sys.platform == "darwin" else 1024), 1)


def show(console: Console, summary: dict[str, Any]) -> None:
    """Print a summary as tables."""
    console.print(
        _table(
            "What happened",
            [
                ("Book", summary["book"]),
                ("Sessions", f"{summary['sessions']:,}"),
                ("Tradable symbols", f"{summary['symbols']:,}"),
                ("Bars", f"{summary['bars']:,} ({summary['bars_per_second']:,} a second, everything written)"),
                ("Signals", f"{summary['signals']:,}, {summary['feature_rows']:,} with a feature row"),
                ("Trades", f"{summary['trades']:,}: {summary['wins']:,} won, {summary['losses']:,} lost"),
                ("Win rate", _percent(summary["win_rate"])),
                ("Mean result", _number(summary["avg_r"], "+.3f", " R after costs")),
                ("... 95 % by session", _between(summary["avg_r_ci"])),
                ("Stops moved to breakeven", f"{summary['breakeven_moves']:,}"),
                ("Hash of the trades", summary["trades_sha256"][:16]),
            ],
        )
    )
    for title, key in (("Why signals were not taken", "not_taken"), ("Why trades were closed", "exits")):
        if summary[key]:
            console.print(_table(title, [(reason, f"{count:,}") for reason, count in summary[key].items()]))
    model = summary["model"]
    if model["gate"] is None:
        return
    if model["version"] is not None:
        low, high = model["auc_ci"] or (None, None)
        interval = f" (95 %: {low:.3f} to {high:.3f})" if low is not None else ""
        console.print(
            _table(
                "The model, on sessions it never saw",
                [
                    ("Version", f"{model['version']}, {model['status']}"),
                    ("Trained on", trained_on(model["n_train"], model["windows"])),
                    ("Tested on", tested_on(model["n_test"], model["test_sessions"], model["windows"])),
                    ("AUC", f"{_number(model['auc'], '.3f')}{interval}"),
                    ("AUC of the plan's geometry alone", _number(model["auc_geometry"], ".3f", ", no learning")),
                    (
                        "Accuracy",
                        f"{_percent(model['accuracy'])}, majority class {_percent(model['majority_accuracy'])}",
                    ),
                    ("Brier score", _number(model["brier"], ".4f")),
                    (
                        "Predictions logged",
                        f"{summary['predictions']:,} in shadow mode, on the last window's test sessions",
                    ),
                    ("99 % of predictions within", _number(summary["prediction_p99_ms"], ".2f", " ms")),
                ],
            )
        )
    console.print(f"Gate: {model['gate']}", style="bold")
    for reason in model["gate_reasons"]:
        console.print(f"  - {reason}", soft_wrap=True)


def _table(title: str, rows: Sequence[tuple[str, str]]) -> Table:
    table = folding_table("", "", title=title, show_header=False, min_width=60)
    table.columns[0].style = "dim"
    for row in rows:
        table.add_row(*row)
    return table


def _number(value: float | None, form: str, unit: str = "") -> str:
    return "not defined" if value is None else f"{value:{form}}{unit}"


def _between(interval: Sequence[float] | None) -> str:
    return "not defined" if interval is None else f"{interval[0]:+.3f} to {interval[1]:+.3f} R"


def _percent(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.1%}"
