"""Finding queues: names, prefixes, predefined ones, accounts and roles; never creating one unasked."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from qworker.core.errors import ConfigError, TransportError
from qworker.transports import Transport, open_transport
from qworker.transports.sqs_queues import sqs_name

from support.messages import envelopes
from support.moto_server import KEY_ID, SECRET, MotoServer
from support.sqs_proxy import SqsProxy


def connected(url: str, *queues: str, **options: Any) -> Transport:
    transport = open_transport(url, options=options, owner="w/1" if queues else "", queues=queues)
    transport.connect()
    return transport


@pytest.mark.parametrize(
    ("name", "prefix", "expected"),
    [
        ("a.b:c/d", "pfx-", "pfx-a-b_c_d"),
        ("f.q.fifo", "pfx-", "pfx-f-q.fifo"),
        ("celery", "", "celery"),
        ("a_b-c", "", "a_b-c"),
        ("x@y+z", "p.", "p-x_y_z"),
    ],
)
def test_names_are_made_as_kombu_makes_them(name: str, prefix: str, expected: str) -> None:
    assert sqs_name(name, prefix) == expected


@pytest.mark.parametrize("name", ["", "ü", "a b", "x" * 81])
def test_a_name_that_sqs_does_not_allow_is_refused(sqs: MotoServer, name: str) -> None:
    transport = open_transport(sqs.url)
    with pytest.raises(ConfigError, match="letters, digits"):
        transport.depths([name])
    transport.close()


def test_a_queue_is_found_by_its_name_without_listing_the_account(sqs: MotoServer, proxy: SqsProxy) -> None:
    sqs.queue("pfx-a-b")
    worker = connected(proxy.url, "a.b", queue_name_prefix="pfx-")
    worker.publish(envelopes(1, "a.b"))
    worker.close()
    assert sqs.counts("pfx-a-b")[0] == 1
    assert set(proxy.counts()) == {"GetQueueUrl", "GetQueueAttributes", "SendMessageBatch"}


def test_missing_queues_stop_a_worker_and_are_named_with_their_region(sqs: MotoServer) -> None:
    sqs.queue("there")
    with pytest.raises(ConfigError) as caught:
        connected(sqs.url, "there", "hipri", "lopri", region="eu-west-1", queue_name_prefix="x-")
    text = str(caught.value)
    assert all(word in text for word in ("'x-hipri'", "'x-lopri'", "eu-west-1", "task_create_missing_queues"))


def test_a_producer_does_not_create_a_queue_either(sqs: MotoServer) -> None:
    producer = connected(sqs.url)
    with pytest.raises(ConfigError, match="no SQS queue 'hipri' in the region us-east-1"):
        producer.publish(envelopes(1))
    producer.close()
    assert "QueueUrls" not in sqs.client.list_queues()


def test_a_missing_queue_is_created_when_that_is_wanted(sqs: MotoServer) -> None:
    options = {
        "create_missing_queues": True,
        "visibility_timeout": 77,
        "queue_tags": {"team": "a"},
        "sqs-creation-attributes": {"MessageRetentionPeriod": 3600},
    }
    worker = connected(sqs.url, "new", "new.fifo", **options)
    worker.close()
    url = sqs.client.get_queue_url(QueueName="new")["QueueUrl"]
    found = sqs.client.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    assert (found["VisibilityTimeout"], found["MessageRetentionPeriod"]) == ("77", "3600")
    assert sqs.client.list_queue_tags(QueueUrl=url)["Tags"] == {"team": "a"}
    assert sqs.client.get_queue_url(QueueName="new.fifo")


def test_a_start_says_what_the_queues_are(sqs: MotoServer, caplog: pytest.LogCaptureFixture) -> None:
    sqs.queue("dead")
    policy = f'{{"deadLetterTargetArn": "{sqs.arn("dead")}", "maxReceiveCount": 4}}'
    sqs.queue("hipri", VisibilityTimeout=45, RedrivePolicy=policy)
    sqs.queue("f.fifo")
    with caplog.at_level(logging.INFO, "qworker.transports"):
        worker = connected(sqs.url, "hipri", "f.fifo")
    said = "\n".join(record.getMessage() for record in caplog.records)
    assert "queue hipri: standard, us-east-1, visibility timeout 45 s, dead letters to dead after 4 receives" in said
    assert "queue f.fifo: FIFO, us-east-1, visibility timeout 30 s, no redrive policy" in said
    (warning,) = worker.warnings()
    assert "'f.fifo' has no redrive policy" in warning
    worker.close()


def test_a_missing_dead_letter_queue_stops_a_worker(sqs: MotoServer) -> None:
    sqs.queue("hipri")
    with pytest.raises(ConfigError, match="'graveyard'"):
        connected(sqs.url, "hipri", dead_letter_queue="graveyard")


def test_predefined_queues_are_neither_looked_up_nor_created(sqs: MotoServer, proxy: SqsProxy) -> None:
    url = sqs.queue("elsewhere").replace(str(sqs.port), str(proxy.port))
    predefined = {"my-q": {"url": url, "access_key_id": KEY_ID, "secret_access_key": SECRET}}
    worker = connected("sqs://", "my-q", predefined_queues=predefined)
    worker.publish(envelopes(1, "my-q"))
    with pytest.raises(ConfigError, match="not among the predefined_queues"):
        worker.depths(["other"])
    worker.close()
    assert sqs.counts("elsewhere")[0] == 1
    assert set(proxy.counts()) == {"GetQueueAttributes", "SendMessageBatch"}


def test_without_credentials_a_worker_says_where_they_belong(sqs: MotoServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    with pytest.raises(ConfigError, match="AWS_ACCESS_KEY_ID"):
        connected(f"sqs://127.0.0.1:{sqs.port}", "hipri")


def test_credentials_of_the_environment_are_used(sqs: MotoServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDENV")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    sqs.queue("hipri")
    connected(f"sqs://127.0.0.1:{sqs.port}", "hipri").close()


def test_refused_credentials_end_a_start(sqs: MotoServer, proxy: SqsProxy) -> None:
    sqs.queue("hipri")
    said = {"__type": "com.amazon.coral.service#InvalidClientTokenId", "message": "The security token is invalid."}
    proxy.break_("GetQueueUrl", lambda asked: (403, said))
    with pytest.raises(ConfigError, match="InvalidClientTokenId"):
        connected(proxy.url, "hipri")


def test_a_server_out_of_reach_is_worth_another_try(sqs: MotoServer, proxy: SqsProxy) -> None:
    sqs.queue("hipri")
    worker = open_transport(proxy.url, owner="w/1", queues=["hipri"])
    proxy.is_cut = True
    with pytest.raises(TransportError, match="out of reach"):
        worker.connect()
    proxy.is_cut = False
    worker.connect()
    worker.close()


def test_a_role_is_assumed_and_its_token_renewed_before_it_ends(sqs: MotoServer, proxy: SqsProxy) -> None:
    sqs.queue("hipri")
    options = {"sts_role_arn": "arn:aws:iam::123456789012:role/STSTest", "sts_token_timeout": 900}
    producer = connected(proxy.url, **options)
    producer.publish(envelopes(1))
    producer.publish(envelopes(1))
    assert proxy.counts()[""] == 1, "the token is used until it is near its end"
    (session,) = producer._directory._clients._sessions.values()  # type: ignore[attr-defined]
    later = datetime.now(timezone.utc) + timedelta(seconds=800)
    session._credentials._time_fetcher = lambda: later
    producer.publish(envelopes(1))
    assert proxy.counts()[""] == 2, "and renewed when little of it is left"
    producer.close()
    assert sqs.counts("hipri")[0] == 3


def test_a_refused_signature_shows_nothing_of_what_was_signed(sqs: MotoServer, proxy: SqsProxy) -> None:
    sqs.queue("hipri")
    text = "The request signature does not match.\n\nThe Canonical String should have been\nx-amz-security-token:s3cret"
    said = {"__type": "com.amazon.coral.service#SignatureDoesNotMatch", "message": text}
    proxy.break_("GetQueueUrl", lambda asked: (403, said))
    with pytest.raises(ConfigError, match="does not match") as caught:
        connected(proxy.url, "hipri")
    assert "s3cret" not in str(caught.value)
