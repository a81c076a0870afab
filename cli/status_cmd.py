"""`qworker status`: what the workers on this host do now, asked over their sockets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import click

from ..core.errors import ConfigError
from ..monitor import AskError, Place, ask, find_sockets, get
from .common import Target, table
from .common import command as make_command
from .health_cmd import place_options

_UNITS: Final = ((86400, "d"), (3600, "h"), (60, "m"))


def _status(target: Target, hostname: str | None, http: str | None, http_token: str | None, as_json: bool) -> int:
    try:
        answers = _answers(hostname, http, http_token or "")
    except (AskError, ConfigError) as error:
        raise click.ClickException(str(error)) from None
    for number, answer in enumerate(answers):
        if as_json:
            click.echo(json.dumps(answer, ensure_ascii=False))
        else:
            click.echo(("\n" if number else "") + _page(answer))
    return 0


def _answers(node: str | None, http: str | None, token: str) -> list[dict[str, Any]]:
    """Of every worker here, or of the one that was named. Raises AskError, ConfigError."""
    found = [] if http and (node is None or http.startswith("unix:")) else find_sockets(node)
    if len(found) > 1:
        return [_read(*get(Place(path=one.path), "/status")) for one in found]
    return [_read(*ask("/status", node=node, http=http, token=token))]


def _read(status: int, body: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(body) if status == 200 else None
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        text = body[:200].decode("utf-8", "replace").strip()
        raise AskError(f"the worker answers {status}: {text}")
    return answer


def _page(answer: Mapping[str, Any]) -> str:
    lines = [f"{name + ':':<10}{value}" for name, value in _rows(answer)]
    rows = [_child(child) for child in answer["children"]]
    if rows:
        lines += ["", table(("child", "pid", "state", "for", "memory", "runs"), rows)]
    return _printable("\n".join(lines))


def _rows(answer: Mapping[str, Any]) -> list[tuple[str, str]]:
    broker, slots = answer["broker"], answer["slots"]
    ready = "" if answer["ready"] else ", not ready yet"
    left_s = answer["deadline_in_s"]
    left = "" if left_s is None else f", at most {_for(left_s)} more"
    link = "up" if broker["up"] else f"out of reach: {broker['trouble'] or 'not reached yet'}"
    rows = [
        ("node", f"{answer['node']} (pid {answer['pid']}, qworker {answer['version']})"),
        ("phase", f"{answer['phase']}{ready}{left}, up {_for(answer['uptime_s'])}"),
        ("broker", f"{broker['url']} {link}".strip()),
        ("slots", f"{slots['busy']} of {answer['size']} busy, {answer['held']} messages held for them"),
        *[("queue", f"{name} {_queue(queue)}") for name, queue in answer["queues"].items()],
        ("tasks", _counts(answer["tasks"]) or "none yet"),
    ]
    for title, counts in (("restarts", answer["restarts"]), ("recovered", answer["recovered"])):
        if counts:
            rows.append((title, _counts(counts)))
    if answer["dead_letters"]:
        rows.append(("dead", f"{answer['dead_letters']} (see `qworker dead list`)"))
    if answer["reload_trouble"]:
        rows.append(("reload", f"failed: {answer['reload_trouble']}"))
    return rows


def _queue(queue: Mapping[str, Any]) -> str:
    if queue["depth"] is None:
        return "unknown"
    oldest = queue["oldest_age_s"]
    return f"{queue['depth']} waiting" + ("" if oldest is None else f", the next for {_for(oldest)}")


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items())


def _child(child: Mapping[str, Any]) -> tuple[object, ...]:
    memory = child["memory_bytes"]
    runs = f"{child['task']}[{child['id']}]" if child["id"] else ""
    for_ = "" if child["running_s"] is None else _for(child["running_s"])
    size = "" if memory is None else f"{memory['uss'] // 2**20} MiB"
    return (child["slot"], child["pid"] or "", child["state"], for_, size, runs)


def _for(seconds: float) -> str:
    for length, unit in _UNITS:
        if seconds >= length:
            return f"{seconds / length:.1f}{unit}"
    return f"{seconds:.1f}s"


def _printable(text: str) -> str:
    """A task's name or a broker's error may hold what a terminal would obey."""
    return "".join(char if char.isprintable() or char == "\n" else "?" for char in text)


command = make_command(
    "status",
    [click.Option(["--json", "as_json"], is_flag=True, help="One JSON object a worker, in a line."), *place_options()],
    _status,
    help="Show what the workers on this host do now. Works while the broker is out of reach, too.",
)
