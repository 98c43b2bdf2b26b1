from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from ml.models import DriftCheck, MLModel, Performance, Prediction
from ml.performance_tracker import PerformanceTracker
from ml.registry import promote
from ml.words import Gate, ModelStatus
from positions.journal import Journal
from positions.models import Trade, WorkerLease
from reports.daily import build_report
from tests.factories import FIRST_SIGNAL, MLModelFactory, TradeFactory, features_of
from tests.site.conftest import fill_tables, make_session, permit
from tradingsite.dashboard import CLOSED_SHOWN, NEEDED


def text(client: Client, **query: str) -> str:
    return " ".join(client.get("/admin/", query).content.decode().split())


def test_an_empty_site_says_what_to_do_in_every_panel(owner_client: Client) -> None:
    page = text(owner_client)
    for sentence in (
        "This book holds no session. Run",
        "No trade is open.",
        "No model was trained on this book yet.",
        "No trade has closed yet",
        "Each trading day gets a line here.",
        "No lease of this book is held.",
    ):
        assert sentence in page


@pytest.mark.parametrize(
    ("book", "warning"),
    [
        ("simulated", "These trades are invented"),
        ("replay:0123456789ab", "These trades were never made"),
        ("paper:1", "no money"),
        ("live:1", "real money"),
    ],
)
def test_the_banner_says_where_the_trades_of_the_book_come_from(owner_client: Client, book: str, warning: str) -> None:
    assert warning in text(owner_client, book=book)


def test_every_figure_of_the_session_stands_beside_its_n_or_its_baseline(rows: Trade, owner_client: Client) -> None:
    page = text(owner_client)
    assert "+1.90 R" in page
    assert "n = 1; the plans&#x27; own odds: 33.3%" in page
    assert "4 rows for 5 signals; 3 complete" in page


TEN = FIRST_SIGNAL
CLOSE = TEN.replace(hour=21)


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[datetime], None]:
    """Sets the site's clock."""
    return lambda moment: monkeypatch.setattr(timezone, "now", lambda: moment)


def closed_today(**given: Any) -> Trade:
    trade = TradeFactory(**{"book": "paper:1", "signal_at": TEN, **given})
    features_of(trade)
    return trade


def test_todays_result_of_an_account_is_shown_while_its_session_runs_and_before_any_report(
    owner_client: Client, at: Callable[[datetime], None]
) -> None:
    closed_today(unprotected_seconds=1.5)
    closed_today(outcome="LOSS")
    closed_today(still_open=True, r_multiple=None)
    TradeFactory(book="paper:1", signal_at=TEN - timedelta(days=1), r_multiple=7.0)
    at(TEN + timedelta(hours=1))
    page = text(owner_client, book="paper:1")
    assert "Session of 2024-01-03 so far" in page
    assert "+$8.50" in page  # +19.00 and -10.50
    assert "after fees, 2 closed trades" in page
    assert "+0.42 R" in page
    assert "1.5 s" in page
    assert "This book holds no session" not in page
    assert not Performance.objects.exists()


def test_a_session_that_has_closed_is_called_so_before_and_after_its_report(
    owner_client: Client, at: Callable[[datetime], None]
) -> None:
    closed_today()
    make_session("paper:1", TEN.date() - timedelta(days=1))
    for moment in (CLOSE, CLOSE + timedelta(hours=15), CLOSE + timedelta(days=4)):
        at(moment)
        page = text(owner_client, book="paper:1")
        assert "Last session: 2024-01-03, closed" in page
        assert "+$19.00" in page.split("The book so far")[0]
    PerformanceTracker("paper:1").record_session(TEN.date())
    assert "Last session: 2024-01-03, closed" in text(owner_client, book="paper:1")


def test_a_report_written_at_noon_does_not_hide_what_closed_after_it(
    owner_client: Client, at: Callable[[datetime], None]
) -> None:
    closed_today()
    PerformanceTracker("paper:1").record_session(TEN.date())
    closed_today()
    for moment, said in ((CLOSE - timedelta(seconds=1), "Session of 2024-01-03 so far"), (CLOSE, "Last session")):
        at(moment)
        page = text(owner_client, book="paper:1")
        assert said in page
        assert "after fees, 2 closed trades" in page


