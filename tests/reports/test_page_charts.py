"""Figures of the trade's and the model's page, as data."""

import json
from datetime import datetime

from positions.market.calendar import NEW_YORK
from reports.model_charts import beeswarm, calibration, importance, roc, value_by_threshold
from reports.trade_charts import Candles, Marks, Moment, candles, waterfall

AT = datetime(2024, 1, 3, 10, 30, tzinfo=NEW_YORK)
BARS = Candles([AT, AT.replace(minute=31)], [10.0, 10.1], [10.2, 10.3], [9.9, 10.0], [10.1, 10.2], [500.0, 700.0])


def marks(**given: object) -> Marks:
    standard = {
        "entry": Moment(AT, 10.0, "long"),
        "stops": [Moment(AT, 9.8, "initial stop"), Moment(AT.replace(minute=31), 10.02, "stop moved")],
        "target": 10.5,
        "exit": Moment(AT.replace(minute=31), 10.2, "out"),
        "plan_end": None,
        "over": AT.replace(minute=31),
    }
    return Marks(**{**standard, **given})


def named(chart: dict) -> dict[str, dict]:
    return {trace["name"]: trace for trace in chart["data"]}


def test_the_stop_is_drawn_at_each_of_its_levels_until_the_trade_is_over():
    line = named(candles(BARS, marks()))["stop"]
    assert line["y"] == [9.8, 10.02, 10.02]
    assert line["x"] == ["2024-01-03T10:30:00", "2024-01-03T10:31:00", "2024-01-03T10:31:00"]  # New York's clock
    assert line["line"]["shape"] == "hv"


def test_what_the_plan_alone_would_have_come_to_is_drawn_only_where_the_trade_left_it():
    assert "left to its plan" not in named(candles(BARS, marks()))
    end = Moment(AT.replace(minute=45), 10.5, "target")
    assert named(candles(BARS, marks(plan_end=end)))["left to its plan"]["y"] == [10.5]


def test_an_open_trade_has_no_exit():
    assert "exit" not in named(candles(BARS, marks(exit=None)))


def test_contributions_keep_their_order_their_sign_and_their_value():
    chart = waterfall(
        [
            {"feature": "rsi14", "value": 61.523456, "log_odds": -0.2},
            {"feature": "regime", "value": "storm", "log_odds": 0.1},
            {"feature": "spread", "value": None, "log_odds": 0.05},
        ]
    )
    bars = chart["data"][0]
    assert bars["y"] == ["rsi14<br>= 61.52", "regime<br>= storm", "spread<br>= unknown"]
    assert bars["x"] == [-0.2, 0.1, 0.05]
    assert len(set(bars["marker"]["color"])) == 2


def test_a_tenths_interval_lies_around_what_was_observed():
    chart = calibration([{"n": 100, "mean_p": 0.4, "win_rate": 0.35}])
    bar = chart["data"][1]["error_y"]
    assert 0.05 < bar["array"][0] < 0.12
    assert 0.05 < bar["arrayminus"][0] < 0.12


def test_a_threshold_without_an_interval_has_no_band_there():
    interval = {"low": -0.1, "high": 0.3}
    steps = [
        {"threshold": 0.3, "n": 90, "mean_r": 0.1, "interval": interval},
        {"threshold": 0.9, "n": 1, "mean_r": 2.0, "interval": None},
    ]
    band, line, counts = value_by_threshold(steps)["data"]
    assert band["x"] == [0.3, 0.3]
    assert line["y"] == [0.1, 2.0]
    assert counts["y"] == [90, 1]


def test_importance_shows_the_largest_and_leaves_out_what_is_worth_nothing():
    bars = importance({"c": 1.0, "d": 0.0, "a_b": 3.0}, "gain", most=2)["data"][0]
    assert bars["y"] == ["a b", "c"]


SWARM = [
    {"column": "a_b", "values": [5.0, 1.0, 3.0, 3.0, None], "log_odds": [0.2, -0.2, 0.0, 0.0, 0.1]},
    {"column": "c=x", "values": [0.0, 1.0, 0.0, 1.0, 1.0], "log_odds": [0.1, 0.01, 0.1, 0.02, 0.03]},
]


def test_a_swarm_has_a_dot_a_row_on_its_columns_line_coloured_from_the_lowest_value_to_the_highest():
    chart = beeswarm(SWARM)
    known, unknown = chart["data"]
    assert known["marker"]["color"][:4] == [1.0, 0.0, 0.5, 0.5]
    assert known["x"][:4] == [0.2, -0.2, 0.0, 0.0]
    assert (unknown["x"], unknown["text"]) == ([0.1], ["a b unknown"])
    assert [round(y) for y in known["y"]] == [0] * 4 + [1] * 5
    assert chart["layout"]["yaxis"]["ticktext"] == ["a b", "c=x"]


def test_dots_of_one_place_stand_beside_each_other_within_their_line():
    many = [{"column": "a", "values": [1.0] * 100, "log_odds": [0.1] * 100}]
    heights = beeswarm(many)["data"][0]["y"]
    assert len(set(heights)) == 100
    assert max(map(abs, heights)) < 0.5
    assert beeswarm(SWARM)["data"][0]["y"][2:4] != [0, 0]


def test_every_figure_is_ready_for_json():
    for chart in (
        candles(BARS, marks()),
        roc([[0, 0], [1, 1]], []),
        importance({}, "gain"),
        beeswarm(SWARM),
        beeswarm([]),
    ):
        assert json.loads(json.dumps(chart)) == chart
