"""Links lead somewhere, anchors too, code can be read, and every command line on a page is one that qworker takes."""

from __future__ import annotations

import ast
import json
import re
import shlex
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import click
import pytest

from qworker.cli.root import root

import made

REPO = Path(made.__file__).resolve().parent.parent.parent
PAGES = sorted([*REPO.glob("*.md"), *(REPO / "docs").glob("*.md")])
SITE = sorted(page for page in PAGES if page.parent.name == "docs")

SHELL = {"&&", "||", ";", ">", "&"}  # where one command of a line ends

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def text_of(page: Path) -> str:
    return made.fill(page.read_text("utf-8"))


def prose(page: Path) -> str:
    """The page without its code."""
    return re.sub(r"```.*?^```$", "", text_of(page), flags=re.MULTILINE | re.DOTALL)


def blocks(page: Path, *languages: str) -> list[str]:
    found = re.findall(r"^```([\w-]+)\n(.*?)^```$", text_of(page), re.MULTILINE | re.DOTALL)
    return [text for language, text in found if language in languages]


@each_page
def test_links_lead_to_files_and_anchors(page: Path) -> None:
    lost = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        place, _, anchor = link.partition("#")
        if "://" in place:
            continue
        target = page.parent / place if place else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            lost.append(link)
    assert lost == []


def anchors(page: Path) -> set[str]:
    heads = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", head) for head in heads)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in plain}


@pytest.mark.parametrize("page", SITE, ids=lambda page: page.name)
def test_every_page_is_in_the_navigation_once(page: Path) -> None:
    trees = re.findall(r"```\{toctree\}\n(.*?)```", (REPO / "docs" / "index.md").read_text("utf-8"), re.DOTALL)
    entries = [line for tree in trees for line in tree.splitlines() if line and not line.startswith(":")]
    assert entries.count(page.stem) == (page.stem != "index")


@pytest.mark.parametrize("page", SITE, ids=lambda page: page.name)
def test_every_page_begins_with_a_title_and_a_sentence(page: Path) -> None:
    text = page.read_text("utf-8")
    if text.startswith("```{include}"):
        return  # begins as the page that it includes
    title, _, rest = text.partition("\n")
    assert title.startswith("# ")
    assert re.match(r"\n[A-Z`*\[\"]", rest), rest[:60]


@each_page
def test_python_and_json_on_a_page_can_be_read(page: Path) -> None:
    for code in blocks(page, "python"):
        if not code.startswith(">>>"):
            ast.parse(code)
    for data in blocks(page, "json"):
        json.loads(data)


@each_page
def test_every_command_line_on_a_page_is_one_that_qworker_takes(page: Path) -> None:
    refused = {}
    for words in command_lines(page):
        try:
            parse(words)
        except click.ClickException as error:
            if not is_name_of_group(words):
                refused[" ".join(words)] = error.format_message()
    assert refused == {}


def is_name_of_group(words: list[str]) -> bool:
    """Whether a sentence speaks of all commands of a group: `qworker dead`."""
    return len(words) == 1 and isinstance(root.get_command(click.Context(root), words[0]), click.Group)


def command_lines(page: Path) -> Iterator[list[str]]:
    """`qworker …` in blocks and in backticks, where it is meant to be typed as it stands."""
    inline = re.findall(r"`(qworker [^`]+)`", prose(page))
    typed = [
        line for block in blocks(page, "sh", "console") for line in re.findall(r"^(?:\$ )?(qworker .*)$", block, re.M)
    ]
    for line in [*inline, *typed]:
        words = shlex.split(line, comments=True)
        if not re.search(r"[…\[{<]|COMMAND", " ".join(words[1:2])) and "…" not in line and "|" not in line:
            yield list(takewhile(lambda word: word not in SHELL, words[1:]))


@pytest.fixture(autouse=True)
def nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Command lines are read, groups find their commands, and there it ends."""
    monkeypatch.setattr(click.Command, "invoke", lambda self, ctx: None)


def parse(words: list[str]) -> None:
    """Have `words` read as the command line would."""
    root.main(list(words), prog_name="qworker", standalone_mode=False)


@pytest.mark.parametrize("words", [["-A", "x", "--concurency", "3"], ["quues"], ["dead", "lst"], ["-c", "0"]])
def test_a_wrong_command_line_would_be_found(words: list[str]) -> None:
    with pytest.raises(click.ClickException):
        parse(words)
