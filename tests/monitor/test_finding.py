"""Whose sockets are believed, and what those who listen there without being workers can do: nothing much."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qworker.monitor import AskError, Place, find_all_sockets, find_sockets, get
from qworker.monitor.address import make_folder

from support.asking import qworker

NOBODY = 65534


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary directory that all share, and no other place for sockets."""
    folder = Path(tempfile.mkdtemp(prefix="qw-"))
    folder.chmod(0o1777)
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def serve() -> Iterator[Callable[[Path, bytes], None]]:
    """Listen at a path; answer every request with these bytes, one in each twentieth of a second."""
    listening: list[socket.socket] = []
    over = threading.Event()

    def answer(link: socket.socket, data: bytes) -> None:
        with link:
            try:
                link.recv(65536)
                for byte in data:
                    link.send(bytes([byte]))
                    if over.wait(0.05):
                        return
            except OSError:  # who asked has gone
                pass

    def accept(listener: socket.socket, data: bytes) -> None:
        while True:
            try:
                link, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(link, data), daemon=True).start()

    def listen(path: Path, data: bytes = b"HTTP/1.1 200 OK\r\n\r\nok\n") -> None:
        path.parent.mkdir(exist_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        listening.append(listener)
        listener.bind(str(path))
        listener.listen()
        threading.Thread(target=accept, args=(listener, data), daemon=True).start()

    yield listen
    over.set()
    for listener in listening:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def let_another_have(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder and all that is in it become another user's, for root; or root looks at ours."""
    if os.geteuid():
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        return
    for path in (folder, *folder.iterdir()):
        os.chown(path, NOBODY, NOBODY)


def test_what_another_user_has_put_into_a_shared_folder_is_not_believed(
    temporary: Path, serve: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(temporary / "qworker" / "mine@here.sock")
    assert [one.node for one in find_sockets("mine@here")] == ["mine@here"]
    let_another_have(temporary / "qworker", monkeypatch)
    assert find_sockets("mine@here") == []
    (found,) = find_all_sockets("mine@here")
    assert not found.is_believed
    assert found.uid == (temporary / "qworker").stat().st_uid


def test_health_says_who_listens_where_anybody_could(
    temporary: Path, serve: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = temporary / "qworker" / "mine@here.sock"
    serve(path)
    if os.geteuid():
        assert qworker(tmp_path, "health", "-n", "mine@here").returncode == 0, "it is one's own"
        return
    let_another_have(temporary / "qworker", monkeypatch)
    ended = qworker(tmp_path, "health", "-n", "mine@here")
    assert ended.returncode == 1
    assert f"{path} is user {NOBODY}'s" in ended.stderr
    assert "--http unix:PATH" in ended.stderr


def test_who_listens_has_to_be_whose_file_it_is(temporary: Path, serve: Callable[..., None]) -> None:
    path = temporary / "qworker" / "mine@here.sock"
    serve(path)
    assert get(Place(path=str(path)), "/livez", timeout_s=60.0) == (200, b"ok\n")
    if os.geteuid():
        return  # only root can give a file away
    os.chown(path, NOBODY, NOBODY)
    with pytest.raises(AskError, match=f"belongs to user {NOBODY}, but user 0 listens there"):
        get(Place(path=str(path)), "/livez")


def test_an_answer_that_never_ends_is_not_waited_for(temporary: Path, serve: Callable[..., None]) -> None:
    path = temporary / "qworker" / "mine@here.sock"
    serve(path, b"HTTP/1.1 200 OK\r\n\r\n" + b"o" * 1_000_000)  # half a day
    with pytest.raises(AskError, match="does not answer within 1 s"):
        get(Place(path=str(path)), "/livez", timeout_s=1.0)


def test_who_hangs_up_is_said_to_have_ended(temporary: Path, serve: Callable[..., None]) -> None:
    path = temporary / "qworker" / "mine@here.sock"
    serve(path, b"")
    with pytest.raises(AskError, match="has ended"):
        get(Place(path=str(path)), "/livez")


def test_status_of_what_is_no_worker_is_an_error_in_words(
    temporary: Path, serve: Callable[..., None], tmp_path: Path
) -> None:
    serve(temporary / "qworker" / "mine@here.sock", b"HTTP/1.1 200 OK\r\n\r\n{}")
    ended = qworker(tmp_path, "status", "-n", "mine@here")
    assert ended.returncode == 1
    assert "no status of a worker of this version" in ended.stderr


def test_others_can_pass_to_their_folders_beside_roots_sockets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whatever umask root has: a service's folder is below the one that root's own worker has made."""
    services = tmp_path / "run"
    for module in ("core.runtime_folder", "monitor.address"):
        monkeypatch.setattr(f"qworker.{module}.SERVICES", str(services))
    before = os.umask(0o077)
    try:
        assert make_folder(str(services))
    finally:
        os.umask(before)
    assert services.stat().st_mode & 0o777 == 0o755
    services.chmod(0o777)
    assert not make_folder(str(services)), "anybody could put something there"
