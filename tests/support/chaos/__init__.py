"""What the chaos tests share: an application that keeps a book of its runs, a judge of that book, and ways to break."""

from __future__ import annotations

from ..chaos_table import row
from .cutter import TO_CLIENT, TO_SERVER, Cutter
from .faults import Amnesia, Fault, Kill, Silence
from .fleet import Fleet, Member, boottime
from .hosts import Host, namespaces, proxied, why_no_namespaces
from .judge import Verdict, demand_none, judge
from .load import Load
from .office import QUEUE, Office, office_in
from .runs import Run, Task, read_book
from .scale import IS_LONG, new_seed, scaled
from .storm import drain, storm, waiting_in
from .whereabouts import on_redis, on_sqlite, on_sqs

__all__ = [
    "IS_LONG",
    "QUEUE",
    "TO_CLIENT",
    "TO_SERVER",
    "Amnesia",
    "Cutter",
    "Fault",
    "Fleet",
    "Host",
    "Kill",
    "Load",
    "Member",
    "Office",
    "Run",
    "Silence",
    "Task",
    "Verdict",
    "boottime",
    "demand_none",
    "drain",
    "judge",
    "namespaces",
    "new_seed",
    "office_in",
    "on_redis",
    "on_sqlite",
    "on_sqs",
    "proxied",
    "read_book",
    "row",
    "scaled",
    "storm",
    "waiting_in",
    "why_no_namespaces",
]
