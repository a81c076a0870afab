"""The master's end of the spawner: start it, ask it for children, hear what became of them.

Called by the master's main thread only.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
from collections.abc import Mapping
from typing import Any, Literal, cast

import billiard

from ..signals import GROUP_SIGNALS, blocked
from .slots import SlotTable
from .spawner import LENGTH, Boot, spawner_main

_READ_AT_ONCE = 65536


class SpawnerHandle:
    """One spawner process. `method` is "fork" while the master has no threads, "spawn" (exec) afterwards."""

    def __init__(self, boot: Boot, table: SlotTable, method: Literal["fork", "spawn"] = "fork") -> None:
        self._requests, theirs_requests = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._reports, theirs_reports = socket.socketpair()
        self._pending = bytearray()
        target = _forked if method == "fork" else spawner_main
        args: tuple[Any, ...] = (boot, theirs_requests, theirs_reports, os.getpid())
        if method == "fork":
            args = (*args, self._requests, self._reports)
            gc.freeze()  # collections in either process would copy the pages of what both share (3 MB)
        self._process = billiard.get_context(method).Process(target=target, args=args, name="Spawner")
        with blocked(GROUP_SIGNALS):
            self._process.start()
        # Like this it reaches a spawner that was started by exec as well.
        socket.send_fds(self._requests, [b"table"], [table.fd])
        theirs_requests.close()
        theirs_reports.close()
        self._reports.setblocking(False)

    @property
    def pid(self) -> int:
        """The spawner's process id."""
        return cast(int, self._process.pid)

    def fileno(self) -> int:
        """For `select`: readable when there are reports or the spawner has gone."""
        return self._reports.fileno()

    def fork(self, slot: int, *fds: int) -> bool:
        """Ask for a child of `slot` with these descriptors (`Channel.child_ends`); False if the spawner has gone."""
        return self._request({"slot": slot}, list(fds))

    def signal(self, slot: int, number: int) -> bool:
        """Send a signal to the child of `slot`, SIGKILL to its whole process group; False when the spawner has gone."""
        return self._request({"slot": slot, "signal": int(number)}, [])

    def kill(self) -> None:
        """Kill it: it does not answer any more. Its children die with it."""
        os.kill(self.pid, signal.SIGKILL)

    def reopen_logs(self) -> bool:
        """Have it and its children open their log files anew; False when the spawner has gone."""
        return self._request({"reopen": True}, [])

    def _request(self, request: Mapping[str, int], fds: list[int]) -> bool:
        try:
            socket.send_fds(self._requests, [json.dumps(request).encode()], fds)
        except OSError:
            return False
        return True

    def reports(self) -> list[dict[str, Any]] | None:
        """What has been reported since the last call; None once the spawner has gone and everything was handed out."""
        gone = self._read()
        found = []
        while len(self._pending) >= LENGTH.size:
            (length,) = LENGTH.unpack_from(self._pending)
            if len(self._pending) < LENGTH.size + length:
                break
            found.append(json.loads(self._pending[LENGTH.size : LENGTH.size + length]))
            del self._pending[: LENGTH.size + length]
        return None if gone and not found else found

    def _read(self) -> bool:
        while True:
            try:
                data = self._reports.recv(_READ_AT_ONCE)
            except BlockingIOError:
                return False
            except OSError:
                return True
            if not data:
                return True
            self._pending += data

    def close(self, timeout_s: float = 2.0) -> None:
        """End the spawner: end-of-file on its requests, then, after `timeout_s`, SIGKILL. Its children die with it."""
        self._requests.close()
        self._process.join(timeout_s)
        if self._process.is_alive():
            self.kill()
            self._process.join()
        self._reports.close()


def _forked(
    boot: Boot,
    requests: socket.socket,
    reports: socket.socket,
    parent_pid: int,
    *masters_ends: socket.socket,
) -> None:
    # A forked spawner has copies of the master's ends; with them open it would never see end-of-file.
    for end in masters_ends:
        end.close()
    spawner_main(boot, requests, reports, parent_pid)
