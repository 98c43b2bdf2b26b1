"""Figures of one model, from what its evaluation stored; as reports/charts.py has those of trades."""

from collections import Counter
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

from ml.gate_worth import GateWorth
from reports.charts import BLUE, GREY, VERMILLION, CalibrationBin, Chart, calibration_of

#: A swarm's dots are stacked where they fall into the same one of so many bins.
SWARM_BINS = 120
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
    """Mean R of the plans that a model let through, and of those that it refused, each with its 95 % interval where one
    is known."""
    sides = [(words, side) for words, side in (("let through", worth.let_through), ("refused", worth.refused)) if side]
    half = [side.mean_r_interval.width / 2 if side.mean_r_interval else None for _, side in sides]
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
            "yaxis": {"range": [len(sides) - 0.5, -0.5], "automargin": True, "zeroline": False},
        },
    }


def importance(worth: Mapping[str, float], unit: str, most: int = 15) -> Chart:
    """The columns that are worth most to a model, the largest first."""
    worthy = [(name, value) for name, value in worth.items() if value > 0]
    shown = sorted(worthy, key=itemgetter(1), reverse=True)[:most]  # PostgreSQL keeps no order of keys
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


class _Dot(NamedTuple):
    added: float
    height: float
    standing: float
    said: str


def beeswarm(sample: Sequence[Mapping[str, Any]]) -> Chart:
    """What each value of a column adds to the log-odds, the column that adds most above: a dot a row, coloured by where
    its value stands among those of its column; `sample` as a model stores it."""
    names = [each["column"].replace("_", " ") for each in sample]
    reach = max((abs(added) for each in sample for added in each["log_odds"]), default=1.0) or 1.0
    known, unknown = list[_Dot](), list[_Dot]()
    for place, (name, each) in enumerate(zip(names, sample, strict=True)):
        heights = _spread(each["log_odds"], 2 * reach / SWARM_BINS)
        dots = zip(each["values"], _standing(each["values"]), each["log_odds"], heights, strict=True)
        for value, standing, added, height in dots:
            said = f"{name} {'unknown' if value is None else f'= {value:.4g}'}"
            (unknown if value is None else known).append(_Dot(added, place + height, standing, said))
    scale = {
        "orientation": "h",
        "x": 0,
        "xanchor": "left",
        "y": 1.0,
        "yanchor": "bottom",
        "len": 0.6,
        "thickness": 8,
        "tickvals": [0, 1],
        "ticktext": ["low", "high"],
        "title": {"text": "value of the column", "side": "top"},
    }
    colours = {"cmin": 0, "cmax": 1, "colorscale": [[0, BLUE], [1, VERMILLION]], "showscale": True, "colorbar": scale}

    def dots_of(of: Sequence[_Dot], marker: Chart) -> Chart:
        return {
            "type": "scatter",
            "mode": "markers",
            "x": [dot.added for dot in of],
            "y": [round(dot.height, 3) for dot in of],
            "text": [dot.said for dot in of],
            "marker": {"size": 4, **marker},
            "hovertemplate": "%{text}: %{x:+.3f}<extra></extra>",
        }

    return {
        "data": [
            dots_of(known, {"color": [dot.standing for dot in known], **colours}),
            dots_of(unknown, {"color": GREY}),
        ],
        "layout": {
            "height": 170 + 28 * max(len(names), 1),
            "showlegend": False,
            "margin": {"l": 8, "r": 16, "t": 70, "b": 48},
            "xaxis": {"title": {"text": "log-odds of a WIN added"}, "nticks": 5, "zeroline": True},
            "yaxis": {
                "range": [len(names) - 0.5, -0.5],
                "tickvals": list(range(len(names))),
                "ticktext": names,
                "automargin": True,
                "showgrid": False,
                "zeroline": False,
            },
        },
    }


def _standing(values: Sequence[float | None]) -> list[float]:
    """Where each value stands among the known, from 0 for the lowest to 1 for the highest; equal values stand alike."""
    levels = sorted({value for value in values if value is not None})
    place = {value: index / max(len(levels) - 1, 1) for index, value in enumerate(levels)}
    return [0.0 if value is None else round(place[value], 3) for value in values]


def _spread(x: Sequence[float], width: float) -> list[float]:
    """Heights, within a line's room, that set dots of the same place on both sides of each other."""
    bins = [round(each / width) for each in x]
    step = min(0.08, 0.8 / max(Counter(bins).values(), default=1))
    seen: Counter[int] = Counter()
    heights = []
    for each in bins:
        number = seen[each]
        seen[each] += 1
        heights.append((number + 1) // 2 * step * (1 if number % 2 else -1))
    return heights
