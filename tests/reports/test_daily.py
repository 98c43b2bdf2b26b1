import json
import os
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from ml.models import Performance, Prediction
from ml.words import Gate, PredictionMode
from positions.market.calendar import NEW_YORK
from positions.models import ErrorNote, Trade
from positions.words import ExitReason, Outcome
from reports.daily import (
    Report,
    build_report,
    folder_of,
    remove_reports,
    render_html,
    render_json,
    render_markdown,
    report_path,
    write_missing,
    write_report,
    written_reports,
)
from reports.figures import Line
from tests.factories import MLModelFactory, TradeFactory, TradeFeaturesFactory, features_of

pytestmark = pytest.mark.django_db

DAY = date(2024, 1, 3)
TEN = datetime(2024, 1, 3, 15, 0, tzinfo=UTC)
BOOK = "simulated"


@pytest.fixture(autouse=True)
def var_dir(tmp_path: Path, settings: Any) -> Path:
    settings.VAR_DIR = tmp_path
    return tmp_path


def trades(*results: float, day: int = 0, **values: object) -> list[Trade]:
    """Closed trades with features, one after the other from ten o'clock, `day` days after DAY."""
    made = [
        TradeFactory(
            **{
                "r_multiple": r,
                "outcome": Outcome.WIN if r > 0 else Outcome.LOSS,
                "signal_at": TEN + timedelta(days=day, minutes=i),
                **values,
            }
        )
        for i, r in enumerate(results)
    ]
    for trade in made:
        features_of(trade)
    return made


def predict(trade: Trade, p_win: float) -> None:
    Prediction.objects.create(
        book=trade.book,
        signal_key=trade.signal_key,
        model=MLModelFactory(book=trade.book),
        mode=PredictionMode.SHADOW,
        p_raw=p_win,
        p_win=p_win,
        p_geometry=1 / 3,
        decision="take",
        latency_us=150,
        predicted_at=trade.signal_at,
    )


def line(report: Report, key: str) -> Line:
    return next(each for each in (*report.lines, *report.exits) if each.key == key)


def test_every_figure_has_its_n_and_every_missing_one_its_reason() -> None:
    trades(1.0, -1.0)
    for report in (build_report(BOOK, DAY), build_report(BOOK, DAY + timedelta(days=1))):
        for each in report.lines:
            for figure in (each.session, each.book):
                assert (figure.value is None) == bool(figure.why), each.key
                assert figure.value is None or figure.n > 0 or figure.value == 0, each.key


def test_the_session_stands_beside_the_book_so_far() -> None:
    trades(1.0, 1.0)
    trades(-1.0, 2.0, day=1)
    trades(9.0, day=2)
    report = build_report(BOOK, DAY + timedelta(days=1))
    average = line(report, "average_r")
    assert (average.session.value, average.session.n) == (0.5, 2)
    assert (average.book.value, average.book.n) == (0.75, 4)
    assert report.sessions == 2


def test_errors_are_told_beside_the_books_and_lead_to_their_rows() -> None:
    trades(1.0)
    trades(1.0, day=1)
    for day, count in ((0, 2), (1, 40)):
        ErrorNote.objects.create(
            book=BOOK, session=DAY + timedelta(days=day), job="exits", symbol="KO", error="ValueError", message="odd",
            count=count, first_at=TEN, last_at=TEN,
        )  # fmt: skip
    report = build_report(BOOK, DAY + timedelta(days=1))
    errors = line(report, "errors")
    assert (errors.session.value, errors.book.value, errors.book.n) == (40, 42, 2)
    path = "/admin/positions/errornote/?book=simulated&session_from=2024-01-04&session_to=2024-01-04"
    assert errors.admin_path == path
    assert f'<a href="{path.replace("&", "&amp;")}">Errors</a>' in render_html(report)
    assert "| Errors | 40, n 1 | 42, n 2 |" in render_markdown(report)
    assert Performance.objects.get(session=report.day).errors == 40


