import json
from datetime import date, datetime, timedelta

import numpy as np
import pytest

from positions.market.calendar import NEW_YORK
from reports.charts import Chart, ExitBar, Span, calibration, equity, exits, r_distribution, timeline

DAYS = [date(2024, 1, 3), date(2024, 1, 4), date(2024, 1, 5)]
TEN = datetime(2024, 1, 3, 10, 0, tzinfo=NEW_YORK)


def spans() -> list[Span]:
    return [
        Span("B", TEN + timedelta(minutes=30), TEN + timedelta(minutes=45), False, "short, -1.00 R"),
        Span("A", TEN, TEN + timedelta(minutes=20), True, "long, +1.00 R"),
        Span("B", TEN + timedelta(minutes=60), TEN + timedelta(minutes=61), True, "long, +0.50 R"),
    ]


CHARTS: dict[str, Chart] = {
    "equity": equity(DAYS, [1.0, -0.5, 2.0], [100.0, -50.0, 200.0], DAYS[1]),
    "distribution": r_distribution(np.array([0.1, -1.0]), np.array([0.1, -1.0, 2.0])),
    "exits": exits([ExitBar("stop", 3, -1.0), ExitBar("target", 2, 1.5), ExitBar("manual", 1, None)]),
    "timeline": timeline(spans()),
    "calibration": calibration(np.linspace(0.2, 0.8, 90), np.arange(90) % 2 == 0),
}


@pytest.mark.parametrize("name", CHARTS)
def test_a_chart_is_plain_json_that_plotly_accepts(name: str) -> None:
    import plotly.graph_objects as go

    chart = json.loads(json.dumps(CHARTS[name], allow_nan=False))
    assert go.Figure(chart).to_plotly_json()["data"]


@pytest.mark.parametrize("name", CHARTS)
def test_no_chart_fixes_a_colour_that_dark_mode_must_change(name: str) -> None:
    layout = CHARTS[name]["layout"]
    assert not {"font", "paper_bgcolor", "plot_bgcolor", "template", "width"} & set(layout)


def test_equity_runs_from_zero_and_marks_the_session() -> None:
    r, r_mark, dollars, dollars_mark = CHARTS["equity"]["data"]
    assert r["x"] == ["start", "2024-01-03", "2024-01-04", "2024-01-05"]
    assert r["y"] == [0.0, 1.0, 0.5, 2.5]
    assert dollars["y"] == [0.0, 100.0, 50.0, 250.0]
    assert (r_mark["x"], r_mark["y"], dollars_mark["y"]) == (["2024-01-04"], [0.5], [50.0])


def test_a_session_without_a_signal_is_not_marked() -> None:
    assert equity(DAYS, [1.0] * 3, [1.0] * 3, date(2024, 1, 6))["data"][1]["x"] == []


def test_the_outermost_bins_hold_what_lies_beyond_them() -> None:
    bars = r_distribution(np.array([-9.0, 9.0, 0.1, 0.2]), np.array([]))["data"][0]
    assert bars["y"][0] == bars["y"][-1] == 0.25
    assert sum(bars["y"]) == 1.0
    assert bars["y"][bars["x"].index(0.125)] == 0.5


def test_exits_show_an_unknown_mean_as_a_gap() -> None:
    counts, means = CHARTS["exits"]["data"]
    assert counts["x"] == [3, 2, 1]
    assert means["x"] == [-1.0, 1.5, None]
    assert means["text"] == ["-1.00", "+1.50", ""]


def test_timeline_has_a_row_a_symbol_in_order_of_entry_and_shows_local_time() -> None:
    chart = CHARTS["timeline"]
    wins, losses = chart["data"]
    assert chart["layout"]["yaxis"]["categoryarray"] == ["A", "B"]
    assert wins["base"] == ["2024-01-03T10:00:00", "2024-01-03T11:00:00"]
    assert wins["x"] == [20 * 60_000, 60_000]
    assert losses["y"] == ["B"]


def test_wins_and_losses_differ_in_more_than_colour() -> None:
    wins, losses = CHARTS["timeline"]["data"]
    assert set(wins["marker"]["pattern"]["shape"]).isdisjoint(losses["marker"]["pattern"]["shape"])


def test_calibration_bins_are_of_equal_size_and_say_how_many_they_hold() -> None:
    observed = CHARTS["calibration"]["data"][1]
    assert observed["text"] == ["n 30", "n 30", "n 30"]
    assert observed["y"] == [0.5, 0.5, 0.5]
    assert observed["error_y"]["array"][0] == pytest.approx(0.1685, abs=1e-3)  # Wilson for 15 of 30: 0.3315 to 0.6685


def test_few_predictions_share_one_bin() -> None:
    assert calibration(np.array([0.4, 0.6]), np.array([True, False]))["data"][1]["text"] == ["n 2"]
