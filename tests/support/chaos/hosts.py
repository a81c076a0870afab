"""Several hosts on one machine, each with a network that a test can cut: as network namespaces or by proxies."""

from __future__ import annotations

import ipaddress
import multiprocessing
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from multiprocessing.connection import Connection
from typing import Final, Protocol

from ..proxy import Proxy

_SPAWN: Final = multiprocessing.get_context("spawn")


class Host(Protocol):
    """Where a worker runs. `prefix` stands before its command; by `url` it reaches the broker."""

    prefix: Sequence[str]
    url: str

    def cut(self) -> None:
        """From now on nothing that is sent arrives, and nobody is told."""
        ...

    def mend(self) -> None:
        """The network is back."""
        ...


class Namespace:
    """A network namespace, linked to ours by a pair of virtual cards."""

    def __init__(self, number: int, port: int) -> None:
        self._name = f"qw{os.getpid()}n{number}"
        self._card = f"qw{os.getpid()}h{number}"
        ours, theirs = (_address(4 * number + end) for end in (1, 2))
        self.prefix = ("ip", "netns", "exec", self._name)
        self.url = f"redis://{ours}:{port}/0"
        _ip("netns", "add", self._name)
        _ip("link", "add", self._card, "type", "veth", "peer", "name", "eth0", "netns", self._name)
        _ip("address", "add", f"{ours}/30", "dev", self._card)
        _ip("link", "set", self._card, "up")
        _ip("-n", self._name, "address", "add", f"{theirs}/30", "dev", "eth0")
        _ip("-n", self._name, "link", "set", "eth0", "up")

    def cut(self) -> None:
        _ip("link", "set", self._card, "down")

    def mend(self) -> None:
        _ip("link", "set", self._card, "up")

    def close(self) -> None:
        _ip("netns", "delete", self._name)


def _address(number: int) -> str:
    """One of this process's sixteen, of those that are set aside for trying out networks: nobody else has them."""
    return str(ipaddress.IPv4Address("198.18.0.0") + os.getpid() % 8192 * 16 + number)


class Proxied:
    """This host, with a proxy in front of the broker, in a process of its own: the test's own work must not slow it."""

    def __init__(self, port: int) -> None:
        self._pipe, theirs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=_serve, args=(port, theirs), daemon=True)
        self._process.start()
        self.prefix: Sequence[str] = ()
        self.url = f"redis://127.0.0.1:{self._pipe.recv()}/0"

    def cut(self) -> None:
        self._tell("cut")

    def mend(self) -> None:
        self._tell("mend")

    def close(self) -> None:
        self._pipe.send("end")
        self._process.join(10)
        self._process.close()
        self._pipe.close()

    def _tell(self, word: str) -> None:
        self._pipe.send(word)
        self._pipe.recv()


def _serve(port: int, pipe: Connection) -> None:
    """Run a proxy until told to end."""
    with Proxy(port) as proxy:
        pipe.send(proxy.port)
        while (word := pipe.recv()) != "end":
            proxy.is_black_hole = word == "cut"
            if word == "mend":
                proxy.reset()  # what the hole has swallowed is missing in the middle of these connections
            pipe.send("done")


def why_no_namespaces() -> str | None:
    """Why no namespaces can be made here; None when they can."""
    try:
        name = f"qw{os.getpid()}try"
        _ip("netns", "add", name)
        _ip("netns", "delete", name)
    except (OSError, subprocess.CalledProcessError) as error:
        return str(getattr(error, "stderr", error)).strip()
    return None


@contextmanager
def namespaces(count: int, port: int) -> Iterator[list[Host]]:
    """So many namespaces, all of which reach the port."""
    with ExitStack() as stack:
        yield [stack.enter_context(closing(Namespace(number, port))) for number in range(count)]


@contextmanager
def proxied(count: int, port: int) -> Iterator[list[Host]]:
    """So many proxies."""
    with ExitStack() as stack:
        yield [stack.enter_context(closing(Proxied(port))) for _ in range(count)]


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True, timeout=10)