def test_a_session_without_errors_says_so_and_leads_nowhere() -> None:
    trades(1.0)
    report = build_report(BOOK, DAY)
    errors = line(report, "errors")
    assert (errors.session.text, errors.admin_path) == ("0", "")
    assert "errornote" not in render_html(report)


def test_a_later_session_changes_nothing_in_an_earlier_report() -> None:
    trades(1.0, -0.5)
    before = render_json(build_report(BOOK, DAY))
    trades(5.0, day=1)
    assert render_json(build_report(BOOK, DAY)) == before


def test_another_book_changes_nothing() -> None:
    trades(1.0, -0.5)
    before = render_json(build_report(BOOK, DAY))
    trades(5.0, 5.0, book="paper:1")
    MLModelFactory(book="paper:1")
    assert render_json(build_report(BOOK, DAY)) == before


def test_the_book_interval_is_clustered_and_the_session_interval_is_not() -> None:
    for day in range(3):
        trades(*[(-1.0) ** day] * 5, 0.5, day=day)
    average = line(build_report(BOOK, DAY + timedelta(days=2)), "average_r")
    assert average.session.interval is not None
    assert average.book.interval is not None
    assert average.session.interval.low == pytest.approx(11 / 12 - 2.5706 / 12, abs=1e-3)
    # session means 11/12, -9/12, 11/12: mean 0.3611, sd 0.9623, t(2) 4.3027
    assert average.book.interval.low == pytest.approx(0.3611 - 4.3027 * 0.9623 / 3**0.5, abs=1e-3)


def test_few_trades_are_said_to_be_few() -> None:
    trades(*[2.0] * 12)
    report = build_report(BOOK, DAY)
    assert "12 trades: too few to say." in report.headline
    assert line(report, "average_r").session.few


def test_one_session_proves_nothing_however_many_trades_it_had() -> None:
    trades(*[2.0, 1.9] * 20)
    report = build_report(BOOK, DAY)
    assert "1 session, whose trades move together: too few to say." in report.headline
    assert "1 session, whose trades move together: too few to say." in report.baseline


@pytest.mark.parametrize(
    ("results", "words"),
    [
        ((1.0, -1.0, 0.5, -0.5), "The average cannot be told from zero."),
        ((1.0, 1.5, 1.0, 1.2), "The average is above zero by more than chance explains in a single look"),
        ((-1.0, -1.5, -1.0, -1.2), "The average is below zero by more than chance explains in a single look"),
    ],
)
def test_the_book_is_judged_by_its_interval(results: tuple[float, ...], words: str) -> None:
    for day in range(20):
        trades(results[day % 4], results[day % 4] + 0.1, day=day)
    assert words in build_report(BOOK, DAY + timedelta(days=19)).baseline


def test_the_book_is_not_judged_before_twenty_sessions() -> None:
    for day in range(19):
        trades(1.0, 1.2, day=day)
    assert (
        "19 sessions, whose trades move together: too few to say."
        in build_report(BOOK, DAY + timedelta(days=18)).baseline
    )


def test_exits_are_listed_by_rule_with_their_n() -> None:
    trades(-1.0, -0.5, exit_reason=ExitReason.TIME_LIMIT)
    trades(2.0, day=1, exit_reason=ExitReason.TARGET)
    report = build_report(BOOK, DAY + timedelta(days=1))
    limit, target = line(report, "time_limit"), line(report, "target")
    assert (limit.session.value, limit.session.n, limit.book.value, limit.book.n) == (None, 0, -0.75, 2)
    assert (target.session.value, target.session.n) == (2.0, 1)


def test_prediction_coverage_counts_signals() -> None:
    first, _ = trades(1.0, -1.0)
    predict(first, 0.6)
    report = build_report(BOOK, DAY)
    assert (line(report, "predictions").session.value, line(report, "predictions").session.n) == (0.5, 2)
    assert line(report, "prediction_p99_ms").session.text == "0.15 ms"


