"""The master's decisions, with a spawner that only takes notes and a consumer that only listens."""

from __future__ import annotations

import resource
import signal
from typing import Any

import pytest

from qworker.pool import MAX_SLOTS
from qworker.worker import ExitCode, Phase

from support.master_stage import NOBODY, Stage


def test_it_runs_when_every_child_is_ready_and_the_broker_answers(stage: Stage) -> None:
    stage.report("loaded", config={})
    assert stage.spawners[0].forked == [0, 1]
    stage.tell("ready", 0, serial=1)
    stage.tell("connected")
    assert stage.master.phase is Phase.STARTING
    stage.tell("ready", 1, serial=2)
    assert stage.master.phase is Phase.RUNNING


def test_term_drains_and_ends_with_zero_once_drained(stage: Stage) -> None:
    stage.run()
    stage.letters()
    stage.signal(signal.SIGTERM)
    assert stage.master.phase is Phase.WARM
    assert stage.letters() == ["drain"]
    assert stage.master.exit_code is None
    stage.tell("drained")
    assert stage.master.exit_code is ExitCode.OK


def test_soft_shutdown_goes_cold_when_its_time_is_over(stage: Stage) -> None:
    stage.run()
    stage.signal(signal.SIGQUIT)
    assert stage.master.phase is Phase.SOFT
    stage.clock.advance(29.9)
    stage.master.turn()
    assert stage.master.phase is Phase.SOFT
    stage.clock.advance(0.2)
    stage.master.turn()
    assert stage.master.phase is Phase.COLD
    stage.tell("drained", cut=["id-1"])
    assert stage.master.exit_code is ExitCode.CUT


def test_soft_shutdown_ends_the_moment_it_is_drained(stage: Stage) -> None:
    stage.run()
    stage.signal(signal.SIGQUIT)
    stage.tell("drained", cut=[])
    assert stage.master.exit_code is ExitCode.OK


def test_a_dead_child_is_replaced_at_once(stage: Stage) -> None:
    stage.run()
    stage.report("exited", slot=1, pid=NOBODY, status=-11, peak_kib=1)
    assert stage.spawners[0].forked == [0, 1, 1]
    assert "died" in stage.letters()


def test_a_child_that_dies_while_stopping_is_not_replaced(stage: Stage) -> None:
    stage.run()
    stage.signal(signal.SIGTERM)
    stage.report("exited", slot=1, pid=NOBODY, status=0, peak_kib=1)
    assert stage.spawners[0].forked == [0, 1]


def test_children_that_cannot_boot_end_the_worker_instead_of_a_loop(stage: Stage, capfd: Any) -> None:
    stage.report("loaded", config={})
    stage.tell("boot_failed", 0, serial=1, traceback="Traceback: the reason")
    for _ in range(3):
        stage.report("forked", slot=0, pid=NOBODY)
        stage.report("exited", slot=0, pid=NOBODY, status=1, peak_kib=1)
    stage.tell("drained")
    assert stage.master.exit_code is ExitCode.APP
    assert "the reason" in capfd.readouterr().err
    assert len(stage.spawners[0].forked) <= 5


def test_an_application_that_cannot_be_imported_ends_it_with_three(stage: Stage, capfd: Any) -> None:
    stage.report("failed", kind="app", text="no module named shop", details="")
    stage.master.turn()
    assert stage.master.exit_code is ExitCode.APP
    told = [line for line in capfd.readouterr().err.splitlines() if "DEBUG" not in line]
    assert told == ["qworker: no module named shop"]


def test_a_refused_configuration_ends_it_with_four(stage: Stage) -> None:
    stage.report("failed", kind="config", text="unknown setting", details="")
    stage.master.turn()
    assert stage.master.exit_code is ExitCode.CONFIG


def test_a_dead_spawner_is_replaced_by_exec_because_there_are_threads_now(stage: Stage) -> None:
    stage.run()
    stage.letters()
    stage.spawners[0].queue.append(None)
    stage.master.turn()
    assert stage.methods == ["fork", "spawn"]
    stage.report("loaded", config={})
    assert stage.spawners[1].forked == [0, 1]
    assert stage.letters() == ["died", "died", "child", "child"]


