"""What a broker's settings put at risk: told in sentences, and nothing else changes by asking."""

from __future__ import annotations

from qworker.transports import Transport

from support.messages import envelopes, numbers_of


def test_warnings_are_sentences_and_asking_disturbs_nothing(producer: Transport, ours: Transport) -> None:
    producer.publish(envelopes(2))
    held = ours.reserve(["hipri"], 1)
    found = [*producer.warnings(), *ours.warnings()]
    assert all(" " in text and text == text.strip() for text in found)
    assert list(ours.extend(held).lost) == []
    assert numbers_of(ours.reserve(["hipri"], 9)) == [1]
