"""What commands share at the terminal."""

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    yield
