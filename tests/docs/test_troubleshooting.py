"""Every line that qworker may log at WARNING and above is explained, and every reason of a dead letter."""

from __future__ import annotations

import re
from pathlib import Path

import qworker

import made
from support.log_texts import LogText, log_texts

PAGE = Path(made.__file__).resolve().parent.parent / "troubleshooting.md"
PACKAGE = Path(qworker.__file__).resolve().parent

# Nothing in these is constant but what another text brings along; on the page that one stands.
MADE_ELSEWHERE = {
    ("CRITICAL", "…"): "…; giving up after … attempts",
    ("WARNING", "…"): "maxmemory-policy is …",
    ("WARNING", "… …"): "stacks of child …",
    ("ERROR", "…: …"): "Task …[…] raised unexpected: …",
}


def explained() -> set[tuple[str, str]]:
    """Level and line of every row."""
    page = PAGE.read_text("utf-8")
    return set(re.findall(r"^\| (WARNING|ERROR|CRITICAL) \| (?:`(?=[^`])|`` ?)(.+?)`{1,2} \|", page, re.MULTILINE))


def wanted(found: LogText) -> tuple[str, str]:
    return found.level, MADE_ELSEWHERE.get((found.level, found.text), found.text)


def test_every_line_of_the_log_is_explained() -> None:
    texts = log_texts(PACKAGE)
    assert len(texts) > 50
    assert [found for found in texts if wanted(found) not in explained()] == []


def test_nothing_is_explained_that_the_code_does_not_say() -> None:
    said = {wanted(found)[1] for found in log_texts(PACKAGE)}
    code = "".join(re.sub(r"\"\s*\n\s*f?\"", "", file.read_text("utf-8")) for file in PACKAGE.glob("*/*.py"))
    for _, line in explained():
        parts = [part.strip(" :;,()[]") for part in line.split("…")]
        assert line in said or all(part in code for part in parts if len(part) > 3), line


def test_every_reason_of_a_dead_letter_is_explained() -> None:
    table = PAGE.read_text("utf-8").partition("## Reasons of dead letters")[2]
    assert reasons() - set(re.findall(r"`(\w+)`", table)) == set()


def reasons() -> set[str]:
    """What the code gives as a reason: constants of tasks and of the Redis transport, words in calls and in scripts."""
    found = {"redriven"}
    for name in (
        "tasks/message.py",
        "tasks/execute.py",
        "tasks/run.py",
        "tasks/successors.py",
        "transports/redis_stale.py",
    ):
        found |= set(re.findall(r'^[A-Z_]+: Final = "([a-z_]+)"', (PACKAGE / name).read_text("utf-8"), re.MULTILINE))
    for file in PACKAGE.glob("worker/*.py"):
        found |= set(re.findall(r'reject\(entry, "(\w+)"', file.read_text("utf-8")))
    for script in PACKAGE.glob("transports/lua/*.lua"):
        found |= set(re.findall(r"reason = '(\w+)'", script.read_text("utf-8")))
    assert {"unknown_task", "crashed", "queue_unusable"} <= found
    return found


def test_the_reader_of_the_code_sees_what_it_should(tmp_path: Path) -> None:
    room = tmp_path / "room"
    room.mkdir()
    (room / "__init__.py").write_text("")
    (room / "one.py").write_text(
        "def f():\n"
        "    text = 'first %d' if x else f'second {x} of it'\n"
        "    logger.warning(text, 1)\n"
        "    logs.event(logger, logging.ERROR, 'name', text=f'an event {x}')\n"
        "    logger.info('not this')\n"
        "    say(task, 'is %s', logging.CRITICAL)\n"
    )
    assert {(found.level, found.text) for found in log_texts(tmp_path)} == {
        ("WARNING", "first …"),
        ("WARNING", "second … of it"),
        ("ERROR", "an event …"),
        ("CRITICAL", "is …"),
    }
