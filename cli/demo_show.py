"""What `qworker demo` shows: a progress bar while it runs, and a table of what became of the tasks.

On anything but a terminal the bar is a line now and then.
"""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Final

from .common import table
from .demo_plan import End, Kind

_BAR: Final = 30
_LINES: Final = 4


class Progress:
    """A bar on stdout that moves as `show` is called."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._is_live = sys.stdout.isatty()
        self._lines = 0

    def show(self, ends: Iterable[End]) -> None:
        """Draw how many have ended, and how."""
        counts = Counter(end.status for end in ends)
        done, failed = sum(counts.values()), counts["FAILURE"]
        text = f"{done:>4} of {self._total} tasks done, {counts['SUCCESS']} succeeded, {failed} failed"
        if self._is_live:
            filled = _BAR * done // self._total
            line = f"[{'#' * filled}{'.' * (_BAR - filled)}] {text}"
            sys.stdout.write("\r" + line[: shutil.get_terminal_size().columns - 1] + "\x1b[K")
            sys.stdout.flush()
        elif _LINES * done // self._total > self._lines:
            self._lines = _LINES * done // self._total
            sys.stdout.write(text + "\n")
            sys.stdout.flush()

    def end(self) -> None:
        """Leave the bar where it is."""
        if self._is_live:
            sys.stdout.write("\n")


def outcome_table(kinds: Sequence[Kind], ends: Mapping[str, End]) -> str:
    """A row for each kind. The mean time is from sending to the result, waiting in the queue included."""
    head = ("kind", "published", "succeeded", "retried", "failed", "dead-lettered", "mean time")
    return table(head, [_row(kind, [ends[task_id] for task_id in kind.sent if task_id in ends]) for kind in kinds])


def _row(kind: Kind, ends: Sequence[End]) -> list[object]:
    counts = Counter(end.status for end in ends)
    mean = f"{fmean(end.took_s for end in ends):.2f} s" if ends else "-"
    retried = sum(end.retries for end in ends)
    return [kind.label, len(kind.sent), counts["SUCCESS"], retried, counts["FAILURE"], counts["DEAD"], mean]
