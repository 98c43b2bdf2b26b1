"""The kill switch: a file for each book, so that it works without a database and survives a restart."""

from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

import orjson
import structlog
from django.conf import settings

from positions.books import folder_name
from tradingsite.kit.files import write_whole

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Halt:
    """Entries are blocked, by whom, since when (UTC) and why; `flatten`: every open trade is closed too."""

    by: str
    at: datetime
    reason: str = ""
    flatten: bool = False

    @property
    def extent(self) -> str:
        """What is to become of open trades: nobody here closes anything, `trade` does."""
        return "open trades are to be closed by trade, in market hours" if self.flatten else "open trades go on"


def _path(book: str) -> Path:
    return Path(settings.VAR_DIR, "halted", f"{folder_name(book)}.json")


def halt(book: str, told: Halt) -> Halt:
    """In force with the next tick, as it is given back: where open trades are being closed that stands until `resume`,
    whatever a later halt says, unless both come in the same moment. Raises OSError, which names the file: nothing is
    halted then."""
    path, before = _path(book), halted(book)
    if before and before.flatten and not told.flatten:
        return before
    path.parent.mkdir(exist_ok=True)
    write_whole(path, orjson.dumps(asdict(told)))
    log.warning("halted", book=book, by=told.by, reason=told.reason, flatten=told.flatten)
    return told


def resume(book: str, by: str) -> bool:
    """Allow entries again; False if they were not blocked."""
    try:
        _path(book).unlink()
    except FileNotFoundError:
        return False
    log.warning("resumed", book=book, by=by)
    return True


def halted(book: str) -> Halt | None:
    """None where entries are allowed; a file that cannot be read blocks them."""
    path = _path(book)
    try:
        told = orjson.loads(path.read_bytes())
        if not isinstance(told["flatten"], bool):
            raise ValueError("flatten is neither true nor false")
        return Halt(**{**told, "at": datetime.fromisoformat(told["at"])})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        return Halt("nobody known", datetime.fromtimestamp(0).astimezone(), f"{path} cannot be read: {error}")
