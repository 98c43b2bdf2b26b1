"""The process that exits depend on: killed for good at every call, started again, and what it costs to have."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.db import connection

from positions.models import OrderIntent, PositionExit, StopMove, Trade
from positions.words import ExitStatus, TradeStatus
from tests.positions.desk_over_http import RISEN, DeskOverHttp
from tests.positions.stand_in import OPEN
from tests.positions.world import BREAKEVEN, LEAVE, trade_plan

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]

NEVER_IMPORTED = {"sklearn", "xgboost", "shap", "plotly"}
KILLED = -9


def database_url() -> str:
    options = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"sqlite:///{options['NAME']}"
    login = f"{options['USER']}:{options['PASSWORD']}" if options["PASSWORD"] else options["USER"]
    return f"postgres://{login}@{options['HOST']}:{options['PORT']}/{options['NAME']}"


class Processes:
    """Runs of tests/positions/exit_process.py, each in a process of its own that may be killed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._mother = subprocess.Popen(
            [sys.executable, "-m", "tests.positions.exit_process"],
            cwd=settings.BASE_DIR,
            env={
                **os.environ,
                "DJANGO_SETTINGS_MODULE": "tradingsite.settings",
                "DATABASE_URL": database_url(),
                "DATABASE_POOL": "false",
                "VAR_DIR": str(folder),
                "LOG_LEVEL": "ERROR",
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, desk: DeskOverHttp, job: str, **how: Any) -> dict[str, Any]:
        """`status` is KILLED or 0; of a run that ended by itself also what it did and took."""
        spec = {
            "origin": desk.alpaca.origin,
            "folder": str(self._folder / "trades"),
            "job": job,
            "signal_at": OPEN.isoformat(),
            **how,
        }
        assert self._mother.stdin is not None
        assert self._mother.stdout is not None
        self._mother.stdin.write(json.dumps(spec) + "\n")
        self._mother.stdin.flush()
        said: dict[str, Any] = json.loads(self._mother.stdout.readline())
        return said

    def close(self) -> None:
        assert self._mother.stdin is not None
        self._mother.stdin.close()
        self._mother.wait(timeout=10)
        assert self._mother.stdout is not None
        self._mother.stdout.close()


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    processes = Processes(tmp_path)
    yield processes
    processes.close()


def nothing(desk: DeskOverHttp) -> None:
    pass


def held(desk: DeskOverHttp) -> None:
    desk.hold()


def risen(desk: DeskOverHttp) -> None:
    desk.hold()
    desk.rise()


def fresh(alpaca, prepare: Callable[[DeskOverHttp], None]) -> DeskOverHttp:
    for table in (PositionExit, StopMove, OrderIntent, Trade):
        table.objects.all().delete()
    alpaca.reset(ko=RISEN)
    desk = DeskOverHttp(alpaca)
    prepare(desk)
    return desk


def ended_as_it_should(desk: DeskOverHttp, job: str) -> list[str]:
    """What is lost, doubled or short, once the venue has done what it was asked for."""
    desk.alpaca.go(5)
    wrong = desk.wrong()
    trade = Trade.objects.get()
    if job == "leave":
        exits = list(PositionExit.objects.values_list("status", "rule"))
        if (exits, trade.status, trade.exit_reason) != (
            [(ExitStatus.DONE, LEAVE.rule)],
            TradeStatus.CLOSED,
            LEAVE.rule,
        ):
            wrong.append(f"{exits} and a trade that is {trade.status} by {trade.exit_reason}")
    elif (trade.status, desk.held, desk.covered) != (TradeStatus.OPEN, 10, 10):
        wrong.append(f"a trade that is {trade.status}, {desk.held} shares, {desk.covered} of them covered")
    elif job == "move" and (desk.stop_price, trade.stop_price) != (BREAKEVEN, BREAKEVEN):
        wrong.append(f"the stop is {desk.stop_price}, {trade.stop_price} in the database")
    return wrong


@pytest.mark.parametrize(("job", "prepare"), [("enter", nothing), ("move", risen), ("leave", held)])
def test_a_process_killed_before_and_after_each_of_its_calls_leaves_all_to_the_next(
    alpaca, processes, job, prepare, capsys
):
    desk = fresh(alpaca, prepare)
    steps = processes.run(desk, job)["steps"]
    assert ended_as_it_should(desk, job) == []
    wrong, kills = [], 0
    for number in range(1, steps + 1):
        for kill in ("kill_before", "kill_after"):
            desk = fresh(alpaca, prepare)
            kills += processes.run(desk, job, **{kill: number})["status"] == KILLED
            assert processes.run(desk, job)["status"] == 0
            wrong += [f"{kill} {number} of {steps}: {each}" for each in ended_as_it_should(desk, job)]
    with capsys.disabled():
        sys.stdout.write(f"\n{job}: {kills} kills, {len(wrong)} lost, doubled or short ")
    assert wrong == []
    assert kills == 2 * steps


def test_a_process_killed_at_each_statement_by_which_it_stores_the_journal_stores_it_exactly_once(
    alpaca, processes, capsys
):
    wrong, kills = [], 0
    for statement in count(1):
        desk = fresh(alpaca, held)
        assert processes.run(desk, "leave", down=True, kill_before=11)["status"] == KILLED
        assert not PositionExit.objects.exists()
        ended = processes.run(desk, "leave", kill_at_statement=statement)
        if ended["status"] == 0:
            break
        kills += 1
        assert processes.run(desk, "leave")["status"] == 0
        wrong += [f"at statement {statement}: {each}" for each in ended_as_it_should(desk, "leave")]
    with capsys.disabled():
        sys.stdout.write(f"\njournal and what follows: {kills} kills, {len(wrong)} lost, doubled or short ")
    assert wrong == []
    assert kills >= 20


def test_a_process_killed_at_any_call_while_the_database_is_down_leaves_its_journal_to_the_next(
    alpaca, processes, capsys
):
    desk = fresh(alpaca, held)
    steps = processes.run(desk, "leave", down=True)["steps"]
    assert processes.run(desk, "leave")["status"] == 0
    assert ended_as_it_should(desk, "leave") == []
    wrong = []
    for number in range(1, steps + 1):
        desk = fresh(alpaca, held)
        assert processes.run(desk, "leave", down=True, kill_after=number)["status"] == KILLED
        assert processes.run(desk, "leave")["status"] == 0
        wrong += [f"after {number} of {steps}: {each}" for each in ended_as_it_should(desk, "leave")]
    with capsys.disabled():
        sys.stdout.write(f"\ndatabase down: {steps} kills, {len(wrong)} lost, doubled or short ")
    assert wrong == []


def test_what_it_imports_weighs_and_takes_until_all_is_known(alpaca, processes, capsys):
    desk = fresh(alpaca, held)
    said = processes.run(desk, "reconcile")
    assert set(said["modules"]) & NEVER_IMPORTED == set()
    with capsys.disabled():
        sys.stdout.write(
            f"\n{said['import_seconds']:.1f} s of imports, {said['seconds']:.2f} s until reconciled, "
            f"{said['megabytes']:.0f} MB "
        )
    assert said["seconds"] <= 3
    assert said["megabytes"] <= 220


def test_with_fifty_positions_all_are_protected_and_known_within_five_seconds_of_a_start(alpaca, tmp_path, capsys):
    """From the start of a new process on; the stops of ten of them are gone, the exits of ten have begun."""
    alpaca.reset(others=50, cash=1_000_000)
    desk = DeskOverHttp(alpaca)
    symbols = [f"T{number}" for number in range(50)]
    for symbol in symbols:
        desk.execution.enter(trade_plan(symbol, at=OPEN))
    desk.clock.sleep_until(OPEN + timedelta(minutes=1))
    desk.tick()
    desk.clock.sleep_until(OPEN + timedelta(minutes=2))
    desk.tick()
    assert len(desk.working) == 50
    for order in desk.working[:10]:
        alpaca.client().cancel_order_by_id(order.id)
    PositionExit.objects.bulk_create(
        PositionExit(
            book="simulated",
            trade=trade,
            rule=LEAVE.rule,
            evidence={},
            decided_at=OPEN + timedelta(minutes=2),
            decided_price=Decimal(100),
            quantity=10,
        )
        for trade in Trade.objects.filter(symbol__in=symbols[40:])
    )
    alpaca.go(60)
    calls = sum(alpaca.server.requests.values())
    began = time.monotonic()
    processes = Processes(tmp_path)
    try:
        said = processes.run(desk, "reconcile")
    finally:
        seconds = time.monotonic() - began
        processes.close()
    assert said["status"] == 0
    alpaca.go(5)
    venue = alpaca.server.venue
    covered = {order.symbol: order.quantity for order in desk.working}
    requests = sum(alpaca.server.requests.values()) - calls
    with capsys.disabled():
        sys.stdout.write(
            f"\n50 positions: {seconds:.1f} s from the start, {said['seconds']:.1f} s after the imports, "
            f"{requests} requests "
        )
    assert requests <= 80, "one listing, and what twenty trades take that are not as they should be"
    assert set(venue.account.held) == set(symbols[:40])
    assert covered == dict.fromkeys(symbols[:40], 10)
    assert Trade.objects.filter(status=TradeStatus.CLOSED, exit_reason=LEAVE.rule).count() == 10
    assert PositionExit.objects.filter(status=ExitStatus.DONE).count() == 10
    assert seconds <= 5
