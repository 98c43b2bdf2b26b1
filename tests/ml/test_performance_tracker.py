from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from ml.impact import SessionImpact, summed_impact
from ml.models import Performance, Prediction, TradeFeatures
from ml.performance_tracker import PerformanceTracker, Sample
from ml.words import PredictionMode
from positions.models import ErrorNote, StopMove, Trade
from positions.words import ExitReason, Outcome, StopMoveStatus
from tests.factories import MLModelFactory, TradeFactory, TradeFeaturesFactory, features_of

pytestmark = pytest.mark.django_db

DAY = date(2024, 1, 3)
TEN = datetime(2024, 1, 3, 15, 0, tzinfo=UTC)
BOOK = "simulated"


def closed(minute: int, r: float, **values: object) -> Trade:
    """A trade that closed `minute` minutes after ten with r R, at ten dollars an R."""
    given = {"outcome": Outcome.WIN if r > 0 else Outcome.LOSS, "signal_at": TEN, **values}
    return TradeFactory(**{"r_multiple": r, "exited_at": TEN + timedelta(minutes=minute), **given})


def predict(row: TradeFeatures, latency_us: float = 200.0, model: object = None) -> Prediction:
    return Prediction.objects.create(
        book=row.book,
        signal_key=row.signal_key,
        model=model or MLModelFactory(book=row.book),
        mode=PredictionMode.SHADOW,
        p_raw=0.5,
        p_win=0.5,
        p_geometry=1 / 3,
        decision="take",
        latency_us=latency_us,
        predicted_at=row.signal_at,
    )


def move_stop(trade: Trade, status: StopMoveStatus) -> None:
    StopMove.objects.create(
        book=trade.book,
        trade=trade,
        status=status,
        old_stop=Decimal(99),
        new_stop=Decimal(100),
        evidence={},
        decided_at=TEN,
    )


def stored(day: date = DAY, book: str = BOOK) -> Performance:
    PerformanceTracker(book).record_session(day)
    return Performance.objects.get(book=book, session=day)


def test_a_session_is_put_into_figures() -> None:
    for minute, r in ((30, 2.0), (10, -1.0), (20, -0.5), (40, 1.5)):
        closed(minute, r)
    row = stored()
    assert (row.trades, row.wins, row.losses) == (4, 2, 2)
    assert row.pnl == Decimal(20)
    assert row.win_rate == 0.5
    assert row.average_pnl == 5.0
    assert row.average_r == 0.5
    assert row.profit_factor == pytest.approx(35 / 15)
    assert row.sharpe_per_trade == pytest.approx(0.5 / (6.5 / 3) ** 0.5)


def test_drawdown_follows_the_order_of_closing_not_of_signals() -> None:
    for minute, r in ((30, -1.0), (10, -1.0), (20, 3.0)):
        closed(minute, r)
    assert stored().max_drawdown_r == 1.0


def test_a_sessions_return_is_on_the_equity_that_its_first_trade_was_sized_on() -> None:
    closed(30, 2.0, equity=Decimal(2_000), signal_at=TEN + timedelta(minutes=5))
    closed(10, -1.0, equity=Decimal(1_000), signal_at=TEN)
    assert stored().equity_return == pytest.approx(10 / 1_000)


def test_without_an_equity_there_is_no_return_and_without_a_trade_it_is_zero() -> None:
    closed(10, 1.0, equity=None)
    assert stored().equity_return is None
    assert stored(DAY + timedelta(days=1)).equity_return == 0.0


def test_sessions_of_the_exchange_without_a_trade_are_returns_of_zero() -> None:
    closed(10, 1.0, equity=Decimal(1_000))
    closed(10, -2.0, equity=Decimal(1_000), signal_at=TEN + timedelta(days=6))  # over a weekend to Tuesday
    sample = Sample(PerformanceTracker(BOOK).read().values())
    assert sample.returns is not None
    assert sample.returns.tolist() == [0.01, 0.0, 0.0, 0.0, -0.02]


