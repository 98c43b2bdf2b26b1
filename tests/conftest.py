import os
from pathlib import Path

import pytest
from django.conf import settings


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real bars, kept beside the project and never copied into it."""
    folder = Path(os.environ.get("BARS_DIR") or settings.BASE_DIR.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"needs the real bars, which are not part of the project: not in {folder}; BARS_DIR says where")
    return folder
