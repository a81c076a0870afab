"""Workers on SQS: real processes, real HTTP. Stops, deaths, long tasks, outages, retries, dead letters."""

from __future__ import annotations

import base64
import json
import os
import signal
import time
from datetime import datetime, timedelta, timezone

import pytest

from qworker import chain
from qworker.tasks.publishing import prepare

from support import Shop
from support.moto_server import MotoServer
from support.sqs_proxy import SqsProxy, throttled
from support.stopwatch import Stopwatch
from support.waiting import wait_until

#: Unless a test says otherwise.
LEASE_S = 30


def options(**given: object) -> dict[str, str]:
    return {"TEST_BROKER_OPTIONS": json.dumps(given)}


def test_a_worker_runs_what_is_published_and_leaves_nothing_behind(sqs_shop: Shop, sqs: MotoServer) -> None:
    with sqs_shop.worker() as worker:
        results = [sqs_shop.task("add").delay(n, 1) for n in range(30)]
        assert [result.get(timeout=20) for result in results] == list(range(1, 31))
        wait_until(lambda: sqs.counts("hipri") == (0, 0, 0), "everything is deleted")
        assert worker.stop() == 0


def test_retries_chains_and_countdowns_arrive(sqs_shop: Shop, sqs: MotoServer) -> None:
    sqs_shop.worker()
    assert sqs_shop.task("flaky").delay(2).get(timeout=20) == 2
    add = sqs_shop.task("add")
    assert chain(add.s(1, 2), add.s(3), add.s(4))().get(timeout=20) == 10
    started = time.time()
    assert add.apply_async((1, 1), countdown=2).get(timeout=20) == 2
    assert time.time() - started >= 2


def test_at_most_once_is_deleted_before_it_starts(sqs_shop: Shop, sqs: MotoServer) -> None:
    sqs_shop.worker()
    sqs_shop.task("once").delay("open")
    wait_until(lambda: sqs_shop.ran() == ["once open"], "the task has started")
    assert sqs.counts("hipri") == (0, 0, 0)
    (sqs_shop.folder / "open").touch()


def test_what_no_child_has_started_is_back_within_a_second_of_term(
    sqs_shop: Shop, sqs: MotoServer, proxy: SqsProxy
) -> None:
    worker = sqs_shop.worker("-c", "2", "-Q", "hipri", "-b", proxy.url)
    for number in range(12):
        sqs_shop.task("gate").delay(f"g{number}")
    wait_until(lambda: len(sqs_shop.ran()) == 2, "two run")
    wait_until(lambda: sqs.counts("hipri") == (4, 8, 0), "the window of eight is full, and no more", 20.0)
    watch = Stopwatch()
    worker.signal(signal.SIGTERM)
    wait_until(lambda: sqs.counts("hipri") == (10, 2, 0), "the other six are back", 20.0)
    assert watch.s < 1.0
    for number in range(12):
        (sqs_shop.folder / f"g{number}").touch()
    assert worker.wait() == 0
    assert all(claimed_s < LEASE_S for claimed_s in proxy.held().values())
    wait_until(lambda: sqs.counts("hipri") == (10, 0, 0), "what an abandoned poll caught is back after its short claim")


def test_what_a_cold_stop_cuts_is_back_before_the_process_ends(
    sqs_shop: Shop, sqs: MotoServer, proxy: SqsProxy
) -> None:
    worker = sqs_shop.worker("-c", "2", "-Q", "hipri", "-b", proxy.url)
    for number in range(5):
        sqs_shop.task("careful").delay(f"g{number}")
    wait_until(lambda: len(sqs_shop.ran()) == 2, "two run")
    worker.signal(signal.SIGQUIT)
    assert worker.wait() == 1
    left = proxy.held().values()
    assert all(claimed_s < LEASE_S for claimed_s in left), "only what a long poll caught that had to be abandoned"
    wait_until(lambda: sqs.counts("hipri") == (5, 0, 0), "and that is back after its short claim")


def test_an_idle_worker_stops_in_time_although_a_long_poll_is_in_flight(
    sqs_shop: Shop, sqs: MotoServer, proxy: SqsProxy
) -> None:
    worker = sqs_shop.worker("-c", "2", "-Q", "hipri", "-b", proxy.url)
    wait_until(lambda: proxy.begun["ReceiveMessage"], "the poll of 10 s has begun")
    watch = Stopwatch()
    os.kill(worker.pid, signal.SIGTERM)
    assert worker.wait() == 0
    assert watch.s < 1.5
    # What the abandoned poll may still catch is back soon, not after a lease.
    sqs_shop.task("add").delay(1, 1)
    wait_until(lambda: sqs.counts("hipri") == (1, 0, 0), "the message waits for somebody else")


