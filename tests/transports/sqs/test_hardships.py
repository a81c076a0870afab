"""What AWS, networks and operators do to a worker on SQS: it has to end without loss, and without a second run."""

from __future__ import annotations

import logging
import socket
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qworker.core.clock import SystemClock
from qworker.core.errors import TransportError
from qworker.transports import Ack, Delivery, Rejection, Transport, open_transport
from qworker.transports.sqs_errors import Trouble, trouble_of
from qworker.transports.sqs_settling import _HANDED_OUT_S
from qworker.transports.sqs_wire import decode_body

from support.messages import envelope, envelopes, numbers_of
from support.moto_server import MotoServer
from support.sqs_proxy import SqsProxy, throttled
from support.sqs_workers import QUICK, OpenSqs, OpenWorker, PatientTransport
from support.waiting import wait_until


def refused(code: str, status: int = 400, said: str = "no") -> Callable[[dict[str, Any]], tuple[int, dict[str, Any]]]:
    return lambda asked: (status, {"__type": f"com.amazonaws.sqs#{code}", "message": said})


def releases(proxy: SqsProxy) -> list[dict[str, Any]]:
    """Requests that made messages visible again."""
    changes = proxy.of("ChangeMessageVisibilityBatch")
    return [r.asked for r in changes if any(e["VisibilityTimeout"] == 0 for e in r.asked["Entries"])]


@pytest.mark.parametrize(
    ("code", "status", "said", "expected"),
    [
        ("RequestExpired", 400, "", Trouble.SKEWED),
        ("SignatureDoesNotMatch", 403, "Signature expired: 20200101T000000Z is now earlier than …", Trouble.SKEWED),
        ("InvalidSignatureException", 400, "Signature not yet current: …", Trouble.SKEWED),
        ("SignatureDoesNotMatch", 403, "The request signature we calculated does not match", Trouble.REFUSED),
        ("InvalidSignatureException", 400, "", Trouble.REFUSED),
        ("KMS.DisabledException", 400, "", Trouble.REFUSED),
        ("com.amazonaws.sqs#KmsInvalidState", 400, "", Trouble.REFUSED),
        ("KMS.ThrottlingException", 400, "", Trouble.BUSY),
        ("RequestTimeoutException", 408, "", Trouble.BUSY),
        ("SomethingNew", 403, "", Trouble.REFUSED),
        ("SomethingNew", 400, "", Trouble.WRONG),
        ("404", 404, "Not Found", Trouble.BUSY),
        ("400", 400, "Bad Request", Trouble.BUSY),
        ("502", 502, "Bad Gateway", Trouble.BUSY),
    ],
)
def test_only_what_sqs_says_of_a_message_is_held_against_it(
    code: str, status: int, said: str, expected: Trouble
) -> None:
    assert trouble_of(code, status, said) is expected


def test_acks_wait_for_a_clock_that_is_set_right(open_sqs: OpenSqs, sqs: MotoServer, proxy: SqsProxy) -> None:
    worker = open_sqs()
    worker.publish(envelopes(3))
    taken = worker.reserve(["hipri"], 3)
    proxy.break_("DeleteMessageBatch", refused("RequestExpired", 400), 3)
    worker.ack([Ack(delivery) for delivery in taken])
    assert sqs.counts("hipri") == (0, 0, 0)


def test_a_throttled_batch_is_repeated_as_one_request(
    open_sqs: OpenSqs, proxy: SqsProxy, travels_together: None
) -> None:
    worker = open_sqs()
    worker.publish(envelopes(10))
    taken = worker.reserve(["hipri"], 10)
    proxy.break_("DeleteMessageBatch", throttled, 2)
    worker.ack([Ack(delivery) for delivery in taken])
    assert [len(request.asked["Entries"]) for request in proxy.of("DeleteMessageBatch")] == [10, 10, 10]


def test_throttling_does_not_let_messages_of_a_group_overtake(open_worker: OpenWorker, proxy: SqsProxy) -> None:
    worker = open_worker("line.fifo", **QUICK)
    proxy.break_("SendMessageBatch", throttled, 2)
    worker.publish(envelopes(30, queue="line.fifo"))
    accepted = [
        request.asked["Entries"] for request in proxy.of("SendMessageBatch") if "Successful" in request.answered
    ]
    bodies = [decode_body(entry["MessageBody"]) for entries in accepted for entry in entries]
    assert numbers_of([Delivery("", "line.fifo", body) for body in bodies]) == list(range(30))


def test_each_poll_of_a_fifo_queue_has_an_attempt_of_its_own_until_an_answer_is_lost(
    open_worker: OpenWorker, sqs: MotoServer, proxy: SqsProxy
) -> None:
    worker = open_worker("line.fifo", **QUICK)
    for at in range(60):
        sqs.send("line.fifo", "a body", MessageGroupId=f"g{at}", MessageDeduplicationId=f"d{at}")
    del proxy.requests[:]
    proxy.drops["ReceiveMessage"] = 1
    wait_until(lambda: _takes(worker, "line.fifo", 60) and len(proxy.of("ReceiveMessage")) > 6, "it polls", 15.0)
    attempts = Counter(request.asked["ReceiveRequestAttemptId"] for request in proxy.of("ReceiveMessage"))
    assert sorted(attempts.values())[-2:] == [1, 2], "the lost one is repeated, and no other"


