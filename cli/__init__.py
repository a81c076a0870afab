"""The command line: parses, wires, starts. `main` is what the `qworker` script and `python -m qworker` call."""

from __future__ import annotations

import signal
from typing import Final, NoReturn

#: What means something to a worker and would end, or stop, another process.
WORKER_SIGNALS: Final = frozenset(
    {
        signal.SIGTERM,
        signal.SIGINT,
        signal.SIGQUIT,
        signal.SIGHUP,
        signal.SIGUSR1,
        signal.SIGUSR2,
        signal.SIGTSTP,
        signal.SIGTTIN,
        signal.SIGTTOU,
    }
)


def main() -> NoReturn:
    """Run the command line of this process and exit with its code."""
    import sys

    from .streams import have_streams, leave

    have_streams()
    if sys.argv[1:2] == ["health"]:  # called every few seconds in containers: it loads next to nothing
        from .health import quick

        answer = quick(sys.argv[2:])
        if answer is not None:
            leave(answer)
    # The worker counts signals from its first moment: what arrives before its handlers stand waits for them
    # (`signals.SignalPipe`). Every other command lets them through as soon as it is known (`root`).
    signal.pthread_sigmask(signal.SIG_BLOCK, WORKER_SIGNALS)

    import gc

    from ..worker import Image
    from .entry import run

    code = run(sys.argv[1:], Image.of_this_process())
    gc.freeze()  # or the interpreter looks for cycles in everything at its end: 0.3 s of a worker on SQS
    leave(code)