def test_a_killed_worker_s_messages_come_back_when_its_claims_end(
    sqs_shop: Shop, sqs: MotoServer, proxy: SqsProxy
) -> None:
    lease = {"TEST_LEASE": "4"}
    doomed = sqs_shop.worker("-c", "2", "-Q", "hipri", "-b", proxy.url, env=lease)
    for number in range(4):
        sqs_shop.task("gate").delay(f"g{number}")
    wait_until(lambda: len(sqs_shop.ran()) >= 2, "two run")
    before = len(proxy.of("ChangeMessageVisibilityBatch"))
    wait_until(lambda: len(proxy.of("ChangeMessageVisibilityBatch")) > before, "claims have been renewed")
    os.kill(doomed.pid, signal.SIGKILL)
    watch = Stopwatch()
    for number in range(4):
        (sqs_shop.folder / f"g{number}").touch()
    sqs_shop.worker(env=lease)
    wait_until(lambda: sum(line.startswith("end") for line in sqs_shop.ran()) >= 4, "all four have run")
    assert watch.s < 4 + 5


def test_a_task_longer_than_lease_and_visibility_timeout_runs_once(sqs_shop: Shop, sqs: MotoServer) -> None:
    url = f"{sqs.endpoint}/123456789012/hipri"
    sqs.client.set_queue_attributes(QueueUrl=url, Attributes={"VisibilityTimeout": "5"})
    for _ in range(2):
        sqs_shop.worker(env={"TEST_LEASE": "8"})
    result = sqs_shop.task("gate").delay("open")
    wait_until(lambda: sqs_shop.ran() == ["start open"], "it runs")
    deadline = time.monotonic() + 11  # longer than both
    while time.monotonic() < deadline:
        assert sqs.counts("hipri")[0] == 0, "never visible to anybody else"
        time.sleep(0.1)
    (sqs_shop.folder / "open").touch()
    assert result.get(timeout=20) == "open"
    assert sqs_shop.ran() == ["start open", "end open"]


def test_a_missing_queue_stops_the_start_with_its_name_and_region(sqs_shop: Shop) -> None:
    worker = sqs_shop.worker("-c", "1", "-Q", "hipri,nowhere", ready=False)
    assert worker.wait() == 4
    assert "'nowhere' in the region us-east-1" in worker.log


def test_a_time_limit_that_no_claim_reaches_is_refused(sqs_shop: Shop) -> None:
    worker = sqs_shop.worker("-c", "1", "-Q", "hipri", "--time-limit", "50000", ready=False)
    assert worker.wait() == 4
    assert "43200" in worker.log


def test_a_quiet_worker_takes_nothing_and_hides_nothing(sqs_shop: Shop, sqs: MotoServer) -> None:
    worker = sqs_shop.worker()
    worker.signal(signal.SIGTSTP)
    worker.wait_log("quiet")
    results = [sqs_shop.task("add").delay(n, 0) for n in range(3)]
    wait_until(lambda: sqs.counts("hipri") == (3, 0, 0), "its last poll has given back what it caught")
    worker.signal(signal.SIGCONT)
    assert [result.get(timeout=20) for result in results] == [0, 1, 2]


def test_a_child_s_crashes_are_counted_and_the_third_goes_to_the_dead_letter_queue(
    sqs_shop: Shop, sqs: MotoServer
) -> None:
    sqs.queue("dead")
    sqs_shop.worker(env=options(dead_letter_queue="dead"))
    result = sqs_shop.task("kill_child").delay("died")
    wait_until(lambda: sqs.counts("dead")[0] == 1, "it is dead")
    assert sqs_shop.ran() == ["died"] * 3
    wait_until(lambda: sqs.counts("hipri") == (0, 0, 0), "and gone from its queue")
    (letter,) = sqs.receive("dead")
    attributes = {name: value["StringValue"] for name, value in letter["MessageAttributes"].items()}
    assert (attributes["qworker.reason"], attributes["qworker.queue"]) == ("crashed", "hipri")
    assert "SIGKILL" in attributes["qworker.details"]
    with pytest.raises(Exception, match="SIGKILL"):
        result.get(timeout=20)


def test_an_unknown_task_is_left_to_the_queue_s_redrive_policy(sqs_shop: Shop, sqs: MotoServer) -> None:
    sqs.queue("dead")
    policy = json.dumps({"deadLetterTargetArn": sqs.arn("dead"), "maxReceiveCount": 3})
    url = f"{sqs.endpoint}/123456789012/hipri"
    sqs.client.set_queue_attributes(QueueUrl=url, Attributes={"RedrivePolicy": policy})
    worker = sqs_shop.worker()
    sqs_shop.app.send_task("shop.nosuch", queue="hipri")
    wait_until(lambda: sqs.counts("dead")[0] == 1, "SQS has moved it")
    assert "left to the redrive policy" in worker.log
    assert sqs_shop.task("add").delay(1, 1).get(timeout=20) == 2


