"""Log lines: their shapes, and that they stay whole."""

from __future__ import annotations

import json
import logging
import logging.config
import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from qworker.core import logs
from qworker.core.errors import ConfigError
from qworker.core.logs import LineHandler

from support import wait_until

LOGGER = logging.getLogger("qworker.test")
TEXT = re.compile(r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}: (\w+)/([\w-]+)\] (.*)", re.DOTALL)


@pytest.fixture(autouse=True)
def _leave_no_trace() -> Iterator[None]:
    """Logging is one for the whole process: what a test does to it is undone."""
    ours, top = logging.getLogger("qworker"), logging.getLogger()
    before = [(logger, list(logger.handlers), logger.level, logger.propagate) for logger in (ours, top)]
    yield
    for logger, handlers, level, propagate in before:
        logger.handlers[:] = handlers
        logger.setLevel(level)
        logger.propagate = propagate
    logs.set_process_name("MainProcess")
    logs.set_task_info(None)


@pytest.fixture
def log(tmp_path: Path) -> Callable[..., Path]:
    """Configure logging into a file, and give the file."""

    def configure(level: str = "DEBUG", **options: Any) -> Path:
        path = tmp_path / "w.log"
        # pytest has put its own there, as a user's code would: on the root, and on a logger that does not propagate.
        for logger in (logging.getLogger(), logging.getLogger("qworker")):
            logger.handlers[:] = [h for h in logger.handlers if not type(h).__module__.startswith("_pytest")]
        logs.configure(level, logfile=str(path), **options)
        return path

    return configure


def shape(path: Path) -> tuple[str, str, str]:
    """Level, process and message of the only text line."""
    match = TEXT.fullmatch(path.read_text().rstrip("\n"))
    assert match is not None, path.read_text()
    return match[1], match[2], match[3]


def test_a_text_line_has_celerys_shape(log: Callable[..., Path]) -> None:
    path = log()
    logs.set_process_name("Child-2")
    LOGGER.info("hello %s", "you")

    assert shape(path) == ("INFO", "Child-2", "hello you")


def test_an_event_is_its_name_and_its_pairs(log: Callable[..., Path]) -> None:
    path = log()
    logs.event(LOGGER, logging.INFO, "requeued", count=12, queue="hipri", reason="cold shutdown", took=None, ok=True)

    assert shape(path)[2] == 'requeued count=12 queue=hipri reason="cold shutdown" took=null ok=true'


def test_an_events_sentence_is_what_people_read(log: Callable[..., Path]) -> None:
    path = log()
    logs.event(LOGGER, logging.INFO, "task_succeeded", text="Task a[1] succeeded in 0.01s: 4", id="1", runtime_s=0.01)

    assert shape(path)[2] == "Task a[1] succeeded in 0.01s: 4"


def test_a_json_line_is_one_object_with_everything(log: Callable[..., Path]) -> None:
    path = log(format="json")
    logs.event(LOGGER, logging.WARNING, "requeued", text="gave 3 back", count=3, ids=["a"], what={1})
    LOGGER.info("grün %d", 7, extra={"order": 5})

    event, line = [json.loads(text) for text in path.read_text().splitlines()]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", event.pop("ts"))
    assert event == {
        "level": "WARNING",
        "logger": "qworker.test",
        "process": "MainProcess",
        "pid": os.getpid(),
        "event": "requeued",
        "message": "gave 3 back",
        "count": 3,
        "ids": ["a"],
        "what": "{1}",
    }
    assert (line["message"], line["order"]) == ("grün 7", 5)


def test_a_logfmt_line_can_be_taken_apart_again(log: Callable[..., Path]) -> None:
    path = log(format="logfmt")
    logs.event(LOGGER, logging.INFO, "lost", reason='said "no"\nand left', empty="", count=3)

    (line,) = path.read_text().splitlines()
    assert line.endswith('event=lost reason="said \\"no\\"\\nand left" empty="" count=3')


@pytest.mark.parametrize("kind", ["json", "logfmt"])
def test_structured_lines_are_single_lines_whatever_is_in_them(log: Callable[..., Path], kind: Any) -> None:
    path = log(format=kind)
    LOGGER.info("one\ntwo\x1b[31m three\u2028")
    logs.event(LOGGER, logging.INFO, "x", **{"strange key\n": "a=b c"})

    lines = path.read_bytes().split(b"\n")
    assert len(lines) == 3
    assert not any(b"\x1b" in line for line in lines)


def test_an_exception_is_part_of_its_line(log: Callable[..., Path], tmp_path: Path) -> None:
    path = log()
    try:
        raise ValueError("bad thing")
    except ValueError as error:
        LOGGER.exception("it failed")
        kept = error
    assert path.read_text().count("Traceback (most recent call last)") == 1
    assert path.read_text().endswith("ValueError: bad thing\n")

    logs.configure("INFO", format="json", logfile=str(tmp_path / "j.log"))
    logs.event(LOGGER, logging.ERROR, "failed", exc_info=kept)
    assert "ValueError: bad thing" in json.loads((tmp_path / "j.log").read_text())["exception"]


def test_what_an_event_quotes_commands_no_terminal(log: Callable[..., Path]) -> None:
    path = log()
    logs.event(LOGGER, logging.ERROR, "task-failed", text="it raised\n  ValueError: \x1b]0;gotcha\x07\r\ttail")
    LOGGER.info("a user's \x1b[1mown\x1b[0m line")
    text = path.read_text()
    assert "it raised\n  ValueError: \\x1b]0;gotcha\\x07\\x0d\ttail\n" in text
    assert "\x1b[1mown" in text


