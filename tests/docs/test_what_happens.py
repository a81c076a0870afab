"""Every row of "What happens to my task when …" names tests that there are."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "what-happens.md"


def rows() -> list[str]:
    """The rows of all tables, without their heads."""
    lines = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| ")]
    return [line for line in lines if not line.startswith("| when … ")]


def test_every_row_has_a_test_that_shows_it() -> None:
    assert len(rows()) > 50
    bare = [row for row in rows() if not re.search(r"\(\.\./tests/\S+\.py\) ?[|,]", row.split(" | ")[-1])]
    assert bare == []


def test_every_test_of_the_page_exists() -> None:
    named = [found for row in rows() for found in re.findall(r"\[([^\]]+)\]\((\.\./tests/[^)]+)\)", row)]
    missing = [(words, file) for words, file in named if not exists(words, PAGE.parent / file)]
    assert missing == []


def exists(words: str, file: Path) -> bool:
    """Whether `file` has a test whose name is this sentence."""
    name = "test_" + words.replace(" ", "_")
    return re.search(rf"^def {name}\(", file.read_text("utf-8"), re.MULTILINE) is not None