@pytest.mark.parametrize("moment", [TEN.replace(hour=14, minute=29), TEN.replace(day=6)])
def test_before_the_open_and_on_a_day_without_a_session_the_last_one_is_shown(
    owner_client: Client, at: Callable[[datetime], None], moment: datetime
) -> None:
    make_session("paper:1", date(2024, 1, 2))
    at(moment)
    assert "Last session: 2024-01-02, closed" in text(owner_client, book="paper:1")


def test_a_session_without_a_signal_yet_is_shown_once_the_process_that_trades_has_seen_a_bar_of_it(
    owner_client: Client, at: Callable[[datetime], None]
) -> None:
    yesterday = TradeFactory(book="paper:1", signal_at=TEN - timedelta(days=1))
    make_session("paper:1", yesterday.session)
    at(TEN)
    assert "Last session: 2024-01-02, closed" in text(owner_client, book="paper:1")
    lease = lease_of(yesterday, TEN, last_bar_at=TEN - timedelta(days=1))
    assert "Last session: 2024-01-02, closed" in text(owner_client, book="paper:1")
    lease.last_bar_at = TEN
    lease.save()
    page = text(owner_client, book="paper:1")
    assert "Session of 2024-01-03 so far" in page
    assert "after fees, 0 closed trades" in page


def test_at_a_simulated_alpaca_the_last_bar_says_whether_the_session_runs(owner_client: Client, settings: Any) -> None:
    settings.ALPACA_TRADING_URL = "http://127.0.0.1:9000"
    lease = lease_of(closed_today(), TEN, last_bar_at=TEN)
    page = text(owner_client, book="paper:1")
    assert "Session of 2024-01-03 so far" in page
    assert "after fees, 1 closed trade" in page
    lease.last_bar_at = CLOSE - timedelta(minutes=1)
    lease.save()
    assert "Last session: 2024-01-03, closed" in text(owner_client, book="paper:1")


def test_a_simulated_book_shows_its_last_session_whatever_the_day(
    owner_client: Client, at: Callable[[datetime], None]
) -> None:
    make_session("simulated", date(2024, 1, 2))
    closed_today(book="simulated")
    at(TEN + timedelta(hours=1))
    assert "Last session: 2024-01-02, closed" in text(owner_client)


def test_exits_stand_beside_what_their_plans_would_have_made_with_the_figures_of_the_report(
    owner_client: Client,
) -> None:
    for n in range(25):
        at = FIRST_SIGNAL + timedelta(days=n)
        left_early = {"exit_reason": "time_limit", "outcome": "LOSS", "r_multiple": -0.3 - 0.01 * (n % 3)}
        TradeFactory.create_batch(2, signal_at=at, plan_outcome="LOSS", **left_early)
        TradeFactory(signal_at=at)
    days = sorted(PerformanceTracker("simulated").read())
    PerformanceTracker("simulated").record_sessions(days)
    report = build_report("simulated", days[-1])
    page = text(owner_client)
    rule, together = report.impact
    for row in (rule, together):
        line = page[page.index(f">{row.rule}</td>") :].split("</tr>")[0]
        for figure in (row.trades, row.net, row.verdict):
            assert f">{figure}</td>" in line
    assert (rule.rule, rule.trades, rule.verdict) == ("time_limit", "50", "effective")
    assert report.impact_sentences[-2] in page  # the last is the caution


def test_the_trades_that_closed_last_are_shown_however_early_their_signals_came(owner_client: Client) -> None:
    TradeFactory(symbol="LONGEST", signal_at=FIRST_SIGNAL, exited_at=FIRST_SIGNAL + timedelta(hours=5))
    for n in range(CLOSED_SHOWN):
        TradeFactory(symbol=f"Q{n}", signal_at=FIRST_SIGNAL + timedelta(hours=1, minutes=n))
    page = text(owner_client)
    shown = [symbol for symbol in ("LONGEST", "Q7", "Q1", "Q0") if f">{symbol}</a>" in page]
    assert shown == ["LONGEST", "Q7", "Q1"]
    assert page.index(">LONGEST</a>") < page.index(">Q7</a>")


def test_what_the_plan_itself_closed_has_no_effect_to_judge(rows: Trade, owner_client: Client) -> None:
    PerformanceTracker("simulated").record_session(rows.session)
    line = text(owner_client).split(">target</td>")[1].split("</tr>")[0]
    assert line.count("–") == 2


