"""Figures as data: each function returns a Plotly figure as plain lists and dicts, ready for JSON.

Colours of text, grid and background are the page's, which knows whether it is dark. The two colours used here are
Okabe and Ito's blue and vermillion, told apart by every kind of colour vision and on light and dark ground alike;
what they say is said by a pattern or a label too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml.statistics import share_interval

Chart = dict[str, Any]
Floats = NDArray[np.float64]

BLUE, VERMILLION, GREY = "#0072B2", "#D55E00", "#8C8C8C"
R_BIN, R_LOWEST, R_HIGHEST = 0.25, -3.0, 4.0
TRADES_A_BIN, MOST_BINS = 30, 10


@dataclass(frozen=True, slots=True)
class ExitBar:
    """Trades closed for one reason; `mean_r` is None where no trade's R is known."""

    reason: str
    trades: int
    mean_r: float | None


@dataclass(frozen=True, slots=True)
class Span:
    """A trade on the timeline; times in the zone in which they are to be shown, `text` for the pointer."""

    symbol: str
    start: datetime
    end: datetime
    won: bool
    text: str


def equity(days: Sequence[date], r: Sequence[float], dollars: Sequence[float], day: date) -> Chart:
    """Running sums of each session's result, in R above and in dollars below; `day` is marked where it is known."""
    labels = ["start", *(one.isoformat() for one in days)]
    ticks = [days[i] for i in np.unique(np.linspace(0, len(days) - 1, 4).astype(int))]
    marked = [i for i, label in enumerate(labels) if label == day.isoformat()]
    data = []
    for values, axis, name in ((r, "y", "R"), (dollars, "y2", "dollars")):
        total = np.concatenate(([0.0], np.cumsum(values))).round(4).tolist()
        hover = f"%{{x}}<br>%{{y:,.2f}} {name}<extra></extra>"
        line = {"color": BLUE, "width": 2}
        data.append(
            {"type": "scatter", "mode": "lines", "x": labels, "y": total, "yaxis": axis, "line": line, "name": name}
            | {"hovertemplate": hover}
        )
        data.append(
            {"type": "scatter", "mode": "markers", "x": [labels[i] for i in marked]}
            | {"y": [total[i] for i in marked], "yaxis": axis}
            | {"marker": {"color": VERMILLION, "size": 11, "symbol": "diamond"}, "hovertemplate": hover}
        )
    return {
        "data": data,
        "layout": {
            "height": 420,
            "showlegend": False,
            "xaxis": {
                "type": "category",
                "anchor": "y2",
                "tickvals": [tick.isoformat() for tick in ticks],
                "ticktext": [f"{tick.day} {tick:%b}<br>{tick:%Y}" for tick in ticks],
                "tickangle": 0,
            },
            "yaxis": {"domain": [0.55, 1], "title": {"text": "R"}},
            "yaxis2": {"domain": [0, 0.45], "title": {"text": "dollars"}},
        },
    }