def test_what_each_exit_was_worth_is_stored_as_sums_that_give_the_same_figures_again() -> None:
    for n in range(3):
        at = TEN + timedelta(days=n)
        closed(10, -0.5, signal_at=at, exit_reason=ExitReason.TIME_LIMIT, plan_outcome=Outcome.LOSS)
        closed(20, -1.05, signal_at=at, plan_outcome=Outcome.LOSS)
        closed(30, 0.3 * n, signal_at=at, exit_reason=ExitReason.MANUAL)
    history = PerformanceTracker(BOOK).read()
    PerformanceTracker(BOOK).record_sessions(list(history))
    read_again = Performance.objects.order_by("session").values_list("exit_effects", flat=True)
    found = summed_impact([SessionImpact.from_dict(each) for each in read_again])
    assert found == Sample(history.values()).impact
    assert found.rules[ExitReason.TIME_LIMIT].net == pytest.approx(0.55)
    assert found.excluded == {"taken over by hand": 3}


def test_a_result_of_exactly_zero_is_a_loss() -> None:
    closed(10, 0.0)
    row = stored()
    assert (row.wins, row.losses, row.win_rate) == (0, 1, 0.0)


def test_a_trade_without_known_risk_counts_in_dollars_and_is_left_out_of_r() -> None:
    closed(10, 1.0)
    trade = closed(20, -1.0)
    Trade.objects.filter(pk=trade.pk).update(r_multiple=None)
    row = stored()
    assert (row.trades, row.average_pnl) == (2, 0.0)
    assert (row.average_r, row.sharpe_per_trade) == (1.0, None)


def test_undefined_figures_of_a_session_without_trades_are_null() -> None:
    row = stored()
    assert (row.signals, row.trades, row.pnl, row.exits) == (0, 0, 0, {})
    undefined = ("win_rate", "average_pnl", "average_r", "profit_factor", "sharpe_per_trade", "max_drawdown_r")
    assert [getattr(row, name) for name in undefined] == [None] * 6
    assert row.prediction_p99_ms is None


def test_an_open_trade_counts_as_a_signal_and_for_its_unprotected_seconds_only() -> None:
    TradeFactory(still_open=True, unprotected_seconds=1.5)
    row = stored()
    assert (row.signals, row.trades, row.unprotected_seconds) == (1, 0, 1.5)


def test_a_trade_whose_features_were_lost_shows_as_missing_coverage() -> None:
    features_of(closed(10, 1.0))
    features_of(closed(20, 1.0), complete=False)
    closed(30, 1.0)
    TradeFeaturesFactory(taken=False)
    row = stored()
    assert (row.signals, row.feature_rows, row.complete_feature_rows) == (4, 3, 2)


def failed(count: int, day: date = DAY, **given: object) -> None:
    values = {"book": BOOK, "job": "tick", "error": "ValueError", "message": "odd", "first_at": TEN, "last_at": TEN}
    ErrorNote.objects.create(session=day, count=count, **{**values, **given})


def test_errors_are_counted_however_many_kinds_there_are() -> None:
    closed(10, 1.0)
    failed(3)
    failed(39, job="exits", symbol="KO")
    failed(5, book="paper:1")
    failed(7, day=DAY + timedelta(days=1))
    assert stored().errors == 42


def test_a_session_in_which_nothing_but_errors_happened_is_no_session_without_errors() -> None:
    failed(390, job="bars")
    row = stored()
    assert (row.signals, row.trades, row.errors) == (0, 0, 390)
    assert list(PerformanceTracker(BOOK).read()) == [DAY]


def test_exits_are_counted_by_reason() -> None:
    for reason in (ExitReason.STOP, ExitReason.TIME_LIMIT, ExitReason.STOP):
        closed(10, -1.0, exit_reason=reason)
    assert stored().exits == {"stop": 2, "time_limit": 1}


def test_only_confirmed_stop_moves_count() -> None:
    trade = closed(10, 1.0)
    for status in (StopMoveStatus.CONFIRMED, StopMoveStatus.REFUSED, StopMoveStatus.OWED):
        move_stop(trade, status)
    assert stored().breakeven_moves == 1


def test_predictions_belong_to_the_session_of_their_signal_and_count_once_a_signal() -> None:
    first, second = TradeFeaturesFactory(), TradeFeaturesFactory()
    other_day = TradeFeaturesFactory(signal_at=TEN + timedelta(days=1))
    for row, latency in ((first, 100.0), (first, 300.0), (second, 200.0), (other_day, 9000.0)):
        predict(row, latency)
    figures = stored()
    assert figures.predictions == 2
    assert figures.prediction_p99_ms == pytest.approx(0.298)  # 99 % of the way through 100, 200, 300


