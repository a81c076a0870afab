"""The table at the end of a run: what each scenario held, broke, lost and repeated. A line is a test's property.

Tests run in other processes than the one that prints: a line travels with the test's report. Loaded by
`tests/conftest.py`, because the process that prints collects no tests.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .chaos.judge import Verdict

PROPERTY = "chaos"
_HEAD = ("scenario", "load", "faults", "lost", "repeated", "back after p50 / max", "seed")


def row(
    record: Callable[[str, object], None],
    scenario: str,
    load: str,
    faults: str | Mapping[str, int],
    verdict: Verdict | None,
    *,
    seed: int | None = None,
) -> None:
    """Add a line; `record` is pytest's `record_property`. No verdict: nothing was lost, or it would have failed."""
    if not isinstance(faults, str):
        faults = ", ".join(f"{count} × {what}" for what, count in sorted(faults.items()))
    lost, repeated, back = ("0", "0", "–") if verdict is None else _told(verdict)
    record(PROPERTY, [scenario, load, faults, lost, repeated, back, "–" if seed is None else str(seed)])


def _told(verdict: Verdict) -> tuple[str, str, str]:
    times = verdict.recovery_s
    back = f"{statistics.median(times):.2f} s / {max(times):.2f} s" if times else "–"
    # Acks that were late because the machine had more work than processors.
    repeated = str(verdict.repeated) + (f" ({verdict.stretched} late acks)" if verdict.stretched else "")
    return str(verdict.lost), repeated, back


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the lines of all tests, as Markdown."""
    reports = (report for reports in terminalreporter.stats.values() for report in reports)
    lines = [
        value
        for report in reports
        if getattr(report, "when", "") == "call"
        for name, value in report.user_properties
        if name == PROPERTY
    ]
    if not lines:
        return
    terminalreporter.section("chaos")
    for line in (_HEAD, ("---",) * len(_HEAD), *sorted(lines)):
        terminalreporter.write_line(f"| {' | '.join(line)} |")
