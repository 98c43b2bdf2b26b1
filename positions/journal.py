"""A journal on disk: checksummed lines, one file a writing process, locked for as long as that process lives.

What `append` has taken outlives the process; what `sync` has seen outlives the power supply. A file whose writer is
dead belongs to whoever locks it next.
"""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from zlib import crc32

import structlog

log = structlog.get_logger(__name__)

SUFFIX = ".journal"
CHUNK = 1 << 18
_CHECKSUM = 9  # eight hex digits and a blank


class Journal:
    """An open, locked journal file. `end` is where the next line goes, `done` how far a reader has dealt with it."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self.end = os.fstat(fd).st_size
        self.done = 0
        self._fd = fd
        self._dirty = False

    @classmethod
    def create(cls, folder: Path) -> "Journal":
        folder.mkdir(parents=True, exist_ok=True)
        while True:
            path = folder / f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}-{os.getpid()}{SUFFIX}"
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            fcntl.flock(fd, fcntl.LOCK_EX)
            if os.fstat(fd).st_nlink:  # else it was taken for an orphan before it was locked
                break
            os.close(fd)
        directory = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
        return cls(path, fd)

    @classmethod
    def orphans(cls, folder: Path) -> Iterator["Journal"]:
        """The journals of dead processes, oldest first, locked."""
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            try:
                fd = os.open(path, os.O_RDWR)
            except FileNotFoundError:
                continue
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(fd)
                continue
            yield cls(path, fd)

    def append(self, body: bytes) -> None:
        """Write one line; `body` has no line feed. Raises OSError if not all of it could be written."""
        line = b"%08x %b\n" % (crc32(body), body)
        if os.pwrite(self._fd, line, self.end) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        self.end += len(line)
        self._dirty = True

    def read(self, most: int) -> tuple[list[bytes], int]:
        """Up to `most` bodies after `done`, and the offset behind them. Damaged and torn lines are logged and left
        out."""
        data = os.pread(self._fd, min(CHUNK, self.end - self.done), self.done)
        lines = BytesIO(data).readlines()[:most]
        if len(lines) > 1 and not lines[-1].endswith(b"\n"):
            del lines[-1]  # read again, whole, with the next chunk
        bodies, offset = [], self.done
        for line in lines:
            body = checked(line)
            if body is None:
                log.error("journal_line_damaged", file=self.path.name, offset=offset, length=len(line))
            else:
                bodies.append(body)
            offset += len(line)
        return bodies, offset

    def read_all(self) -> list[bytes]:
        """All bodies, from the beginning."""
        bodies: list[bytes] = []
        while self.done < self.end:
            chunk, self.done = self.read(CHUNK)
            bodies += chunk
        return bodies

    def sync(self) -> None:
        """Force what was appended to the disk."""
        if self._dirty:
            self._dirty = False
            os.fsync(self._fd)

    def clear(self) -> None:
        os.ftruncate(self._fd, 0)
        self.end = self.done = 0

    def remove(self) -> None:
        with suppress(FileNotFoundError):
            self.path.unlink()
        self.close()

    def close(self) -> None:
        """Leave the file, unlocked, to the next process."""
        os.close(self._fd)


def checked(line: bytes) -> bytes | None:
    """The body of a line whose checksum is right, else None."""
    body = line[_CHECKSUM:-1]
    return body if line == b"%08x %b\n" % (crc32(body), body) else None
