"""How values are shown in messages and log lines: whole if they are short, cut off if not, never with an error."""

from __future__ import annotations

from typing import Any

import pytest

from qworker.tasks.reprs import short_repr


@pytest.mark.parametrize("value", [(), (1, "a", None, 2.5), {}, {"a": 1}, [1, (2,), {3}], "text", b"\xff", {1: [2]}])
def test_a_short_value_is_shown_as_python_shows_it(value: Any) -> None:
    assert short_repr(value) == repr(value)


class Odd:
    def __repr__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize("value", ["x" * 10**7, ["y" * 10**6] * 100, {i: i for i in range(10**5)}, (b"z" * 10**7,)])
def test_a_large_value_is_cut_off_without_being_shown_whole(value: Any) -> None:
    assert len(short_repr(value)) <= 1024 + 3
    assert short_repr(value).endswith("...")


def test_what_cannot_be_shown_is_named() -> None:
    nested: list[Any] = []
    nested.append(nested)
    assert short_repr((Odd(),)) == "(<Odd, whose repr raised RuntimeError>,)"
    assert short_repr(nested) == "[[[[[...]]]]]"
