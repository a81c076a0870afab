"""Who asks, and how: politely, wrongly, slowly, in masses, from elsewhere."""

from __future__ import annotations

import os
import select
import signal
import socket
import stat
import subprocess
import sys
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from qworker.monitor import AskError, Place

from support import Shop, wait_until
from support.asking import connected, free_port, get, raw, socket_of

GET = b"GET /livez HTTP/1.1\r\n%s\r\n"


def test_the_socket_is_for_its_owner_alone_and_goes_with_the_worker(shop: Shop, runtime_dir: Path) -> None:
    worker = shop.worker("-c", "1", "-Q", "hipri", "-n", "desk@here")
    path = runtime_dir / "qworker" / "desk@here.sock"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert worker.stop() == 0
    assert not path.exists()


def test_the_socket_of_a_killed_worker_is_taken_over(shop: Shop) -> None:
    worker = shop.worker("-c", "1", "-Q", "hipri", "-n", "desk@here")
    place = socket_of("desk@here")
    worker.signal(signal.SIGKILL)
    worker.wait()
    assert os.path.exists(place.path)
    shop.worker("-c", "1", "-Q", "hipri", "-n", "desk@here")
    assert socket_of("desk@here") == place


def test_two_workers_of_one_name_have_sockets_of_their_own(shop: Shop, runtime_dir: Path) -> None:
    shop.worker()
    second = shop.worker()
    assert len(list((runtime_dir / "qworker").iterdir())) == 2
    assert f"-{second.pid}.sock" in second.log


def test_what_a_killed_second_worker_of_a_name_left_behind_is_removed(shop: Shop, runtime_dir: Path) -> None:
    first = shop.worker("-c", "1", "-Q", "hipri", "-n", "twin@here")
    second = shop.worker("-c", "1", "-Q", "hipri", "-n", "twin@here")
    second.signal(signal.SIGKILL)
    second.wait()
    first.stop()
    shop.worker("-c", "1", "-Q", "hipri", "-n", "twin@here")
    assert [found.name for found in (runtime_dir / "qworker").iterdir()] == ["twin@here.sock"]


@pytest.mark.parametrize("address", ["127.0.0.1:{port}", "localhost:{port}", "unix:{folder}/own.sock"])
def test_http_says_where_to_listen(shop: Shop, runtime_dir: Path, address: str) -> None:
    port = free_port()
    address = address.format(port=port, folder=runtime_dir)
    shop.worker("-c", "1", "-Q", "hipri", "--http", address)
    place = Place(path=address[5:]) if address.startswith("unix:") else Place(host="127.0.0.1", port=port)
    assert get(place, "/readyz") == (200, b"ok\n")
    own = runtime_dir / "qworker"
    assert own.exists() is not address.startswith("unix:")


def test_nothing_listens_when_it_is_off(shop: Shop, runtime_dir: Path) -> None:
    shop.worker("-c", "1", "-Q", "hipri", "--http", "off")
    assert list(runtime_dir.iterdir()) == []


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("0.0.0.0:{port}", "QWORKER_HTTP_TOKEN"),
        (":{port}", "QWORKER_HTTP_TOKEN"),
        ("127.0.0.1:{taken}", "in use"),
        ("127.0.0.1", "HOST:PORT"),
        ("127.0.0.1:http", "HOST:PORT"),
        ("unix:/nowhere/at/all.sock", "No such file"),
        ("unix:/" + "x" * 110, "107 bytes"),
        ("unix:{folder}/file", "no socket"),
    ],
)
def test_an_address_that_cannot_be_served_ends_the_start(
    shop: Shop, runtime_dir: Path, address: str, says: str
) -> None:
    (runtime_dir / "file").touch()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = address.format(port=free_port(), taken=taken.getsockname()[1], folder=runtime_dir)
        worker = shop.worker("-c", "1", "-Q", "hipri", "--http", address, ready=False)
        assert worker.wait() == 4
    assert says in worker.log