def _takes(worker: Transport, queue: str, limit: int) -> bool:
    try:
        worker.reserve([queue], limit)
    except TransportError:
        worker.connect()
    return True


def test_a_message_of_a_group_that_comes_again_while_we_hold_it_runs_once(
    open_worker: OpenWorker, sqs: MotoServer
) -> None:
    worker = open_worker("line.fifo", **QUICK)
    worker.publish([envelope(0, queue="line.fifo")])
    first = _one(worker, "line.fifo")
    (claim,) = worker._claims.all()
    hide(sqs, claim.received.handle, 0, "line.fifo")
    wait_until(lambda: not worker.reserve(["line.fifo"], 5) and sqs.counts("line.fifo")[1] == 1, "it has come again")
    worker.ack([Ack(first)])
    wait_until(lambda: sqs.counts("line.fifo") == (0, 0, 0), "the newer receipt is deleted", 10.0)
    assert worker.reserve(["line.fifo"], 5) == []


def _one(worker: Transport, queue: str) -> Any:
    got: list[Any] = []
    wait_until(lambda: got.extend(worker.reserve([queue], 1)) or got, "a message has come")
    return got[0]


def test_a_release_whose_answer_was_lost_is_not_repeated(open_sqs: OpenSqs, sqs: MotoServer, proxy: SqsProxy) -> None:
    worker = open_sqs()
    worker.publish(envelopes(1))
    taken = worker.reserve(["hipri"], 1)
    proxy.drops["ChangeMessageVisibilityBatch"] = 1
    worker.requeue(taken)
    assert len(releases(proxy)) == 1, "somebody else may have it by now"
    assert sqs.counts("hipri") == (1, 0, 0)


def test_nothing_is_released_or_sent_anew_after_its_claim_has_ended(
    open_sqs: OpenSqs, sqs: MotoServer, proxy: SqsProxy
) -> None:
    worker = open_sqs()
    worker.publish(envelopes(2))
    taken = worker.reserve(["hipri"], 2)
    claims = worker._claims.all()
    proxy.break_("ChangeMessageVisibilityBatch", throttled, 1000)
    proxy.break_("SendMessageBatch", throttled, 1000)
    super(PatientTransport, worker).requeue(taken[:1])
    super(PatientTransport, worker).requeue(taken[1:], crashed=True)
    told_at = time.monotonic()
    for claim in claims:
        claim.until -= 30
        hide(sqs, claim.received.handle, 0)
    elsewhere = sqs.receive("hipri", visible_s=60)
    wait_until(lambda: time.monotonic() > told_at + _HANDED_OUT_S, "nothing of the claims is certain any more")
    proxy.faults.clear()
    assert worker._outbox.flush(60)
    assert len(elsewhere) == 2
    assert sqs.counts("hipri") == (0, 2, 0), "what another worker has stays its own"


def hide(sqs: MotoServer, receipt: str, seconds: int, queue: str = "hipri") -> None:
    """Behind the worker's back."""
    url = f"{sqs.endpoint}/123456789012/{queue}"
    sqs.client.change_message_visibility(QueueUrl=url, ReceiptHandle=receipt, VisibilityTimeout=seconds)


