"""What commands share at the terminal: who sits there, a console, and a bar with the time left."""

import contextlib
import os
from collections.abc import Iterator
from getpass import getuser
from typing import IO, TYPE_CHECKING, Any, Protocol, cast

from django.core.management.base import OutputWrapper

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


class Advance(Protocol):
    """Hears of the number of units done since it was last called, and how many there are where that is known late."""

    def __call__(self, done: int, total: int | None = None) -> None: ...


def user_name() -> str:
    """That of the process's user, its number where it has none, as in a container."""
    try:
        return getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def console(file: OutputWrapper | None = None) -> "Console":
    """A rich console on a command's output, by default standard output; plain lines where that is no terminal. What it
    prints stands as it is: a reason in brackets is no markup, `paper:new:` no emoji."""
    from rich.console import Console

    return Console(file=cast(IO[str] | None, file), highlight=False, markup=False, emoji=False)


def folding_table(*headings: str, numbers: bool = False, **look: Any) -> "Table":
    """An empty table that folds what a narrow terminal has no room for and cuts nothing. `numbers`: all columns but the
    first are set to the right. `look`: as rich has it."""
    from rich.table import Table

    table = Table(title_justify="left", caption_justify="left", **look)
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="right" if numbers and place else "left", overflow="fold")
    return table


@contextlib.contextmanager
def progress(label: str, total: int | None = None, screen: "Console | None" = None) -> Iterator[Advance]:
    """A bar with the time gone by and the time left, shown only where `screen`, by default standard output, is a
    terminal. What is printed meanwhile goes to `screen`."""
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    screen = screen or console()
    gone, left = (TimeElapsedColumn(), TextColumn("gone,")), (TimeRemainingColumn(), TextColumn("left"))
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), *gone, *left)
    with Progress(*columns, console=screen, disable=not screen.is_terminal, transient=True) as bar:
        task = bar.add_task(label, total=total)
        yield lambda done, total=None: bar.update(task, advance=done, total=total)