def test_calibration_is_shown_once_outcomes_of_predictions_are_known() -> None:
    (trade,) = trades(1.0)
    assert "calibration" not in {picture.key for picture in build_report(BOOK, DAY).pictures}
    predict(trade, 0.6)
    picture = next(picture for picture in build_report(BOOK, DAY).pictures if picture.key == "calibration")
    assert picture.figure["data"][1]["x"] == [0.6]
    assert picture.figure["data"][1]["y"] == [1.0]


def test_the_latest_model_is_told_with_its_interval_its_baseline_and_its_reasons() -> None:
    trades(1.0)
    MLModelFactory(created_at=TEN - timedelta(days=1), version="old")
    MLModelFactory(
        created_at=TEN,
        version="new",
        gate=Gate.FAIL,
        gate_reasons=["AUC is 0.51."],
        n_test=150,
        metrics={"sessions": 12, "auc": 0.512, "auc_interval": {"low": 0.46, "high": 0.56}, "geometry": {"auc": 0.53}},
    )
    assert build_report(BOOK, DAY).model == (
        "Latest model new (candidate): trained on 700 trades (the last of 5 windows), "
        "tested on 150 trades of 12 sessions (5 windows, none seen in training), AUC 0.51 (95% 0.46 to 0.56), "
        "AUC of the plan's geometry alone 0.53. Gate: FAIL. AUC is 0.51."
    )


def test_a_book_without_a_model_says_so() -> None:
    trades(1.0)
    assert build_report(BOOK, DAY).model.startswith("No model:")


def test_an_empty_session_is_a_sentence_beside_the_book() -> None:
    trades(1.0)
    report = build_report(BOOK, date(2024, 1, 4))
    assert report.headline == "On Thursday 4 January 2024 there was no signal and no trade."
    assert line(report, "trades").book.value == 1
    assert report.headline in render_html(report)
    assert not Performance.objects.filter(session=date(2024, 1, 4)).exists()


def test_signals_without_trades_are_a_sentence_too() -> None:
    TradeFeaturesFactory(taken=False)
    report = build_report(BOOK, DAY)
    assert report.headline == "On Wednesday 3 January 2024 there were 1 signal and no closed trade."
    assert report.pictures == ()


def test_building_a_report_refreshes_the_stored_performance() -> None:
    trades(1.0)
    build_report(BOOK, DAY)
    trades(-1.0)
    build_report(BOOK, DAY)
    assert Performance.objects.get(session=DAY).trades == 2


def test_a_report_stores_the_figures_of_its_own_session_and_leaves_the_others_alone() -> None:
    for day in range(3):
        trades(1.0, day=day)
    build_report(BOOK, DAY + timedelta(days=1))
    assert list(Performance.objects.values_list("session", flat=True)) == [DAY + timedelta(days=1)]


def early(r: float, plan: Outcome, day: int) -> Trade:
    outcome = Outcome.WIN if r > 0 else Outcome.LOSS
    (made,) = trades(r, day=day, exit_reason=ExitReason.TIME_LIMIT, outcome=outcome, plan_outcome=plan)
    return made


def test_a_result_that_rounds_to_zero_has_no_minus() -> None:
    trades(-0.001, -0.001, pnl=Decimal("-0.002"))
    report = build_report(BOOK, DAY)
    text = render_markdown(report) + render_html(report)
    assert "+0.00 R" in text
    assert "-0.00 R" not in text
    assert "-$0.00" not in text


def test_the_exit_rules_are_told_by_what_their_trades_would_have_made_alone() -> None:
    for day in range(3):
        trades(-1.05, day=day)
        early(-0.5, Outcome.LOSS, day)
        early(0.4, Outcome.WIN, day)
    report = build_report(BOOK, DAY + timedelta(days=2))
    assert [(row.rule, row.trades) for row in report.impact] == [("time_limit", "6"), ("all trades", "9")]
    assert report.impact[0].saved == f"{0.55 / 2:.3f}"
    assert report.impact[0].given_up == f"{1.5 / 2:.3f}"
    assert report.impact[0].net == "-0.475"
    for page in (render_html(report), render_markdown(report)):
        assert "What the exit rules were worth, book so far" in page
        assert "A smaller average loss proves nothing by itself" in page
        assert "-0.475" in page


