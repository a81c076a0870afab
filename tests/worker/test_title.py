"""The master's title: who may write it how often."""

from __future__ import annotations

import math

from qworker.worker.title import EVERY_S, Title


class Desk:
    """A title, and what it has shown."""

    def __init__(self) -> None:
        self.shown: list[str] = []
        self.title = Title("desk@here", self.shown.append)

    def tend(self, now: float, busy: int, *, total: int = 2) -> None:
        self.title.tend(now, bool(busy), lambda: (busy, total))


def test_phase_and_load_stand_side_by_side() -> None:
    desk = Desk()
    desk.title.phase("running")
    desk.tend(10.0, 1)
    desk.title.phase("warm")
    assert desk.shown == ["master running desk@here", "master running 1/2 desk@here", "master warm 1/2 desk@here"]


def test_of_two_threads_that_write_at_once_none_takes_the_others_word_back() -> None:
    shown: list[str] = []

    def show(text: str) -> None:
        if text == "master running":  # just before it is shown, the other thread shows more
            title.tend(10.0, True, lambda: (1, 2))
        shown.append(text)

    title = Title(show=show)
    title.phase("running")
    assert shown[-1] == "master running 1/2"


def test_a_load_that_changes_all_the_time_is_written_once_a_second() -> None:
    desk = Desk()
    for step in range(1000):
        desk.tend(step / 100, 1 + step)
    assert len(desk.shown) == 10


def test_an_idle_worker_is_not_woken_for_its_title() -> None:
    desk = Desk()
    desk.tend(10.0, 1)
    assert desk.title.next_at == 10.0 + EVERY_S
    desk.tend(11.0, 0)
    assert desk.shown[-1] == "master starting 0/2 desk@here"
    assert desk.title.next_at == math.inf


def test_a_new_size_is_shown_although_nobody_works() -> None:
    desk = Desk()
    desk.tend(10.0, 0)
    desk.title.is_outdated()
    desk.tend(desk.title.next_at, 0, total=3)
    assert desk.shown[-1] == "master starting 0/3 desk@here"
