"""Replies of the real API as public projects recorded them. They are kept beside the project, never copied into it."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

FOLDER = Path(os.environ.get("ALPACA_REPLIES_DIR") or settings.BASE_DIR.parent / "shared" / "alpaca" / "replies")


@dataclass(frozen=True)
class Recorded:
    method: str
    path: str
    status: int
    file: str

    @property
    def body(self) -> Any:
        return json.loads((FOLDER / self.file).read_text())


def recorded(*endpoints: tuple[str, str]) -> list[Any]:
    """Parameters of a test: one of each reply to these (method, path), or one that skips and says why."""
    if not (FOLDER / "index.json").exists():
        why = (
            f"needs recorded replies, which are not part of the project: not in {FOLDER}; ALPACA_REPLIES_DIR says where"
        )
        return [pytest.param(None, marks=pytest.mark.skip(reason=why), id="none")]
    entries = json.loads((FOLDER / "index.json").read_text())["entries"]
    found = [
        Recorded(entry["method"], entry["path"], entry["status"], entry["file"])
        for entry in entries
        if (entry["method"], entry["path"]) in endpoints
    ]
    return [pytest.param(each, id=f"{each.method} {each.file}") for each in found]
