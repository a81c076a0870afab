"""What the kernel's control groups allow this process. Read by `cpus` and `memory_limit`.

A limit may stand on our own group or on any one above it, so the whole way up is read. Version 2 has one tree;
version 1 has one per controller, each mounted by itself; a hybrid host mounts the version 2 tree beside those as
`unified`. In a container the path that the kernel tells may be the host's: then the mounted root is our own group.
Sources: cgroups(7), Documentation/admin-guide/cgroup-v2.rst, Documentation/admin-guide/cgroup-v1/.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_V1_MOUNTS: Final = {"cpu": ("cpu", "cpu,cpuacct"), "memory": ("memory",)}


@dataclass(frozen=True, slots=True)
class Cgroups:
    """Where to look: the file systems' mount point, and what tells our membership."""

    mount: Path = Path("/sys/fs/cgroup")
    membership: Path = Path("/proc/self/cgroup")

    def folders(self, controller: str) -> Iterator[tuple[int, Path]]:
        """(version, folder) of each group that may limit us: our own, then those above it. They need not exist."""
        for controllers, path in self._memberships():
            if not controllers:
                for root in (self.mount, self.mount / "unified"):
                    yield from ((2, folder) for folder in _upwards(root, path))
            elif controller in controllers:
                for name in _V1_MOUNTS[controller]:
                    yield from ((1, folder) for folder in _upwards(self.mount / name, path))

    def _memberships(self) -> Iterator[tuple[list[str], str]]:
        """(controllers, path) for each line `id:controllers:path`; version 2 names no controllers."""
        for line in read(self.membership).splitlines():
            parts = line.split(":", 2)
            if len(parts) == 3:
                yield parts[1].split(",") if parts[1] else [], parts[2]


def read(path: Path) -> str:
    """The text of a file of the kernel's, empty when there is none or it cannot be read."""
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return ""


def _upwards(root: Path, path: str) -> list[Path]:
    """Our folder and its parents up to `root`."""
    folder = root / path.strip("/")
    folders = [folder]
    while folder != root and root in folder.parents:
        folder = folder.parent
        folders.append(folder)
    return folders
