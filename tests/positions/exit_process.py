"""A process that holds exits and nothing else, killed where it is told to: `python -m tests.positions.exit_process`.

It reads a run as a line of JSON from stdin, does it in a fork of itself, and writes a line about it to stdout. A run
ends when all has come to rest, or with a real SIGKILL at a numbered call, or at a numbered statement of the database
while the journal of an earlier run is stored.
"""

import json
import os
import resource
import signal
import sys
import time
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

BEGAN = time.monotonic()

import django  # noqa: E402  # the time of the imports is measured

django.setup()

import requests  # noqa: E402
from django.db import OperationalError, connection  # noqa: E402

from positions.breakeven_manager import BreakevenStopManager  # noqa: E402
from positions.broker.alpaca import AlpacaBroker, TradingAccess  # noqa: E402
from positions.execution import Execution, Settle, Step  # noqa: E402
from positions.exit_monitor import ExitMonitor  # noqa: E402
from positions.journaled_store import JournaledStore, TradeJournal  # noqa: E402
from positions.market.bars import BarHistory, Universe  # noqa: E402
from positions.market.calendar import Session  # noqa: E402
from positions.market.indicators import IndicatorBank  # noqa: E402
from positions.rules import ExitSettings  # noqa: E402
from positions.store import OrmStore  # noqa: E402
from positions.words import TradeStatus  # noqa: E402
from tests.positions.world import BREAKEVEN, LEAVE, MINUTE, START, trade_plan  # noqa: E402

IMPORTED = time.monotonic()
PATIENCE = 60


class RemoteClock:
    """The clock of a stand-in in lockstep, in another process. Implements the Clock protocol."""

    def __init__(self, origin: str) -> None:
        self._control = f"{origin}/control"
        self._now = datetime.fromisoformat(requests.get(self._control, timeout=5).json()["now"])

    def now(self) -> datetime:
        return self._now

    def sleep_until(self, moment: datetime) -> None:
        if moment > self._now:
            self._now = moment
            requests.post(f"{self._control}/clock", json={"to": moment.isoformat()}, timeout=5)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Run:
    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec = spec
        self.steps = self.statements = 0

    def do(self) -> dict[str, Any]:
        began = time.monotonic()
        with ExitStack() as stack:
            stack.enter_context(connection.execute_wrapper(self._statement))
            clock = RemoteClock(self.spec["origin"])
            broker = AlpacaBroker(TradingAccess("key", "secret", origin=self.spec["origin"]), clock)
            store = JournaledStore(OrmStore("simulated"), TradeJournal(Path(self.spec["folder"])))
            self.execution = Execution(broker, store, clock, "test", 0.01)
            symbols = tuple(sorted({"KO", *store.live}))
            blank = ("",) * len(symbols)
            bank = IndicatorBank(Universe(symbols, blank, blank, (True,) * len(symbols), None))
            bank.open_session(Session(START.date(), START, START + timedelta(hours=6)), MINUTE, BarHistory())
            self.monitors = (
                ExitMonitor(bank, store, self.execution, ExitSettings),
                BreakevenStopManager(bank, store, self.execution, ExitSettings),
            )
            honest = self.execution._perform

            def perform(step: Step) -> Any:
                if isinstance(step, Settle):
                    return honest(step)
                self.steps += 1
                if self.steps == self.spec.get("kill_before"):
                    die()
                answer = honest(step)
                if self.steps == self.spec.get("kill_after"):
                    die()
                return answer

            self.execution._perform = perform  # type: ignore[method-assign]
            self._work(clock, store)
        return {
            "steps": self.steps,
            "statements": self.statements,
            "seconds": time.monotonic() - began,
            "import_seconds": IMPORTED - BEGAN,
            "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            "modules": sorted({name.partition(".")[0] for name in sys.modules}),
        }

    def _statement(self, execute: Any, *arguments: Any) -> Any:
        self.statements += 1
        if self.statements == self.spec.get("kill_at_statement"):
            die()
        if self.spec.get("down") and self.steps:
            raise OperationalError("server closed the connection unexpectedly")
        return execute(*arguments)

    def _work(self, clock: RemoteClock, store: JournaledStore) -> None:
        execution, job, asked = self.execution, self.spec["job"], False
        for _ in range(PATIENCE):
            execution.take_events()
            execution.resume()
            exits, breakeven = self.monitors
            exits.tick(clock.now())
            breakeven.monitor_for_breakeven()
            mine = store.live.get("KO")
            if job == "enter" and mine is None and not asked:
                asked = True
                execution.enter(trade_plan(at=datetime.fromisoformat(self.spec["signal_at"])))
            elif mine is not None and mine.trade.status == TradeStatus.OPEN:
                if job == "leave":
                    execution.exit(mine, LEAVE, 100.0)
                elif job == "move" and not mine.trade.breakeven_set:
                    execution.move_to_breakeven(mine, BREAKEVEN, {})
            if self._is_done(store):
                return
            clock.sleep_until(clock.now() + timedelta(seconds=1 if execution.urgent else 5))
        raise TimeoutError(f"{job} did not come to rest")

    def _is_done(self, store: JournaledStore) -> bool:
        if self.execution.owed or (store.down and not self.spec.get("down")):
            return False
        mine = store.live.get("KO")
        if self.spec["job"] == "leave":
            return mine is None
        if self.spec["job"] == "reconcile":
            return all(each.trade.status == TradeStatus.OPEN for each in store.live.values())
        if mine is None or mine.trade.status != TradeStatus.OPEN:
            return False
        return mine.trade.breakeven_set or self.spec["job"] != "move"


def main() -> None:
    for line in sys.stdin:
        result, told = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(told, json.dumps(Run(json.loads(line)).do()).encode())
            os._exit(0)
        os.close(told)
        _, status = os.waitpid(child, 0)
        with os.fdopen(result) as file:
            said = json.loads(file.read() or "{}")
        sys.stdout.write(json.dumps({"status": os.waitstatus_to_exitcode(status), **said}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