def test_spawners_that_die_often_are_started_ever_later_and_one_that_dies_rarely_at_once(stage: Stage) -> None:
    stage.run()
    for wait_s in (0.0, 0.5, 1.0):
        stage.spawners[-1].queue.append(None)
        stage.master.turn()
        if wait_s:
            began = len(stage.spawners)
            stage.clock.advance(wait_s - 0.1)
            stage.master.turn()
            assert len(stage.spawners) == began
            stage.clock.advance(0.2)
            stage.master.turn()
        stage.report("loaded", config={})
    stage.clock.advance(601)
    began = len(stage.spawners)
    stage.spawners[-1].queue.append(None)
    stage.master.turn()
    assert len(stage.spawners) == began + 1


def test_it_works_with_more_descriptors_than_select_knows(stage: Stage) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 4096:
        pytest.skip("not that many descriptors are allowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4096), hard))
    try:
        stage.run()
        stage.next_fd = 2000
        stage.spawners[0].queue.append(None)
        stage.master.turn()
        stage.report("loaded", config={})
        assert stage.spawners[1].forked == [0, 1]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_reload_whose_children_cannot_start_is_undone_once_and_for_good(stage: Stage, caplog: Any) -> None:
    stage.run()
    stage.signal(signal.SIGHUP)
    old, new = stage.spawners
    stage.report("loaded", config={})
    assert new.forked == [2, 3]
    stage.letters()
    for pid in range(NOBODY, NOBODY + 9):
        slot = new.forked[-1]
        new.queue.append({"event": "forked", "slot": slot, "pid": pid})
        stage.report("exited", slot=slot, pid=pid, status=9, peak_kib=1)
    assert len(new.forked) <= 5
    assert old.forked == [0, 1]
    assert "retire" in stage.letters()
    assert [r for r in caplog.messages if "exit code 9" in r] == [r for r in caplog.messages if "cannot start" in r]
    assert sum("cannot start" in r for r in caplog.messages) == 1
    assert stage.master.phase is Phase.RUNNING


def test_surplus_children_are_shed_one_at_a_time_until_the_size_is_right(stage: Stage) -> None:
    stage.run()
    stage.signal(signal.SIGTTIN)
    assert stage.spawners[0].forked == [0, 1, 2]
    stage.letters()
    stage.signal(signal.SIGTTOU)
    stage.signal(signal.SIGTTOU)
    assert stage.letters() == ["shed"]
    stage.tell("shed", serial=0)  # nobody was found
    assert stage.letters() == ["shed"]
    stage.tell("shed", serial=3)
    assert stage.letters() == ["shed"]
    stage.tell("shed", serial=1)
    assert stage.letters() == []
    stage.report("exited", slot=0, pid=NOBODY, status=0, peak_kib=1)
    assert stage.spawners[0].forked == [0, 1, 2]


def test_the_pool_grows_no_further_than_there_are_slots(stage: Stage) -> None:
    stage.run()
    assert stage.master._works is not None
    stage.master._works.crew._size = MAX_SLOTS
    stage.master._works.crew._slots.clear()
    stage.spawners[0].fork = lambda slot, *fds: False  # type: ignore[method-assign]
    stage.signal(signal.SIGTTIN)
    assert stage.master._works.crew.size == MAX_SLOTS


def test_an_unreachable_broker_ends_it_with_69(stage: Stage) -> None:
    stage.report("loaded", config={})
    stage.tell("unreachable", error="no")
    stage.master.turn()
    assert stage.master.exit_code is ExitCode.UNREACHABLE


def test_term_before_the_application_is_loaded_ends_it_with_zero(stage: Stage) -> None:
    stage.signal(signal.SIGTERM)
    stage.master.turn()
    assert stage.master.exit_code is ExitCode.OK


def test_stop_and_continue_quieten_and_resume(stage: Stage) -> None:
    stage.run()
    stage.letters()
    stage.signal(signal.SIGTSTP)
    assert stage.letters() == ["quiet"]
    stage.signal(signal.SIGCONT)
    assert stage.letters() == ["resume"]


def test_told_to_be_quiet_before_it_runs_it_begins_quiet(stage: Stage) -> None:
    stage.signal(signal.SIGTSTP)
    stage.report("loaded", config={})
    for slot in (0, 1):
        stage.report("forked", slot=slot, pid=NOBODY)
        stage.tell("ready", slot, serial=slot + 1)
    stage.tell("connected")
    assert stage.master.phase is Phase.QUIET
    assert "resume" not in stage.letters()


def test_told_to_be_quiet_and_to_resume_before_it_runs_it_runs(stage: Stage) -> None:
    stage.signal(signal.SIGTSTP)
    stage.signal(signal.SIGCONT)
    stage.run()


def test_a_consumer_that_ends_with_an_error_is_started_again_and_told_where_the_worker_is(stage: Stage) -> None:
    stage.run()
    stage.signal(signal.SIGTERM)
    stage.letters()
    stage.tell("failed", error="boom")
    assert stage.consumer.revivals == [{1, 2}]
    assert stage.letters() == ["drain"]
    assert stage.master.phase is Phase.WARM


def test_a_consumer_that_keeps_ending_with_an_error_ends_the_worker(stage: Stage) -> None:
    stage.run()
    for _ in range(2):
        stage.tell("failed", error="boom")
    assert stage.master.phase is Phase.RUNNING
    stage.tell("failed", error="boom")
    assert len(stage.consumer.revivals) == 2
    for _ in range(3):
        stage.clock.advance(10)
        stage.master.turn()
    assert stage.master.exit_code is ExitCode.INTERNAL


def test_rare_errors_of_the_consumer_never_end_the_worker(stage: Stage) -> None:
    stage.run()
    for _ in range(9):
        stage.clock.advance(31)
        stage.tell("failed", error="boom")
    assert stage.master.phase is Phase.RUNNING


def test_a_deaf_consumer_ends_the_worker_after_its_messages_went_back(stage: Stage) -> None:
    stage.run()
    stage.letters()
    stage.tell("deaf")
    assert stage.letters()[0] == "drain"
    stage.tell("drained", cut=[])
    assert stage.master.exit_code is ExitCode.INTERNAL


def test_a_child_that_the_system_refuses_is_asked_for_again_a_second_later(stage: Stage, caplog: Any) -> None:
    stage.report("loaded", config={})
    for slot in (0, 1):
        stage.report("not_forked", slot=slot, why="Resource temporarily unavailable")
    assert stage.letters() == ["child", "child", "died", "died"]
    stage.master.turn()
    assert stage.spawners[0].forked == [0, 1]
    for _ in range(5):  # more often than children may die at boot
        stage.clock.advance(1.1)
        stage.master.turn()
        stage.report("not_forked", slot=0, why="Resource temporarily unavailable")
        stage.report("not_forked", slot=1, why="Resource temporarily unavailable")
    assert caplog.text.count("no child can be started") == 1
    stage.clock.advance(1.1)
    stage.master.turn()
    assert stage.spawners[0].forked == [0, 1] * 7
    assert stage.master.exit_code is None


def test_a_spent_child_that_cannot_be_replaced_goes_on(stage: Stage) -> None:
    stage.run()
    stage.letters()
    stage.tell("spent", 1, serial=2)
    assert stage.spawners[0].forked == [0, 1, 2]
    stage.report("not_forked", slot=2, why="Cannot allocate memory")
    assert stage.letters() == ["child", "died", "reprieve"]
    stage.clock.advance(10)
    stage.master.turn()
    assert stage.spawners[0].forked == [0, 1, 2]
    stage.tell("spent", 1, serial=2)
    assert stage.spawners[0].forked == [0, 1, 2, 2]


def test_a_spawner_that_owes_a_child_and_says_nothing_is_killed_and_replaced(stage: Stage, caplog: Any) -> None:
    stage.run()
    stage.tell("spent", 1, serial=2)
    for _ in range(8):
        stage.clock.advance(5.1)
        stage.master.turn()
    assert caplog.text.count("has not answered for 30 s") == 1
    assert len(stage.spawners) == 2


def test_a_spawner_that_speaks_or_owes_nothing_is_left_alone(stage: Stage) -> None:
    stage.run()
    for _ in range(20):
        stage.clock.advance(5.1)
        stage.master.turn()
    stage.tell("spent", 1, serial=2)
    for _ in range(20):
        stage.clock.advance(5.1)
        stage.report("exited", slot=7, pid=NOBODY, status=0, peak_kib=1)
    assert len(stage.spawners) == 1


def test_a_long_pause_of_the_whole_worker_is_not_held_against_its_spawner(stage: Stage) -> None:
    stage.run()
    stage.tell("spent", 1, serial=2)
    stage.clock.advance(3600)
    stage.master.turn()
    assert len(stage.spawners) == 1
