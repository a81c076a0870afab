"""Unit files: the shipped ones, and one for a certain application, which is the shipped one with some lines replaced.

So there is one place where the numbers and the confinement stand. Called by `qworker systemd`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

#: What a stop may take beyond its soft time-out: interrupting (2 s), killing, giving back, closing connections.
STOP_MARGIN_S: Final = 20
#: systemd waits so many deaf time-outs: the worker mends a consumer that hangs or is deaf by itself within less.
WATCHDOG_FACTOR: Final = 2
_LEAST_WATCHDOG_S: Final = 30
_PLAIN_WORD: Final = re.compile(r"[\w@%+=:,./~^-]+").fullmatch
#: What a user's own systemd cannot do, or does not have to.
_SYSTEM_ONLY: Final = (
    *("User", "Group", "CapabilityBoundingSet", "AmbientCapabilities", "ProtectSystem", "ProtectHome", "PrivateTmp"),
    *("PrivateDevices", "ProtectProc", "ProtectClock", "ProtectControlGroups", "ProtectHostname"),
    *("ProtectKernelLogs", "ProtectKernelModules", "ProtectKernelTunables", "RemoveIPC"),
)
_HOMES: Final = ("/home/", "/root/", "/run/user/")
_TEMPORARY: Final = ("/tmp/", "/var/tmp/")
_PATH: Final = "/usr/local/bin:/usr/bin:/bin"


@dataclass(frozen=True, slots=True)
class Service:
    """What a unit is to run. All paths are absolute; `user` empty = a unit of the user's own systemd.

    `soft_s` and `deaf_s` are the worker's soft time-out and `worker_deaf_timeout`, in seconds.
    """

    name: str
    command: Sequence[str]
    bin_folder: str
    workdir: str
    env_file: str
    interpreter: str = ""
    user: str = ""
    group: str = ""
    soft_s: float = 25.0
    deaf_s: float = 30.0
    memory_max: str = ""

    @property
    def places(self) -> list[str]:
        """Where the application and what runs it are; folders end with a slash."""
        return [f"{self.workdir}/", f"{self.bin_folder}/", self.interpreter]


def shipped(name: str) -> str:
    """The text of `qworker@.service`, `qworker.slice` or `qworker.target`."""
    return Path(__file__).with_name(name).read_text("utf-8")


def service_unit(service: Service, head: str) -> str:
    """The unit of one application; `head` says in a comment who wrote it."""
    unit = _Unit(shipped("qworker@.service"))
    unit.replace_head(head)
    unit.set("Description", f"qworker for {service.name}")
    environment = (
        _assignment(f"PATH={_plain(service.bin_folder)}:{_PATH}"),
        f"QWORKER_HOSTNAME={service.name}@%%h",
        f"REMAP_SIGTERM=SIGQUIT QWORKER_SOFT_SHUTDOWN_TIMEOUT={service.soft_s:g}",
    )
    unit.set("Environment", *environment)
    unit.set("EnvironmentFile", f"-{_escaped(service.env_file)}")
    unit.set("WorkingDirectory", _escaped(service.workdir))
    unit.set("RuntimeDirectory", f"qworker/{service.name}")
    unit.set("StateDirectory", f"qworker/{service.name}")
    unit.set("ExecStart", " ".join(_word(word) for word in service.command))
    unit.set("TimeoutStopSec", str(math.ceil(service.soft_s) + STOP_MARGIN_S))
    unit.set("WatchdogSec", str(watchdog_s(service.deaf_s)))
    if service.memory_max:
        unit.insert_after("OOMPolicy", f"MemoryMax={service.memory_max}")
    if service.user:
        unit.set("User", service.user)
        unit.set("Group", *filter(None, [service.group]))
        _show_places(unit, service)
    else:
        _for_user(unit)
    return unit.text()


def template_unit(command: Sequence[str], bin_folder: str, head: str, user: str = "", group: str = "") -> str:
    """`qworker@.service` with this command; its instances find the application by their names."""
    unit = _Unit(shipped("qworker@.service"))
    unit.replace_head(f"{head}\n{_comment(shipped('qworker@.service'))}")
    unit.set("ExecStart", " ".join(_word(word) for word in command))
    path, *others = unit.values("Environment")
    unit.set("Environment", _assignment(path.replace(f":{_PATH}", f":{_plain(bin_folder)}:{_PATH}")), *others)
    if user:
        unit.set("User", user)
        unit.set("Group", *filter(None, [group]))
    return unit.text()


def _comment(text: str) -> str:
    """The comment at a file's head, without its signs."""
    lines = text.splitlines()
    return "\n".join(line[2:] for line in lines[: lines.index("")])


def watchdog_s(deaf_s: float) -> int:
    """What systemd's watchdog has to wait for a worker with this `worker_deaf_timeout`."""
    return max(_LEAST_WATCHDOG_S, math.ceil(WATCHDOG_FACTOR * (deaf_s or 30)))


def _show_places(unit: _Unit, service: Service) -> None:
    """An application below a folder that a confined service does not see has to be shown to it."""
    if any(place.startswith(_HOMES) for place in service.places):
        unit.set("ProtectHome", "read-only")
    if any(place.startswith(_TEMPORARY) for place in service.places):
        unit.set("PrivateTmp", "no")


def _for_user(unit: _Unit) -> None:
    for name in _SYSTEM_ONLY:
        unit.set(name)
    unit.set("After")
    unit.set("Wants", "qworker.target")
    unit.set("WantedBy", "default.target qworker.target")


class _Unit:
    """A unit's lines. A comment stays above the line that it is about."""

    def __init__(self, text: str) -> None:
        self._lines = text.splitlines()

    def replace_head(self, comment: str) -> None:
        """Put another comment in place of the one before the first section."""
        first = next(at for at, line in enumerate(self._lines) if line.startswith("["))
        self._lines[:first] = [*(f"# {line}" for line in comment.splitlines()), ""]

    def set(self, name: str, *values: str) -> None:
        """Replace all lines of `name` by these, the first at the place of the first, the last at that of the last."""
        at = self._find(name)
        new = [f"{name}={value}" for value in values]
        for place, index in enumerate(at):
            # As many as there are find their old places, under their comments; what is too much goes to the last.
            last = place == len(at) - 1
            self._lines[index] = "\n".join(new[place:] if last else new[place : place + 1])
        self._lines = [line for index, line in enumerate(self._lines) if line or index not in at]

    def values(self, name: str) -> list[str]:
        """What the lines of `name` say."""
        return [self._lines[at].partition("=")[2] for at in self._find(name)]

    def insert_after(self, name: str, line: str) -> None:
        """Add a line below that of `name`."""
        self._lines.insert(self._find(name)[-1] + 1, line)

    def text(self) -> str:
        """The file."""
        return "\n".join(self._lines) + "\n"

    def _find(self, name: str) -> list[int]:
        return [at for at, line in enumerate(self._lines) if line.startswith(f"{name}=")]


def _escaped(text: str) -> str:
    """Plain text where systemd expands specifiers; `%h` of a user's unit is meant as such."""
    return text if text.startswith("%h/") else _plain(text)


def _plain(text: str) -> str:
    return text.replace("%", "%%")


def _word(text: str) -> str:
    """One word of a command line, as systemd.service(5) reads it."""
    return _assignment(_plain(text).replace("$", "$$"))


def _assignment(text: str) -> str:
    """One of `Environment=`, where a dollar is a dollar; specifiers are in it already."""
    if _PLAIN_WORD(text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t") + '"'
