"""The pages that are made from the code: nothing is missing in them, and what they say is so."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from qworker.core.settings_old_names import modern_name
from qworker.core.settings_table import _ELSEWHERE, TABLE
from qworker.worker.phases import SIGNAL_EVENTS, Phase
from qworker.worker.pool_signals import POOL_SIGNALS

import made
from made import commands, settings
from made.settings_notes import NOTES, WITHOUT_EFFECT

DOCS = Path(made.__file__).resolve().parent.parent


def page(name: str) -> str:
    """A page as the site shows it."""
    return made.fill((DOCS / f"{name}.md").read_text("utf-8"))


def test_every_setting_has_a_description_and_every_description_a_setting() -> None:
    assert set(NOTES) == set(TABLE) - set(_ELSEWHERE)


def test_every_setting_stands_on_its_page_once() -> None:
    names = re.findall(r"^\| `(\w+)`", page("settings"), re.MULTILINE)
    assert sorted(names) == sorted(set(TABLE) - set(_ELSEWHERE))
    assert all(f"`{name}`" in page("settings") for name in _ELSEWHERE)


def test_a_setting_without_effect_is_told_from_one_that_has_some() -> None:
    assert settings.has_effect("task_acks_late")
    assert not settings.has_effect("worker_timer_precision")
    assert set(TABLE) >= WITHOUT_EFFECT


def test_the_old_name_on_the_page_leads_to_the_setting() -> None:
    old_names = {name: settings.old_name(name) for name in TABLE}
    assert {name: old for name, old in old_names.items() if old and modern_name(old, TABLE) != name} == {}


def test_the_old_names_are_those_that_celery_reads() -> None:
    # In a process of its own: Celery's modules warn, and are not wanted here.
    script = (
        "import json, celery.app.defaults as d\n"
        "print(json.dumps({k.lower(): sorted(o.old) for k, o in d.flatten(d.NAMESPACES)}))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    known = {name: [old.format(name) for old in olds] for name, olds in json.loads(done.stdout).items()}
    ours = {name: settings.old_name(name) for name in known if name in TABLE and name not in _ELSEWHERE}
    wrong = {name: (old, known[name]) for name, old in ours.items() if known[name] and old != known[name][0].upper()}
    assert wrong == {}


def test_every_kind_of_value_has_a_word() -> None:
    assert all(settings.kind(option.convert) for option in TABLE.values())


def test_every_option_stands_on_the_page_of_the_command_line() -> None:
    text = page("cli")
    helped = subprocess.run([sys.executable, "-m", "qworker", "--help"], capture_output=True, text=True, timeout=60)
    for option in set(re.findall(r"(?<![\w-])--[a-z][\w-]+", helped.stdout)) - {"--help", "--args"}:
        assert f"`{option}`" in text, option


def test_every_command_stands_on_the_page_of_the_command_line() -> None:
    paths = [ctx.command_path for _, ctx in commands.every_command()]
    assert "qworker dead requeue" in paths
    assert all(f"### {path}\n" in page("cli") for path in paths)


@pytest.mark.parametrize(
    ("variable", "value", "complaint"),
    [("QWORKER_CONCURRENCY", "0", "-c"), ("QWORKER_MAX_TASKS_PER_CHILD", "x", "--max-tasks-per-child")],
)
def test_the_environment_variables_of_the_page_are_read(variable: str, value: str, complaint: str) -> None:
    assert f"`{variable}`" in page("cli")
    command = [sys.executable, "-m", "qworker", "-A", "nothing"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, variable: value})
    assert (done.returncode, complaint in done.stderr) == (2, True), done.stderr


def test_a_variable_of_a_command_is_read() -> None:
    assert "`QWORKER_CALL_PRIORITY`" in page("cli")
    command = [sys.executable, "-m", "qworker", "call", "x"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, env={**os.environ, "QWORKER_CALL_PRIORITY": "77"}
    )
    assert done.returncode == 2
    assert "77" in done.stderr


def test_the_page_of_signals_names_every_signal_and_phase() -> None:
    text = page("signals")
    for number in [*SIGNAL_EVENTS, *POOL_SIGNALS]:
        assert re.search(rf"\b{number.name.removeprefix('SIG')}\b", text), number
    for phase in Phase:
        assert len(re.findall(rf"^\| {phase.value} \|", text, re.MULTILINE)) == 2, phase


def test_an_unknown_mark_is_an_error() -> None:
    with pytest.raises(KeyError):
        made.fill("<!-- made: nonsense -->")
    assert made.fill("a <!-- made: nonsense --> b") == "a <!-- made: nonsense --> b"
