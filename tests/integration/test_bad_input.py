"""Bad messages harm nobody: set aside with their reason, FAILURE where there is an id, and the worker goes on."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest

from qworker.tasks.encoding import encode_task
from qworker.transports import Envelope

from support import Shop, wait_until


def good(task_id: str = "bad-1", name: str = "shop.add") -> dict[str, Any]:
    envelope: dict[str, Any] = json.loads(encode_task(name, [1], task_id=task_id, queue="hipri"))
    return envelope


def changed(change: Callable[[dict[str, Any]], Any]) -> bytes:
    envelope = good()
    change(envelope)
    return json.dumps(envelope).encode()


def body(data: bytes) -> Callable[[dict[str, Any]], Any]:
    return lambda envelope: envelope.update(body=base64.b64encode(data).decode())


DEEP = b"[" * 100_000 + b"]" * 100_000
CASES = {
    "unknown task": (changed(lambda e: e["headers"].update(task="no.such")), "unknown_task", True),
    "undecodable body": (changed(body(b"\xff\xfe{")), "undecodable_body", True),
    "body that is no call": (changed(body(b"[1, 2]")), "bad_body_shape", True),
    "deeply nested body": (changed(body(b"[" + DEEP + b", {}, {}]")), "too_deep", True),
    "truncated base64": (changed(lambda e: e.update(body=e["body"][:-3])), "undecodable_body", True),
    "refused content type": (
        changed(lambda e: e.update({"content-type": "application/x-python-serialize"})),
        "refused_content_type",
        True,
    ),
    "unknown compression": (changed(lambda e: e["headers"].update(compression="x/y")), "unknown_compression", True),
    "unparsable eta": (changed(lambda e: e["headers"].update(eta="soon")), "bad_eta", True),
    "unparsable expires": (changed(lambda e: e["headers"].update(expires=[1])), "bad_expires", True),
    "no id": (changed(lambda e: e["headers"].pop("id")), "missing_header", False),
    "id that is a number": (changed(lambda e: e["headers"].update(id=5)), "bad_id", False),
    "empty id": (changed(lambda e: e["headers"].update(id="")), "bad_id", False),
    "no headers and no task in the body": (changed(lambda e: e.pop("headers")), "missing_header", False),
    "broken envelope": (b'{"body": "W10=", "headers": {"task"', "undecodable_envelope", False),
    "garbage": (bytes(range(256)), "undecodable_envelope", False),
    "nothing": (b"", "undecodable_envelope", False),
    "deeply nested envelope": (DEEP, "too_deep", False),
    "an envelope that is a list": (b"[1, 2]", "undecodable_envelope", False),
}


@pytest.mark.parametrize("case", CASES)
def test_a_bad_message_is_set_aside_and_the_worker_goes_on(any_shop: Shop, case: str) -> None:
    raw, reason, has_id = CASES[case]
    any_shop.publish(Envelope("hipri", raw))
    any_shop.worker("-c", "1", "-Q", "hipri")
    assert any_shop.task("add").delay(1).get(timeout=10) == 1
    wait_until(lambda: len(any_shop.dead()) == 1, "one dead letter")
    dead = any_shop.dead()[0]
    assert dead.reason == reason
    assert dead.raw == raw
    if has_id:
        assert any_shop.app.AsyncResult("bad-1").status == "FAILURE"
    wait_until(lambda: any_shop.in_flight() == 0, "everything is settled")


def test_a_message_above_the_size_limit_is_set_aside(any_shop: Shop) -> None:
    (any_shop.folder / "shop.py").write_text(
        (any_shop.folder / "shop.py").read_text() + "\napp.conf.worker_max_message_bytes = 100_000\n"
    )
    any_shop.worker("-c", "1", "-Q", "hipri")
    result = any_shop.task("size").delay("x" * 200_000)
    wait_until(lambda: result.status == "FAILURE", "the failure is stored")
    wait_until(lambda: any_shop.dead(), "the message is set aside")
    assert any_shop.dead()[0].reason == "oversize"
    assert any_shop.task("add").delay(1).get(timeout=10) == 1


def test_an_exception_that_cannot_be_described_is_still_a_plain_failure(any_shop: Shop) -> None:
    any_shop.worker("-c", "1", "-Q", "hipri")
    result = any_shop.task("indescribable").delay()
    wait_until(lambda: result.status == "FAILURE", "the failure is stored")
    assert any_shop.dead() == []
    assert any_shop.task("add").delay(1).get(timeout=10) == 1


def test_a_task_that_gives_its_message_back_lets_others_run_too(any_shop: Shop) -> None:
    any_shop.worker("-c", "1", "-Q", "hipri", "-l", "WARNING", "--prefetch-multiplier", "1")
    any_shop.task("gives_back").delay("again")
    wait_until(lambda: any_shop.ran(), "it has run")
    assert any_shop.task("add").delay(1).get(timeout=10) == 1
