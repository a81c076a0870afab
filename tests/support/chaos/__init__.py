"""What the chaos tests share: an application that keeps a book of its runs, a judge of that book, and ways to break."""

from __future__ import annotations

from ..chaos_table import row
from .cutter import TO_CLIENT, TO_SERVER, Cutter
from .fleet import Fleet, boottime
from .judge import Amnesia, Fault, Kill, Run, Silence, Task, Verdict, judge, read_book
from .load import Load
from .office import QUEUE, Office, office_in
from .scale import IS_LONG, new_seed, scaled
from .storm import drain, storm
from .whereabouts import on_redis, on_sqlite

__all__ = [
    "IS_LONG",
    "QUEUE",
    "TO_CLIENT",
    "TO_SERVER",
    "Amnesia",
    "Cutter",
    "Fault",
    "Fleet",
    "Kill",
    "Load",
    "Office",
    "Run",
    "Silence",
    "Task",
    "Verdict",
    "boottime",
    "drain",
    "judge",
    "new_seed",
    "office_in",
    "on_redis",
    "on_sqlite",
    "read_book",
    "row",
    "scaled",
    "storm",
]
