"""Every example does what it says: started as a user would start it, in a folder of its own."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
LIMIT_S = 30.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(EXAMPLES, tmp_path / "examples"))


@pytest.fixture
def shop_worker(folder: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "qworker", "-A", "shop", "-c", "2", "-Q", "hipri,celery"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        yield process
        if process.poll() is None:
            process.kill()


def test_the_shop_charges_prints_and_ships(folder: Path, shop_worker: subprocess.Popen[str]) -> None:
    done = subprocess.run([sys.executable, "shop.py"], cwd=folder, capture_output=True, text=True, timeout=LIMIT_S)
    shop_worker.send_signal(signal.SIGTERM)
    log, _ = shop_worker.communicate(timeout=LIMIT_S)
    assert done.stdout.splitlines() == [
        "order 7: 12.50 charged at attempt 2",
        "{'lines': 2, 'cents': 1250}",
        "shipped to Zoë, Übersee",
        "not shipped: an address is needed",
    ], done.stderr + log
    assert shop_worker.returncode == 0, log


def test_every_example_is_run_by_a_test() -> None:
    assert {file.stem for file in EXAMPLES.glob("*.py")} == {"shop"}
