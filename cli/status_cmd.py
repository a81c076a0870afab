"""`qworker status`: what the workers on this host do now, asked over their sockets."""

from __future__ import annotations

import json
import os
import pwd
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, NamedTuple

import click

from ..core.errors import ConfigError
from ..monitor import AskError, Place, ask, find_all_sockets, get, is_live, nobody, parse
from .common import Target, table
from .common import command as make_command
from .health_cmd import place_options

_UNITS: Final = ((86400, "d"), (3600, "h"), (60, "m"))


def _status(target: Target, hostname: str | None, http: str | None, http_token: str | None, as_json: bool) -> int:
    """Show each worker that answers, and say of each other one why not: then the exit code is 1."""
    try:
        workers = _workers(hostname, http)
    except ConfigError as error:
        raise click.ClickException(str(error)) from None
    shown = failed = 0
    for worker in workers:
        try:
            page = _shown(_read(*worker.ask(http_token or "")), worker.user, as_json=as_json)
        except (AskError, ConfigError) as error:
            if not worker.has_gone():
                click.echo(f"qworker: {_printable(str(error))}", err=True)
                failed += 1
            continue
        click.echo(("\n" if shown and not as_json else "") + page)
        shown += 1
    if not shown and not failed:
        raise click.ClickException(nobody(hostname))
    return 1 if failed else 0


class _Worker(NamedTuple):
    """Somebody to ask. `path`: of the socket that was found; `user`: whose worker it is, where that is not who asks."""

    ask: Callable[[str], tuple[int, bytes]]
    path: str = ""
    user: str = ""

    def has_gone(self) -> bool:
        """Whether it has ended since it was found."""
        return bool(self.path) and not is_live(self.path)


def _workers(node: str | None, http: str | None) -> list[_Worker]:
    """Every worker here, or those that are meant. Raises ConfigError."""
    found = [] if http and (node is None or parse(http).path) else find_all_sockets(node)
    if found:
        return [_Worker(partial(_ask_socket, one.path), one.path, _user(one.uid)) for one in found]
    return [_Worker(lambda token: ask("/status", node=node, http=http, token=token))]


def _ask_socket(path: str, token: str) -> tuple[int, bytes]:
    return get(Place(path=path), "/status")


def _user(uid: int) -> str:
    if uid == os.geteuid():
        return ""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _read(status: int, body: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(body) if status == 200 else None
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        text = body[:200].decode("utf-8", "replace").strip()
        raise AskError(f"the worker answers {status}: {text}")
    return answer


def _shown(answer: dict[str, Any], user: str, *, as_json: bool) -> str:
    """Raises AskError for what no worker of this version answers."""
    if as_json:
        return json.dumps({**answer, "user": user} if user else answer, ensure_ascii=False)
    try:
        return _page(answer, user)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise AskError(f"this is no status of a worker of this version: {error!r} in {str(answer)[:200]}") from None


def _page(answer: Mapping[str, Any], user: str) -> str:
    lines = [f"{name + ':':<10}{value}" for name, value in _rows(answer)]
    if user:
        lines.insert(1, f"{'user:':<10}{user}")
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
