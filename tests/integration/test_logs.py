"""Logs of real workers: which task a line is about, what is printed, whose handlers count, files that are rotated."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from support import Shop, wait_until

MORE = """

@app.task(bind=True)
def talks(self):
    import concurrent.futures, subprocess, sys, threading
    logging.getLogger("shop.sub").info("by a logger")
    get_task_logger(__name__).info("by a task logger")
    logging.getLogger("qworker.of_the_user").info("by a child of ours")
    print("printed")
    print("to stderr", file=sys.stderr)
    thread = threading.Thread(target=logging.getLogger("shop").info, args=("by a thread",))
    thread.start(); thread.join()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pool.submit(print, "by a pool").result()
    POOL.submit(logging.getLogger("shop").info, "by a pool that stays").result()
    warnings.warn("warned")
    subprocess.run(["echo", "by a program"])
    print("no end of line", end="")
    return self.request.id
"""
HEAD = """
import concurrent.futures
import logging
import warnings
from qworker import get_task_logger
POOL = concurrent.futures.ThreadPoolExecutor(1)
warnings.simplefilter("always")
"""
SAID = (
    *("by a logger", "by a task logger", "by a child of ours", "printed", "to stderr", "by a thread", "by a pool"),
    *("by a pool that stays", "no end of line"),
)


def talking(shop: Shop, more: str = "") -> None:
    source = (shop.folder / "shop.py").read_text()
    shop.write(HEAD + source + MORE + more)


def events(worker_log: str) -> list[dict[str, Any]]:
    """What is written; a line that has no end yet is about to be."""
    return [json.loads(line) for line in worker_log.splitlines(keepends=True) if line[0] == "{" and line[-1] == "\n"]


def run_talks(shop: Shop) -> str:
    result = shop.app.send_task("shop.talks", queue="hipri")
    assert result.get(timeout=20) == result.id
    return str(result.id)


def test_every_line_that_a_task_causes_names_it(sqlite_shop: Shop) -> None:
    talking(sqlite_shop)
    worker = sqlite_shop.worker("-c", "1", "--log-format", "json")
    ids = [run_talks(sqlite_shop), run_talks(sqlite_shop)]
    wait_until(lambda: worker.log.count("no end of line") == 2, "all is said")

    for task_id in ids:
        about = [e for e in events(worker.log) if e.get("id") == task_id and e["logger"] != "qworker.task"]
        assert all(e["task"] == "shop.talks" for e in about)
        assert [e["message"] for e in about if "warned" not in e["message"]] == list(SAID)
        assert any("UserWarning: warned" in e["message"] for e in about)
    raw = [line for line in worker.log.splitlines() if not line.startswith("{")]
    assert raw[-2:] == ["by a program"] * 2


def test_text_keeps_a_traceback_s_lines_and_json_has_it_in_one(sqlite_shop: Shop) -> None:
    text = sqlite_shop.worker("-c", "1")
    sqlite_shop.task("boom").delay()
    text.wait_log("ValueError: ('bad thing', 42)")
    assert "\nTraceback (most recent call last):\n" in text.log
    assert text.stop() == 0

    structured = sqlite_shop.worker("-c", "1", "--log-format", "json")
    sqlite_shop.task("boom").delay()
    (failure,) = wait_until(
        lambda: [e for e in events(structured.log) if e.get("event") == "task-failed"], "the failure is told"
    )
    assert "Traceback (most recent call last):\n" in failure["message"]


def test_print_is_left_alone_when_the_settings_say_so(sqlite_shop: Shop) -> None:
    talking(sqlite_shop, "\napp.conf.worker_redirect_stdouts = False\n")
    worker = sqlite_shop.worker("-c", "1")
    run_talks(sqlite_shop)
    wait_until(lambda: "succeeded" in worker.log, "it has run")
    worker.stop()
    assert "\nto stderr\n" in worker.log


def test_the_level_of_what_is_printed_is_a_setting(sqlite_shop: Shop) -> None:
    talking(sqlite_shop, "\napp.conf.worker_redirect_stdouts_level = 'ERROR'\n")
    worker = sqlite_shop.worker("-c", "1")
    run_talks(sqlite_shop)
    worker.wait_log("no end of line")
    assert re.search(r"ERROR/Child-1\] shop\.talks\[[^]]+\]: printed\n", worker.log)


def test_a_level_that_does_not_exist_ends_the_start(sqlite_shop: Shop) -> None:
    talking(sqlite_shop, "\napp.conf.worker_redirect_stdouts_level = 'LOUD'\n")
    worker = sqlite_shop.worker("-c", "1", ready=False)
    assert worker.wait() == 4
    assert "unknown log level 'LOUD'" in worker.log


ROOT_HANDLER = """
import pathlib
_own = logging.FileHandler(pathlib.Path(__file__).with_name("own.log"))
_own.setFormatter(logging.Formatter("OWN %(task_name)s %(task_id)s %(message)s"))
"""


def test_the_application_s_root_handlers_stay_and_ours_serve_our_own_lines(sqlite_shop: Shop) -> None:
    talking(sqlite_shop, ROOT_HANDLER + "logging.basicConfig(level='INFO', handlers=[_own])\n")
    worker = sqlite_shop.worker("-c", "1")
    task_id = run_talks(sqlite_shop)
    worker.wait_log("succeeded")
    own = (sqlite_shop.folder / "own.log").read_text()
    assert f"OWN shop.talks {task_id} by a logger\n" in own
    assert f"OWN shop.talks {task_id} by a thread\n" in own
    assert "by a logger" not in worker.log
    assert "received" not in own


def test_root_handlers_are_taken_away_when_the_settings_ask_for_it(sqlite_shop: Shop) -> None:
    hijack = "logging.basicConfig(level='INFO', handlers=[_own])\napp.conf.worker_hijack_root_logger = True\n"
    talking(sqlite_shop, ROOT_HANDLER + hijack)
    worker = sqlite_shop.worker("-c", "1")
    run_talks(sqlite_shop)
    worker.wait_log("succeeded")
    assert "by a logger" in worker.log
    assert (sqlite_shop.folder / "own.log").read_text() == ""


def test_an_application_may_set_logging_up_by_itself(sqlite_shop: Shop) -> None:
    hook = """
