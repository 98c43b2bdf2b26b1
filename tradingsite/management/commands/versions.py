"""`versions`: import every package of requirements.txt in a process of its own and say what was found."""

import os
import re
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from django.conf import settings

from tradingsite.kit.command import SiteCommand
from tradingsite.kit.json_file import write_json
from tradingsite.kit.terminal import console, folding_table, progress

AT_ONCE = 2  # more would measure each other on a small machine
SECONDS_ALLOWED = 120

# Packages whose top is empty or lazy, so that importing it would prove nothing.
DEEPER = {"alpaca-py": "alpaca.trading.client", "river": "river.drift", "plotly": "plotly.graph_objects"}

IMPORT = """
import importlib, sys, time
start = time.perf_counter()
importlib.import_module(sys.argv[1])
print(time.perf_counter() - start)
"""


@dataclass(frozen=True, slots=True)
class Found:
    """One package; `seconds` is the time of its import, None where it failed, and then `error` says why."""

    name: str
    version: str | None
    seconds: float | None
    error: str = ""

    @property
    def ok(self) -> bool:
        return self.seconds is not None


def required(path: Path) -> list[str]:
    """Names of the distributions in a requirements file, in its order."""
    names = (re.match(r"[A-Za-z0-9._-]+", line) for line in path.read_text().splitlines() if not line.startswith("#"))
    return [name[0] for name in names if name]


def import_name(distribution: str, packages: Mapping[str, Sequence[str]]) -> str:
    """What to import for a distribution; `packages` is importlib.metadata.packages_distributions()."""
    if distribution in DEEPER:
        return DEEPER[distribution]
    wanted = _normal(distribution)
    offered = [name for name, owners in packages.items() if wanted in map(_normal, owners) and name[0] != "_"]
    return wanted if wanted in offered or not offered else offered[0]


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def look(distribution: str, module: str) -> Found:
    """Import the module in a new process."""
    try:
        version = metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return Found(distribution, None, None, "not installed")
    try:
        done = subprocess.run(
            [sys.executable, "-c", IMPORT, module],
            capture_output=True,
            text=True,
            timeout=SECONDS_ALLOWED,
            check=False,
            env={**os.environ, "DJANGO_SETTINGS_MODULE": "tradingsite.settings"},
            cwd=settings.BASE_DIR,
        )
    except subprocess.TimeoutExpired:
        return Found(distribution, version, None, f"the import took more than {SECONDS_ALLOWED} s")
    if done.returncode:
        return Found(distribution, version, None, (done.stderr.strip().splitlines() or ["no message"])[-1])
    return Found(distribution, version, float(done.stdout.splitlines()[-1]))


def markdown(found: Sequence[Found]) -> str:
    rows = [f"| {each.name} | {each.version or 'not installed'} |" for each in found]
    return "\n".join(["| package | version |", "|---|---|", *rows])


class Command(SiteCommand):
    help = "Import every package of requirements.txt in a process of its own and print versions and import times."
    example = "--json versions.json"
    exit_status = {0: "all can be imported", 1: "one cannot", 2: "bad input"}

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--markdown", action="store_true", help="print the table of the README instead")

    def handle(self, *args: Any, **options: Any) -> None:
        names, packages = required(settings.BASE_DIR / "requirements.txt"), metadata.packages_distributions()
        with ThreadPoolExecutor(AT_ONCE) as pool, progress("Importing", len(names)) as advance:
            found = []
            for each in pool.map(lambda name: look(name, import_name(name, packages)), names):
                found.append(each)
                advance(1)
        if options["json"]:
            write_json(options["json"], [{**asdict(each), "ok": each.ok} for each in found])
        if options["markdown"]:
            self.stdout.write(markdown(found))
        else:
            self._show(found)
        if not all(each.ok for each in found):
            sys.exit(1)

    def _show(self, found: Sequence[Found]) -> None:
        table = folding_table("package", "version", "import", "found", title=f"Python {sys.version.split()[0]}")
        for each in found:
            seconds = "-" if each.seconds is None else f"{each.seconds:.2f} s"
            table.add_row(each.name, each.version or "-", seconds, "ok" if each.ok else each.error)
        console().print(table)
