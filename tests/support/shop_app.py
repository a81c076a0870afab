"""The application that integration tests run: copied into each test's folder as `shop.py`."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from qworker import App, Reject, WorkerShutdown

_FOLDER = Path(__file__).parent
_URLS = json.loads((_FOLDER / "urls.json").read_text()) if (_FOLDER / "urls.json").exists() else {}
app = App(
    "shop",
    broker=_URLS.get("broker"),
    backend=_URLS.get("backend"),
    task_default_queue="hipri",
    broker_transport_options={
        "lease_timeout": float(os.environ.get("TEST_LEASE", "30")),
        **json.loads(os.environ.get("TEST_BROKER_OPTIONS", "{}")),
    },
)


def note(text: object) -> None:
    """Write a line that the test can read; one write, so lines of several children do not mix."""
    fd = os.open(_FOLDER / "ran.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(fd, f"{text}\n".encode())
    os.close(fd)


def wait_for(name: str) -> None:
    """Wait until the test makes a file of this name."""
    deadline = time.monotonic() + 60
    while not (_FOLDER / name).exists() and time.monotonic() < deadline:
        time.sleep(0.005)


@app.task
def add(x: int, y: int = 0) -> int:
    return x + y


@app.task
def echo(*args: Any, **kwargs: Any) -> list[Any]:
    return [args, kwargs]


@app.task
def noted(text: str) -> None:
    note(text)


@app.task
def gate(name: str) -> str:
    """Run until the file `name` appears."""
    note(f"start {name}")
    wait_for(name)
    note(f"end {name}")
    return name


@app.task(acks_late=False)
def once(name: str) -> str:
    note(f"once {name}")
    wait_for(name)
    return name


@app.task
def boom() -> None:
    raise ValueError("bad thing", 42)


@app.task(bind=True, max_retries=5)
def flaky(self: Any, fails: int) -> int:
    note(f"flaky {self.request.retries}")
    if self.request.retries < fails:
        raise self.retry(exc=OSError("not yet"), countdown=0.1)
    return int(self.request.retries)


@app.task
def timed(name: str, due: float) -> None:
    """Note by how many seconds the start is late."""
    note(f"{name} {time.time() - due:.3f}")


@app.task(bind=True, max_retries=5)
def gated_retry(self: Any, name: str, retries: int) -> int:
    """Each run waits for a file of its own; it is retried so many times."""
    done = int(self.request.retries)
    note(f"try {done}")
    wait_for(f"{name} {done}")
    if done < retries:
        raise self.retry(exc=OSError("not yet"), countdown=0.1)
    return done


@app.task(bind=True)
def slow_retry(self: Any) -> None:
    raise self.retry(exc=OSError("not yet"), countdown=600)


@app.task(autoretry_for=(OSError,), max_retries=2, retry_backoff=False, default_retry_delay=0.05)
def auto(text: str) -> None:
    note(text)
    raise OSError("never")


@app.task
def rejects() -> None:
    raise Reject("not for us")


@app.task
def size(data: str) -> int:
    return len(data)


@app.task
def big(length: int) -> str:
    return "x" * length


@app.task(bind=True)
def progress(self: Any, name: str) -> str:
    self.update_state(state="PROGRESS", meta={"done": 3})
    wait_for(name)
    return "done"


@app.task
def unserialisable() -> object:
    return object()


@app.task
def forks() -> str:
    """A task that forks and lets the copy return as well."""
    os.fork()
    return "one"


@app.task
def pid() -> int:
    return os.getpid()


@app.task
def eats(mib: int, name: str) -> int:
    """Holds so much memory until the file `name` appears; returns its process id."""
    data = bytearray(mib * 1024 * 1024)
    data[::4096] = b"x" * len(data[::4096])
    note(f"ate {mib}")
    wait_for(name)
    return os.getpid()


@app.task
def spikes(mib: int) -> int:
    """When it is told to, takes so much memory and lets it go; then waits for leave to end. Returns its process id."""
    note("before")
    wait_for("take")
    data = bytearray(mib * 1024 * 1024)
    data[::4096] = b"x" * len(data[::4096])
    del data
    note("after")
    wait_for("end")
    return os.getpid()


KEPT: list[bytes] = []


@app.task
def leaks(mib: int) -> int:
    """Keeps so much memory for ever; returns its process id."""
    KEPT.append(os.urandom(1024) * 1024 * mib)
    return os.getpid()


class Indescribable(Exception):
    def __repr__(self) -> str:
        raise RuntimeError("no")

    __str__ = __repr__


@app.task
def indescribable() -> None:
    raise Indescribable


@app.task
def gives_back(text: str) -> None:
    note(text)
    raise Reject("later", requeue=True)


def end_a_fork() -> None:
    """A copy of this process has to obey as any program does."""
    import multiprocessing

    process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
    process.start()
    process.terminate()
    process.join(5)
    assert process.exitcode == -signal.SIGTERM, "a fork must not inherit our deafness to TERM"


@app.task
def edge(kind: str) -> str:
    """Does one of the things that tasks do to their process."""
    import multiprocessing
    import subprocess
    import sys
    import threading
    from concurrent.futures import ThreadPoolExecutor

    if kind == "sys.exit":
        sys.exit(3)
    if kind == "KeyboardInterrupt":
        raise KeyboardInterrupt
    if kind == "WorkerShutdown":
        raise WorkerShutdown
    if kind == "BaseException":
        raise BaseException("bare")
    if kind == "thread":
        threading.Thread(target=time.sleep, args=(600,), daemon=False).start()
    if kind == "subprocess":
        program = subprocess.Popen(["sleep", "600"])
        program.terminate()
        assert program.wait(5) == -signal.SIGTERM, "a program must not inherit our deafness to TERM"
    if kind in multiprocessing.get_all_start_methods():
        with multiprocessing.get_context(kind).Pool(1) as pool:
            assert pool.map(abs, [-1]) == [1]
    if kind == "terminated fork":
        end_a_fork()
    if kind == "fork of a thread":
        with ThreadPoolExecutor() as threads:
            threads.submit(end_a_fork).result()
    if kind == "signal handlers":
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
    if kind == "blocked signals":
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    if kind == "alarm":
        signal.alarm(1)
    if kind == "chdir":
        os.chdir("/")
    if kind == "close 0-2":
        for fd in range(3):
            os.close(fd)
    if kind == "print":
        for _ in range(10_000):
            sys.stdout.write("x" * 1000 + "\n")
    return kind


@app.task
def orphan() -> int:
    """Leaves a grandchild behind that ends a moment later."""
    import subprocess

    return int(subprocess.check_output(["sh", "-c", "sleep 0.2 >/dev/null & echo $!"]))
