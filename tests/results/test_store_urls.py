"""What names a result store, and what does not."""

from __future__ import annotations

import pytest

from qworker.core.errors import ConfigError
from qworker.results import open_result_store


def test_no_url_and_disabled_mean_no_store() -> None:
    assert open_result_store(None, settings={}) is None
    assert open_result_store("", settings={}) is None
    assert open_result_store("disabled://", settings={}) is None


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("rdis://:secret@localhost", "did you mean 'redis'"),
        ("sqlit:///secret.db?password=secret", "did you mean 'sqlite'"),
        ("carrier-pigeon://:secret@x", "it can be redis"),
        ("user:secret@host", "is not a URL"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("redis://:secret@localhost/abc", "which is no number"),
        ("redis://:secret@localhost:port/0", "a port that is no number"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_showing_secrets(url: str, words: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        open_result_store(url, settings={})

    assert words in str(refusal.value)
    assert ":secret" not in str(refusal.value)


@pytest.mark.parametrize("value", ["a day", -1, True])
def test_an_expiry_that_means_nothing_is_refused(value: object) -> None:
    with pytest.raises(ConfigError, match="result_expires"):
        open_result_store("sqlite:///x.db", settings={"result_expires": value})
