"""TERM and INT: what no child has started is back at once and in order, what runs ends, nothing is left behind."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from support import Shop, Worker, wait_until
from support.stopwatch import Stopwatch


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_warm_stop_gives_back_at_once_what_no_child_has_started(any_shop: Shop, number: signal.Signals) -> None:
    worker = any_shop.worker("-c", "1", "-Q", "hipri")
    any_shop.task("gate").delay("go")
    wait_until(lambda: any_shop.ran() == ["start go"], "the first task runs")
    waiting = [any_shop.task("noted").delay(f"n{i}").id for i in range(6)]
    wait_until(lambda: any_shop.in_flight() == 4, "the window is full")
    watch = Stopwatch()
    worker.signal(number)
    wait_until(lambda: any_shop.in_flight() == 1, "only the running task is held", 5)
    assert watch.s < 1.0
    assert any_shop.depth() == 6
    (any_shop.folder / "go").touch()
    assert worker.wait() == 0
    assert "Task shop.gate[" in worker.log
    released = [line for line in worker.log.splitlines() if "that no child had started" in line]
    assert [task_id in " ".join(released) for task_id in waiting] == [True] * 3 + [False] * 3
    assert any_shop.in_flight() == 0
    assert any_shop.ran() == ["start go", "end go"]
    any_shop.worker("-c", "1", "-Q", "hipri")
    wait_until(lambda: len(any_shop.ran()) == 8, "another worker runs the rest")
    assert any_shop.ran()[2:] == [f"n{i}" for i in range(6)]


def test_an_idle_worker_stops_quickly(any_shop: Shop) -> None:
    worker = any_shop.worker()
    watch = Stopwatch()
    assert worker.stop() == 0
    assert watch.s < 2.0


def test_a_repeated_term_changes_nothing(any_shop: Shop) -> None:
    worker = any_shop.worker("-c", "1", "-Q", "hipri")
    result = any_shop.task("gate").delay("go")
    wait_until(lambda: any_shop.ran() == ["start go"], "the task runs")
    for _ in range(5):
        worker.signal(signal.SIGTERM)
    worker.wait_log("warm shutdown")
    (any_shop.folder / "go").touch()
    assert worker.wait() == 0
    assert result.get(timeout=20) == "go"


def test_term_to_the_whole_process_group_kills_no_task(any_shop: Shop) -> None:
    worker = any_shop.worker("-c", "1", "-Q", "hipri")
    result = any_shop.task("gate").delay("go")
    wait_until(lambda: any_shop.ran() == ["start go"], "the task runs")
    for process in worker.tree():
        os.kill(process.pid, signal.SIGTERM)
    os.killpg(worker.pid, signal.SIGTERM)
    worker.wait_log("warm shutdown")
    (any_shop.folder / "go").touch()
    assert worker.wait() == 0
    assert result.get(timeout=20) == "go"


@pytest.mark.parametrize("delay_s", [0.02, 0.05, 0.1, 0.2])
def test_a_signal_in_the_first_moments_ends_with_zero_and_no_traceback(sqlite_shop: Shop, delay_s: float) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        worker = sqlite_shop.worker("-c", "1", "-Q", "hipri", ready=False)
        wait_until(lambda w=worker: _has_begun(w.pid), "the interpreter runs our code")
        time.sleep(delay_s)  # the moment is the point: whichever it is, the outcome is the same
        assert worker.stop(10) == 0 if number is signal.SIGTERM else _ends(worker, number) == 0
        assert "Traceback" not in worker.log


def test_other_signals_in_the_first_moments_do_not_end_a_worker(sqlite_shop: Shop) -> None:
    others = (signal.SIGHUP, signal.SIGUSR1, signal.SIGTTIN, signal.SIGTTOU, signal.SIGTSTP, signal.SIGCONT)
    worker = sqlite_shop.worker("-c", "1", "-Q", "hipri", ready=False)
    wait_until(lambda: _has_begun(worker.pid), "the interpreter runs our code")
    for number in others:
        worker.signal(number)
    worker.wait_ready()
    assert sqlite_shop.task("add").delay(1).get(timeout=10) == 1
    assert worker.stop() == 0


def _ends(worker: Worker, number: signal.Signals) -> int:
    worker.signal(number)
    return worker.wait(10)


def _has_begun(pid: int) -> bool:
    """Whether the process has blocked the signals that it counts (the first thing `main` does), or handles them."""
    status = Path(f"/proc/{pid}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    term = 1 << (signal.SIGTERM - 1)
    return bool((int(fields["SigBlk"], 16) | int(fields["SigCgt"], 16)) & term)


def test_term_while_starting_ends_with_zero(any_shop: Shop) -> None:
    (any_shop.folder / "shop.py").write_text("import time\ntime.sleep(30)\n")
    worker = any_shop.worker("-c", "1", "-Q", "hipri", ready=False)
    wait_until(lambda: any("spawner" in " ".join(p.cmdline()) for p in worker.tree()), "the spawner imports")
    assert worker.stop(10) == 0


def test_a_cold_stop_lets_finally_run_and_gives_the_message_back(any_shop: Shop, patient: dict[str, str]) -> None:
    worker = any_shop.worker("-c", "1", "-Q", "hipri", env=patient)
    result = any_shop.task("careful").delay("go")
    wait_until(lambda: any_shop.ran() == ["start go"], "the task runs")
    worker.signal(signal.SIGQUIT)
    assert worker.wait(10) == 1
    assert any_shop.ran() == ["start go", "finally go"]
    assert (any_shop.in_flight(), any_shop.depth()) == (0, 1)
    assert f"[{result.id}] was cut" in worker.log


def test_remapped_term_gives_running_tasks_the_soft_timeout_and_then_cuts_them(any_shop: Shop) -> None:
    soft = {"REMAP_SIGTERM": "SIGQUIT"}
    worker = any_shop.worker("-c", "2", "-Q", "hipri", "--soft-shutdown-timeout", "4", env=soft)
    short = any_shop.task("careful").delay("soon")
    any_shop.task("careful").delay("never")
    wait_until(lambda: len(any_shop.ran()) == 2, "both run")
    told_at = time.monotonic()
    worker.signal(signal.SIGTERM)
    worker.wait_log("soft shutdown")
    (any_shop.folder / "soon").touch()
    assert short.get(timeout=20) == "soon"
    assert worker.wait(10) == 1
    assert time.monotonic() - told_at >= 4.0
    assert any_shop.depth() == 1


def test_a_soft_stop_ends_the_moment_the_last_task_ends(any_shop: Shop) -> None:
    worker = any_shop.worker("-c", "1", "-Q", "hipri", "--soft-shutdown-timeout", "60")
    result = any_shop.task("gate").delay("go")
    wait_until(lambda: any_shop.ran() == ["start go"], "the task runs")
    worker.signal(signal.SIGQUIT)
    worker.wait_log("soft shutdown")
    (any_shop.folder / "go").touch()
    assert worker.wait(10) == 0
    assert result.get(timeout=20) == "go"


def test_a_cut_task_whose_cleanup_fails_is_cut_all_the_same(any_shop: Shop) -> None:
    worker = any_shop.worker("-c", "1", "-Q", "hipri")
    result = any_shop.task("messy").delay("go")
    wait_until(lambda: any_shop.ran() == ["start go"], "the task runs")
    worker.signal(signal.SIGQUIT)
    assert worker.wait(10) == 1
    assert (any_shop.depth(), result.status) == (1, "PENDING")


@pytest.mark.parametrize("how", ["raise", "give back", "exc", "later", "auto", "auto, cleanup fails"])
def test_a_retry_of_a_task_that_was_cut_costs_no_attempt(any_shop: Shop, how: str) -> None:
    worker = any_shop.worker("-c", "1", "-Q", "hipri")
    name = "auto_retries_when_cut" if how.startswith("auto") else "retries_when_cut"
    result = any_shop.task(name).delay("go", how)
    wait_until(lambda: any_shop.ran() == ["start go 0"], "the task runs")
    worker.signal(signal.SIGQUIT)
    assert worker.wait(10) == 1
    assert (any_shop.depth(), any_shop.in_flight(), result.status) == (1, 0, "PENDING")
    if how == "later":
        return
    (any_shop.folder / "go").touch()
    any_shop.worker("-c", "1", "-Q", "hipri")
    assert result.get(timeout=10) == "go"
    assert any_shop.ran() == ["start go 0"] * 2


def test_an_at_most_once_task_that_was_cut_runs_again_only_because_it_says_so(
    any_shop: Shop, patient: dict[str, str]
) -> None:
    worker = any_shop.worker("-c", "1", "-Q", "hipri", env=patient)
    result = any_shop.task("once_retries_when_cut").delay("go")
    wait_until(lambda: any_shop.ran() == ["start go 0"], "the task runs")
    worker.signal(signal.SIGQUIT)
    worker.wait(10)
    (any_shop.folder / "go").touch()
    any_shop.worker("-c", "1", "-Q", "hipri")
    assert result.get(timeout=10) == "go"
    assert any_shop.ran() == ["start go 0", "start go 1"]


def test_the_checkpoint_of_a_run_that_has_to_be_killed_is_not_lost(any_shop: Shop) -> None:
    worker = any_shop.worker("-c", "1", "-Q", "hipri")
    result = any_shop.task("checkpoints_and_stays").delay("go")
    wait_until(lambda: "checkpointed" in any_shop.ran(), "the task has made its checkpoint")
    worker.signal(signal.SIGQUIT)
    assert worker.wait() == 1
    (any_shop.folder / "go").touch()
    any_shop.worker("-c", "1", "-Q", "hipri")
    assert result.get(timeout=10) == "go"
    runs = [line for line in any_shop.ran() if line.startswith("start")]
    assert runs == ["start go None", "start go half"]


def test_a_checkpoint_counts_although_the_cleanup_behind_it_fails(any_shop: Shop) -> None:
    worker = any_shop.worker("-c", "1", "-Q", "hipri")
    result = any_shop.task("checkpoints_badly").delay("go")
    wait_until(lambda: any_shop.ran() == ["start go None"], "the task runs")
    assert worker.stop() == 0
    (any_shop.folder / "go").touch()
    any_shop.worker("-c", "1", "-Q", "hipri")
    assert result.get(timeout=10) == "go"
    assert any_shop.ran() == ["start go None", "start go half"]


def test_a_task_that_raises_worker_shutdown_by_itself_has_failed(any_shop: Shop) -> None:
    any_shop.worker("-c", "1", "-Q", "hipri")
    result = any_shop.task("edge").delay("WorkerShutdown")
    wait_until(lambda: result.status == "FAILURE", "the failure is stored")
    assert any_shop.depth() == 0


def test_a_shield_postpones_the_cut(any_shop: Shop, patient: dict[str, str]) -> None:
    worker = any_shop.worker("-c", "1", "-Q", "hipri", env=patient)
    any_shop.task("shielded").delay("go")
    wait_until(lambda: any_shop.ran() == ["start go"], "the task runs")
    worker.signal(signal.SIGQUIT)
    worker.wait_log("cold shutdown")
    (any_shop.folder / "go").touch()
    assert worker.wait(10) == 1
    assert any_shop.ran() == ["start go", "shielded part done"]
    assert any_shop.depth() == 1


def test_a_task_that_swallows_everything_is_killed_after_two_seconds(any_shop: Shop) -> None:
    worker = any_shop.worker("-c", "1", "-Q", "hipri")
    any_shop.task("stubborn").delay("x")
    wait_until(lambda: any_shop.ran() == ["start x"], "the task runs")
    told_at, watch = time.monotonic(), Stopwatch()
    worker.signal(signal.SIGQUIT)
    assert worker.wait(10) == 1
    assert time.monotonic() - told_at > 1.5
    assert watch.s < 8
    assert any_shop.depth() == 1
    assert any_shop.dead() == []


def test_a_second_quit_does_not_wait_for_the_stubborn(any_shop: Shop, patient: dict[str, str]) -> None:
    worker = any_shop.worker("-c", "1", "-Q", "hipri", env=patient)
    any_shop.task("stubborn").delay("x")
    wait_until(lambda: any_shop.ran() == ["start x"], "the task runs")
    for text in ("cold shutdown", "hard shutdown"):
        worker.signal(signal.SIGQUIT)
        worker.wait_log(text)
    assert worker.wait(10) == 1
    assert any_shop.depth() == 1


def test_a_task_with_checkpoints_goes_on_where_it_was_cut(any_shop: Shop) -> None:
    worker = any_shop.worker("-c", "1", "-Q", "hipri")
    result = any_shop.task("counts").delay(150, "enough")
    wait_until(lambda: any_shop.ran() == ["from 0"], "the task runs")
    assert worker.stop() == 0
    assert any_shop.depth() == 1
    (any_shop.folder / "enough").touch()
    any_shop.worker("-c", "1", "-Q", "hipri")
    assert result.get(timeout=20) == 150
    first, second = any_shop.ran()
    assert first == "from 0"
    assert int(second.removeprefix("from ")) >= 1


def test_quit_cuts_the_running_task_and_requeues_it_uncounted(any_shop: Shop) -> None:
    worker = any_shop.worker("-c", "1", "-Q", "hipri")
    result = any_shop.task("gate").delay("go")
    wait_until(lambda: any_shop.ran() == ["start go"], "the task runs")
    worker.signal(signal.SIGQUIT)
    assert worker.wait(10) == 1
    assert result.id in worker.log
    assert (any_shop.in_flight(), any_shop.depth()) == (0, 1)
    (any_shop.folder / "go").touch()
    any_shop.worker("-c", "1", "-Q", "hipri")
    assert result.get(timeout=10) == "go"
