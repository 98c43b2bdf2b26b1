"""How work that lasts says how far it is."""

from collections.abc import Callable

#: Hears of the number of steps done since it was last called.
Progress = Callable[[int], None]


def quiet(done: int) -> None:
    """For whoever does not ask."""
