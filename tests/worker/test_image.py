"""What one program image leaves to the next in the same process, and how often that may happen."""

from __future__ import annotations

import json
import os

import pytest

from qworker.worker.image import MOST, VARIABLE, WITHIN_S, Image, Legacy


def image_after(*replaced_at: float) -> Image:
    return Image(["true"], "/", {}, Legacy(replaced_at=replaced_at))


def test_a_process_is_replaced_a_few_times_within_some_minutes_and_again_later() -> None:
    early = [1.0 * number for number in range(MOST)]
    assert image_after(*early[1:]).may_replace(10.0)
    assert not image_after(*early).may_replace(10.0)
    assert image_after(*early).may_replace(early[0] + WITHIN_S)


def test_a_legacy_is_read_once_and_removed_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, json.dumps({"pid": os.getpid(), "replaced_at": [1.5], "owner": "w/1"}))
    image = Image.of_this_process()
    assert image is not None
    assert image.legacy == Legacy(os.getpid(), [1.5], owner="w/1")
    assert VARIABLE not in os.environ


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1, "owner": "w/1"}', '{"unknown": 1}'])
def test_a_legacy_that_is_none_or_somebody_else_s_is_not_taken(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, text)
    image = Image.of_this_process()
    assert image is not None
    assert image.legacy == Legacy()
