"""A Dockerfile as a list of instructions, grouped into stages: enough for the one of this repository."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

REPO = Path(__file__).resolve().parents[3]
DOCKERFILE = REPO / "docker" / "Dockerfile"


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction; `text` is what follows the keyword, with continued lines joined."""

    keyword: str
    text: str

    def words(self) -> list[str]:
        """The words of the exec form (a JSON list), else those a shell would see."""
        return json.loads(self.text) if self.text.startswith("[") else shlex.split(self.text)


@dataclass(slots=True)
class Stage:
    """What follows one FROM. `arguments` are the ARGs with their defaults, those before the first FROM included."""

    base: str
    name: str
    arguments: dict[str, str]
    instructions: list[Instruction] = field(default_factory=list)

    def all(self, keyword: str) -> list[Instruction]:
        return [instruction for instruction in self.instructions if instruction.keyword == keyword]

    def last(self, keyword: str) -> Instruction:
        return self.all(keyword)[-1]

    def environment(self, outer: dict[str, str]) -> dict[str, str]:
        """`outer`, changed by the ENVs."""
        known = dict(outer)
        for instruction in self.all("ENV"):
            before = dict(known)
            for word in instruction.words():
                name, _, value = word.partition("=")
                known[name] = expand(value, before)
        return known


def instructions(text: str) -> list[Instruction]:
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [Instruction(*line.split(maxsplit=1)) for line in joined.splitlines()]


def stages(text: str, **chosen: str) -> list[Stage]:
    """The stages of a Dockerfile; `chosen` are build arguments."""
    found: list[Stage] = []
    general: dict[str, str] = {}
    for instruction in instructions(text):
        arguments = found[-1].arguments if found else general
        if instruction.keyword == "ARG":
            name, _, default = instruction.text.partition("=")
            arguments[name] = chosen.get(name, default)
        elif instruction.keyword == "FROM":
            base, _, name = instruction.text.partition(" AS ")
            found.append(Stage(expand(base, general), name, {}))
        else:
            found[-1].instructions.append(instruction)
    return found


def expand(text: str, values: dict[str, str]) -> str:
    """Replace `$NAME` and `${NAME}`."""
    return Template(text).safe_substitute(values)