def test_sessions_without_an_exit_do_not_say_that_no_trade_has_ever_closed(owner_client: Client) -> None:
    TradeFactory()
    make_session("simulated", date(2024, 1, 2), trades=0, wins=0, exits={})
    page = text(owner_client)
    assert "No trade has closed yet" not in page
    assert "No trade closed in the last 10 sessions that are stored" in page


def test_an_undefined_figure_is_told_with_its_reason_and_never_as_zero(owner_client: Client) -> None:
    make_session("simulated", date(2024, 1, 3), trades=0, wins=0, win_rate=None, average_r=None, pnl=0, exits={})
    page = text(owner_client)
    assert "undefined: no trade" in page
    assert ">0.0%<" not in page


def test_the_page_shows_one_book_at_a_time(rows: Trade, owner_client: Client) -> None:
    TradeFactory(book="paper:1", symbol="TSLA", still_open=True, r_multiple=None)
    assert "TSLA" not in text(owner_client)
    assert "TSLA" in text(owner_client, book="paper:1")
    assert '<option value="paper:1">' in text(owner_client)


def lease_of(trade: Trade, last_heard_of: datetime, **given: Any) -> WorkerLease:
    """The lease of a process that saw the trade protected, and was to be heard of again within twelve seconds."""
    seen = {"signal_key": trade.signal_key, "price": 101.5, "to_stop_r": 0.25, "rule": "time_limit", "share": 0.8}
    values = {
        "name": "trade",
        "holder": "host:1",
        "acquired_at": last_heard_of,
        "heartbeat_at": last_heard_of,
        "expires_at": last_heard_of + timedelta(seconds=12),
        "watched": [{**seen, "unprotected_since": None}],
    }
    return WorkerLease.objects.create(book=trade.book, **{**values, **given})


def test_an_open_trade_is_shown_as_the_watching_process_saw_it_last(owner_client: Client) -> None:
    trade = TradeFactory(book="paper:1", still_open=True, r_multiple=None)
    lease = lease_of(trade, timezone.now(), quarantined_bars=4321)
    page = text(owner_client, book="paper:1")
    assert "time_limit, 80% there" in page
    assert "+0.25 R" in page
    assert ">yes</td>" in page
    assert "4,321" in page
    lease.watched[0]["unprotected_since"] = "2024-01-03T15:00:05+00:00"
    lease.save()
    assert "NOT since 10:00:05" in text(owner_client, book="paper:1")


def test_a_trade_that_is_leaving_shows_by_what_and_that_its_exit_is_held_up(owner_client: Client) -> None:
    trade = TradeFactory(book="paper:1", still_open=True, r_multiple=None, status="exiting")
    lease = lease_of(trade, timezone.now())
    leaving = {"signal_key": trade.signal_key, "unprotected_since": None, "leaves_by": "session_close"}
    lease.watched = [{**leaving, "held_up_since": None, "price": 101.5, "to_stop_r": 0.25}]
    lease.save()
    page = text(owner_client, book="paper:1")
    assert "leaves by session_close" in page
    assert "101.50" in page
    assert ">yes</td>" in page
    lease.watched = [{**leaving, "held_up_since": "2024-01-03T15:00:05+00:00"}]
    lease.save()
    page = text(owner_client, book="paper:1")
    assert "exit held up since 10:00:05" in page
    assert "not known: look at the account" in page
    assert ">yes</td>" not in page


def test_a_process_that_is_not_heard_of_any_more_says_nothing_of_prices_and_protection(owner_client: Client) -> None:
    trade = TradeFactory(book="paper:1", still_open=True, r_multiple=None)
    heard = timezone.now() - timedelta(hours=3)
    lease_of(trade, heard)
    page = text(owner_client, book="paper:1")
    assert f"nobody watches since {timezone.localtime(heard):%Y-%m-%d %H:%M:%S}" in page
    assert "101.50" not in page
    assert "time_limit, 80% there" not in page
    assert ">yes</td>" not in page
    assert ">silent: expired</td>" in page


def test_an_accounts_open_trades_without_a_lease_are_watched_by_nobody(owner_client: Client) -> None:
    for book in ("paper:1", "simulated"):
        TradeFactory(book=book, still_open=True, r_multiple=None)
    assert ">nobody watches</td>" in text(owner_client, book="paper:1")
    assert "nobody watches" not in text(owner_client)


