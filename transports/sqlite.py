"""The SQLite adapter: an embedded broker in one file, for several processes on one host. Opened by `open_transport`.

One row is one message, its state says where it is; every verb is one transaction, so a message is always in exactly one
place. A tag is `row.receipt`, where the receipt counts how often the row was taken: a late settlement of an earlier
receipt finds nothing. There is no wake-up: an idle consumer asks every 20 ms, which costs 4 µs while nobody has
written (`PRAGMA data_version`).

Leases end on the host's monotonic clock, the same one in all its processes: a wall clock that jumps takes nothing
from a living worker. It begins anew at a reboot; a lease that ends later than its own length from now is older than
that.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from ..core.errors import ConfigError, TransportError
from ..core.settings_values import Converter, choice
from . import sqlite_dead
from .base import Ack, Capabilities, DeadLetter, Delivery, Envelope, Maintenance, Rejection, Settled
from .options import positive, read_options
from .order import ORDER_OPTIONS, Order
from .published import published_in
from .sqlite_recovery import maintain, move_due
from .sqlite_rows import choose, insert, place
from .sqlite_schema import obstacle, open_file, path_of
from .sqlite_silence import hear
from .sqlite_unique import Locks
from .unique import id_bytes, task_id_in

_OPTIONS: Final[Mapping[str, Converter]] = {
    "lease_timeout": positive,
    "socket_timeout": positive,
    "synchronous": lambda value: choice("FULL", "NORMAL", "EXTRA", "OFF")(str(value).upper()),
    **ORDER_OPTIONS,
}
_POLL_S: Final = 0.02
_T = TypeVar("_T")
_MINE: Final = "id = ? AND receipt = ? AND owner = ? AND state = 'inflight'"


class SqliteTransport:
    """A file as a broker. One thread at a time; after a fork the child gets a connection of its own."""

    def __init__(self, url: str, options: Mapping[str, Any], *, owner: str = "", lease_s: float = 30.0) -> None:
        found = read_options({**options, **_parameters(url)}, _OPTIONS)
        self.capabilities = Capabilities(idle_poll_s=_POLL_S)
        self._owner = owner
        self._lease_s: float = found.get("lease_timeout", lease_s)
        self._order = Order(found)
        self._file = open_file(
            path_of(url),
            synchronous=found.get("synchronous", "FULL"),
            lock_wait_s=found.get("socket_timeout", 10.0),
        )
        # What a look that found nothing saw: the file's version and the queues; and when the next message is due.
        self._seen: tuple[int, tuple[str, ...]] | None = None
        self._next_due = 0.0
        self._is_stopping = False

    def connect(self) -> None:
        """Open the file anew. Raises TransportError, or ConfigError when the file will never do."""
        self._file.close()
        self._seen = None
        try:
            if self._owner:
                self._file.write(self._renew)
            else:
                self._file.read(lambda db: None)
        except TransportError as error:
            if (why := obstacle(self._file.path)) is not None:
                raise ConfigError(f"no message can be read or written: {error}; {why}") from error
            raise

    def publish(self, envelopes: Sequence[Envelope]) -> list[Envelope]:
        """Insert all of them in one transaction."""
        if self._file.is_replaced():  # nobody would look for them there
            self._file.close()
        return self._write(lambda db: insert(db, envelopes, time.time()))

    def reserve(self, queues: Sequence[str], limit: int, *, arm: bool = False) -> list[Delivery]:
        """Take up to `limit` messages: fewer when they are large, because one call moves about 16 MiB."""
        wanted = tuple(dict.fromkeys(queues))
        if limit <= 0 or not wanted or not self._may_have(wanted):
            return []
        return self._file.write(lambda db: self._take(db, wanted, limit))

    def wake_fd(self) -> int | None:
        """None: there is nothing to select on."""
        return None

    def drain_wake(self) -> None:
        """Nothing to drain."""

    def extend(self, deliveries: Sequence[Delivery]) -> Settled:
        """Renew the lease."""

        def renew(db: sqlite3.Connection) -> list[str]:
            self._renew(db)
            return [d.tag for d in deliveries if not self._is_mine(db, d.tag)]

        return _settled(len(deliveries), self._file.write(renew))

    def mark_started(self, deliveries: Sequence[Delivery]) -> None:
        """Note the receipt under which each runs: the next receipt ends the mark, whoever takes the message then."""
        update = f"UPDATE qworker_messages SET started = receipt WHERE {_MINE}"
        if deliveries and not self._is_stopping:
            self._file.write(lambda db: [self._change(db, update, (), d.tag) for d in deliveries])

    def mark_stopping(self) -> None:
        """Clear the marks."""
        self._is_stopping = True
        update = "UPDATE qworker_messages SET started = 0 WHERE state = 'inflight' AND owner = ?"
        self._file.write(lambda db: db.execute(update, (self._owner,)))

    def ack(self, acks: Sequence[Ack]) -> Settled:
        """Delete, and insert the successors."""

        def settle(db: sqlite3.Connection) -> list[str]:
            lost, now = [], time.time()
            locks = Locks(db, now)
            for ack in acks:
                if not self._change(db, f"DELETE FROM qworker_messages WHERE {_MINE}", (), ack.delivery.tag):
                    lost.append(ack.delivery.tag)
                    continue
                if locks.any:
                    locks.settle(ack.delivery.raw, ack.successors)
                if ack.successors:
                    insert(db, ack.successors, now)
            return lost

        return _settled(len(acks), self._write(settle))

    def recall(self, known: Collection[str]) -> list[Delivery]:
        """What stands in this owner's name and is not in `known`, oldest first."""
        query = (
            "SELECT id, receipt, queue, raw, crashes FROM qworker_messages "
            "WHERE state = 'inflight' AND owner = ? ORDER BY position"
        )
        rows = self._file.read(lambda db: db.execute(query, (self._owner,)).fetchall())
        held = [Delivery(f"{id_}.{receipt}", queue, raw, crashes) for id_, receipt, queue, raw, crashes in rows]
        return [delivery for delivery in held if delivery.tag not in known]

    def requeue(self, deliveries: Sequence[Delivery], *, crashed: bool = False, due: float | None = None) -> Settled:
        """Give back to the front of the queues, or with `due` to the back, when it is time."""

        def settle(db: sqlite3.Connection) -> list[str]:
            now = time.time()
            update = (
                "UPDATE qworker_messages SET state = ?, owner = NULL, due = ?, crashes = crashes + ?, task_id = ? "
                f"WHERE {_MINE}"
            )
            state, until = ("delayed", due) if due is not None and due > now else ("ready", None)
            keys = {d.tag: id_bytes(task_id_in(d.raw)) if until else None for d in deliveries}
            values = {d.tag: (state, until, crashed, keys[d.tag] or None) for d in deliveries}
            lost = [tag for tag, row in values.items() if not self._change(db, update, row, tag)]
            if state == "ready":
                gone = set(lost)
                place(db, [_row_of(d.tag) for d in deliveries if d.tag not in gone], front=due is None)
            return lost

        return _settled(len(deliveries), self._write(settle))

    def reject(self, rejections: Sequence[Rejection]) -> Settled:
        """Mark as dead, with the reason and the original bytes."""
        update = (
            "UPDATE qworker_messages SET state = 'dead', owner = NULL, died_at = ?, crashes = ?, record = ? "
            f"WHERE {_MINE}"
        )

        def settle(db: sqlite3.Connection) -> list[str]:
            lost, locks = [], Locks(db, time.time())
            for rejection in rejections:
                record = json.dumps({"reason": rejection.reason, "details": rejection.details}, default=str)
                values = (time.time(), rejection.delivery.crashes, record)
                if not self._change(db, update, values, rejection.delivery.tag):
                    lost.append(rejection.delivery.tag)
                elif locks.any:
                    locks.settle(rejection.delivery.raw)
            return lost

        return _settled(len(rejections), self._write(settle))

    def maintain(self) -> Maintenance:
        """Move due messages, and give back what owners hold whose lease has ended; see that the file is still it."""
        if self._file.is_replaced():
            self._file.close()
            raise TransportError(f"the broker file {self._file.path} was deleted or replaced")
        return self._write(partial(maintain, owner=self._owner, lease_s=self._lease_s))

    def discard_delayed(self, task_ids: Sequence[str]) -> list[str]:
        """Delete the delayed rows of these tasks."""

        def discard(db: sqlite3.Connection) -> list[str]:
            locks, some = Locks(db, time.time()), "FROM qworker_messages WHERE state = 'delayed' AND task_id = ?"
            keys = {name: (id_bytes(name),) for name in task_ids}
            for (raw,) in (row for key in keys.values() if locks.any for row in db.execute(f"SELECT raw {some}", key)):
                locks.settle(raw)
            return [name for name, key in keys.items() if db.execute(f"DELETE {some}", key).rowcount]

        return self._write(discard)

    def depths(self, queues: Sequence[str]) -> dict[str, int]:
        """Count the ready rows."""
        query = "SELECT count(*) FROM qworker_messages WHERE state = 'ready' AND queue = ?"
        return self._file.read(lambda db: {name: db.execute(query, (name,)).fetchone()[0] for name in queues})

    def oldest(self, queues: Sequence[str]) -> dict[str, float]:
        """Read the first message of each priority."""
        query = "SELECT raw, min(position) FROM qworker_messages WHERE state = 'ready' AND queue = ? GROUP BY priority"

        def look(db: sqlite3.Connection) -> dict[str, float]:
            found = {name: [published_in(bytes(raw)) for raw, _ in db.execute(query, (name,))] for name in queues}
            return {name: min(filter(None, ages)) for name, ages in found.items() if any(ages)}

        return self._file.read(look)

    def purge(self, queues: Sequence[str]) -> int:
        """Delete the ready rows."""

        def delete(db: sqlite3.Connection) -> int:
            locks, some = Locks(db, time.time()), "FROM qworker_messages WHERE state = 'ready' AND queue = ?"
            for (raw,) in (row for name in queues if locks.any for row in db.execute(f"SELECT raw {some}", (name,))):
                locks.settle(raw)
            return sum(db.execute(f"DELETE {some}", (name,)).rowcount for name in queues)

        return self._write(delete)

    def dead_letters(self, *, limit: int = 100) -> list[DeadLetter]:
        """The newest dead letters, newest first."""
        return self._file.read(lambda db: sqlite_dead.newest(db, limit))

    def requeue_dead(self, tokens: Sequence[str]) -> int:
        """Make dead rows ready again, at the back."""
        batches = sqlite_dead.batches_of(tokens)
        return sum(self._write(partial(sqlite_dead.requeue, rows=rows)) for rows in batches)

    def purge_dead(self, tokens: Sequence[str]) -> int:
        """Delete dead rows."""
        batches = sqlite_dead.batches_of(tokens)
        return sum(self._write(partial(sqlite_dead.purge, rows=rows)) for rows in batches)

    def warnings(self) -> list[str]:
        """Nothing to warn of."""
        return []

    def close(self) -> None:
        """Leave. What is still held stays until the lease ends."""
        if self._owner and self._file.is_open():
            try:
                self._file.write(self._leave)
            except Exception:  # close() never raises, and the lease ends by itself
                pass
        self._file.close()

    # ---- inside transactions ----

    def _write(self, action: Callable[[sqlite3.Connection], _T]) -> _T:
        # Changes of one's own do not change one's own data_version.
        self._seen = None
        return self._file.write(action)

    def _may_have(self, queues: tuple[str, ...]) -> bool:
        """Whether a write transaction is worth it. The version is read first: what comes later changes it again."""
        (version,) = self._file.read(lambda db: db.execute("PRAGMA data_version").fetchone())
        now = time.time()
        if self._seen == (version, queues) and now < self._next_due:
            return False
        marks = ", ".join("?" * len(queues))
        query = (
            f"SELECT EXISTS (SELECT 1 FROM qworker_messages WHERE state = 'ready' AND queue IN ({marks})), "
            "(SELECT min(due) FROM qworker_messages WHERE state = 'delayed')"
        )
        some, due = self._file.read(lambda db: db.execute(query, queues).fetchone())
        self._next_due = float("inf") if due is None else due
        if some or now >= self._next_due:
            self._seen = None
            return True
        self._seen = (version, queues)
        return False

    def _take(self, db: sqlite3.Connection, queues: tuple[str, ...], limit: int) -> list[Delivery]:
        move_due(db, time.time())
        chosen = choose(db, self._order, queues, limit)
        if not chosen:
            return []
        self._renew(db)
        values = "state = 'inflight', owner = ?, receipt = receipt + 1, position = ?"
        # A queue that was emptied begins its positions anew: in flight they say in which order messages were taken.
        first = time.monotonic_ns()
        rows = [(self._owner, at, row) for at, row in enumerate(chosen, first)]
        db.executemany(f"UPDATE qworker_messages SET {values} WHERE id = ?", rows)
        query = "SELECT receipt, queue, raw, crashes FROM qworker_messages WHERE id = ?"
        taken = ((row, *db.execute(query, (row,)).fetchone()) for row in chosen)
        return [Delivery(f"{row}.{receipt}", queue, raw, crashes) for row, receipt, queue, raw, crashes in taken]

    def _renew(self, db: sqlite3.Connection) -> None:
        now = time.monotonic()
        hear(db, now, self._lease_s)
        db.execute(
            "INSERT INTO qworker_owners (owner, ends, lease_s) VALUES (?, ?, ?) "
            "ON CONFLICT (owner) DO UPDATE SET ends = excluded.ends, lease_s = excluded.lease_s",
            (self._owner, now + self._lease_s, self._lease_s),
        )

    def _leave(self, db: sqlite3.Connection) -> None:
        held = "SELECT 1 FROM qworker_messages WHERE state = 'inflight' AND owner = ? LIMIT 1"
        if not db.execute(held, (self._owner,)).fetchone():
            db.execute("DELETE FROM qworker_owners WHERE owner = ?", (self._owner,))

    def _change(self, db: sqlite3.Connection, statement: str, values: tuple[Any, ...], tag: str) -> bool:
        """Run a statement that ends in _MINE; whether the message was still ours."""
        row, _, receipt = tag.partition(".")
        return db.execute(statement, (*values, row, receipt, self._owner)).rowcount == 1

    def _is_mine(self, db: sqlite3.Connection, tag: str) -> bool:
        row, _, receipt = tag.partition(".")
        found = db.execute(f"SELECT 1 FROM qworker_messages WHERE {_MINE}", (row, receipt, self._owner))
        return found.fetchone() is not None


def _parameters(url: str) -> dict[str, str]:
    from urllib.parse import parse_qsl

    return dict(parse_qsl(url.partition("?")[2]))


def _settled(count: int, lost: Sequence[str]) -> Settled:
    return Settled(count - len(lost), lost)


def _row_of(tag: str) -> int:
    return int(tag.partition(".")[0])
