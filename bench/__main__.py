"""qworker beside its peers: `python -m bench` from the checkout, or `tox -e bench`. Takes about three minutes.

Everything is measured in one run on one machine, on a redis-server of its own on loopback. Absolute figures belong
to the machine; the ratios are what to compare. Close what else is running: two busy neighbours change the order.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time

from . import cases, report
from .server import BROKER_DB, RESULT_DB, Server, running
from .tools import Tool, all_tools
from .tree import WorkerFailed

CASES = ("drain", "results", "enqueue", "life")


def main() -> int:
    """Measure, print the table, and return 1 when a tool failed."""
    options = _options()
    began = time.monotonic()
    with running() as server:
        os.environ["BENCH_BROKER"] = server.url(BROKER_DB)  # the apps read these when they are imported
        os.environ["BENCH_RESULTS"] = server.url(RESULT_DB)
        tools = [tool for tool in all_tools(server.url(BROKER_DB)) if not options.tools or tool.name in options.tools]
        figures: dict[str, cases.Figures] = {tool.name: {} for tool in tools}
        failed = [error for tool in tools for error in _measure(server, tool, options, figures[tool.name])]
        heading = f"Python {platform.python_version()}, Redis {server.version}, {os.cpu_count()} CPUs"
    print(f"\n{heading}, {time.monotonic() - began:.0f} s; 2.00x = twice as good as Celery\n")
    titles = {tool.name: tool.title for tool in tools}
    print(report.table(titles, figures))
    print(f"\n{report.summary(titles, figures)}")
    if options.json:
        print(json.dumps(figures))
    for error in failed:
        print(f"\n{error}", file=sys.stderr)
    return 1 if failed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--tools", nargs="*", help="only these: celery qworker dramatiq huey rq")
    parser.add_argument("--cases", nargs="*", choices=CASES, default=CASES)
    parser.add_argument("--scale", type=float, default=1.0, help="fewer or more messages (1.0)")
    parser.add_argument("--json", action="store_true", help="print the raw figures as well")
    return parser.parse_args()


def _measure(server: Server, tool: Tool, options: argparse.Namespace, figures: cases.Figures) -> list[str]:
    """Run the chosen cases for one tool into `figures`, telling progress on stderr; return what went wrong."""
    count = max(200, int(tool.drain_count * options.scale))
    runs = {
        "drain": lambda: _named("noop", cases.drain(server, tool, "noop", count)),
        "results": lambda: _named("answer", cases.drain(server, tool, "answer", count)),
        "enqueue": lambda: cases.enqueue(server, tool, max(200, int(8_000 * options.scale))),
        "life": lambda: cases.life(server, tool, repeats=3, probes=max(20, int(200 * options.scale))),
    }
    errors = []
    for case in options.cases:
        if case == "results" and "answer" not in tool.tasks:
            continue
        print(f"{tool.title}: {case} …", file=sys.stderr, flush=True)
        try:
            figures |= runs[case]()
        except WorkerFailed as error:
            errors.append(f"{tool.title}, {case}: {error}")
    return errors


def _named(prefix: str, figures: cases.Figures) -> cases.Figures:
    return {f"{prefix}.{key}": value for key, value in figures.items()}


if __name__ == "__main__":
    raise SystemExit(main())
