"""What every test report goes through: a skip is a failure in CI, because a test that nobody runs protects nobody."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

# Reasons for which a test may be skipped even in CI, each with what it would take to run it.
ALLOWED_SKIPS = (
    "needs unshare",  # PID and network namespaces: not allowed in most containers
    "needs root",
    "needs a user other than root",
    "needs a cgroup of its own",  # most containers see theirs read-only
    "needs a redis-server that was built with TLS",  # the package's own is not
    "needs the command openssl",
    "needs the command systemd-analyze",  # a machine without systemd; the numbers in the units are looked at anyway
)


def _forbid_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turn a skip whose reason is not listed into a failure when `CI` is set."""
    if not report.skipped or hasattr(report, "wasxfail") or not os.environ.get("CI"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if not reason.removeprefix("Skipped: ").startswith(ALLOWED_SKIPS):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI for a reason that is not listed in support/reports.py: {reason}"


def _make_encodable(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Escape lone surrogates in captured output: xdist cannot send them from its workers."""
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Iterator[Any]:
    report = yield
    _forbid_skip(report)
    _make_encodable(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Iterator[Any]:
    report = yield
    _forbid_skip(report)
    _make_encodable(report)
    return report
