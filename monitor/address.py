"""Where a worker listens: what `--http` says, and the socket that each node has by itself.

Used by the endpoint and by those who ask it; so nothing heavy is imported here. A node's own socket is
`qworker/<node>.sock` under $XDG_RUNTIME_DIR, else /run for root, else the temporary directory; a service of systemd has
it in the runtime directory that its unit gives it (`/run/qworker/shop`), and a worker that has given root up in
`/run/qworker/<user id>`. A second worker of the same node name puts its process id behind the name.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from typing import Final, NamedTuple

from ..core.errors import ConfigError
from ..core.runtime_folder import SERVICES, make_services_folder, place_of

OFF: Final = "off"
#: The longest path of a socket in bytes: unix(7) has 108, the last one is a zero.
LONGEST_PATH: Final = 107
SUFFIX: Final = ".sock"
_UNIX: Final = "unix:"
FOLDER: Final = "qworker"


class Rules(NamedTuple):
    """Who may ask. `token`: who does not show it learns from the probes alone, which say one word.

    `hosts`: names for this address; a request that names another one comes from a web page that has its own name lead
    here, and is refused. Empty: any.
    """

    token: str = ""
    hosts: frozenset[str] = frozenset()


class Place(NamedTuple):
    """An address: `path` of a unix socket, or `host` and `port`. Both empty: nowhere (`off`)."""

    path: str = ""
    host: str = ""
    port: int = 0

    def __str__(self) -> str:
        if self.path:
            return f"{_UNIX}{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}" if host else OFF


def parse(text: str) -> Place:
    """Return the place that `text` names: HOST:PORT, [IPV6]:PORT, unix:PATH, or off. Raises ConfigError."""
    if text == OFF:
        return Place()
    if text.startswith(_UNIX):
        path = os.path.abspath(text.removeprefix(_UNIX).removeprefix("//") or ".")
        if len(os.fsencode(path)) > LONGEST_PATH:
            raise ConfigError(f"--http {text}: the path has more than {LONGEST_PATH} bytes; choose a shorter one")
        return Place(path=path)
    host, colon, port = text.removeprefix("http://").rstrip("/").rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"--http {text}: give HOST:PORT, for example 127.0.0.1:9540, or unix:PATH")
    return Place(host=host.strip("[]") or "0.0.0.0", port=int(port))


def parse_optional(text: str | None) -> Place | None:
    """As `parse`; None stays None. Raises ConfigError."""
    return parse(text) if text else None


def is_loopback(address: str) -> bool:
    """Whether only this host reaches this address (an IP address, as a socket names it)."""
    return address.startswith(("127.", "::ffff:127.")) or address == "::1"


def folders(env: Mapping[str, str] = os.environ) -> list[str]:
    """Where this user's sockets may be, the best place first.

    The last one has the user's number in its name: in a temporary directory that all share, somebody else may have
    made the one before it.
    """
    temporary, runtime, uid = env.get("TMPDIR") or "/tmp", env.get("XDG_RUNTIME_DIR"), os.geteuid()
    found = [os.path.join(runtime, FOLDER)] if runtime else []
    if not uid:
        found.append(SERVICES)
    elif os.path.isdir(place_of(uid)):
        found.append(place_of(uid))
    found.append(os.path.join(temporary, FOLDER))
    if env.get("RUNTIME_DIRECTORY"):  # systemd.exec(5)
        found.insert(0, env["RUNTIME_DIRECTORY"].partition(":")[0])
    return [*dict.fromkeys(found), os.path.join(temporary, f"{FOLDER}-{uid}")]


def places_to_look(env: Mapping[str, str] = os.environ) -> list[str]:
    """Folders in which sockets of workers may be that this user may ask: those of services are in /run."""
    runtime = env.get("XDG_RUNTIME_DIR")
    of_services = [*([os.path.join(runtime, FOLDER)] if runtime else []), SERVICES]
    found = [*folders(env), SERVICES]
    return list(dict.fromkeys([*found, *(inner for folder in of_services for inner in _folders_in(folder))]))


def _folders_in(path: str) -> list[str]:
    try:
        return sorted(entry.path for entry in os.scandir(path) if entry.is_dir())
    except OSError:
        return []


def file_name(node: str, mark: str = "") -> str:
    """The socket's name for a node; `mark` tells one of several workers of that name."""
    plain = "".join(char if char.isprintable() and char not in "/\0 " else "_" for char in node)
    return f"{plain}{mark}{SUFFIX}"


def make_folder(path: str) -> bool:
    """Make the folder if need be; False unless it is there, ours, and nobody else may write into it."""
    if path == SERVICES:
        return make_services_folder()
    try:
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            pass
        found = os.lstat(path)
    except OSError:
        return False
    return (
        stat.S_ISDIR(found.st_mode)
        and found.st_uid == os.geteuid()
        and not found.st_mode & 0o022
        and os.access(path, os.W_OK | os.X_OK)
    )
