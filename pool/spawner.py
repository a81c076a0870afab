"""The spawner process: imports the application once, then forks and reaps children on request. It never runs a thread.

Its duties, in order:
1. look away from signals to the group, die with the master;
2. import the application, build its settings, report them (or what went wrong) to the master;
3. freeze what is in memory, so that children share it copy-on-write;
4. serve requests: fork a child for a slot, with the descriptors that come with the request; signal children;
5. report every child's exit status and peak memory, reaped by pid.

Started by `pool/handle.py`; children run `pool/child.py`.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import billiard

from ..core import logs
from ..core.errors import AppImportError, ConfigError
from ..core.process import die_with_parent, outlive_parent
from ..signals import SignalPipe, blocked, ignore_group_signals, offer_stacks
from .child import Runtime, child_main
from .titles import set_title

LENGTH = struct.Struct("<I")
#: A request is a few dozen bytes of JSON and two descriptors.
REQUEST_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Boot:
    """What the spawner needs to know; pickled when the spawner is started by exec.

    `load` is a top-level function that imports the application, applies the command line and returns the child's
    runtime.
    """

    load: Callable[[dict[str, Any]], Runtime]
    options: dict[str, Any] = field(default_factory=dict)


def spawner_main(boot: Boot, requests: socket.socket, reports: socket.socket, parent_pid: int) -> None:
    """Run the spawner until the master closes its end of `requests`."""
    ignore_group_signals()
    die_with_parent(parent_pid)
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
    set_title("spawner")
    _, (table_fd,), _, _ = socket.recv_fds(requests, REQUEST_BYTES, 1)
    runtime = _load(boot, reports)
    if runtime is None:
        return
    runtime.preload()
    gc.collect()
    gc.freeze()
    _Spawner(runtime, requests, reports, table_fd, parent_pid).run()


def _load(boot: Boot, reports: socket.socket) -> Runtime | None:
    try:
        runtime = boot.load(boot.options)
    except AppImportError as error:
        send_report(reports, {"event": "failed", "kind": "app", "text": str(error), "details": error.details})
        return None
    except ConfigError as error:
        send_report(reports, {"event": "failed", "kind": "config", "text": str(error), "details": ""})
        return None
    send_report(reports, {"event": "loaded", "config": runtime.config})
    return runtime


def send_report(reports: socket.socket, report: dict[str, Any]) -> None:
    """Send one report to the master; the master being gone is not our problem."""
    data = json.dumps(report).encode()
    try:
        reports.sendall(LENGTH.pack(len(data)) + data)
    except OSError:
        os._exit(0)


class _Spawner:
    """The loop. One thread; owns the children's process objects."""

    def __init__(
        self, runtime: Runtime, requests: socket.socket, reports: socket.socket, table_fd: int, parent_pid: int
    ) -> None:
        self._runtime = runtime
        self._requests = requests
        self._reports = reports
        self._table_fd = table_fd
        self._parent_pid = parent_pid
        self._children: dict[int, Any] = {}  # slot → process
        self._was_refused = False  # the system has let this process fork no more, once
        self._signals = SignalPipe([signal.SIGCHLD])

    def run(self) -> None:
        """Serve until end-of-file on the request socket; children that still live then die with this process."""
        self._signals.install()
        outlive_parent()
        if os.getppid() == self._parent_pid:
            while self.turn():
                pass
        self._kill_all()

    def _kill_all(self) -> None:
        """The master has gone: nobody waits for an outcome.

        What a task has started goes with its child, so that a new run elsewhere is alone.
        """
        for process in self._children.values():
            _kill_group(process.pid)

    def turn(self) -> bool:
        """Wait for a request or a dead child and deal with it; False when the master has gone."""
        watched: list[socket.socket | SignalPipe] = [self._requests, self._signals]
        ready, _, _ = select.select(watched, [], [])
        if self._signals in ready:
            self._signals.take()
            self._reap()
        if self._requests in ready:
            return self._serve()
        return True

    def _serve(self) -> bool:
        try:
            data, fds, _, _ = socket.recv_fds(self._requests, REQUEST_BYTES, 4)
        except ConnectionResetError:  # it died with a report of ours unread
            return False
        if not data:
            return False
        request = json.loads(data)
        if "signal" in request:
            self._signal(request["slot"], request["signal"])
        elif "reopen" in request:
            self._reopen_logs()
        else:
            self._fork(request["slot"], *fds)
        return True

    def _signal(self, slot: int, number: int) -> None:
        """Send a signal to a slot's child. Here, because only its parent knows that the pid is still that child's."""
        process = self._children.get(slot)
        if process is None:
            return
        if number == signal.SIGKILL:
            _kill_group(process.pid)
        else:
            os.kill(process.pid, number)

    def _reopen_logs(self) -> None:
        """A child that gets the signal of orders and finds none opens its log file anew."""
        logs.reopen()
        for process in self._children.values():
            if process._popen.returncode is None:
                os.kill(process.pid, signal.SIGUSR2)

    def _fork(self, slot: int, *fds: int) -> None:
        process = billiard.get_context("fork").Process(
            target=self._in_child, args=(slot, os.getpid(), *fds), name=f"Child-{slot + 1}"
        )
        # The child must not run the spawner's SIGCHLD handling before it has put its own signals in order.
        try:
            with blocked([signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT]):
                if self._was_refused:
                    _try_to_fork()
                process.start()
        except OSError as error:  # no process or memory left for this user or cgroup: a moment later there may be
            self._was_refused = True
            send_report(self._reports, {"event": "not_forked", "slot": slot, "why": error.strerror})
        else:
            # Its list is looked through at each start, and who is found dead there would be reaped without our knowing.
            billiard.process._children.discard(process)
            self._children[slot] = process
            send_report(self._reports, {"event": "forked", "slot": slot, "pid": process.pid})
        finally:
            for fd in fds:
                os.close(fd)

    def _in_child(self, slot: int, parent_pid: int, work_fd: int, talk_fd: int, stack_fd: int) -> None:
        self._signals.close()
        self._requests.close()
        self._reports.close()
        ignore_group_signals()
        signal.pthread_sigmask(signal.SIG_SETMASK, set())
        die_with_parent(parent_pid)
        offer_stacks(stack_fd)
        _loosen_authkey()
        work, talk = socket.socket(fileno=work_fd), socket.socket(fileno=talk_fd)
        child_main(self._runtime, slot, work, talk, self._table_fd, stack_fd)
        sys.stdout.flush()

    def _reap(self) -> None:
        for slot, process in list(self._children.items()):
            end = _end_of(process)
            if end is not None:
                del self._children[slot]
                process._popen.close()  # billiard's sentinel pipe: one descriptor per child
                status, peak_kib = end
                report = {"event": "exited", "slot": slot, "pid": process.pid, "status": status, "peak_kib": peak_kib}
                send_report(self._reports, report)


def _try_to_fork() -> None:
    """Raise OSError if this process may not fork: where billiard tries it, two descriptors are lost each time."""
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)


def _loosen_authkey() -> None:
    """Let tasks start processes by `spawn` and `forkserver`: multiprocessing pickles no key of billiard's class."""
    config = billiard.current_process()._config
    config["authkey"] = bytes(config["authkey"])


def _end_of(process: Any) -> tuple[int, int | None] | None:
    """Reap a child that has ended: its exit code (negative: the signal) and peak memory in KiB; None while it lives."""
    ended = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if ended is None:
        return None
    if ended.si_code != os.CLD_EXITED or ended.si_status != 0:
        _kill_group(
            process.pid
        )  # what its task has started ends with it; before the reaping, while the number is taken
    _, status, usage = os.wait4(process.pid, 0)
    process._popen.returncode = os.waitstatus_to_exitcode(status)
    return process._popen.returncode, usage.ru_maxrss


def _kill_group(pid: int) -> None:
    """SIGKILL for a child and everything in its process group (which it may not have made yet)."""
    for kill in (os.killpg, os.kill):
        try:
            kill(pid, signal.SIGKILL)
        except ProcessLookupError:  # it was faster
            continue
