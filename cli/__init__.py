"""The command line: parses, wires, starts. `main` is what the `qworker` script and `python -m qworker` call."""

from __future__ import annotations

from typing import NoReturn


def main() -> NoReturn:
    """Run the command line of this process and exit with its code."""
    import signal

    # The worker counts signals from its first moment: what arrives before its handlers stand waits for them
    # (`signals.SignalPipe`). Every other command lets them through as soon as it is known (`root`).
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT})

    import sys

    from .entry import run

    sys.exit(run(sys.argv[1:]))
