"""A control group of a test's own, of whichever version this machine has."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ..waiting import wait_until

_MOUNT = Path("/sys/fs/cgroup")
_PERIOD_US = 100_000


class NoCgroup(Exception):
    """No group can be made here; says why."""


@contextmanager
def limited(*, memory: int | None = None, cpus: float | None = None) -> Iterator[list[Path]]:
    """Groups with these limits (bytes; CPUs), removed at the end; returns the files that a process's id is written to.

    Raises NoCgroup.
    """
    with ExitStack() as stack:
        try:
            yield [folder / "cgroup.procs" for folder in _groups(stack, memory, cpus)]
        except PermissionError as error:
            raise NoCgroup(str(error)) from None


def _groups(stack: ExitStack, memory: int | None, cpus: float | None) -> list[Path]:
    quota = None if cpus is None else int(cpus * _PERIOD_US)
    if (_MOUNT / "cgroup.controllers").exists():
        folder = _group(stack, _MOUNT, "memory.max")
        # Without swap the kernel kills at the limit instead of swapping.
        _write(folder, {"memory.max": memory, "memory.swap.max": memory and 0})
        _write(folder, {"cpu.max": None if quota is None else f"{quota} {_PERIOD_US}"})
        return [folder]
    folders = []
    if memory is not None:
        folders.append(_group(stack, _MOUNT / "memory", "memory.limit_in_bytes"))
        _write(folders[-1], {"memory.limit_in_bytes": memory, "memory.swappiness": 0})
    if quota is not None:
        folders.append(_group(stack, _MOUNT / "cpu", "cpu.cfs_quota_us"))
        _write(folders[-1], {"cpu.cfs_period_us": _PERIOD_US, "cpu.cfs_quota_us": quota})
    return folders


def _group(stack: ExitStack, tree: Path, needed: str) -> Path:
    """A new group at the top of the tree: a limit that holds for this process may stand on the way to its own."""
    folder = tree / f"qworker-test-{uuid.uuid4().hex[:12]}"
    try:
        folder.mkdir()
    except OSError as error:
        raise NoCgroup(f"{tree}: {error.strerror}") from None
    stack.callback(_remove, folder)
    if not (folder / needed).exists():
        raise NoCgroup(f"{tree} has no {needed}")
    return folder


def _write(folder: Path, values: dict[str, int | str | None]) -> None:
    for name, value in values.items():
        if value is not None and (folder / name).exists():
            (folder / name).write_text(str(value))


def _remove(folder: Path) -> None:
    """Remove the group once its last process is gone."""

    def is_removed() -> bool:
        try:
            os.rmdir(folder)
        except OSError:
            return False
        return True

    wait_until(is_removed, f"{folder} is empty")
