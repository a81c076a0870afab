"""The exit codes of `qworker`, one meaning each; systemd units and Docker entrypoints rely on them."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What the exit code says."""

    OK = 0  # drained, nothing cut
    CUT = 1  # tasks were cut and requeued
    USAGE = 2  # the command line
    APP = 3  # the application failed to import, or children cannot boot
    CONFIG = 4  # configuration refused
    UNREACHABLE = 69  # the broker stayed out of reach (EX_UNAVAILABLE)
    INTERNAL = 70  # a bug in qworker (EX_SOFTWARE)