def test_a_runtime_directory_that_cannot_be_used_is_no_reason_not_to_work(shop: Shop, runtime_dir: Path) -> None:
    (runtime_dir / "qworker").touch()
    blocked = {"TMPDIR": str(runtime_dir / "qworker")}
    worker = shop.worker("-c", "1", "-Q", "hipri", "-n", "x" * 120 + "@here", env=blocked)
    assert "no place for this worker's socket" in worker.log
    assert worker.stop() == 0


_TELLING = """

@app.task
def knows(name):
    return name in os.environ
"""


def test_a_token_guards_all_but_the_probes(shop: Shop) -> None:
    port = free_port()
    shop.worker("-c", "1", "-Q", "hipri", "--http", f"0.0.0.0:{port}", env={"QWORKER_HTTP_TOKEN": "open sesame"})
    place = Place(host="127.0.0.1", port=port)
    assert get(place, "/livez")[0] == get(place, "/readyz")[0] == get(place, "/startupz")[0] == 200
    assert get(place, "/metrics")[0] == get(place, "/status")[0] == get(place, "/nothing")[0] == 401
    assert get(place, "/metrics", token="open sesam")[0] == 401
    assert get(place, "/metrics", token="open sesame")[0] == 200
    assert get(socket_of(), "/metrics")[0] == 200


def test_a_token_from_a_file_ends_with_a_line_end_and_is_not_for_tasks(shop: Shop) -> None:
    port = free_port()
    env = {"QWORKER_HTTP_TOKEN": "open sesame\n"}
    worker = shop.worker("-c", "1", "-Q", "hipri", "--http", f"0.0.0.0:{port}", env=env)
    place = Place(host="127.0.0.1", port=port)
    assert get(place, "/status", token="open sesame")[0] == get(place, "/status", token="open sesame\n")[0] == 200
    shop.write((shop.folder / "shop.py").read_text() + _TELLING)
    worker.signal(signal.SIGHUP)
    worker.wait_log("reload: done")
    assert shop.app.send_task("shop.knows", args=["QWORKER_HTTP_TOKEN"]).get(timeout=20) is False


def test_a_page_of_the_web_cannot_read_what_listens_on_loopback(shop: Shop) -> None:
    port = free_port()
    shop.worker("-c", "1", "-Q", "hipri", "--http", f"127.0.0.1:{port}")
    place = Place(host="127.0.0.1", port=port)
    for host in (b"evil.example", b"127.0.0.1.evil.example:%d" % port):
        assert raw(place, GET % b"Host: %s\r\n" % host).startswith(b"HTTP/1.1 403 ")
    for host in (b"localhost", b"127.0.0.1:%d" % port, b"[::1]:80"):
        assert raw(place, GET % b"Host: %s\r\n" % host).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"POST /livez HTTP/1.1\r\n\r\n", b"405"),
        (b"GET /nothing HTTP/1.1\r\n\r\n", b"404"),
        (b"GET /../../etc/passwd HTTP/1.1\r\n\r\n", b"404"),
        (b"GET /livez?x=1 HTTP/1.0\n\n", b"200"),
        (b"HEAD /metrics HTTP/1.1\r\n\r\n", b"200"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"400"),
        (b"\r\n\r\n", b"400"),
        (b"GET /livez HTTP/2.0\r\n\r\n", b"400"),
        (b"GET /livez HTTP/1.1\r\n:\r\n\xff\xfe\r\n\r\n", b"200"),
        (b"GET /" + b"x" * 20000, b"431"),
        (b"GET /livez HTTP/1.1\r\nHost: x", b"408"),
    ],
)
def test_whatever_is_asked_is_answered_in_kind(worker_for_all: Place, request_: bytes, status: bytes) -> None:
    answer = raw(worker_for_all, request_)
    assert answer[:13] == b"HTTP/1.1 " + status + b" " or (status == b"431" and not answer)
    if request_.startswith(b"HEAD"):
        assert answer.endswith(b"\r\n\r\n")
    assert get(worker_for_all, "/livez")[0] == 200


@pytest.fixture
def worker_for_all(shop: Shop) -> Place:
    shop.worker("-c", "1", "-Q", "hipri")
    return socket_of()


