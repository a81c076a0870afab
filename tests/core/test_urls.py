"""URLs are shown without what is secret in them, also those that were written wrongly."""

from __future__ import annotations

import pytest

from qworker.core.urls import redact


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://h:6379/0", "redis://h:6379/0"),
        ("redis://[::1]:6379/0", "redis://[::1]:6379/0"),
        ("redis://[::1]/0", "redis://[::1]/0"),
        ("redis://:hunter22@h/0", "redis://:**@h/0"),
        ("redis://user:hunter22@h:1/0", "redis://user:**@h:1/0"),
        ("redis://h/0?password=hunter22&db=1", "redis://h/0?password=**&db=1"),
        ("redis://:hunter/22@h:1/0", "redis://**@h:1/0"),
        ("redis://:hunter?22@h:1/0", "redis://**@h:1/0"),
        ("redis://:hunter#22@h:1/0", "redis://**@h:1/0"),
        ("redis://:hunter/22", "redis://:**"),
        ("redis://:hun@ter/22@h:1/0", "redis://**@h:1/0"),
        ("redis://:hun@ter/2#2@h:1/0", "redis://**@h:1/0"),
        ("redis://:hun@ter?22@h:1/0?db=1", "redis://**@h:1/0"),
        ("redis://:hun@ter@h:1/0", "redis://:**@h:1/0"),
        ("redis://u@h:1/0?client_name=a@b", "redis://u@h:1/0?client_name=a%40b"),
        ("redis://h:port/0", "redis://h:**"),
        ("sentinel://:hunter22@a:1;sentinel://:hun/ter@b:2", "sentinel://:**@a:1;sentinel://**@b:2"),
        ("redis+socket:///run/redis.sock?virtual_host=1", "redis+socket:///run/redis.sock?virtual_host=1"),
        ("sqlite:////srv/a@b/q.db", "sqlite:////srv/a@b/q.db"),
        ("user:hunter22@h", "**@h"),
        ("redis://[:hunter22@h", "redis://**"),
    ],
)
def test_a_url_is_shown_without_its_secrets(url: str, shown: str) -> None:
    assert redact(url) == shown