def test_where_the_plans_do_not_reproduce_trades_left_alone_the_report_gives_no_impact() -> None:
    trades(-1.05, plan_outcome=Outcome.WIN)
    early(-0.5, Outcome.LOSS, 0)
    report = build_report(BOOK, DAY)
    assert report.impact == ()
    assert report.impact_sentences[-1].startswith(
        "No figure: of 1 trade that no rule touched, 0 ended as their plan did"
    )


def test_sharpe_and_sortino_wait_for_sixty_sessions_and_drawdown_does_not() -> None:
    for day in range(90):
        trades((-1.0) ** day * (1 + day % 7), day=day)
    early_on, later = (build_report(BOOK, DAY + timedelta(days=days)) for days in (30, 89))
    for key in ("daily_sharpe", "daily_sortino"):
        assert line(early_on, key).book.why == "too early: 22 of 60 sessions"
        assert line(later, key).book.n >= 60
        assert line(later, key).book.value is not None
    assert line(later, "daily_sharpe").book.interval is not None
    assert line(early_on, "max_drawdown").book.value > 0
    assert line(later, "daily_sharpe").session.why == "too early: 1 of 60 sessions"


def test_without_an_equity_nothing_is_said_of_returns() -> None:
    trades(1.0, equity=None)
    assert line(build_report(BOOK, DAY), "max_drawdown").book.why == "the account's equity is not known"


def test_the_missing_pages_of_many_sessions_take_as_many_queries_as_one_page() -> None:
    def queries(book: str, days: int) -> int:
        for day in range(days):
            trades(1.0, day=day, book=book)
        with CaptureQueriesContext(connection) as captured:
            assert len(write_missing(book)) == days
        return len(captured)

    assert queries("replay:a", days=9) == queries("replay:b", days=1) <= 9


def test_queries_of_a_report_grow_neither_with_sessions_nor_with_trades() -> None:
    def queries(book: str, days: int, count: int) -> int:
        for day in range(days):
            trades(*[1.0] * count, day=day, book=book)
        with CaptureQueriesContext(connection) as captured:
            build_report(book, DAY + timedelta(days=days))
        return len(captured)

    assert queries("replay:a", days=9, count=5) == queries("replay:b", days=1, count=1) <= 9


@pytest.mark.parametrize(
    ("book", "words"),
    [
        ("simulated", "invented: a simulated market"),
        ("replay:0f3a", "bars from a file replayed"),
        ("paper:PA1", "Paper account"),
        ("live:1", "real money"),
    ],
)
def test_the_page_says_first_what_kind_of_market_it_is(book: str, words: str) -> None:
    trades(1.0, book=book)
    page = render_html(build_report(book, DAY))
    assert words in page
    assert page.index(words) < page.index("<h1>")


def test_times_are_new_yorks() -> None:
    trades(1.0)  # signal at 15:00 UTC, in at 15:01, out at 15:20
    report = build_report(BOOK, DAY)
    assert (report.trades[0].entered, report.trades[0].exited) == ("10:01", "10:20")
    assert "10:01" in render_markdown(report)


def test_trades_link_to_their_rows_in_the_admin() -> None:
    (trade,) = trades(1.0)
    assert f'href="/admin/positions/trade/{trade.pk}/change/"' in render_html(build_report(BOOK, DAY))


def test_the_page_asks_no_other_host_for_anything() -> None:
    trades(1.0)
    page = render_html(build_report(BOOK, DAY))
    assert "//cdn" not in page
    assert page.replace("http://127.0.0.1:8000", "").count("://") == 0


def test_text_from_the_database_cannot_become_markup() -> None:
    trades(1.0, symbol="<script>x")
    page = render_html(build_report(BOOK, DAY))
    assert "<script>x" not in page
    assert "&lt;script&gt;x" in page


