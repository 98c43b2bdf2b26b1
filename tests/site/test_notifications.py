"""What people are told: once, on a change, in one message for many, and never in the way of trading.

Messages go through Apprise to real HTTP servers on this machine.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import structlog
from django.conf import settings as site
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection
from django.test.utils import CaptureQueriesContext
from pytest_django import DjangoAssertNumQueries

from ml.models import DriftCheck
from positions import halting, leases
from positions.clock import ReplayClock
from positions.models import OrderIntent, WorkerLease
from tests.factories import MLModelFactory, TradeFactory, TradeFeaturesFactory
from tests.site.test_trade_command import BOOK, _database, origin, refusal, server  # noqa: F401  # fixtures
from tradingsite import logs, news, notifying, schedules
from tradingsite.models import Notification
from tradingsite.notifying import Notifier, Services, deliver, message, note
from tradingsite.privacy import SecretsHidden

pytestmark = pytest.mark.django_db(transaction=True)

NOW = datetime(2024, 1, 3, 16, 0, tzinfo=UTC)  # 11:00 in New York, the session of the factories' trades
SECOND = timedelta(seconds=1)


class Service:
    """A notification service: keeps what it was sent, answers with `status` after `pause` seconds."""

    def __init__(self) -> None:
        self.received: list[dict[str, str]] = []
        self.status, self.pause = 200, 0.0
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                service.received.append(json.loads(body))
                time.sleep(service.pause)
                self.send_response(service.status)
                self.end_headers()

            def log_message(self, *about: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        self.url = f"json://127.0.0.1:{self._server.server_port}/secret-path"

    @property
    def lines(self) -> list[str]:
        """Of all messages, without the moments."""
        return [line[16:] for each in self.received for line in each["message"].splitlines()[:-1]]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def service() -> Iterator[Service]:
    made = Service()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _own_folder(settings: Any, tmp_path: Path) -> None:
    settings.VAR_DIR = tmp_path


def unused_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def notifier_of(service: Service, book: str = BOOK) -> Notifier:
    """Of a process that has just begun, on the market's time NOW."""
    return Notifier(book, Services(service.url), ReplayClock(NOW))


def looking(service: Service) -> Notifier:
    """One whose book has been looked at before."""
    notifier = notifier_of(service)
    notifier.look()
    return notifier


def close_trades(number: int, **values: Any) -> None:
    for _ in range(number):
        TradeFactory(book=BOOK, **values)


# -- what is told


def test_an_exit_is_told_with_its_result_and_its_rule(service: Service) -> None:
    notifier = looking(service)
    trade = TradeFactory(book=BOOK, symbol="KO")
    notifier.look(everything=True)
    (sent,) = service.received
    assert sent["title"] == "paper:tests: 1 exit (1 WIN)"
    assert sent["message"].splitlines() == [
        f"Jan 03 {trade.exited_at.astimezone(news.NEW_YORK):%H:%M:%S} KO long closed by target: +19.00 dollars after "
        "fees, +1.90 R, 10 shares, 100.00 to 102.00.",
        "Times are New York's.",
    ]


def test_what_had_happened_before_notifications_began_is_not_told(service: Service) -> None:
    close_trades(3)
    notifier = looking(service)
    TradeFactory(book=BOOK, symbol="KO")
    notifier.look(everything=True)
    assert [line.split()[0] for line in service.lines] == ["KO"]


def test_of_another_book_nothing_is_told(service: Service) -> None:
    notifier = looking(service)
    TradeFactory(book="simulated")
    notifier.look(everything=True)
    assert service.received == []


def test_a_halt_and_its_end_are_told_at_once_and_each_once(service: Service) -> None:
    notifier = looking(service)
    halting.halt(BOOK, halting.Halt("ada", NOW, "the news", flatten=True))
    notifier.look()
    notifier.look()
    halting.resume(BOOK, "ada")
    notifier.look()
    notifier.look()
    halting.halt(BOOK, halting.Halt("bob", NOW + SECOND))
    notifier.look()
    assert service.lines == [
        "Entries are blocked by ada; open trades are to be closed by trade, in market hours: the news.",
        "Entries are allowed again.",
        "Entries are blocked by bob.",
    ]


