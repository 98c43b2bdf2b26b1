"""Figures of one model, from what its evaluation stored; as reports/charts.py has those of trades."""

from collections.abc import Mapping, Sequence
from typing import Any

from ml.gate_worth import GateWorth
from reports.charts import BLUE, GREY, VERMILLION, CalibrationBin, Chart, calibration_of

LEGEND = {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0}


def roc(points: Sequence[Sequence[float]], geometry: Sequence[Sequence[float]]) -> Chart:
    """Share of WINs found against share of LOSSes taken along with them, for the model and for geometry alone."""

    def line(name: str, curve: Sequence[Sequence[float]], style: Chart) -> Chart:
        return {
            "type": "scatter",
            "mode": "lines",
            "x": [point[0] for point in curve],
            "y": [point[1] for point in curve],
            "name": name,
            "line": style,
            "hovertemplate": "%{y:.0%} of the WINs with %{x:.0%} of the LOSSes<extra></extra>",
        }

    return {
        "data": [
            line("no skill", [(0, 0), (1, 1)], {"color": GREY, "dash": "dash"}),
            line("geometry alone", geometry, {"color": VERMILLION, "dash": "dot"}),
            line("model", points, {"color": BLUE, "width": 2}),
        ],
        "layout": {
            "height": 380,
            "xaxis": {"range": [0, 1], "tickformat": ".0%", "title": {"text": "of the LOSSes, taken"}},
            "yaxis": {"range": [0, 1], "tickformat": ".0%", "title": {"text": "of the WINs, taken"}},
            "legend": LEGEND,
        },
    }


def calibration(deciles: Sequence[Mapping[str, Any]]) -> Chart:
    """Predicted against observed share of WINs, in tenths of the test trades."""
    return calibration_of(
        [CalibrationBin(each["n"], round(each["win_rate"] * each["n"]), each["mean_p"]) for each in deciles]
    )


def value_by_threshold(steps: Sequence[Mapping[str, Any]]) -> Chart:
    """Mean R of the trades whose P(win) reaches a threshold, with its 95 % interval, and how many they are."""
    x = [step["threshold"] for step in steps]
    bounds = [step["interval"] for step in steps]
    known = [(at, bound) for at, bound in zip(x, bounds, strict=True) if bound]
    band = {
        "type": "scatter",
        "mode": "lines",
        "x": [at for at, _ in known] + [at for at, _ in reversed(known)],
        "y": [bound["high"] for _, bound in known] + [bound["low"] for _, bound in reversed(known)],
        "fill": "toself",
        "line": {"width": 0, "color": BLUE},
        "opacity": 0.25,
        "name": "95%, by session",
        "hoverinfo": "skip",
    }
    return {
        "data": [
            band,
            {
                "type": "scatter",
                "mode": "lines+markers",
                "x": x,
                "y": [step["mean_r"] for step in steps],
                "name": "mean R",
            }
            | {"line": {"color": BLUE, "width": 2}, "text": [f"n {step['n']:,}" for step in steps]}
            | {"hovertemplate": "P(win) of %{x:.0%} or more: %{y:+.3f} R, %{text}<extra></extra>"},
            {"type": "bar", "x": x, "y": [step["n"] for step in steps], "yaxis": "y2", "showlegend": False}
            | {"marker": {"color": GREY}, "hovertemplate": "%{y:,} trades<extra></extra>"},
        ],
        "layout": {
            "height": 420,
            "xaxis": {"tickformat": ".0%", "title": {"text": "P(win) of at least"}, "anchor": "y2"},
            "yaxis": {"domain": [0.38, 1], "title": {"text": "mean R after costs"}},
            "yaxis2": {"domain": [0, 0.28], "title": {"text": "trades"}, "nticks": 3},
            "legend": LEGEND,
        },
    }


def live(worth: GateWorth) -> Chart:
    """Mean R of the plans that a model let through, and of those that it refused, each with its 95 % interval."""
    sides = [(words, side) for words, side in (("let through", worth.let_through), ("refused", worth.refused)) if side]
    half = [side.mean_r_interval.width / 2 if side.mean_r_interval else 0.0 for _, side in sides]
    return {
        "data": [
            {"type": "scatter", "mode": "markers", "marker": {"color": BLUE, "size": 10}}
            | {"x": [side.mean_r for _, side in sides], "y": [words for words, _ in sides]}
            | {
                "error_x": {"type": "data", "array": half, "color": BLUE},
                "text": [f"n {side.n:,}" for _, side in sides],
            }
            | {"hovertemplate": "%{y}: %{x:+.3f} R, %{text}<extra></extra>"}
        ],
        "layout": {
            "height": 180,
            "showlegend": False,
            "margin": {"l": 8, "r": 16, "t": 12, "b": 48},
            "xaxis": {"title": {"text": "mean R of their plans after costs"}, "zeroline": True},
            "yaxis": {"autorange": "reversed", "automargin": True},
        },
    }


def importance(worth: Mapping[str, float], unit: str, most: int = 15) -> Chart:
    """The columns that are worth most to a model, the largest first."""
    shown = [(name, value) for name, value in worth.items() if value > 0][:most]
    return {
        "data": [
            {"type": "bar", "orientation": "h", "marker": {"color": BLUE}}
            | {"x": [value for _, value in shown], "y": [name.replace("_", " ") for name, _ in shown]}
            | {"hovertemplate": "%{y}: %{x:.4g}<extra></extra>"}
        ],
        "layout": {
            "height": 110 + 22 * max(len(shown), 1),
            "showlegend": False,
            "margin": {"l": 8, "r": 16, "t": 12, "b": 48},
            "xaxis": {"title": {"text": unit}, "nticks": 5},
            "yaxis": {"autorange": "reversed", "automargin": True, "dtick": 1},
        },
    }
