"""Files that a reader never meets half written."""

import os
from contextlib import suppress
from pathlib import Path
from threading import get_ident


def write_whole(path: Path, content: bytes) -> None:
    """Write aside and rename; failed or interrupted, nothing is left. Raises OSError, which names the file."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.{get_ident()}")
    try:
        draft.write_bytes(content)
        draft.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with suppress(OSError):  # the draft was never made, or the disk is read-only
            draft.unlink(missing_ok=True)
