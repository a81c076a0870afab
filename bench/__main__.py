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
REPEATED = (
    "drain",
    "results",
)  # they need both processors to themselves: the better of two rounds counts, for every tool


def main() -> int:
    """Measure, print the table, and return 1 when a tool failed."""
    options = _options()
    began = time.monotonic()
    with running() as server:
        os.environ["BENCH_BROKER"] = server.url(BROKER_DB)  # the apps read these when they are imported
        os.environ["BENCH_RESULTS"] = server.url(RESULT_DB)
        tools = [tool for tool in all_tools(server.url(BROKER_DB)) if not options.tools or tool.name in options.tools]
        figures: dict[str, cases.Figures] = {tool.name: {} for tool in tools}
        failed = _measure_all(server, tools, options, figures)
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
    parser.add_argument("--rounds", type=int, default=2, help="drain so many times, the fastest counts (2)")
    parser.add_argument("--json", action="store_true", help="print the raw figures as well")
    return parser.parse_args()


def _measure_all(
    server: Server, tools: list[Tool], options: argparse.Namespace, figures: dict[str, cases.Figures]
) -> list[str]:
    """Run case by case, and within a case tool by tool, so that a noisy minute hits all; return what went wrong."""
    errors = []
    for case in options.cases:
        for number in range(options.rounds if case in REPEATED else 1):
            for tool in tools:
                print(f"{case} {number + 1}: {tool.title} …", file=sys.stderr, flush=True)
                try:
                    found = _measure(server, tool, case, options.scale)
                except WorkerFailed as error:
                    errors.append(f"{tool.title}, {case}: {error}")
                    continue
                figures[tool.name] = _better(figures[tool.name], found)
    return errors


def _measure(server: Server, tool: Tool, case: str, scale: float) -> cases.Figures:
    count = max(200, int(tool.drain_count * scale))
    if case == "drain":
        return _named("noop", cases.drain(server, tool, "noop", count))
    if case == "results":
        return _named("answer", cases.drain(server, tool, "answer", count)) if "answer" in tool.tasks else {}
    if case == "enqueue":
        return cases.enqueue(server, tool, max(200, int(8_000 * scale)))
    return cases.life(server, tool, repeats=3, probes=max(20, int(200 * scale)))


def _better(old: cases.Figures, new: cases.Figures) -> cases.Figures:
    """Merge; of two drains keep the faster with its processor times."""
    slower = any(key.endswith(".rate") and old.get(key, 0.0) > rate for key, rate in new.items())
    return old if slower else old | new


def _named(prefix: str, figures: cases.Figures) -> cases.Figures:
    return {f"{prefix}.{key}": value for key, value in figures.items()}


if __name__ == "__main__":
    raise SystemExit(main())