def r_distribution(session: Floats, book: Floats) -> Chart:
    """Share of trades by result in R, in bins of R_BIN; the outermost bins hold everything beyond them."""
    edges = np.arange(R_LOWEST, R_HIGHEST + R_BIN, R_BIN)
    centres = ((edges[:-1] + edges[1:]) / 2).tolist()

    def shares(r: Floats) -> list[float]:
        counts, _ = np.histogram(np.clip(r, edges[0], edges[-1]), edges)
        return [round(float(share), 5) for share in counts / max(len(r), 1)]

    hover = "%{x:.2f} R: %{y:.1%}<extra></extra>"
    return {
        "data": [
            {"type": "bar", "x": centres, "y": shares(session), "width": R_BIN * 0.8, "hovertemplate": hover}
            | {"name": f"this session ({len(session):,} trades)", "marker": {"color": BLUE}},
            {"type": "scatter", "x": centres, "y": shares(book), "hovertemplate": hover, "mode": "lines"}
            | {
                "name": f"book so far ({len(book):,} trades)",
                "line": {"color": VERMILLION, "shape": "hvh", "width": 2},
            },
        ],
        "layout": {
            "height": 320,
            "xaxis": {"title": {"text": "R after fees"}, "range": [R_LOWEST - 0.1, R_HIGHEST + 0.1], "dtick": 1},
            "yaxis": {"tickformat": ".0%", "title": {"text": "share of trades"}, "rangemode": "tozero"},
            "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        },
    }


def exits(bars: Sequence[ExitBar]) -> Chart:
    """Trades by exit reason: how many on the left, their mean R on the right."""
    reasons = [bar.reason for bar in bars]
    means = [bar.mean_r for bar in bars]
    known = [0.0, *(mean for mean in means if mean is not None)]
    lowest, highest = min(known), max(known)
    room = 0.8 * (highest - lowest)  # for the labels outside the bars
    shared = {"type": "bar", "orientation": "h", "y": reasons, "textposition": "outside", "cliponaxis": False}
    return {
        "data": [
            shared
            | {"x": [bar.trades for bar in bars], "text": [str(bar.trades) for bar in bars], "marker": {"color": GREY}}
            | {"hovertemplate": "%{y}: %{x} trades<extra></extra>"},
            shared
            | {"x": means, "text": ["" if mean is None else f"{mean:+z.2f}" for mean in means], "xaxis": "x2"}
            | {"marker": _outcome_marker([mean is not None and mean > 0 for mean in means])}
            | {"hovertemplate": "%{y}: %{x:+.2f} R on average<extra></extra>"},
        ],
        "layout": {
            "height": 110 + 34 * len(bars),
            "showlegend": False,
            "xaxis": {"domain": [0, 0.36], "title": {"text": "trades"}, "nticks": 4}
            | {"range": [0, 1.35 * max(bar.trades for bar in bars)]},
            "xaxis2": {"domain": [0.44, 1], "title": {"text": "mean R"}, "nticks": 4}
            | {"range": [lowest - room * (lowest < 0), highest + room * (highest > 0)]},
            "yaxis": {"autorange": "reversed", "automargin": True},
        },
    }


def timeline(spans: Sequence[Span]) -> Chart:
    """A row a symbol, a bar a trade from entry to exit; losses are hatched."""
    rows = list(dict.fromkeys(span.symbol for span in sorted(spans, key=lambda span: span.start)))
    return {
        "data": [
            {
                "type": "bar",
                "orientation": "h",
                "name": name,
                "y": [span.symbol for span in chosen],
                "base": [span.start.replace(tzinfo=None).isoformat() for span in chosen],
                "x": [(span.end - span.start).total_seconds() * 1000 for span in chosen],
                "customdata": [span.text for span in chosen],
                "hovertemplate": "%{y} %{customdata}<extra></extra>",
                "marker": _outcome_marker([span.won for span in chosen]),
            }
            for name, chosen in (
                ("WIN", [span for span in spans if span.won]),
                ("LOSS", [span for span in spans if not span.won]),
            )
        ],
        "layout": {
            "height": 130 + 20 * len(rows),
            "barmode": "overlay",
            "bargap": 0.25,
            "xaxis": {"type": "date", "tickformat": "%H:%M", "nticks": 6, "side": "top"},
            "yaxis": {
                "categoryorder": "array",
                "categoryarray": rows,
                "autorange": "reversed",
                "automargin": True,
                "dtick": 1,
            },
            "legend": {"orientation": "h", "y": 0, "yanchor": "top", "x": 0},
        },
    }


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """`n` predictions, at least one, of which `wins` came true, and the mean of what they said."""

    n: int
    wins: int
    mean_p: float


def calibration(p_win: Floats, won: NDArray[np.bool_]) -> Chart:
    """Predicted against observed share of WINs, in bins of equal size.

    As many bins as give each TRADES_A_BIN predictions, at most MOST_BINS. `p_win` must not be empty.
    """
    order = np.argsort(p_win, kind="stable")
    bins = np.array_split(order, min(MOST_BINS, max(1, len(order) // TRADES_A_BIN)))
    return calibration_of([CalibrationBin(len(of), int(won[of].sum()), float(p_win[of].mean())) for of in bins])


def calibration_of(bins: Sequence[CalibrationBin]) -> Chart:
    """Predicted against observed share of WINs of at least one bin, with 95 % intervals (Wilson)."""
    observed = [each.wins / each.n for each in bins]
    sizes = [each.n for each in bins]
    each_n = f"n {min(sizes):,} to {max(sizes):,}" if min(sizes) < max(sizes) else f"n {sizes[0]:,}"
    above, below = [], []
    for each, share in zip(bins, observed, strict=True):
        interval = share_interval(each.wins, each.n)
        assert interval is not None  # no bin is empty
        above.append(interval.high - share)
        below.append(share - interval.low)
    return {
        "data": [
            {"type": "scatter", "mode": "lines", "x": [0, 1], "y": [0, 1], "hoverinfo": "skip"}
            | {"line": {"color": GREY, "dash": "dash"}, "name": "perfectly calibrated"},
            {"type": "scatter", "mode": "markers", "name": f"observed, 95%, {each_n}"}
            | {"x": [each.mean_p for each in bins], "y": observed}
            | {"text": [f"n {size:,}" for size in sizes]}
            | {"error_y": {"type": "data", "array": above, "arrayminus": below}}
            | {"marker": {"color": BLUE, "size": 9}}
            | {"hovertemplate": "predicted %{x:.1%}, observed %{y:.1%}, %{text}<extra></extra>"},
        ],
        "layout": {
            "height": 380,
            "xaxis": {"range": [0, 1], "tickformat": ".0%", "title": {"text": "predicted P(win)"}},
            "yaxis": {"range": [0, 1], "tickformat": ".0%", "title": {"text": "won"}},
            "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        },
    }


def _outcome_marker(won: Sequence[bool]) -> Chart:
    colours = [BLUE if one else VERMILLION for one in won]
    return {
        "color": colours,
        "line": {"color": colours, "width": 1},
        "pattern": {"shape": ["" if one else "/" for one in won], "size": 5},
    }
