"""Times in which no worker wrote to the SQLite broker, and whom they excuse. Used by sqlite.py only.

Leases go on ending while all processes are frozen (a paused container) or while somebody else keeps the file locked (a
backup, a forgotten transaction), and their owners run their tasks all the same. So whoever writes first afterwards
notes the silence. It excuses an owner whose lease had not ended before and is short enough to end because of it:
less than four times the silence. The excuse lasts for half its lease, time to come back and renew.

A living worker is heard of each sixth of its lease, so a quarter of the shortest lease is a silence. All functions run
inside the caller's write transaction; times are on the host's monotonic clock.
"""

from __future__ import annotations

import sqlite3


def hear(db: sqlite3.Connection, now: float, lease_s: float) -> None:
    """Note that a worker with this lease has been heard of, and the silence before."""
    (heard,) = db.execute("SELECT max(till) FROM qworker_silences WHERE since IS NULL").fetchone()
    (shortest,) = db.execute("SELECT min(lease_s) FROM qworker_owners").fetchone()
    if heard is None or heard > now:  # the clock begins anew at a reboot, which no owner has outlived
        db.execute("DELETE FROM qworker_silences")
        db.execute("INSERT INTO qworker_silences (since, till) VALUES (NULL, ?)", (now,))
        heard = now if heard is not None or shortest is None else 0.0  # owners of an earlier version left no note
    if now - heard > min(lease_s, shortest or lease_s) / 4:
        # It matters for as long as the longest excuse that it gives.
        db.execute("DELETE FROM qworker_silences WHERE till + 2 * (till - since) < ?", (now,))
        db.execute("INSERT INTO qworker_silences (since, till) VALUES (?, ?)", (heard, now))
    db.execute("UPDATE qworker_silences SET till = ? WHERE since IS NULL", (now,))


def excused_until(db: sqlite3.Connection, ends: float, lease_s: float) -> float:
    """Until when a silence explains that the lease which ended at `ends` was not renewed; 0.0 when none does."""
    query = "SELECT max(till) + ? / 2 FROM qworker_silences WHERE since <= ? AND till - since > ? / 4"
    (until,) = db.execute(query, (lease_s, ends, lease_s)).fetchone()
    return until or 0.0
