"""Every example does what it says: started as a user would start it, in a folder of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import Worker

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
LIMIT_S = 100.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(EXAMPLES, tmp_path / "examples"))


@pytest.fixture
def shop_worker(folder: Path) -> Iterator[Worker]:
    with Worker(folder, "-A", "shop", "-c", "2", "-Q", "hipri,celery") as worker:
        yield worker.wait_ready(LIMIT_S)


@pytest.mark.timeout(300)
def test_the_shop_charges_prints_and_ships(folder: Path, shop_worker: Worker) -> None:
    done = subprocess.run([sys.executable, "shop.py"], cwd=folder, capture_output=True, text=True, timeout=LIMIT_S)
    code = shop_worker.stop(LIMIT_S)
    assert done.stdout.splitlines() == [
        "order 7: 12.50 charged at attempt 2",
        "{'lines': 2, 'cents': 1250}",
        "shipped to Zoë, Übersee",
        "not shipped: an address is needed",
    ], done.stderr + shop_worker.log
    assert code == 0


def test_every_example_is_run_by_a_test() -> None:
    assert {file.stem for file in EXAMPLES.glob("*.py")} == {"shop"}
