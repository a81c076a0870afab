"""The command line: parses, wires, starts. `main` is what the `qworker` script and `python -m qworker` call."""

from __future__ import annotations

from typing import NoReturn


def main() -> NoReturn:
    """Run the command line of this process and exit with its code."""
    import sys

    from .entry import run

    sys.exit(run(sys.argv[1:]))
