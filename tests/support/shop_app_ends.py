"""More tasks for `shop_app.py`, to whose text this one's is appended: they die, are cut, or do not want to be."""

import os
import signal
import time
from typing import Any

from .shop_app import _FOLDER, app, note, wait_for

# ---- appended from here on ----


@app.task(acks_late=False)
def once_fatal(text: str) -> None:
    note(text)
    os.kill(os.getpid(), signal.SIGKILL)


@app.task
def kill_child(text: str) -> None:
    note(text)
    os.kill(os.getpid(), signal.SIGKILL)


@app.task
def kill_child_once(name: str) -> str:
    """Die in the first run, succeed in the second."""
    note(name)
    marker = _FOLDER / f"{name}.died"
    if not marker.exists():
        marker.touch()
        os._exit(7)
    return name


@app.task(reject_on_worker_lost=False)
def fragile() -> None:
    os._exit(9)


@app.task
def careful(name: str) -> str:
    """Notes that its `finally` runs when it is cut."""
    note(f"start {name}")
    try:
        wait_for(name)
    finally:
        note(f"finally {name}")
    return name


@app.task(bind=True)
def shielded(self: Any, name: str) -> str:
    with self.shield():
        note(f"start {name}")
        wait_for(name)
        note("shielded part done")
    wait_for("never")
    return name


@app.task
def stubborn(name: str) -> None:
    """Swallows whatever is raised in it."""
    note(f"start {name}")
    while True:
        try:
            wait_for("never")
        except BaseException:
            note("swallowed")


@app.task(bind=True)
def counts(self: Any, upto: int, name: str) -> int:
    """Works in steps and can go on where it was cut; not done before the file `name` appears."""
    done = self.request.checkpoint or 0
    note(f"from {done}")
    while done < upto or not (_FOLDER / name).exists():
        done = min(done + 1, upto)
        self.checkpoint(done)
        time.sleep(0.01)
    return done


@app.task(soft_time_limit=0.3)
def soft(name: str) -> str:
    note("start")
    wait_for(name)
    return name


@app.task(time_limit=1.0)
def hard(name: str) -> str:
    note("start")
    while True:  # deaf to everything but SIGKILL
        try:
            wait_for(name)
        except BaseException:
            note("swallowed")


@app.task(time_limit=1.0, acks_on_timeout=False)
def hard_again(name: str) -> None:
    note("start")
    wait_for(name)


@app.task
def spawns() -> None:
    """Starts a program, then dies."""
    import subprocess

    program = subprocess.Popen(["sleep", "300"])
    note(program.pid)
    os.kill(os.getpid(), signal.SIGKILL)


@app.task
def leaves_a_copy() -> None:
    """Dies, and leaves a copy of its process in a session of its own, with all its sockets open."""
    heard, told = os.pipe()
    if os.fork() == 0:
        os.setsid()
        note(f"copy {os.getpid()}")
        os.write(told, b".")
        time.sleep(60)
        os._exit(0)
    os.read(heard, 1)
    os.kill(os.getpid(), signal.SIGKILL)


@app.task
def kills_spawner(text: str) -> None:
    """The spawner is the child's parent."""
    note(text)
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(30)


@app.task
def segfault() -> None:
    import ctypes

    ctypes.string_at(0)


@app.task
def messy(name: str) -> None:
    note(f"start {name}")
    try:
        wait_for(name)
    finally:
        raise OSError("close failed")


@app.task(bind=True, max_retries=0)
def retries_when_cut(self: Any, name: str, how: str) -> str:
    """Has no retry left, and asks for one when it is cut."""
    note(f"start {name} {self.request.retries}")
    try:
        wait_for(name)
    except BaseException as error:
        if how == "raise":
            raise self.retry(max_retries=5) from None
        if how == "give back":
            self.retry(max_retries=5, throw=False)
        if how == "exc":
            raise self.retry(exc=OSError(str(error)), countdown=0) from error
    if how == "later":
        raise self.retry(max_retries=5)
    return name


@app.task(autoretry_for=(BaseException,), max_retries=5, retry_backoff=False)
def auto_retries_when_cut(name: str, how: str) -> str:
    note(f"start {name} 0")
    try:
        wait_for(name)
    finally:
        if how == "auto, cleanup fails" and not (_FOLDER / name).exists():
            raise OSError("close failed")
    return name


@app.task(bind=True, acks_late=False, max_retries=5)
def once_retries_when_cut(self: Any, name: str) -> str:
    note(f"start {name} {self.request.retries}")
    try:
        wait_for(name)
    except BaseException:
        raise self.retry(countdown=0) from None
    return name


@app.task(bind=True)
def checkpoints_badly(self: Any, name: str) -> str:
    """Its cleanup fails when a checkpoint ends it."""
    note(f"start {name} {self.request.checkpoint}")
    try:
        while not (_FOLDER / name).exists():
            self.checkpoint("half")
            time.sleep(0.005)
    finally:
        if not (_FOLDER / name).exists():
            raise OSError("close failed")
    return name


@app.task(bind=True)
def checkpoints_and_stays(self: Any, name: str) -> str:
    """Makes a checkpoint and then listens to nobody."""
    note(f"start {name} {self.request.checkpoint}")
    self.checkpoint("half")
    note("checkpointed")
    while not (_FOLDER / name).exists():
        try:
            time.sleep(0.05)
        except BaseException:  # this is what is tested
            note("deaf")
    return name