def test_a_bad_message_that_nobody_wants_is_hidden_and_told(sqs_shop: Shop, sqs: MotoServer) -> None:
    worker = sqs_shop.worker()
    sqs.send("hipri", "this is no task")
    worker.wait_log("it is hidden for 11 h at a time")
    wait_until(lambda: sqs.counts("hipri") == (0, 1, 0), "it is there and out of sight")


def test_throttling_is_waited_out(sqs_shop: Shop, sqs: MotoServer, proxy: SqsProxy) -> None:
    for action in ("ReceiveMessage", "DeleteMessageBatch", "ChangeMessageVisibilityBatch"):
        proxy.break_(action, throttled, 3)
    worker = sqs_shop.worker("-c", "2", "-Q", "hipri", "-b", proxy.url, env=options(socket_timeout=30))
    results = [sqs_shop.task("add").delay(n, 1) for n in range(15)]
    assert [result.get(timeout=30) for result in results] == list(range(1, 16))
    wait_until(lambda: sqs.counts("hipri") == (0, 0, 0), "everything is deleted")
    assert "reconnecting" not in worker.log


def test_acks_survive_an_outage(sqs_shop: Shop, sqs: MotoServer, proxy: SqsProxy) -> None:
    worker = sqs_shop.worker("-c", "2", "-Q", "hipri", "-b", proxy.url)
    results = [sqs_shop.task("gate").delay(f"g{number}") for number in range(2)]
    wait_until(lambda: len(sqs_shop.ran()) == 2, "two run")
    proxy.is_cut = True
    for number in range(2):
        (sqs_shop.folder / f"g{number}").touch()
    wait_until(lambda: len(sqs_shop.ran()) == 4, "both have ended")
    worker.wait_log("reconnecting")
    assert sqs.counts("hipri") == (0, 2, 0)
    proxy.is_cut = False
    # Not before: a worker that has noticed the outage keeps results back as well, until it knows what is still its own.
    assert [result.get(timeout=20) for result in results] == ["g0", "g1"]
    wait_until(lambda: sqs.counts("hipri") == (0, 0, 0), "the acks have arrived")
    assert sqs_shop.task("add").delay(1, 1).get(timeout=20) == 2
    assert len(sqs_shop.ran()) == 4, "nothing has run twice"


def test_an_eta_of_a_foreign_producer_waits_on_the_queue_and_not_in_a_child(sqs_shop: Shop, sqs: MotoServer) -> None:
    worker = sqs_shop.worker("-c", "2", "-Q", "hipri", "-l", "DEBUG")

    def send(name: str, wait_s: float) -> str:
        """A message that comes at once although it is early."""
        found = json.loads(prepare(sqs_shop.app, "shop.noted", [name], queue="hipri").envelope.raw)
        found["headers"]["eta"] = (datetime.now(timezone.utc) + timedelta(seconds=wait_s)).isoformat()
        sqs.send("hipri", base64.b64encode(json.dumps(found).encode()).decode())
        return str(found["headers"]["id"])

    worker.wait_log(f"{send('much later', 600)}] waits on the broker for")
    wait_until(lambda: sqs.counts("hipri") == (0, 1, 0), "it is out of sight")
    started = time.time()
    send("late", 3)
    wait_until(lambda: sqs_shop.ran() == ["late"], "it has run when it was time")
    assert time.time() - started >= 3


def test_a_worker_that_stood_still_loses_its_claims_and_acks_nothing(sqs_shop: Shop, sqs: MotoServer) -> None:
    lease = {"TEST_LEASE": "5"}
    frozen = sqs_shop.worker("-c", "1", "-Q", "hipri", env=lease)
    result = sqs_shop.task("gate").delay("open")
    wait_until(lambda: len(sqs_shop.ran()) == 1, "it runs")
    os.kill(frozen.pid, signal.SIGSTOP)
    other = sqs_shop.worker("-c", "1", "-Q", "hipri", env=lease)
    wait_until(lambda: len(sqs_shop.ran()) >= 2, "the other one has it")
    os.kill(frozen.pid, signal.SIGCONT)
    frozen.wait_log("lease lost")
    (sqs_shop.folder / "open").touch()
    assert result.get(timeout=20) == "open"
    wait_until(lambda: sqs.counts("hipri") == (0, 0, 0), "it is deleted")
    assert frozen.stop() == other.stop() == 0


def test_children_share_what_publishing_needs_instead_of_importing_it_each(sqs_shop: Shop, sqs: MotoServer) -> None:
    sqs_shop.write(
        (sqs_shop.folder / "shop.py").read_text()
        + "\n@app.task(queue='hipri')\ndef has_imported():\n"
        + "    import sys\n    return 'botocore.client' in sys.modules\n"
    )
    sqs_shop.app = sqs_shop._import()
    sqs_shop.worker()
    assert sqs_shop.task("has_imported").delay().get(timeout=20) is True
