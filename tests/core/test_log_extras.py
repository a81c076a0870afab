"""What users add to a line with `extra=`: it hides nothing of the line, and costs none."""

from __future__ import annotations

import json
import logging
import re
from typing import Any

import pytest

from qworker.core.loglines import Context, LogFormat, renderer


def line(kind: LogFormat, **extra: Any) -> str:
    """The line of an error with these."""
    record = logging.getLogger("shop").makeRecord("shop", logging.ERROR, "", 0, "boom", (), None, extra=extra)
    return renderer(kind, Context(), colour=False)(record)


def test_what_a_user_adds_to_a_line_hides_neither_its_level_nor_its_time() -> None:
    found = json.loads(line("json", level="gold", ts=0, id=7, task="mine"))
    assert (found["level"], found["level_"], found["id_"], found["task_"]) == ("ERROR", "gold", 7, "mine")
    assert re.match(r"ts=\d{4}-.* level=ERROR .* level_=gold ts_=0$", line("logfmt", level="gold", ts=0))


@pytest.mark.parametrize("value", [{(1, 2): 3}, float("nan"), [float("inf")]])
def test_what_json_has_no_word_for_costs_no_line(value: Any) -> None:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    found = json.loads(line("json", sum=value, order=5), parse_constant=refuse)
    assert (found["message"], found["sum"], found["order"]) == ("boom", repr(value), 5)