def test_each_protection_is_told_once_a_session_and_other_reasons_never(service: Service) -> None:
    notifier = looking(service)
    for reason in ("cooldown", "cooldown", "too_small", "daily_loss_limit", "halted"):
        TradeFeaturesFactory(book=BOOK, taken=False, not_taken_reason=reason)
        notifier.look(everything=True)
    assert service.lines == [
        "Entries are blocked by cooldown: too many losses came in a row.",
        "Entries are blocked by daily_loss_limit: the session has lost the fraction of equity that it may.",
    ]


def test_an_order_that_the_broker_rejected_is_told_with_its_words(service: Service) -> None:
    notifier = looking(service)
    trade = TradeFactory(book=BOOK, symbol="KO", still_open=True)
    for attempt in (1, 2):
        OrderIntent.objects.create(
            book=BOOK, trade=trade, client_order_id=f"stop-{attempt}", step="stop", attempt=attempt, quantity=10,
            status="rejected", created_at=NOW, error="stop price is above the market",
        )  # fmt: skip
    notifier.look(everything=True)
    assert service.lines == ["KO long: the broker rejected the stop order: stop price is above the market."]


def test_a_step_down_for_drift_is_told_and_a_check_without_one_is_not(service: Service) -> None:
    notifier = looking(service)
    model = MLModelFactory(version="20240103-9")
    for stepped_down in (False, True):
        DriftCheck.objects.create(
            book=BOOK, model=model, checked_at=datetime.now(UTC), rows=400, sessions=20, errors=0, errors_before=0,
            alarms=["rsi14: PSI 0.4"], stepped_down=stepped_down, reason="PREDICTION_MODE went from filter to shadow",
        )  # fmt: skip
    notifier.look()
    assert service.lines == ["Model 20240103-9 drifts (1 alarms): PREDICTION_MODE went from filter to shadow."]


def test_a_process_that_is_not_heard_of_is_told_once_a_second_look_confirms_it(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifying, "DEATH_CONFIRMED", timedelta(seconds=0.2))
    lease = leases.acquire(BOOK, leases.TRADING, datetime.now(UTC) - timedelta(minutes=1), timedelta(seconds=12))
    WorkerLease.objects.filter(pk=lease.pk).update(holder="elsewhere:7")
    notifier = looking(service)
    assert service.received == []
    assert notifier.suspects_death
    time.sleep(0.25)
    notifier.look()
    notifier.look()
    leases.acquire(BOOK, leases.TRADING, datetime.now(UTC), timedelta(seconds=12))
    notifier.look()
    notifier.look()
    assert service.lines == [
        "The process that trades (elsewhere:7) is not heard of any more; stops stay at the broker.",
        f"{leases.this_process()} trades in the place of one that died.",
    ]


def test_a_process_that_is_heard_of_again_in_time_has_not_died(service: Service) -> None:
    lease = leases.acquire(BOOK, leases.TRADING, datetime.now(UTC) - timedelta(minutes=1), timedelta(seconds=12))
    notifier = looking(service)
    leases.renew(lease, datetime.now(UTC), timedelta(seconds=12))
    notifier.look(everything=True)
    assert service.received == []


# -- what no table holds: heard from the log


def test_alarms_are_heard_whatever_the_level_of_the_log(service: Service) -> None:
    notifier = looking(service)
    logs.listeners.append(notifier.hear)
    try:
        log = structlog.get_logger("positions.execution")
        log.error("position_unprotected", trade="KO-1", seconds=9.0)
        log.info("position_protected_again", trade="KO-1")
        log.error("something_else", trade="KO-1")
    finally:
        logs.listeners.remove(notifier.hear)
    notifier.look()
    assert service.lines == [
        "KO-1: shares stand without a stop, look at the account.",
        "KO-1: its shares are protected again.",
    ]


@pytest.mark.parametrize("event", news.ALARMS)
def test_every_alarm_has_a_sentence_of_its_own(event: str) -> None:
    words = {"trade": "KO-1", "order": "o1", "what": "exits of KO-1", "about": "KO", "trouble": "none", "reason": "why"}
    told = news.overheard({"event": event, **words}, NOW)
    assert len(told.text) > 10
    assert "{" not in told.subject + told.state + told.text


