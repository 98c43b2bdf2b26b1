"""`--json FILE`: what a command came to, for machines."""

import json
import tempfile
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from tradingsite.kit.files import write_whole
from tradingsite.kit.options import bad_input


def add_json_option(parser: ArgumentParser) -> None:
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there too, as JSON")


def check_json_file(path: Path | None) -> None:
    """Called before any work. Raises CommandError (status 2) where the file could not be written in the end."""
    if path is None:
        return
    if path.is_dir():
        raise bad_input(f"--json {path} is a folder; name a file in it.")
    if path.exists() and not path.is_file():
        raise bad_input(f"--json {path} is not a regular file; name one that may be replaced.")
    try:
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise bad_input(f"--json {path}: nothing can be written to {path.parent} ({error.strerror}).") from error


def write_json(path: Path, content: Any) -> None:
    """Raises ValueError for NaN and infinity, OSError where the file cannot be written."""
    write_whole(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())
