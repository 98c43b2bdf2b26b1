"""The clock of a simulated Alpaca in another process (see positions/broker/server.py)."""

import time
from datetime import datetime, timedelta
from threading import Thread
from typing import Any

import requests

from positions.clock import FastClock

#: Wall seconds between looks at the server's clock, which jumps over nights.
LOOK_S = 0.2
#: What one question may take, in wall seconds.
TIMEOUT_S = 5.0


class StandsStill(Exception):
    """The simulated Alpaca's clock does not run: nothing would ever happen."""


class ServerClock(FastClock):
    """Runs as fast as the server's, and jumps where that one does. Its thread dies with the process."""

    def __init__(self, origin: str, told: dict[str, Any]) -> None:
        super().__init__(datetime.fromisoformat(told["now"]), told["speed"])
        self._origin, self._jump_if_behind = origin, timedelta(seconds=2 * LOOK_S * told["speed"])
        Thread(target=self._follow, name="server-clock", daemon=True).start()

    def _follow(self) -> None:
        with requests.Session() as session:
            while True:
                time.sleep(LOOK_S)
                try:
                    there = datetime.fromisoformat(
                        session.get(f"{self._origin}/control", timeout=TIMEOUT_S).json()["now"]
                    )
                except (requests.RequestException, ValueError, KeyError):
                    continue  # it is away: time goes on as it did
                if there - self.now() > self._jump_if_behind:
                    self.jump(there)


def server_clock(origin: str) -> ServerClock | None:
    """The clock of the simulated Alpaca at this origin, None where there is none. Raises StandsStill."""
    try:
        told = requests.get(f"{origin}/control", timeout=TIMEOUT_S).json()
        if told["lockstep"]:
            raise StandsStill(f"the clock of the simulated Alpaca at {origin} stands still; start it with --speed")
        return ServerClock(origin, told)
    except (requests.RequestException, ValueError, KeyError, TypeError):
        return None
