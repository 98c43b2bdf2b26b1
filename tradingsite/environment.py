"""Typed readers of the environment, used by settings and checks. A `.env` file fills in what the environment lacks."""

import contextlib
import os
import secrets
from pathlib import Path
from typing import TypeVar

from dotenv import load_dotenv

Number = TypeVar("Number", int, float)


class BadEnvironment(ValueError):
    """A value in the environment cannot be used; the message names the variable and says what would do."""


def read_env_file(path: Path) -> None:
    """Add what the file sets to the environment; what is set already wins, and a missing file is no error."""
    load_dotenv(path, override=False)


def env_str(name: str, default: str) -> str:
    """What is set; an empty value counts as not set."""
    return os.environ.get(name) or default


def env_bool(name: str, default: bool) -> bool:
    """Read a switch. Raises BadEnvironment on anything but true/false, yes/no, on/off, 1/0."""
    raw = os.environ.get(name, "").strip().lower()
    if not raw:
        return default
    if raw in {"1", "true", "yes", "on"}:
        return True
    if raw in {"0", "false", "no", "off"}:
        return False
    raise BadEnvironment(f"{name}={raw!r} is not a switch; use true or false")


def env_number(name: str, default: Number) -> Number:
    """A number above 0 of the default's type. Raises BadEnvironment on anything else."""
    raw = env_str(name, str(default))
    try:
        number = type(default)(raw)
    except ValueError as error:
        raise BadEnvironment(f"{name}={raw!r} is not a number like {default}") from error
    if not 0 < number < float("inf"):
        raise BadEnvironment(f"{name}={raw!r} is not above 0")
    return number


def env_list(name: str, default: str) -> list[str]:
    return [part.strip() for part in env_str(name, default).split(",") if part.strip()]


def state_folder(path: Path) -> Path:
    """The folder for what is kept on disk, made on first use. Raises BadEnvironment where it cannot be made."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadEnvironment(f"VAR_DIR={path} cannot be used as a folder: {error.strerror}") from error
    return path


def installation_secret(path: Path) -> str:
    """The secret of this installation, made on first use and readable by its owner only."""
    return _kept(path, secrets.token_urlsafe(50))


def installation_id(path: Path) -> str:
    """Eight letters and digits that name this installation, made on first use: a database that is restored keeps it."""
    return _kept(path, secrets.token_hex(4))


def _kept(path: Path, text: str) -> str:
    """What the file says, the text if there is none yet.

    Written aside and linked into place, so that two processes starting at once read the same one.
    """
    if not path.exists():
        draft = path.with_name(f"{path.name}.{os.getpid()}")
        draft.touch(mode=0o600)
        draft.write_text(text)
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
        draft.unlink()
    return path.read_text()
