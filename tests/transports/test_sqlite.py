"""What only a file can do: several processes, forks, locks, foreign tables, other versions."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from qworker.core.errors import ConfigError, TransportError
from qworker.transports import Ack, Transport, open_transport

from support.messages import envelope, envelopes, numbers_of
from support.stopwatch import Stopwatch
from support.waiting import wait_until

Open = Callable[..., Transport]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "broker.db"


@pytest.fixture
def open_file(path: Path) -> Iterator[Open]:
    opened: list[Transport] = []

    def connect(owner: str = "", *, lease_s: float = 30.0, **options: Any) -> Transport:
        transport = open_transport(f"sqlite:///{path}", options=options, owner=owner, lease_s=lease_s)
        opened.append(transport)
        transport.connect()
        return transport

    yield connect
    for transport in opened:
        transport.close()


def test_a_new_file_is_durable_by_default(open_file: Open, path: Path) -> None:
    open_file().publish(envelopes(1))
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    transport: Any = open_file()
    assert transport._file.read(lambda db: db.execute("PRAGMA synchronous").fetchone()) == (2,)  # FULL


def test_what_was_published_survives_a_kill_of_the_producer(open_file: Open, path: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "from qworker.transports import Envelope, open_transport\n"
        "transport = open_transport(sys.argv[1])\n"
        "transport.publish([Envelope('hipri', b'%d' % n) for n in range(10)])\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, f"sqlite:///{path}"], timeout=30)
    assert done.returncode == -9
    assert [delivery.raw for delivery in open_file("w/1").reserve(["hipri"], 99)] == [b"%d" % n for n in range(10)]


def test_a_relative_path_means_the_directory_of_the_opening(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    transport = open_transport("sqlite:///here.db")
    monkeypatch.chdir("/")
    transport.publish(envelopes(1))
    transport.close()
    assert (tmp_path / "here.db").exists()


def test_processes_that_share_a_file_take_each_message_once(open_file: Open, path: Path) -> None:
    open_file(synchronous="OFF").publish(envelopes(300))
    code = (
        "import sys\n"
        "from qworker.transports import Ack, open_transport\n"
        "transport = open_transport(sys.argv[1], owner=sys.argv[2], options={'synchronous': 'OFF'})\n"
        "transport.connect()\n"
        "while transport.depths(['hipri'])['hipri']:\n"
        "    taken = transport.reserve(['hipri'], 3)\n"
        "    assert transport.ack([Ack(delivery) for delivery in taken]).done == len(taken)\n"
        "    print(*(delivery.tag for delivery in taken), flush=True)\n"
    )
    command = [sys.executable, "-c", code, f"sqlite:///{path}"]
    workers = [subprocess.Popen([*command, f"w{n}/1"], stdout=subprocess.PIPE, text=True) for n in range(3)]
    said = [worker.communicate(timeout=50)[0].split() for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0, 0]
    assert sorted(tag for tags in said for tag in tags) == sorted({tag for tags in said for tag in tags})
    assert sum(map(len, said)) == 300


def test_files_made_by_many_processes_at_once_are_whole(path: Path) -> None:
    code = (
        "import sys\n"
        "from qworker.transports import Envelope, open_transport\n"
        "open_transport(sys.argv[1]).publish([Envelope('hipri', b'x')])\n"
    )
    makers = [subprocess.Popen([sys.executable, "-c", code, f"sqlite:///{path}"]) for _ in range(5)]
    assert [maker.wait(50) for maker in makers] == [0] * 5
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT count(*) FROM qworker_messages").fetchone() == (5,)
        assert db.execute("SELECT count(*) FROM qworker_schema").fetchone() == (1,)


def test_a_forked_child_uses_a_connection_of_its_own(open_file: Open) -> None:
    producer = open_file()
    producer.publish(envelopes(1))
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            producer.publish(envelopes(1, start=1))
            producer.close()
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    producer.publish(envelopes(1, start=2))
    assert numbers_of(open_file("w/1").reserve(["hipri"], 9)) == [0, 1, 2]


def test_an_idle_worker_takes_no_lock(open_file: Open, path: Path) -> None:
    ours = open_file("w/1", socket_timeout=5)
    ours.publish([envelope(1, due=time.time() + 3600)])
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        watch = Stopwatch()
        for _ in range(50):
            assert ours.reserve(["hipri"], 1) == []
        assert watch.s < 2


def test_a_file_that_stays_locked_is_an_error_after_the_time_out(open_file: Open, path: Path) -> None:
    ours = open_file("w/1", socket_timeout=0.2)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(TransportError, match="locked"):
            ours.publish(envelopes(1))
    ours.publish(envelopes(1))
    assert ours.depths(["hipri"]) == {"hipri": 1}


def test_a_file_that_was_locked_for_longer_than_a_lease_takes_nothing_from_a_living_worker(
    open_file: Open, path: Path
) -> None:
    living, other = open_file("living/1", lease_s=1.0, socket_timeout=0.1), open_file("other/1")
    living.publish(envelopes(1))
    taken = living.reserve(["hipri"], 1)
    with closing(sqlite3.connect(path)) as backup:
        backup.execute("BEGIN IMMEDIATE")
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            with pytest.raises(TransportError, match="locked"):
                living.extend(taken)
    assert other.maintain().recovered == 0
    assert list(living.extend(taken).lost) == []
    assert living.ack([Ack(taken[0])]).done == 1


def test_the_file_may_hold_tables_of_others(open_file: Open, path: Path) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE messages (text TEXT)")
        db.execute("CREATE TABLE owners (name TEXT)")
        db.execute("PRAGMA user_version = 7")
        db.commit()
    ours = open_file("w/1")
    ours.publish(envelopes(1))
    ours.ack([Ack(delivery) for delivery in ours.reserve(["hipri"], 1)])
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (7,)
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert {name for name in tables if not name.startswith(("qworker_", "sqlite_"))} == {"messages", "owners"}


def test_a_file_of_an_earlier_version_is_brought_up_to_date_and_both_versions_go_on(
    open_file: Open, path: Path
) -> None:
    open_file().publish(envelopes(2))
    with closing(sqlite3.connect(path)) as db:
        db.execute("ALTER TABLE qworker_messages DROP COLUMN started")
        db.commit()
    doomed = open_file("doomed/1", lease_s=0.2)
    doomed.mark_started(doomed.reserve(["hipri"], 1))
    with closing(sqlite3.connect(path)) as db:
        # An earlier version gives both back without a look at the marks, and takes them.
        db.execute("UPDATE qworker_messages SET state = 'inflight', owner = 'old/1', receipt = receipt + 1")
        db.commit()
    ours = open_file("ours/1")
    wait_until(lambda: ours.maintain().recovered == 2, "what the earlier version held is recovered")
    assert [delivery.crashes for delivery in ours.reserve(["hipri"], 2)] == [0, 0]


def test_a_file_of_a_later_version_is_refused(open_file: Open, path: Path) -> None:
    open_file()
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE qworker_schema SET version = 99")
        db.commit()
    with pytest.raises(ConfigError, match="later version"):
        open_file()


def test_a_file_that_is_no_database_is_refused(open_file: Open, path: Path) -> None:
    path.parent.mkdir()
    path.write_text("this is no database, but long enough to be looked at" * 100)
    with pytest.raises(ConfigError, match=r"not a database; name another file"):
        open_file()


def test_a_folder_that_cannot_be_made_is_refused(open_file: Open, path: Path) -> None:
    path.parent.write_text("a file stands where the folder should be")
    with pytest.raises(ConfigError, match=r"is no directory and cannot be made one; create it"):
        open_file("w/1")


def test_a_folder_in_the_place_of_the_file_is_refused(open_file: Open, path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"it is a directory; name a file"):
        open_file("w/1")


@pytest.mark.parametrize("exists", [False, True], ids=["folder", "file"])
def test_a_place_where_this_user_may_not_write_is_refused(exists: bool) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # the test's own folder is closed to other users
        path = Path(folder) / "broker.db"
        if exists:
            open_transport(f"sqlite:///{path}").connect()
            path.chmod(0o444)
        os.chmod(folder, 0o777 if exists and os.geteuid() == 0 else 0o555)
        assert "this user may not" in refusal_for_an_ordinary_user(f"sqlite:///{path}")
        os.chmod(folder, 0o755)


def test_a_locked_file_is_no_reason_to_give_up(open_file: Open, path: Path) -> None:
    open_file()
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        with pytest.raises(TransportError, match="locked"):
            open_file("w/1", socket_timeout=0.1)


def refusal_for_an_ordinary_user(url: str) -> str:
    """The ConfigError of `connect` in a process that is not root."""
    script = (
        "import os, sys\n"
        "from qworker.transports import open_transport\n"
        "from qworker.transports.sqlite import SqliteTransport\n"
        "from qworker.core.errors import ConfigError\n"
        "os.geteuid() or os.setuid(65534)\n"
        "try: open_transport(sys.argv[1], owner='w/1').connect()\n"
        "except ConfigError as error: print(error)\n"
    )
    ran = subprocess.run([sys.executable, "-c", script, url], capture_output=True, text=True, check=True, timeout=20)
    return ran.stdout


def test_a_wall_clock_that_jumps_takes_nothing_from_a_living_worker(
    open_file: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    living, other = open_file("living/1"), open_file("other/1")
    living.publish(envelopes(1))
    taken = living.reserve(["hipri"], 1)
    for jump_s in (3600.0, -3600.0):
        now = time.time() + jump_s
        monkeypatch.setattr(time, "time", lambda now=now: now)
        assert other.maintain().recovered == 0
    assert living.ack([Ack(delivery) for delivery in taken]).done == 1


def test_a_lease_from_before_a_reboot_has_ended(open_file: Open, path: Path) -> None:
    before, after = open_file("before/1"), open_file("after/1")
    before.publish(envelopes(1))
    before.reserve(["hipri"], 1)
    with closing(sqlite3.connect(path)) as db:  # the monotonic clock stood at 100 days then
        db.execute("UPDATE qworker_owners SET ends = ? WHERE owner = 'before/1'", (time.monotonic() + 8_640_000,))
        db.commit()
    assert after.maintain().recovered == 1


def test_a_worker_sees_a_message_within_its_poll(open_file: Open) -> None:
    ours, producer = open_file("w/1"), open_file()
    poll_s = ours.capabilities.idle_poll_s
    assert poll_s is not None
    assert poll_s <= 0.02
    assert ours.reserve(["hipri"], 1) == []
    producer.publish(envelopes(1))
    wait_until(lambda: ours.reserve(["hipri"], 1), "the message is seen")


def test_a_file_that_is_replaced_is_noticed_and_worked_on(open_file: Open, path: Path) -> None:
    producer, worker = open_file(), open_file("w/1")
    producer.publish(envelopes(2))
    old = worker.reserve(["hipri"], 1)
    for file in path.parent.iterdir():
        file.unlink()
    producer.publish([envelope(7)])
    with pytest.raises(TransportError, match="was deleted or replaced"):
        worker.maintain()
    worker.connect()
    assert numbers_of(worker.reserve(["hipri"], 9)) == [7]
    assert worker.extend(old).lost == [old[0].tag]
    worker.maintain()
