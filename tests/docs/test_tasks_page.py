"""The code on the page about tasks runs, in its order, against a worker; its table has every option."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from qworker.tasks.options import _OPTIONS

import made
from made.task_options import NOTES
from support import wait_until

PAGE = Path(made.__file__).resolve().parent.parent / "tasks.md"
LIMIT_S = 100.0


@pytest.mark.timeout(300)
def test_the_code_of_the_page_runs_in_its_order(tmp_path: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    definitions = [block for block in blocks if "@app.task" in block]
    (tmp_path / "shop.py").write_text("\n".join(definitions), "utf-8")
    (tmp_path / "page.py").write_text("from shop import *\n" + "\n".join(b for b in blocks if b not in definitions))
    command = [sys.executable, "-m", "qworker", "-A", "shop", "-c", "1"]
    log = tmp_path / "worker.log"
    with log.open("wb") as stderr, subprocess.Popen(command, cwd=tmp_path, stderr=stderr) as worker:
        try:
            wait_until(lambda: "ready: " in log.read_text("utf-8"), "the worker is ready", LIMIT_S)
            words = [sys.executable, "page.py"]
            done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT_S)
        finally:
            worker.terminate()
            wait_until(lambda: worker.poll() is not None, "the worker has stopped", LIMIT_S)
    assert done.stdout.splitlines() == ["5", "SUCCESS True"], done.stderr + log.read_text("utf-8")


def test_every_option_has_a_description_and_every_description_an_option() -> None:
    assert set(NOTES) == set(_OPTIONS)
    rows = re.findall(r"^\| `(\w+)` \| (?:the setting|none|`)", made.fill(PAGE.read_text("utf-8")), re.MULTILINE)
    assert set(rows) >= set(_OPTIONS)
