"""A folder that every user may enter, an application in it, and a worker in the background that outlives no test."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.background import Background


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Not pytest's own, which only the user who runs the tests may enter."""
    folder = Path(tempfile.mkdtemp(prefix="qworker-daemon-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def home(open_folder: Path) -> Iterator[Background]:
    with Background(open_folder) as home:
        yield home
