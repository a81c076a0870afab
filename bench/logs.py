"""What logging costs: CPU time of the master and of a child per task, at WARNING and at INFO, on a real worker.

`python -m bench.logs [TASKS]` prints one line per case: the median of three rounds that go from case to case. A worker
drains tasks that wait on a Redis of its own; CPU time is what the kernel has counted, the start included. What logging
costs the master is the difference between INFO and tasks that are as slow without it.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import psutil

from .server import running

#: Level, format, and how long a task takes in µs. The slow one shows what the master does more for children that take
#: longer, whatever for: they are served in smaller portions.
CASES: Final = (("WARNING", "text", 0), ("WARNING", "text", 40), ("INFO", "text", 0), ("INFO", "json", 0))
ROUNDS: Final = 3
APPLICATION: Final = """
from time import perf_counter_ns
from qworker import App
app = App("cost", broker={url!r}, task_ignore_result=True)

@app.task
def noop():
    until = perf_counter_ns() + {spin_us} * 1000
    while {spin_us} and perf_counter_ns() < until: pass

@app.task
def mark(path): open(path, "w").close()
"""


def main(tasks: int) -> None:
    """Measure and print."""
    found: dict[tuple[str, str, int], list[tuple[float, float]]] = {case: [] for case in CASES}
    with running() as server:
        for _ in range(ROUNDS):
            for case in CASES:
                server.connect().flushall()
                found[case].append(_measure(server.url(0), *case, tasks))
    for (level, form, spin_us), rounds in found.items():
        master, child = (statistics.median(column) for column in zip(*rounds, strict=True))
        print(f"{level:8} {form:5} tasks of {spin_us:2} µs   master {master:6.1f} µs/task   child {child:6.1f} µs/task")


def _measure(url: str, level: str, form: str, spin_us: int, tasks: int) -> tuple[float, float]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "cost.py").write_text(APPLICATION.format(url=url, spin_us=spin_us))
        _send(folder, tasks)
        command = [sys.executable, "-m", "qworker", "-A", "cost", "-c", "1", "-q", "-l", level, "--log-format", form]
        with subprocess.Popen([*command, "-f", "w.log"], cwd=folder) as process:
            try:
                master = psutil.Process(process.pid)
                _wait((folder / "done").exists)
                (spawner,) = master.children()
                (child,) = spawner.children()
                return _cpu(master) / tasks * 1e6, _cpu(child) / tasks * 1e6
            finally:
                process.terminate()


def _send(folder: Path, tasks: int) -> None:
    code = f"import cost\nfor _ in range({tasks}): cost.noop.delay()\ncost.mark.delay({str(folder / 'done')!r})"
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True)


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _wait(condition: Callable[[], bool], limit_s: float = 300.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit("it takes too long")
        time.sleep(0.02)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000)