def test_other_books_and_sessions_stay_out() -> None:
    closed(10, 1.0)
    features_of(closed(10, -1.0, book="paper:1"))
    predict(features_of(closed(10, -1.0, signal_at=TEN + timedelta(days=1))))
    row = stored()
    assert (row.trades, row.signals, row.predictions, row.average_r) == (1, 1, 0, 1.0)


def test_a_signal_that_comes_while_its_session_is_read_waits_for_the_next_reading() -> None:
    TradeFactory(signal_at=TEN)
    late: list[Trade] = []

    def comes_late(execute: Any, sql: str, *about: Any) -> Any:
        if not late and sql.startswith("SELECT") and 'FROM "ml_predictions"' in sql:
            late.append(TradeFactory(signal_at=TEN, symbol="LATE"))
            predict(features_of(late[0]))
        return execute(sql, *about)

    with connection.execute_wrapper(comes_late):
        (record,) = PerformanceTracker(BOOK).read(DAY, DAY).values()
    assert late
    assert (len(record.trades), record.scores) == (1, [])
    assert len(PerformanceTracker(BOOK).read(DAY, DAY)[DAY].scores) == 1


def test_a_stop_that_moves_in_a_session_whose_first_trade_comes_while_it_is_read_waits_too() -> None:
    late: list[Trade] = []

    def comes_late(execute: Any, sql: str, *about: Any) -> Any:
        if not late and sql.startswith("SELECT") and 'FROM "stop_moves"' in sql:
            late.append(TradeFactory(signal_at=TEN))
            move_stop(late[0], StopMoveStatus.CONFIRMED)
        return execute(sql, *about)

    with connection.execute_wrapper(comes_late):
        assert PerformanceTracker(BOOK).read(DAY, DAY) == {}
    assert late
    assert PerformanceTracker(BOOK).read(DAY, DAY)[DAY].breakeven_moves == 1


def test_recording_again_replaces_the_row() -> None:
    closed(10, 1.0)
    stored()
    closed(20, -1.0)
    assert stored().trades == 2
    assert Performance.objects.count() == 1


def test_many_sessions_give_the_same_rows_as_each_alone() -> None:
    days = [DAY + timedelta(days=i) for i in range(4)]
    for i in range(3):
        at = TEN + timedelta(days=i)
        trade = closed(i + 5, i - 1.0, signal_at=at, exited_at=at + timedelta(minutes=9))
        predict(features_of(trade))
        move_stop(trade, StopMoveStatus.CONFIRMED)
    tracker = PerformanceTracker(BOOK)
    alone = [tracker.record_session(day) for day in days]
    names = [field.name for field in Performance._meta.fields if field.name != "id"]
    figures = [[getattr(row, name) for name in names] for row in alone]
    together = tracker.record_sessions(days)
    assert [row.session for row in together] == days
    assert [[getattr(row, name) for name in names] for row in together] == figures
    assert Performance.objects.count() == 4


def test_queries_grow_neither_with_sessions_nor_with_trades() -> None:
    def queries(days: int, trades: int) -> int:
        model = MLModelFactory(book=f"replay:{days}")
        for i in range(days):
            for _ in range(trades):
                trade = closed(10, 1.0, book=model.book, signal_at=TEN + timedelta(days=i))
                predict(features_of(trade), model=model)
                move_stop(trade, StopMoveStatus.CONFIRMED)
        with CaptureQueriesContext(
            connection,
        ) as captured:
            PerformanceTracker(model.book).record_sessions([DAY + timedelta(days=i) for i in range(days)])
        return len(captured)

    assert queries(days=12, trades=4) == queries(days=1, trades=1) <= 8


def test_the_last_session_is_the_newest_with_a_signal() -> None:
    tracker = PerformanceTracker(BOOK)
    assert tracker.last_session() is None
    closed(10, 1.0)
    assert tracker.last_session() == DAY
    TradeFeaturesFactory(signal_at=TEN + timedelta(days=2))
    assert tracker.last_session() == date(2024, 1, 5)