def test_clients_that_say_nothing_hold_nobody_up_for_long(worker_for_all: Place) -> None:
    with ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(connected(worker_for_all)).sendall(b"GET /livez HT")
        wait_until(lambda: lives(worker_for_all), "an answer all the same", 40.0)


def lives(place: Place) -> bool:
    """Whether it says so; who asks slowly among forty others may be sent away, and asks again."""
    try:
        return get(place, "/livez")[0] == 200
    except AskError:
        return False


def test_a_thousand_requests_at_once_leave_nothing_behind(shop: Shop, worker_for_all: Place) -> None:
    master = next(int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit() and _is_master(p, shop.folder))
    before = len(os.listdir(f"/proc/{master}/fd"))
    script = (
        "import sys, threading\nfrom qworker.monitor import get, Place, AskError\n"
        "def ask():\n    for _ in range(50):\n        try: get(Place(path=sys.argv[1]), '/livez')\n"
        "        except AskError: pass\n"
        "them = [threading.Thread(target=ask) for _ in range(20)]\n"
        "[t.start() for t in them]; [t.join() for t in them]\n"
    )
    subprocess.run([sys.executable, "-c", script, worker_for_all.path], check=True, timeout=50)
    assert get(worker_for_all, "/readyz")[0] == 200
    wait_until(lambda: len(os.listdir(f"/proc/{master}/fd")) <= before, "all connections are closed")
    wait_until(lambda: len(os.listdir(f"/proc/{master}/task")) < 8, "their threads have ended")


#: Each task that has run has its lines in the metrics: together more than a socket holds (212992 bytes).
_MANY = """

for number in range(120):
    app.task(name=f"shop.many{number}")(lambda: None)
"""


def test_a_client_that_does_not_read_holds_nobody_up_and_is_left(shop: Shop) -> None:
    shop.write((shop.folder / "shop.py").read_text() + _MANY)
    shop.worker("-c", "1", "-Q", "hipri")
    place = socket_of()
    for number in range(120):
        shop.app.send_task(f"shop.many{number}", queue="hipri")
    wait_until(lambda: len(get(place, "/metrics")[1]) > 300_000, "a page that is larger than a socket")
    with connected(place) as link:
        link.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        wait_until(lambda: _flags(link) & select.POLLIN, "the answer begins")
        assert get(place, "/livez")[0] == 200
        assert not _flags(link) & select.POLLHUP, "it is still given time"
        wait_until(lambda: _flags(link) & select.POLLHUP, "it is left")


def _flags(link: socket.socket) -> int:
    """What `poll` says of it now."""
    poll = select.poll()
    poll.register(link, select.POLLIN)
    return sum(flags for _, flags in poll.poll(0))


def test_no_other_process_of_the_worker_has_its_sockets(shop: Shop) -> None:
    port = free_port()
    worker = shop.worker("-c", "2", "-Q", "hipri", "--http", f"127.0.0.1:{port}")
    listening = _listening(worker.pid)
    assert len(listening) == 2
    worker.signal(signal.SIGHUP)  # a second generation, started by exec
    worker.wait_log("the old children have left")
    for process in worker.tree()[1:]:
        assert not _open_in(process.pid) & listening


def _listening(pid: int) -> set[str]:
    inodes = set()
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        words = line.split()
        if words[3] == "00010000":  # it accepts connections
            inodes.add(words[6])
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        if words[3] == "0A":
            inodes.add(words[9])
    return {link for link in _open_in(pid) if link.removeprefix("socket:[").rstrip("]") in inodes}


def _open_in(pid: int) -> set[str]:
    """What the process has open; one that has just ended has nothing."""
    links = set()
    with suppress(FileNotFoundError):
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with suppress(FileNotFoundError):  # closed since it was listed
                links.add(os.readlink(f"/proc/{pid}/fd/{fd}"))
    return links


def _is_master(process: Path, folder: Path) -> bool:
    try:
        title = (process / "cmdline").read_bytes()
        return b"qworker: master" in title and os.readlink(process / "cwd") == str(folder)
    except OSError:
        return False