def test_the_ordinary_state_is_news_after_another_one_only(service: Service) -> None:
    notifier = looking(service)
    for event in ("trading_began", "bars_again", "database_is_back"):
        notifier.hear({"event": event})
        notifier.look()
    assert service.received == []
    notifier.hear({"event": "bars_stopped", "trouble": "none since 15:31 UTC"})
    notifier.look()
    notifier.hear({"event": "bars_again"})
    notifier.look()
    assert [line.partition(" (")[0] for line in service.lines] == ["The bars have stopped", "Bars come again."]


def test_an_alarm_that_a_new_process_does_not_raise_again_is_called_off(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = looking(service)
    for trade in ("KO-1", "F-1"):
        before.hear({"event": "position_unprotected", "trade": trade})
    before.look()
    after = notifier_of(service)
    after.hear({"event": "trading_began"})
    after.hear({"event": "position_unprotected", "trade": "F-1"})
    after.look()
    monkeypatch.setattr(notifying, "CALLED_OFF_AFTER", timedelta(0))
    after.look()
    after.look()
    assert len(service.received) == 2
    assert service.lines[2:] == ["protection of KO-1: protected, as far as is known."]
    after.hear({"event": "position_unprotected", "trade": "KO-1"})
    after.look()
    assert len(service.received) == 3  # what is new is told again


def test_what_an_earlier_process_left_is_looked_for_once(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifying, "CALLED_OFF_AFTER", timedelta(0))
    notifier = looking(service)
    notifier.hear({"event": "trading_began"})
    notifier.look()
    with CaptureQueriesContext(connection) as queries:
        notifier.look()
    assert not [query for query in queries.captured_queries if "DISTINCT" in query["sql"]]


# -- never twice


def test_nothing_is_told_again_after_a_restart(service: Service) -> None:
    notifier = looking(service)
    close_trades(2)
    halting.halt(BOOK, halting.Halt("ada", NOW))
    notifier.hear({"event": "position_unprotected", "trade": "KO-1"})
    notifier.look()
    for _ in range(3):
        again = notifier_of(service)
        again.hear({"event": "position_unprotected", "trade": "KO-1"})
        again.look(everything=True)
    assert len(service.received) == 1
    assert len(service.lines) == 4


PROCESS = """
import sys
from datetime import UTC, datetime
from positions.clock import ReplayClock
from tradingsite.notifying import Notifier, Services
notifier = Notifier(sys.argv[1], Services(sys.argv[2]), ReplayClock(datetime(2024, 1, 3, 16, tzinfo=UTC)))
print("ready", flush=True)
for line in sys.stdin:
    notifier.look(everything=True)
    print("looked", flush=True)
"""


def process(service: Service, var_dir: Path) -> "subprocess.Popen[str]":
    """Looks whenever it is sent a line."""
    code = f"import django; django.setup()\n{PROCESS}"
    started = subprocess.Popen(
        [sys.executable, "-c", code, BOOK, service.url],
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "tradingsite.settings", "VAR_DIR": str(var_dir),
             "DATABASE_URL": _database()},
        cwd=site.BASE_DIR, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert started.stdout is not None
    assert started.stdout.readline() == "ready\n"
    return started


def ask(running: "subprocess.Popen[str]") -> None:
    assert running.stdin is not None
    running.stdin.write("\n")
    running.stdin.flush()


def test_of_two_processes_that_see_the_same_one_tells_it(service: Service, tmp_path: Path) -> None:
    looking(service)
    both = [process(service, tmp_path) for _ in range(2)]
    try:
        for _ in range(8):
            close_trades(5)
            for each in both:
                ask(each)
            for each in both:
                assert each.stdout is not None
                assert each.stdout.readline() == "looked\n"
    finally:
        for each in both:
            each.kill()
            each.communicate()
    symbols = [line.split()[0] for line in service.lines]
    assert len(symbols) == len(set(symbols)) == 40


def test_a_process_killed_while_it_sends_is_not_outdone_by_the_next(service: Service, tmp_path: Path) -> None:
    """The service has the message and the process never learned of it: it is not sent again, and the table says so."""
    looking(service)
    close_trades(1)
    service.pause = 3
    first = process(service, tmp_path)
    ask(first)
    until = time.monotonic() + 20
    while not service.received:
        assert time.monotonic() < until
        time.sleep(0.02)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    service.pause = 0
    notifier_of(service).look(everything=True)
    assert len(service.lines) == 1
    row = Notification.objects.get(kind="exit")
    assert (row.claim != "", row.sent_at, row.error) == (True, None, "")


def test_what_a_killed_process_had_noted_and_not_sent_is_sent_by_the_next(service: Service) -> None:
    looking(service)
    close_trades(1)
    notifier_of(service).look()  # noted, and waiting for what comes with it
    assert service.received == []
    notifier_of(service).look(everything=True)
    assert len(service.lines) == 1


# -- many at once


def test_a_hundred_exits_within_a_minute_are_one_message(service: Service) -> None:
    looking(service)
    services, seen = Services(service.url), set[int]()
    for second in range(0, 60, 6):
        close_trades(6)
        close_trades(4, outcome="LOSS")
        found = news.exits(BOOK, NOW.date(), seen)
        seen |= set(found)
        note(BOOK, list(found.values()), NOW + second * SECOND)
        assert deliver(BOOK, services, NOW + second * SECOND) == 0
    sent = sum(deliver(BOOK, services, NOW + second * SECOND) for second in range(60, 200))
    assert sent == 100
    (told,) = service.received
    assert told["title"] == "paper:tests: 100 exits (60 WIN, 40 LOSS)"
    assert len(told["message"]) <= 2000
    listed = len(service.lines) - 1
    assert (
        service.received[0]["message"].splitlines()[listed]
        == f"And {100 - listed} more: see Notifications in the admin."
    )


def test_a_single_exit_waits_fifteen_seconds_for_others_and_a_failure_takes_it_along_at_once(service: Service) -> None:
    looking(service)
    services = Services(service.url)
    close_trades(1)
    note(BOOK, list(news.exits(BOOK, NOW.date(), set()).values()), NOW)
    assert deliver(BOOK, services, NOW + 14 * SECOND) == 0
    note(BOOK, [news.overheard({"event": "position_unprotected", "trade": "KO-1"}, NOW)], NOW + 14 * SECOND)
    assert deliver(BOOK, services, NOW + 14 * SECOND) == 2
    assert service.lines[0] == "KO-1: shares stand without a stop, look at the account."
    close_trades(1)
    note(BOOK, list(news.exits(BOOK, NOW.date(), set()).values()), NOW)
    assert deliver(BOOK, services, NOW + 15 * SECOND) == 1


def test_the_gravest_stand_first_and_a_message_is_never_longer_than_services_take() -> None:
    told = [news.News(kind, "x", "s", "word " * 50, NOW) for kind in reversed(news.NewsKind) for _ in range(20)]
    title, body = message(BOOK, told)
    assert title == "paper:tests: 20 failures, 20 halts, 20 drifts, 20 refusals, 20 exits (20 s)"
    assert len(body) < 2000


# -- never in the way


def test_a_service_that_refuses_or_is_not_there_is_logged_and_counted_and_not_asked_again(service: Service) -> None:
    service.status = 503
    dead = f"json://127.0.0.1:{unused_port()}/secret-path"
    notifier = Notifier(BOOK, Services(f"{service.url}, {dead}"), ReplayClock(NOW))
    notifier.look()
    close_trades(1)
    with structlog.testing.capture_logs() as said:
        notifier.look(everything=True)
        notifier.look(everything=True)
    problems = [
        "JSON: it answered with HTTP status 503",
        "JSON: it could not be reached, or did not answer within 4 seconds",
    ]
    assert [(each["event"], each["changes"], each["services"]) for each in said] == [
        ("notification_not_sent", 1, problems)
    ]
    row = Notification.objects.get(kind="exit")
    assert (row.sent_at, row.error) == (None, "; ".join(problems))
    assert len(service.received) == 1


def test_one_service_that_fails_does_not_keep_the_others_from_being_told(service: Service) -> None:
    dead = f"json://127.0.0.1:{unused_port()}/"
    notifier = Notifier(BOOK, Services(f"{dead}, {service.url}"), ReplayClock(NOW))
    notifier.look()
    close_trades(1)
    notifier.look(everything=True)
    row = Notification.objects.get(kind="exit")
    assert len(service.lines) == 1
    assert row.sent_at is not None
    assert row.error.startswith("JSON: it could not be reached")


def test_a_service_that_never_answers_costs_whoever_trades_nothing(service: Service, settings: Any) -> None:
    looking(service)
    service.pause, settings.NOTIFY_URLS = 60, service.url
    log, times = structlog.get_logger("positions.execution"), []
    with notifying.notifying(BOOK, ReplayClock(NOW)):
        for number in range(300):
            began = time.perf_counter()
            log.info("position_protected_again", trade=f"KO-{number}")
            log.info("position_unprotected", trade=f"KO-{number}")
            times.append(time.perf_counter() - began)
            time.sleep(0.001)
        ended = time.monotonic()
    print(f"two events: median {sorted(times)[150] * 1e6:.0f} us, slowest {max(times) * 1e3:.1f} ms")  # noqa: T201
    assert sorted(times)[150] < 0.001
    assert time.monotonic() - ended < 7
    assert not logs.listeners


def test_alarms_that_nobody_looks_at_do_not_pile_up(service: Service) -> None:
    notifier = looking(service)
    for number in range(notifying.MOST_HEARD + 50):
        notifier.hear({"event": "exit_held_up", "trade": f"KO-{number}"})
    notifier.look()
    assert Notification.objects.exclude(claim=notifying.PAST).count() == notifying.MOST_HEARD
    assert len(service.received) == 1


def test_while_the_database_is_away_alarms_are_told_once_and_stored_when_it_is_back(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    notifier = looking(service)

    def away(*args: object, **options: object) -> None:
        raise OperationalError("away")

    with monkeypatch.context() as patched:
        patched.setattr(notifying, "note", away)
        notifier.hear({"event": "database_lost"})
        TradeFactory(book=BOOK, symbol="KO")
        notifier.look()
        restarted = notifier_of(service)
        for event in ("database_lost", "position_unprotected", "position_unprotected"):
            restarted.hear({"event": event, "trade": "KO-1"})
            restarted.look()
    told = [
        "The database is away: entries stop, exits and stops go on.",
        "KO-1: shares stand without a stop, look at the account.",
    ]
    assert service.lines == told
    again = notifier_of(service)
    again.hear({"event": "position_unprotected", "trade": "KO-1"})
    again.hear({"event": "database_is_back"})
    again.look()
    assert service.lines[:3] == [*told, "The database is back."]
    assert Notification.objects.filter(claim=notifying.WITHOUT_DATABASE).count() == 2
    assert [line[:24] for line in service.lines[3:]] == ["KO long closed by target"]


WITHOUT = f"""{PROCESS.partition("print")[0]}
for _ in range(2):
    notifier.hear({{"event": "database_lost"}})
    notifier.look()
"""


def test_a_database_that_is_not_there_keeps_no_alarm_back(service: Service, tmp_path: Path) -> None:
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", f"import django; django.setup()\n{WITHOUT}", BOOK, service.url],
            env={**os.environ, "DJANGO_SETTINGS_MODULE": "tradingsite.settings", "VAR_DIR": str(tmp_path),
                 "DATABASE_URL": "postgres://nobody@127.0.0.1:1/x", "DATABASE_POOL": "false"},
            cwd=site.BASE_DIR, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
    assert service.lines == ["The database is away: entries stop, exits and stops go on."]


def test_whatever_goes_wrong_the_thread_goes_on_and_says_so_once(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    notifier = looking(service)
    with monkeypatch.context() as patched, structlog.testing.capture_logs() as said:
        patched.setattr(news, "halt", lambda *about: 1 / 0)
        notifier._look_safely()
        notifier._look_safely()
    assert [each["event"] for each in said] == ["notifications_wait"]
    close_trades(1)
    notifier._look_safely(everything=True)
    assert len(service.lines) == 1


def test_a_look_at_a_day_of_told_exits_reads_no_trade_again(
    service: Service, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    notifier = looking(service)
    close_trades(30)
    notifier.look(everything=True)
    with django_assert_num_queries(7):  # trades that have closed, their keys alone, are one of them
        notifier.look()


# -- wired


def test_a_trading_process_that_cannot_go_on_tells_why(service: Service, origin: str, settings: Any) -> None:  # noqa: F811
    from positions.models import Instrument

    looking(service)
    Instrument.objects.all().delete()
    settings.NOTIFY_URLS = service.url
    for _ in range(2):
        refusal()
    assert len(service.lines) == 1
    assert service.lines[0].startswith("Trading has ended: The watchlist of book paper:tests is empty")


def test_the_schedule_tells_what_happens_while_nobody_trades(service: Service, settings: Any) -> None:
    settings.BOOK, settings.NOTIFY_URLS = BOOK, ""
    assert schedules.notify() == "NOTIFY_URLS is not set: nobody is told"
    settings.NOTIFY_URLS = service.url
    assert schedules.notify() == "looked at paper:tests for 1 services"
    halting.halt(BOOK, halting.Halt("ada", NOW))
    schedules.notify()
    assert service.lines == ["Entries are blocked by ada."]


# -- notify_test, and what must never be shown


def test_notify_test_says_what_came_back(
    service: Service, settings: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings.BOOK, settings.NOTIFY_URLS = BOOK, service.url
    call_command("notify_test", json=tmp_path / "told.json")
    assert "it took the message" in capsys.readouterr().out
    assert json.loads((tmp_path / "told.json").read_text()) == {"services": [{"service": "JSON", "problem": ""}]}
    assert service.received[0]["title"] == "paper:tests: a test"
    service.status = 401
    with pytest.raises(CommandError, match="1 of 1 services did not take the message") as failed:
        call_command("notify_test")
    assert failed.value.returncode == 1
    assert "it answered with HTTP status 401" in capsys.readouterr().out


@pytest.mark.parametrize("urls", ["", "json://127.0.0.1/x, nonsense://secret-word", "secret-word"])
def test_addresses_that_are_none_are_refused_without_being_shown(settings: Any, urls: str) -> None:
    settings.NOTIFY_URLS = urls
    with pytest.raises(CommandError) as refused:
        call_command("notify_test")
    assert refused.value.returncode == 2
    assert "secret-word" not in str(refused.value)


def test_no_part_of_an_address_is_ever_shown_or_logged(service: Service, tmp_path: Path) -> None:
    port = service.url.rpartition(":")[2].partition("/")[0]
    secret = "json://secret-user:secret-word@127.0.0.1:{}/secret-path?+X-Token=secret-header"
    urls = f"{secret.format(port)}, {secret.format(unused_port())}"
    for given in (urls, f"{urls}, nonsense://secret-word"):
        done = subprocess.run(
            [sys.executable, str(site.BASE_DIR / "manage.py"), "notify_test", "--traceback"],
            env={**os.environ, "VAR_DIR": str(tmp_path), "LOG_LEVEL": "DEBUG", "NOTIFY_URLS": given},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode in (1, 2)
        assert "secret" not in done.stdout + done.stderr
    assert len(service.received) == 1


def test_error_pages_hide_the_addresses(settings: Any) -> None:
    settings.NOTIFY_URLS = "json://secret-word@127.0.0.1"
    shown = SecretsHidden()
    assert "secret-word" not in str(shown.get_safe_settings())
    assert shown.cleanse_setting("DATABASE_URL", "postgres://u:secret-word@h/x") == shown.cleansed_substitute


def test_money_is_told_to_the_cent(service: Service) -> None:
    trade = TradeFactory.build(book=BOOK, symbol="KO", pnl=Decimal("-1234.565000"), r_multiple=-1.0049)
    told = news._exit(trade).text
    assert "-1,234.56 dollars after fees, -1.00 R" in told


def test_the_document_names_every_alarm() -> None:
    document = Path(site.BASE_DIR, "docs", "notifications.md").read_text()
    assert {event for event in news.ALARMS if f"`{event}`" not in document} == set()