def test_json_is_the_report_in_plain_values() -> None:
    trades(1.0, -1.0)
    content = json.loads(render_json(build_report(BOOK, DAY)))
    figures = {each["key"]: each for each in content["lines"]}
    assert content["day"] == "2024-01-03"
    assert figures["win_rate"]["session"]["value"] == 0.5
    assert figures["win_rate"]["session"]["interval"]["low"] == pytest.approx(0.0945, abs=1e-4)
    assert content["trades"][0]["pnl"] == "10.000000"
    assert content["trades"][0]["entered_at"] == "2024-01-03T10:01:00-05:00"


def test_the_file_lies_in_its_books_folder_and_is_replaced_whole(var_dir: Path) -> None:
    trades(1.0, book="replay:0f3a")
    path = write_report("replay:0f3a", DAY)
    assert path == var_dir / "reports" / "replay-0f3a" / "2024-01-03.html" == report_path("replay:0f3a", DAY)
    path.write_text("old")
    assert write_report("replay:0f3a", DAY).read_text().startswith("<!doctype html>")
    assert [each.name for each in path.parent.iterdir()] == ["2024-01-03.html"]


def test_the_pages_of_one_book_are_removed_and_nothing_else(var_dir: Path) -> None:
    for book in ("replay:0f3a", "replay:0f3b"):
        trades(1.0, book=book)
        trades(1.0, day=1, book=book)
        write_missing(book)
    note = report_path("replay:0f3a", DAY).with_name("my-notes.html")
    note.touch()
    remove_reports("replay:0f3a")
    assert list(note.parent.iterdir()) == [note]
    assert written_reports() == [("replay-0f3b", [DAY + timedelta(days=1), DAY])]
    remove_reports("never:written")


@pytest.mark.parametrize("book", ["", ".", "..", "/", "../..", "paper:../../x", "*", "replay-0f3?"])
def test_no_books_name_reaches_what_lies_outside_its_folder(var_dir: Path, book: str) -> None:
    trades(1.0, book="replay:0f3a")
    kept = [write_report("replay:0f3a", DAY), var_dir / "2024-01-03.html", var_dir / "reports" / "2024-01-03.html"]
    for path in kept:
        path.touch()
    assert folder_of(book).parent == var_dir / "reports"
    remove_reports(book)
    assert all(path.exists() for path in kept)


def test_a_books_name_cannot_lead_out_of_the_reports_folder(var_dir: Path) -> None:
    assert report_path("paper:../../x", DAY).parent.parent == var_dir / "reports"


def test_plotly_lies_where_a_page_opened_from_disk_looks_for_it() -> None:
    trades(1.0)
    path = write_report(BOOK, DAY)
    assert "../plotly.min.js" in path.read_text()
    assert (path.parent / "../plotly.min.js").resolve().stat().st_size > 1_000_000


def test_missing_pages_are_written_and_others_left_alone() -> None:
    for day in range(3):
        trades(1.0, day=day)
    report_path(BOOK, DAY).parent.mkdir(parents=True)
    report_path(BOOK, DAY).write_text("kept")
    written = write_missing(BOOK)
    assert [path.stem for path in written] == ["2024-01-04", "2024-01-05"]
    assert report_path(BOOK, DAY).read_text() == "kept"
    assert written[0].read_text() == render_html(build_report(BOOK, date(2024, 1, 4)))
    assert write_missing(BOOK) == []


def test_a_page_written_during_its_session_is_written_anew_after_the_close() -> None:
    trades(1.0)
    page = write_report(BOOK, DAY)
    during_the_session = datetime(2024, 1, 3, 12, tzinfo=NEW_YORK).timestamp()
    os.utime(page, (during_the_session, during_the_session))
    assert write_missing(BOOK) == [page]
    assert write_missing(BOOK) == []


def test_reporting_loads_no_plotly_scipy_or_pandas_at_start() -> None:
    code = (
        "import os, sys, django; os.environ['DJANGO_SETTINGS_MODULE'] = 'tradingsite.settings'; django.setup();"
        "import reports.management.commands.daily_report;"
        "print(*({'plotly', 'scipy', 'pandas', 'sklearn', 'xgboost'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
