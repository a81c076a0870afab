"""What is printed becomes lines: whole ones, with care for those who use the streams in other ways."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest


def logged(tmp_path: Path, code: str) -> tuple[list[dict[str, Any]], str, str]:
    """The events that a process logs which redirects, runs `code` and ends; and its own stdout and stderr."""
    script = (
        "import logging, os, subprocess, sys, threading\n"
        "from qworker.core import logs, redirect\n"
        f"logs.configure('INFO', format='json', logfile={str(tmp_path / 'w.log')!r})\n"
        "redirect.redirect(logging.WARNING)\n" + textwrap.dedent(code) + "\nredirect.restore()\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30)
    assert ended.returncode == 0, ended.stderr
    lines = (tmp_path / "w.log").read_text().splitlines()
    return [json.loads(line) for line in lines], ended.stdout, ended.stderr


def texts(tmp_path: Path, code: str) -> list[str]:
    return [event["message"] for event in logged(tmp_path, code)[0]]


def test_a_printed_line_is_one_event_with_its_stream(tmp_path: Path) -> None:
    events, out, err = logged(tmp_path, "print('to out'); print('to err', file=sys.stderr)")

    assert [(e["message"], e["stream"], e["level"], e["event"]) for e in events] == [
        ("to out", "stdout", "WARNING", "printed"),
        ("to err", "stderr", "WARNING", "printed"),
    ]
    assert (out, err) == ("", "")


@pytest.mark.parametrize(
    ("code", "lines"),
    [
        ("print('a', end=''); print('b')", ["ab"]),
        ("print('no end', end='')", ["no end"]),
        ("print('a\\nb\\nc')", ["a\nb\nc"]),
        ("print(); print('  ')", []),
        ("for n in range(0, 101, 50): print(f'\\r{n} %', end='', flush=True)\nprint()", ["100 %"]),
        ("sys.stdout.writelines(['a', 'b\\n', 'c\\n'])", ["ab", "c"]),
        ("sys.stdout.buffer.write('grün\\n'.encode()[:3]); sys.stdout.buffer.write('grün\\n'.encode()[3:])", ["grün"]),
        ("print('x' * 100_000, end='')", ["x" * 100_000]),
        ("print('half', end=''); sys.stdout.flush(); print(' whole')", ["half whole"]),
    ],
)
def test_lines_are_whole(tmp_path: Path, code: str, lines: list[str]) -> None:
    assert texts(tmp_path, code) == lines


def test_lines_of_threads_do_not_mix(tmp_path: Path) -> None:
    code = """
    barrier = threading.Barrier(2)
    def say(name):
        print(name, end=" ")
        barrier.wait()
        print("says")
    threads = [threading.Thread(target=say, args=(name,)) for name in "ab"]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    """
    assert sorted(texts(tmp_path, code)) == ["a says", "b says"]


def test_programs_write_where_they_always_did(tmp_path: Path) -> None:
    events, out, _ = logged(
        tmp_path, "subprocess.run(['echo', 'by itself']); subprocess.run(['echo', 'by us'], stdout=sys.stdout)"
    )
    assert (events, out) == ([], "by itself\nby us\n")


def test_the_streams_answer_as_streams_do(tmp_path: Path) -> None:
    code = """
    assert sys.stdout.isatty() is False and sys.stdout.fileno() == 1 and sys.stderr.fileno() == 2
    assert sys.stdout.encoding == "utf-8" and sys.stdout.writable() and not sys.stdout.closed
    assert sys.stdout.name == "<stdout>" and sys.stdout.mode == "w" and sys.stdout.errors
    assert sys.stdout.write("four") == 4
    sys.stdout.reconfigure(line_buffering=True)
    sys.stdout.close(); sys.stdout.buffer.close()
    print(" still open")
    try:
        sys.stdout.write(b"bytes")
    except TypeError as error:
        print(error)
    """
    assert texts(tmp_path, code) == ["four still open", "write() argument must be str, not bytes"]


def test_a_handler_that_prints_does_not_go_in_circles(tmp_path: Path) -> None:
    code = """
    class Printing(logging.Handler):
        def emit(self, record):
            print("seen:", record.getMessage())
    logging.getLogger("qworker").addHandler(Printing())
    logging.getLogger().handlers.append(logging.StreamHandler(sys.stderr))
    print("once")
    logging.getLogger("other").warning("via root")
    """
    events, out, _ = logged(tmp_path, code)
    said = [event["message"] for event in events]
    assert said.count("once") == 1
    assert "seen: once\n" in out
    assert "via root" in said


def test_the_log_s_own_trouble_does_not_go_in_circles(tmp_path: Path) -> None:
    said = texts(tmp_path, "logging.getLogger('qworker.x').info('%d apples', 'many')")

    assert any("Logging error" in text for text in said)


def test_restoring_gives_the_streams_back() -> None:
    from qworker.core import redirect

    before = (sys.stdout, sys.stderr)
    redirect.redirect(logging.INFO)
    redirect.redirect(logging.INFO)
    redirect.restore()
    assert (sys.stdout, sys.stderr) == before
    assert os.fstat(1)