def test_the_lease_of_a_replay_runs_on_the_clock_of_the_wall(owner_client: Client) -> None:
    now = timezone.now()
    lease = lease_of(TradeFactory(), now, name="replay", watched=[])
    assert ">working</td>" in text(owner_client)
    lease.expires_at = now
    lease.save()
    assert ">silent: expired</td>" in text(owner_client)


def test_the_draft_of_a_run_that_goes_on_is_no_book_to_choose(rows: Trade, owner_client: Client) -> None:
    TradeFactory(book="simulated~draft")
    assert "~draft" not in text(owner_client)


def test_a_refused_model_is_shown_with_the_gates_reasons_and_its_baselines(owner_client: Client) -> None:
    MLModelFactory(
        gate=Gate.FAIL,
        gate_reasons=["AUC is 0.523 on 450 trades; it must be above 0.60."],
        n_test=450,
        metrics={
            "sessions": 30,
            "auc": 0.523,
            "auc_interval": {"low": 0.47, "high": 0.576},
            "geometry": {"auc": 0.511},
            "accuracy": 0.55,
            "majority_accuracy": 0.578,
        },
    )
    page = text(owner_client)
    for words in (
        "Gate: FAIL. It stays a candidate and decides nothing.",
        "it must be above 0.60.",
        "Tested on 450 trades of 30 sessions (5 windows, none seen in training)",
        "0.470 to 0.576",
        "0.511",
        "0.578",
    ):
        assert words in page
    assert "No model serves this book." in page


def test_the_model_that_serves_the_book_is_named(owner_client: Client) -> None:
    champion = MLModelFactory(champion=True)
    assert f'This book is served by <a class="text-link" href="/admin/ml/mlmodel/{champion.pk}/change/">' in text(
        owner_client
    )


def test_who_promoted_the_champion_and_when_its_override_ends_is_told(owner_client: Client) -> None:
    until = timezone.now() + timedelta(days=2)
    promote(MLModelFactory(gate=Gate.FAIL), "simulated", "ada", "to see it at work", override_until=until)
    page = text(owner_client)
    assert "promoted by ada: to see it at work. It did not pass its gate; the override ends" in page
    assert f"{timezone.localtime(until):%Y-%m-%d %H:%M}" in page


def test_a_champion_that_may_not_speak_is_shown_with_the_reason(owner_client: Client) -> None:
    model = promote(MLModelFactory(), "simulated", "ada", "better")
    assert "It does not speak: model simulated" in text(owner_client)
    assert "not signed with this site&#x27;s MODEL_SIGNING_KEY" in text(owner_client)
    MLModel.objects.filter(pk=model.pk).update(gate=Gate.FAIL, override_until=timezone.now())
    assert f"the override of model {model} has ended. Signals go on as if PREDICTION_MODE were off." in text(
        owner_client
    )


def test_what_the_champions_word_on_live_signals_was_worth_is_told_in_a_line(owner_client: Client) -> None:
    champion = MLModelFactory(champion=True)
    assert "What its word on live signals is worth is not known" in text(owner_client)
    side = {"model": champion.pk, "n": 10, "won": 4, "r": 1.5, "p_geometry": 3.0}
    judged = [{**side, "refused": False}, {**side, "refused": True, "n": 5, "won": 1}]
    for n in range(2):
        make_session("simulated", champion.test_to + timedelta(days=1 + n), judged=judged)
    page = text(owner_client)
    assert "of 20 that it let through 40.0% won (of all signals 33.3%, by their plans&#x27; own odds 30.0%)" in page
    assert "of 10 that it refused 80.0% lost (of all signals 66.7%, by their plans&#x27; own odds 40.0%)" in page
    assert "No verdict: 2 of the 20 sessions that one takes." in page


def test_the_candidate_on_trial_is_shown_with_how_far_it_got(rows: Trade, owner_client: Client) -> None:
    Prediction.objects.update(outcome="WIN")
    assert "shadows: 1 of 200 trades that it scored have closed." in text(owner_client)


def drift_check(model: MLModel, **given: Any) -> DriftCheck:
    values = {"checked_at": model.created_at, "rows": 1400, "sessions": 21, "errors": 1200, "errors_before": 0}
    return DriftCheck.objects.create(book=model.serving_book, model=model, **{**values, **given})