@app.setup_logging
def configure(loglevel, logfile, **kwargs):
    _own.setLevel(loglevel)
    logging.getLogger().addHandler(_own)
    logging.getLogger().setLevel(loglevel)
"""
    talking(sqlite_shop, ROOT_HANDLER + hook)
    worker = sqlite_shop.worker("-c", "1")
    task_id = run_talks(sqlite_shop)
    own = sqlite_shop.folder / "own.log"
    wait_until(lambda: "succeeded" in own.read_text(), "our lines go to its handler")
    assert f"OWN shop.talks {task_id} by a logger\n" in own.read_text()
    assert f"[{task_id}] received" not in worker.log
    assert "ready: 1 children" in worker.log, "the master never runs code of the application"
    assert worker.stop() == 0  # Python keeps what is printed to a file until its buffer is full, or the child leaves
    assert "\nprinted\n" in worker.log or worker.log.startswith("printed"), "what is printed is left alone"


def test_a_format_that_is_none_ends_the_start_with_its_name(sqlite_shop: Shop) -> None:
    talking(sqlite_shop, "app.conf.worker_task_log_format = '{message}'\n")
    worker = sqlite_shop.worker("-c", "1", ready=False)
    assert worker.wait() == 4
    assert "qworker: worker_task_log_format '{message}' is no format" in worker.log


_FILTER = """
class Redacts(logging.Filter):
    def filter(self, record):
        record.msg = record.msg.replace("received", "has come")
        if "succeeded" in record.msg:
            raise LookupError("cannot be redacted")
        return True

