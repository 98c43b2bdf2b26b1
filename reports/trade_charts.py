"""Figures of one trade, as reports/charts.py has those of many."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from reports.charts import BLUE, GREY, VERMILLION, Chart


@dataclass(frozen=True, slots=True)
class Candles:
    """Bars of one symbol, n of each; `starts` in the zone in which they are to be shown, prices in dollars."""

    starts: Sequence[datetime]
    open: Sequence[float]
    high: Sequence[float]
    low: Sequence[float]
    close: Sequence[float]
    volume: Sequence[float]


@dataclass(frozen=True, slots=True)
class Moment:
    """Something that happened at a price."""

    at: datetime
    price: float
    text: str


@dataclass(frozen=True, slots=True)
class Marks:
    """What is drawn over the candles. `stops` are the stop's level from each moment on, the last until `over`;
    `plan_end` is how the plan would have ended where the trade left it early."""

    entry: Moment
    stops: Sequence[Moment]
    target: float
    exit: Moment | None
    plan_end: Moment | None
    over: datetime


def candles(bars: Candles, marks: Marks) -> Chart:
    """The trade's bars with its entry, its stop, its target, its exit and what its plan would have come to."""
    times = [_iso(start) for start in bars.starts]
    stop_at = [_iso(stop.at) for stop in marks.stops] + [_iso(marks.over)]
    stop_price = [stop.price for stop in marks.stops] + [marks.stops[-1].price]
    data: list[dict[str, Any]] = [
        {"type": "candlestick", "x": times, "name": "bars", "showlegend": False}
        | {"open": bars.open, "high": bars.high, "low": bars.low, "close": bars.close}
        | {
            "increasing": {"line": {"color": BLUE, "width": 1}},
            "decreasing": {"line": {"color": VERMILLION, "width": 1}},
        },
        {"type": "bar", "x": times, "y": bars.volume, "yaxis": "y2", "name": "shares a bar", "showlegend": False}
        | {"marker": {"color": GREY}, "hovertemplate": "%{y:,.0f} shares<extra></extra>"},
        {"type": "scatter", "mode": "lines", "x": stop_at, "y": stop_price, "name": "stop"}
        | {"line": {"color": VERMILLION, "shape": "hv", "width": 2}, "hovertemplate": "stop %{y:.2f}<extra></extra>"},
        {"type": "scatter", "mode": "lines", "x": [stop_at[0], stop_at[-1]], "y": [marks.target] * 2, "name": "target"}
        | {"line": {"color": BLUE, "dash": "dash", "width": 2}, "hovertemplate": "target %{y:.2f}<extra></extra>"},
        _mark(marks.entry, "entry", "triangle-right", BLUE),
    ]
    if marks.exit:
        data.append(_mark(marks.exit, "exit", "x", VERMILLION))
    if marks.exit and marks.plan_end:
        data.append(
            {"type": "scatter", "mode": "lines", "name": "had it been left alone", "hoverinfo": "skip"}
            | {"x": [_iso(marks.exit.at), _iso(marks.plan_end.at)], "y": [marks.exit.price, marks.plan_end.price]}
            | {"line": {"color": GREY, "dash": "dot"}, "showlegend": False}
        )
        data.append(_mark(marks.plan_end, "left to its plan", "circle-open", GREY))
    return {
        "data": data,
        "layout": {
            "height": 460,
            "xaxis": {
                "type": "date",
                "tickformat": "%H:%M",
                "nticks": 7,
                "rangeslider": {"visible": False},
                "anchor": "y2",
            },
            "yaxis": {"domain": [0.25, 1], "title": {"text": "dollars a share"}},
            "yaxis2": {"domain": [0, 0.18], "title": {"text": "shares"}, "nticks": 3},
            "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        },
    }


def _iso(moment: datetime) -> str:
    """Without its zone: Plotly would turn it into UTC."""
    return moment.replace(tzinfo=None).isoformat()


def _mark(moment: Moment, name: str, symbol: str, colour: str) -> Chart:
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [_iso(moment.at)],
        "y": [moment.price],
        "name": name,
        "text": [moment.text],
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {"symbol": symbol, "size": 13, "color": colour, "line": {"width": 2, "color": colour}},
    }


def waterfall(contributions: Sequence[Mapping[str, Any]]) -> Chart:
    """What moved a prediction most, in log-odds, the largest first: above zero towards a WIN. At least one."""
    names = [_named(each) for each in contributions]
    added = [each["log_odds"] for each in contributions]
    room = 0.8 * (max(0, *added) - min(0, *added))  # for the numbers beside the bars
    return {
        "data": [
            {"type": "bar", "orientation": "h", "x": added, "y": names, "textposition": "outside", "cliponaxis": False}
            | {"text": [f"{value:+.3f}" for value in added]}
            | {"marker": {"color": [BLUE if value > 0 else VERMILLION for value in added]}}
            | {"hovertemplate": "%{y}: %{x:+.3f}<extra></extra>"}
        ],
        "layout": {
            "height": 130 + 40 * len(names),
            "showlegend": False,
            "margin": {"l": 8, "r": 48, "t": 12, "b": 48},
            "xaxis": {
                "title": {"text": "added log-odds of a WIN"},
                "nticks": 4,
                "tickangle": 0,
                "range": [min(0, *added) - room, max(0, *added) + room],
            },
            "yaxis": {"autorange": "reversed", "automargin": True},
        },
    }


def _named(contribution: Mapping[str, Any]) -> str:
    value = contribution["value"]
    shown = f"{value:.4g}" if isinstance(value, float) else "unknown" if value is None else str(value)
    return f"{contribution['feature'].replace('_', ' ')}<br>= {shown}"
