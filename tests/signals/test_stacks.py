"""Stacks of a process that may write no file."""

from __future__ import annotations

import tempfile

import pytest

from qworker.signals import own_stacks


def test_stacks_need_no_place_on_a_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/proc/no such folder")
    assert "test_stacks_need_no_place_on_a_disk" in own_stacks()