def test_lines_of_a_running_task_name_it(log: Callable[..., Path]) -> None:
    path = log()
    logs.set_task_info(lambda: ("shop.charge", "t1"))
    logging.getLogger("shop").info("charging")

    assert shape(path)[2] == "shop.charge[t1]: charging"


def test_an_event_about_a_task_names_it_once(log: Callable[..., Path]) -> None:
    path = log()
    logs.set_task_info(lambda: ("shop.charge", "t1"))
    logs.event(LOGGER, logging.INFO, "task_succeeded", text="Task shop.charge[t1] succeeded", id="t1")

    assert shape(path)[2] == "Task shop.charge[t1] succeeded"


def test_no_task_runs_and_nothing_is_named(log: Callable[..., Path]) -> None:
    path = log(format="json")
    logs.set_task_info(lambda: None)
    LOGGER.info("idle")

    assert "task" not in json.loads(path.read_text())


def test_what_is_below_the_level_is_not_even_made(log: Callable[..., Path]) -> None:
    path = log("WARNING")

    class Never:
        def __str__(self) -> str:
            raise AssertionError("formatted for nothing")

    LOGGER.info("%s", Never())
    logs.event(LOGGER, logging.INFO, "x", value=Never())

    assert path.read_text() == ""


@pytest.mark.parametrize("level", ["debug", "INFO", "Warn", "fatal", "15", 15])
def test_levels_have_names_and_numbers(level: str | int) -> None:
    assert 10 <= logs.parse_level(level) <= 50


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown log level 'loud'"):
        logs.parse_level("loud")


def test_a_log_file_that_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be opened: No such file"):
        logs.configure(logfile=str(tmp_path / "no" / "w.log"))


@pytest.mark.timeout(60)
def test_a_named_pipe_that_nobody_reads_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "log")
    with pytest.raises(ConfigError, match=r"log cannot be opened: No such device"):
        logs.configure(logfile=str(tmp_path / "log"))


def test_colours_mark_levels_and_are_off_for_files(log: Callable[..., Path]) -> None:
    path = log()
    LOGGER.error("plain")
    assert "\x1b" not in path.read_text()

    path = log(colour=True)
    LOGGER.error("red")
    LOGGER.info("no colour")
    lines = path.read_text().splitlines()
    assert (lines[1][:5], lines[1][-4:], "\x1b" in lines[2]) == ("\x1b[31m", "\x1b[0m", False)


def test_configuring_again_replaces_the_handler(log: Callable[..., Path]) -> None:
    path = log()
    log()
    LOGGER.info("once")
    logging.getLogger("app").info("once more")

    assert len(path.read_text().splitlines()) == 2


def test_the_users_own_root_handlers_are_left_alone(log: Callable[..., Path]) -> None:
    seen: list[str] = []

    class Own(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(record.getMessage())

    logging.getLogger().addHandler(Own())
    path = log()
    logging.getLogger("app").warning("to the user's handler")
    LOGGER.warning("to ours")

    assert seen == ["to the user's handler"]
    assert shape(path)[2] == "to ours"


def test_a_dict_config_that_disables_everything_does_not_silence_us(log: Callable[..., Path]) -> None:
    LOGGER.debug("known before")
    logging.config.dictConfig({"version": 1, "disable_existing_loggers": True})
    assert LOGGER.disabled
    path = log()
    LOGGER.info("still here")

    assert shape(path)[2] == "still here"


def test_a_file_that_was_moved_away_is_opened_anew(log: Callable[..., Path], tmp_path: Path) -> None:
    path = log()
    LOGGER.info("before")
    path.rename(tmp_path / "w.log.1")

    def is_anew() -> bool:
        LOGGER.info("after")
        return path.exists() and "after" in path.read_text()

    wait_until(is_anew, "the new file is written to")
    assert "before" in (tmp_path / "w.log.1").read_text()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_lines_of_many_processes_and_threads_stay_whole(log: Callable[..., Path]) -> None:
    path = log()

    def write(name: str) -> None:
        for number in range(200):
            LOGGER.info("%s %d %s", name, number, "x" * 3000)

    children = []
    for child in range(4):
        pid = os.fork()
        if pid == 0:
            write(f"p{child}")
            os._exit(0)
        children.append(pid)
    threads = [threading.Thread(target=write, args=(f"t{thread}",)) for thread in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 4

    lines = path.read_text().splitlines()
    assert len(lines) == 6 * 200
    assert all(re.fullmatch(r"\[[^]]+\] [pt]\d \d+ x{3000}", line) for line in lines)


@pytest.mark.parametrize("kind", ["text", "json", "logfmt"])
def test_no_text_is_too_strange(log: Callable[..., Path], kind: Any) -> None:
    path = log(format=kind)
    LOGGER.info("half a pair \ud800 and \0")

    assert b"half a pair" in path.read_bytes()


def test_a_log_that_cannot_be_written_stops_nobody() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    logs.configure("INFO", stream=write_end)
    LOGGER.info("nobody reads this")
    os.close(write_end)
    LOGGER.info("nor this")


def test_arguments_that_do_not_fit_their_message_are_reported_and_not_raised(
    log: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    log()
    LOGGER.info("%d apples", "many")

    assert "Logging error" in capsys.readouterr().err


def test_the_handler_has_no_lock_that_a_fork_could_copy_locked(log: Callable[..., Path]) -> None:
    log()
    (handler,) = logging.getLogger("qworker").handlers

    assert isinstance(handler, LineHandler)
    assert handler.lock is None
