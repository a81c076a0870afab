"""The net below all sentences: what was learned, and passwords in URLs, are in no line."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from qworker.core import secrets
from qworker.core.secrets import learn, scrub


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    before = list(secrets._known)
    yield
    secrets._known[:] = before


def test_passwords_in_urls_are_hidden_without_being_known() -> None:
    assert scrub("broker='redis://:hunter22@h:1/0', twice rediss://u:pw@h") == (
        "broker='redis://:**@h:1/0', twice rediss://u:**@h"
    )
    assert scrub("mail to a@b about http://h/x") == "mail to a@b about http://h/x"
    assert scrub("sentinel://:a-one@h1;sentinel://:b@two@h2") == "sentinel://:**@h1;sentinel://:**@h2"


@pytest.mark.timeout(60)
@pytest.mark.parametrize("text", ["x" * 400_000 + " http://h/ a@b", "@" + "a://a:" * 60_000])
def test_a_long_text_is_looked_through_once(text: str) -> None:
    # Were it looked through again from each of its letters, this would take hours, or minutes.
    assert scrub(text) == text


def test_what_settings_hold_is_hidden_however_it_is_written() -> None:
    learn(
        {
            "broker_url": "redis://:open%20sesame@h/0;redis://:other-one@h/1?ssl_password=third-one",
            "broker_transport_options": {"predefined_queues": {"q": {"secret_access_key": "fourth+one"}}},
            "redis_password": 'fifth"one',
            "result_backend": "dynamodb://KEYID99:six%2Fth-one@eu-west-1/t",
        }
    )
    text = (
        "open sesame open%20sesame other-one third-one fourth+one fourth%2Bone "
        'fifth"one fifth\\"one KEYID99 six/th-one six%2Fth-one'
    )
    assert set(scrub(text).split()) == {"**"}


def test_names_of_queues_and_files_are_no_secrets() -> None:
    learn({"broker_transport_options": {"global_keyprefix": "prefix-one", "ssl_keyfile": "/etc/key.pem"}})
    assert scrub("prefix-one /etc/key.pem") == "prefix-one /etc/key.pem"


def test_what_is_too_short_to_be_told_from_words_is_left() -> None:
    learn({"redis_password": "guest"})
    assert scrub("the guest queue") == "the guest queue"


def test_keys_of_the_environment_are_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG")
    learn({})
    assert scrub("signed with wJalrXUtnFEMI/K7MDENG") == "signed with **"