@app.setup_logging
def configure(loglevel, logfile, **kwargs):
    _own.addFilter(Redacts())
    logging.getLogger().addHandler(_own)
    logging.getLogger().setLevel(loglevel)
"""


def test_a_filter_of_the_application_sees_text_and_kills_no_child_when_it_raises(sqlite_shop: Shop) -> None:
    talking(sqlite_shop, ROOT_HANDLER + _FILTER)
    worker = sqlite_shop.worker("-c", "1")
    run_talks(sqlite_shop)
    worker.wait_log("LookupError: cannot be redacted")
    assert "has come" in (sqlite_shop.folder / "own.log").read_text()
    assert "lost:" not in worker.log


def test_the_application_s_formats_shape_text(sqlite_shop: Shop) -> None:
    formats = """
app.conf.worker_log_format = "M %(levelname)s %(processName)s %(message)s"
app.conf.worker_task_log_format = "T %(task_id)s %(task_name)s %(processName)s %(message)s"
"""
    talking(sqlite_shop, formats)
    worker = sqlite_shop.worker("-c", "1")
    task_id = run_talks(sqlite_shop)
    worker.wait_log("no end of line")
    assert f"T {task_id} shop.talks Child-1 by a logger\n" in worker.log
    assert "M INFO MainProcess ready: 1 children" in worker.log


def holders(processes: list[Any], path: Path) -> list[int]:
    """Which of them have this file open."""
    held = []
    for process in processes:
        targets = []
        for fd in Path(f"/proc/{process.pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # it has just been closed
                targets.append(os.readlink(fd))
        if str(path) in targets:
            held.append(process.pid)
    return held


def test_usr2_has_every_process_open_its_log_anew_idle_ones_too(sqlite_shop: Shop) -> None:
    path, moved = sqlite_shop.folder / "w.log", sqlite_shop.folder / "w.log.1"
    worker = sqlite_shop.worker("-c", "2", "-f", str(path))
    path.rename(moved)
    assert len(holders(worker.tree(), moved)) == 4  # master, spawner, two children
    worker.signal(signal.SIGUSR2)

    wait_until(lambda: holders(worker.tree(), moved) == [], "nobody holds the old file")
    wait_until(lambda: len(holders(worker.tree(), path)) == 4, "everybody holds the new one")
    wait_until(lambda: "log files are opened anew" in path.read_text(), "the master has said so")
    assert sqlite_shop.task("add").delay(1).get(timeout=20) == 1
    wait_until(lambda: "succeeded" in path.read_text(), "children write to the new file")
    assert worker.stop() == 0


def test_usr2_harms_no_running_task(sqlite_shop: Shop) -> None:
    path = sqlite_shop.folder / "w.log"
    worker = sqlite_shop.worker("-c", "1", "-f", str(path))
    result = sqlite_shop.task("gate").delay("go")
    wait_until(lambda: "start go" in sqlite_shop.ran(), "it runs")
    path.rename(sqlite_shop.folder / "w.log.1")
    for process in worker.tree():
        process.send_signal(signal.SIGUSR2)  # as an operator's pkill would, children and spawner included
    wait_until(lambda: path.exists() and holders(worker.tree(), sqlite_shop.folder / "w.log.1") == [], "all is anew")
    (sqlite_shop.folder / "go").touch()
    assert result.get(timeout=20) == "go"
    assert worker.stop() == 0


def test_each_child_can_have_a_file_of_its_own(sqlite_shop: Shop) -> None:
    folder = sqlite_shop.folder
    worker = sqlite_shop.worker("-c", "2", "-n", "w1@web", "-f", f"{folder}/%n-%h%I.log")
    wait_until(lambda: len(list(folder.glob("w1-web*.log"))) == 3, "three files")
    assert "ready: 2 children" in (folder / "w1-web.log").read_text()
    names = ["a", "b"]
    for name in names:
        sqlite_shop.task("gate").delay(name)
    wait_until(lambda: len(sqlite_shop.ran()) == 2, "both run")
    for name in names:
        (folder / name).touch()
    for number in (1, 2):
        wait_until(lambda n=number: "succeeded" in (folder / f"w1-web-{n}.log").read_text(), "its own lines")
        assert f"INFO/Child-{number}]" in (folder / f"w1-web-{number}.log").read_text()
    assert "Child-" not in (folder / "w1-web.log").read_text()
    assert worker.stop() == 0


def test_colours_are_for_terminals_only(sqlite_shop: Shop) -> None:
    worker = sqlite_shop.worker("-c", "1")
    sqlite_shop.task("boom").delay()
    worker.wait_log("bad thing")
    assert "\x1b" not in worker.log


@pytest.mark.parametrize(("env", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_a_terminal_sees_colours_unless_it_wants_none(
    sqlite_shop: Shop, env: dict[str, str], coloured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pty
    import subprocess
    import sys

    monkeypatch.delenv("NO_COLOR", raising=False)
    master, terminal = pty.openpty()
    command = [sys.executable, "-m", "qworker", "-A", "shop", "-c", "1", "-b", "redis://127.0.0.1:1/0"]
    with subprocess.Popen(command, cwd=sqlite_shop.folder, stderr=terminal, env=os.environ | env) as process:
        os.close(terminal)
        shown = b""
        while b"attempt 1" not in shown:
            shown += os.read(master, 4096)
        process.terminate()
        process.wait(20)
    os.close(master)
    assert (b"\x1b[31m" in shown) is coloured


def test_a_log_that_takes_nothing_keeps_no_worker_from_its_work(sqlite_shop: Shop) -> None:
    worker = sqlite_shop.worker("-c", "1", "-Q", "hipri", prefix=("sh", "-c", 'exec "$@" 2>/dev/full', "sh"))
    assert sqlite_shop.app.send_task("shop.add", args=[1, 2], queue="hipri").get(timeout=20) == 3
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0


def test_a_log_that_nobody_reads_keeps_neither_tasks_nor_a_stop_waiting(sqlite_shop: Shop) -> None:
    pipe = sqlite_shop.folder / "log.fifo"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
    fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
    worker = sqlite_shop.worker("-c", "2", "-Q", "hipri", prefix=("sh", "-c", 'exec "$@" >log.fifo 2>&1', "sh"))
    results = [sqlite_shop.task("add").delay(number, 0) for number in range(100)]

    assert [result.get(timeout=60) for result in results] == list(range(100))
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    assert os.read(reader, 100_000).count(b" received") < 100, "it was full"
    os.close(reader)


def test_a_reader_that_comes_back_is_told_how_much_is_missing(sqlite_shop: Shop) -> None:
    pipe = sqlite_shop.folder / "log.fifo"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
    fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
    sqlite_shop.worker("-c", "1", "-Q", "hipri", prefix=("sh", "-c", 'exec "$@" >log.fifo 2>&1', "sh"))
    add = sqlite_shop.task("add")
    for number in range(30):
        assert add.delay(number, 0).get(timeout=60) == number

    said = bytearray(os.read(reader, 100_000))
    add.delay(30, 0).get(timeout=60)

    def is_said() -> bool:
        with suppress(BlockingIOError):
            said.extend(os.read(reader, 100_000))
        return re.search(rb"WARNING/Child-1\] \d+ lines of this process are missing here", said) is not None

    wait_until(is_said, "the number of lines is said")
    os.close(reader)
    before, lost, _ = re.split(rb"(\d+) lines of this process", said)
    # The line that is taken again is that of a task's end, if it was late, or of the next one's begin.
    assert before.count(b"INFO/Child-1] Task ") + int(lost) in (2 * 30, 2 * 30 + 1)