def test_the_champions_last_drift_check_is_told_with_what_it_rests_on(owner_client: Client) -> None:
    champion = MLModelFactory(champion=True)
    assert "It was never checked for drift: <code>python manage.py check_drift --book simulated</code>" in text(
        owner_client
    )
    drift_check(champion)
    assert "1,400 signals of 21 sessions and 1,200 closed predictions: no alarm." in text(owner_client)
    alarm = drift_check(champion, alarms=["rsi14: PSI 0.400."], stepped_down=True, reason="From filter to shadow.")
    page = text(owner_client)
    assert "<strong>rsi14: PSI 0.400. From filter to shadow.</strong>" in page
    assert f"/admin/ml/driftcheck/{alarm.pk}/change/" in page


def test_the_drift_check_of_a_model_that_was_replaced_is_not_shown(owner_client: Client) -> None:
    drift_check(MLModelFactory(champion=True, book="paper:1", serving_book="simulated"))
    MLModel.objects.update(status=ModelStatus.ARCHIVED)
    MLModelFactory(champion=True)
    assert "It was never checked for drift" in text(owner_client)


def test_the_number_of_queries_does_not_grow_with_the_rows(
    rows: Trade, owner_client: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    champion = MLModelFactory(champion=True)
    drift_check(champion)
    owner_client.get("/admin/")
    with django_assert_max_num_queries(18) as few:
        owner_client.get("/admin/")
    for n in range(12):
        other = TradeFactory(still_open=True, r_multiple=None)
        fill_tables(other, MLModelFactory())
        drift_check(champion)
        make_session("simulated", date(2024, 2, 1 + n))
    with django_assert_max_num_queries(len(few.captured_queries)):
        owner_client.get("/admin/")


def test_the_session_of_an_account_costs_eight_queries_more_however_many_trades_it_has(
    owner_client: Client, at: Callable[[datetime], None], django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    model = MLModelFactory(book="paper:1", champion=True)
    drift_check(model)
    fill_tables(TradeFactory(book="paper:1", signal_at=TEN), model)
    at(TEN + timedelta(hours=1))
    owner_client.get("/admin/", {"book": "paper:1"})
    with django_assert_max_num_queries(18 + 8) as few:
        owner_client.get("/admin/", {"book": "paper:1"})
    for _ in range(12):
        fill_tables(TradeFactory(book="paper:1", signal_at=TEN), model)
    with django_assert_max_num_queries(len(few.captured_queries)):
        owner_client.get("/admin/", {"book": "paper:1"})


def test_staff_without_the_permissions_is_told_which_ones_are_lacking_and_sees_no_figure(
    rows: Trade, newcomer: User, newcomer_client: Client
) -> None:
    page = text(newcomer_client)
    assert all(name in page for name in NEEDED)
    assert "+1.90 R" not in page
    permit(newcomer, *NEEDED)
    assert "+1.90 R" in text(newcomer_client)


def test_the_side_bar_offers_only_what_the_user_may_look_at(newcomer: User, newcomer_client: Client) -> None:
    permit(newcomer, "positions.view_trade")
    page = text(newcomer_client)
    assert "/admin/positions/trade/" in page
    assert "/admin/ml/mlmodel/" not in page


def test_the_book_of_the_settings_is_shown_unless_another_is_asked_for(
    rows: Trade, owner_client: Client, settings: Any
) -> None:
    settings.BOOK = "paper:1"
    assert "This book holds no session." in text(owner_client)


def test_rows_that_wait_to_be_stored_are_told_with_their_number(
    owner_client: Client, settings: Any, tmp_path: Path
) -> None:
    settings.VAR_DIR = tmp_path
    assert "No feature row waits to be stored." in text(owner_client)
    journal = Journal.create(tmp_path / "journal")
    journal.append(orjson.dumps({"at": 1_735_689_600.0}))
    assert "1 feature rows of live trading wait in the journal" in text(owner_client)
    journal.close()


def test_a_session_with_errors_leads_to_them_and_one_without_says_none(owner_client: Client) -> None:
    make_session("paper:mine", date(2024, 1, 3), errors=0)
    make_session("paper:mine", date(2024, 1, 4), errors=12)
    page = owner_client.get("/admin/", {"book": "paper:mine"}).content.decode()
    address = "/admin/positions/errornote/?book=paper%3Amine&amp;session_from=2024-01-04&amp;session_to=2024-01-04"
    assert f'href="{address}">12</a>' in page
    assert page.count("/admin/positions/errornote/?book") == 1
