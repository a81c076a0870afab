"""The very end of a master: what has to be waited for keeps nobody waiting who asks it."""

from __future__ import annotations

import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from qworker.monitor import Place, endpoint, get
from qworker.worker import Phase

from support.master_stage import Stage

#: A test that waits so long has failed.
LONG_S = 60.0


@pytest.fixture
def place() -> Iterator[Place]:
    """A socket's path, which must be short."""
    folder = Path(tempfile.mkdtemp(prefix="qw-"))
    yield Place(path=str(folder / "own.sock"))
    shutil.rmtree(folder)


def test_who_asks_while_a_spawner_takes_its_time_to_leave_is_answered(place: Place) -> None:
    stage = Stage([endpoint("node", str(place), None)])
    stage.run()
    stage.signal(signal.SIGTERM)
    stage.tell("drained")
    assert stage.master.phase is Phase.STOPPED

    has_asked, is_leaving = threading.Event(), threading.Event()
    (spawner,) = stage.spawners
    leave_at_last = spawner.close

    def leave_slowly(timeout_s: float = 0.0) -> None:
        is_leaving.set()
        has_asked.wait(LONG_S)
        leave_at_last()

    spawner.close = leave_slowly  # type: ignore[method-assign]
    answers = []

    def ask() -> None:
        is_leaving.wait(LONG_S)
        try:
            answers.extend(get(place, page, timeout_s=LONG_S / 2) for page in ("/livez", "/readyz"))
        finally:
            has_asked.set()

    asking = threading.Thread(target=ask)
    asking.start()
    stage.letters()  # with channels in them, which are this test's to close
    stage.master._leave()
    asking.join(LONG_S)
    assert answers == [(200, b"ok\n"), (503, b"stopped\n")]
    assert not Path(place.path).exists(), "then nobody listens there any more"
