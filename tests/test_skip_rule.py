"""In CI a skipped test is a failure, unless support/reports.py lists the reason; at home it is a skip."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
HOOKS = ["pytest_make_collect_report", "pytest_runtest_makereport"]


def run_pytest(folder: Path, test: str, **env: str) -> str:
    """Run one test file under our rules in an empty folder; return pytest's closing line."""
    (folder / "conftest.py").write_text(f"from support.reports import {', '.join(HOOKS)}\n", "utf-8")
    (folder / "pytest.ini").write_text(f"[pytest]\npythonpath = {HERE}\n", "utf-8")
    (folder / "test_it.py").write_text(f"import pytest\n{test}\n", "utf-8")
    outer = {name: value for name, value in os.environ.items() if name != "CI" and not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", "."]
    done = subprocess.run(command, cwd=folder, env=outer | env, capture_output=True, text=True, timeout=60)
    return done.stdout.splitlines()[-1]


IN_THE_TEST = "def test_it():\n    pytest.skip('no server here')"
IN_THE_MODULE = "pytest.importorskip('no_such_module_at_all')\ndef test_it():\n    pass"
LISTED = "def test_it():\n    pytest.skip('needs unshare: not allowed here')"
EXPECTED_FAILURE = "@pytest.mark.xfail\ndef test_it():\n    assert 1 == 2"


def test_at_home_a_skip_is_a_skip(tmp_path: Path) -> None:
    assert "1 skipped" in run_pytest(tmp_path, IN_THE_TEST)


@pytest.mark.parametrize(("test", "outcome"), [(IN_THE_TEST, "1 failed"), (IN_THE_MODULE, "1 error")])
def test_in_ci_a_skip_fails(tmp_path: Path, test: str, outcome: str) -> None:
    assert outcome in run_pytest(tmp_path, test, CI="true")


@pytest.mark.parametrize(("test", "outcome"), [(LISTED, "1 skipped"), (EXPECTED_FAILURE, "1 xfailed")])
def test_in_ci_a_listed_reason_and_an_expected_failure_stand(tmp_path: Path, test: str, outcome: str) -> None:
    assert outcome in run_pytest(tmp_path, test, CI="true")