def test_an_answer_that_was_long_under_way_is_renewed_before_it_is_handed_over(
    open_sqs: OpenSqs, proxy: SqsProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = SystemClock().boottime
    worker = open_sqs()
    worker.publish(envelopes(12))
    monkeypatch.setattr("qworker.transports.sqs_lanes._boottime", lambda: now() - 20)  # when each was sent
    taken = worker.reserve(["hipri"], 12)
    renewed = [e["VisibilityTimeout"] for r in proxy.of("ChangeMessageVisibilityBatch") for e in r.asked["Entries"]]
    assert (len(taken), renewed) == (12, [30] * 12)


def test_a_queue_that_is_deleted_does_not_stop_the_others(
    open_worker: OpenWorker, sqs: MotoServer, proxy: SqsProxy, caplog: pytest.LogCaptureFixture
) -> None:
    worker = open_worker("hipri", "lopri", **QUICK)
    both, lopri = ["hipri", "lopri"], worker._polls._lanes["lopri"]
    wait_until(lambda: not worker.reserve(both, 20) and worker._polls.has_heard("lopri", 60), "it has been polled")
    sqs.client.delete_queue(QueueUrl=f"{sqs.endpoint}/123456789012/lopri")
    wait_until(lambda: not worker.reserve(both, 20) and lopri.failures, "it has been missed")
    got: list[Delivery] = []
    while len(got) < 30 or lopri.failures < 3:
        worker.publish([envelope(len(got))])
        count = len(got) + 1
        wait_until(lambda count=count: got.extend(worker.reserve(both, 20)) or len(got) == count, "it comes")  # type: ignore[misc, func-returns-value]
        worker.extend([])
        worker.depths(both)
    assert numbers_of(got) == list(range(len(got)))
    worker.connect()
    told = [r for r in caplog.records if "lopri" in r.getMessage() and r.levelno == logging.ERROR]
    assert len(told) == 1


def test_what_runs_of_a_deleted_queue_may_end(open_sqs: OpenSqs, sqs: MotoServer, proxy: SqsProxy) -> None:
    worker = open_sqs()
    worker.publish(envelopes(1))
    taken = worker.reserve(["hipri"], 1)
    (claim,) = worker._claims.all()
    claim.until -= 10  # so that it is renewed
    sqs.client.delete_queue(QueueUrl=f"{sqs.endpoint}/123456789012/hipri")
    before = proxy.begun["ChangeMessageVisibilityBatch"]
    assert worker.extend(taken).lost == []
    assert proxy.begun["ChangeMessageVisibilityBatch"] > before
    assert worker.ack([Ack(taken[0])]).lost == []


def test_throttling_that_does_not_end_is_told_once_and_so_is_its_end(
    open_worker: OpenWorker, proxy: SqsProxy, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    worker = open_worker("hipri", **QUICK)
    proxy.break_("ReceiveMessage", throttled, 7)
    wait_until(lambda: not worker.reserve(["hipri"], 5) and "come from hipri again" in caplog.text, "it is over", 60.0)
    assert [r.levelname for r in caplog.records if "RequestThrottled" in r.getMessage()] == ["WARNING"]


def test_a_worker_that_may_not_look_connects_again(open_worker: OpenWorker, proxy: SqsProxy) -> None:
    proxy.break_("GetQueueAttributes", refused("AccessDenied", 403), 1000)
    worker = open_worker("hipri", **QUICK)
    worker.connect()
    assert worker.depths(["hipri"])["hipri"] in (0, 1)


def test_credentials_that_were_replaced_where_they_come_from_are_found(
    sqs: MotoServer, proxy: SqsProxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sqs.queue("hipri")
    file = tmp_path / "credentials"
    file.write_text("[default]\naws_access_key_id=OLD\naws_secret_access_key=a\n")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    worker = open_transport(f"sqs://127.0.0.1:{proxy.port}", options=QUICK, owner="w/1", queues=["hipri"])
    worker.connect()
    wait_until(lambda: worker.reserve(["hipri"], 1) or proxy.of("ReceiveMessage"), "it polls")
    proxy.break_("ReceiveMessage", refused("ExpiredToken", 403), 1)
    file.write_text("[default]\naws_access_key_id=NEW\naws_secret_access_key=b\n")
    with pytest.raises(TransportError, match="ExpiredToken"):
        wait_until(lambda: worker.reserve(["hipri"], 1), "it is refused")
    worker.connect()
    keys = {account.key_id for account in worker._clients._sessions}
    assert keys == {None}
    (session,) = worker._clients._sessions.values()
    assert session.get_credentials().access_key == "NEW"
    worker.close()


def test_an_ack_that_cannot_be_prepared_settles_nothing_and_can_be_repeated(
    open_sqs: OpenSqs, sqs: MotoServer, proxy: SqsProxy
) -> None:
    sqs.queue("next")
    worker = open_sqs()
    worker.publish(envelopes(2))
    first, second = worker.reserve(["hipri"], 2)
    proxy.break_("GetQueueUrl", refused("InternalFailure", 500), 1)
    acks = [Ack(first), Ack(second, [envelope(7, queue="next")])]
    with pytest.raises(TransportError):
        worker.ack(acks)
    assert worker.ack(acks).lost == []
    assert (sqs.counts("hipri"), sqs.counts("next")) == ((0, 0, 0), (1, 0, 0))


def test_a_hidden_message_is_reported_each_time_it_is_hidden(
    open_sqs: OpenSqs, sqs: MotoServer, caplog: pytest.LogCaptureFixture
) -> None:
    worker = open_sqs()
    worker.publish(envelopes(1))
    (delivery,) = worker.reserve(["hipri"], 1)
    (claim,) = worker._claims.all()
    worker.reject([Rejection(delivery, "unknown_task")])
    hide(sqs, claim.received.handle, 0)
    assert worker.reserve(["hipri"], 1) == []
    assert len([r for r in caplog.records if "unknown_task" in r.getMessage()]) == 2


def test_a_role_s_token_is_not_waited_for_without_end(sqs: MotoServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", f"http://127.0.0.1:{silent.getsockname()[1]}")
        worker = open_transport(
            sqs.url,
            options={"sts_role_arn": "arn:aws:iam::123456789012:role/worker", "socket_timeout": 0.3},
            owner="w/1",
            queues=["hipri"],
        )
        before = time.monotonic()
        with pytest.raises(TransportError):
            worker.connect()
        assert time.monotonic() - before < 20
        worker.close()
