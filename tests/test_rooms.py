"""The import arrows between rooms: down only, relative, and through the door (the room's `__init__.py`).

Imports inside functions, under TYPE_CHECKING and by `import_module("..room")` count too: a room that needs to know a
type from above is drawn upside down. An import inside a function is allowed where it points down (heavy modules load
when they are needed).
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent

# Lower rooms first; rooms of one row are neighbours and do not import each other.
ROWS: tuple[frozenset[str], ...] = (
    frozenset({"core", "signals", "systemd"}),
    frozenset({"transports", "daemon"}),
    frozenset({"tasks"}),
    frozenset({"results"}),
    frozenset({"pool"}),
    frozenset({"worker", "beat", "monitor", "bridge"}),
    frozenset({"cli", "testing"}),
)
GROUND = ROWS[0]
ROOT = ""  # the lazy __init__.py and __main__.py above all rooms
HEIGHT = {room: height for height, row in enumerate(ROWS) for room in row} | {ROOT: len(ROWS)}

# core has no front door on purpose: importing one of its modules must not load the others (start-up time).
WITHOUT_DOOR = frozenset({"core"})


@dataclass(frozen=True)
class Arrow:
    """One import of a room by a file."""

    file: str
    line: int
    room: str
    target: str  # the room that is imported
    module: str  # the module inside it, "" for the door

    def __str__(self) -> str:
        inside = f".{self.module}" if self.module else ""
        return f"{self.file}:{self.line}: {self.room or 'root'} imports {self.target}{inside}"


def rooms() -> list[str]:
    return sorted(init.parent.name for init in REPO.glob("*/__init__.py"))


def sources() -> list[Path]:
    return [*sorted(REPO.glob("*.py")), *(file for room in rooms() for file in sorted((REPO / room).rglob("*.py")))]


def arrows_of(path: str, text: str) -> Iterator[Arrow]:
    """Yield every import of another room in the file `path` (relative to the repository)."""
    package = ["qworker", *Path(path).parent.parts]
    room = package[1] if len(package) > 1 else ROOT
    for node in ast.walk(ast.parse(text)):
        for target in _targets(node, package):
            parts = target.split(".")
            if parts[0] == "qworker" and len(parts) > 1 and parts[1] != room and parts[1] in HEIGHT:
                yield Arrow(path, getattr(node, "lineno", 0), room, parts[1], ".".join(parts[2:]))


def _targets(node: ast.AST, package: list[str]) -> list[str]:
    """Return the dotted modules that `node` imports, relative ones resolved against `package`."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.Call):
        return _called_for(node, package)
    if not isinstance(node, ast.ImportFrom):
        return []
    base = package[: len(package) - node.level + 1] if node.level else []
    module = ".".join([*base, *(node.module or "").split(".")]).strip(".")
    if module == "qworker":  # `from .. import transports` names rooms
        return [f"qworker.{alias.name}" for alias in node.names]
    return [module]


def _called_for(node: ast.Call, package: list[str]) -> list[str]:
    """Return the module of an `import_module("literal", …)`; a computed name cannot be seen."""
    called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if called != "import_module" or not node.args or not isinstance(node.args[0], ast.Constant):
        return []
    name = str(node.args[0].value)
    dots = len(name) - len(name.lstrip("."))
    return [".".join([*package[: len(package) - dots + 1], name.lstrip(".")]) if dots else name]


def all_arrows() -> list[Arrow]:
    return [a for file in sources() for a in arrows_of(str(file.relative_to(REPO)), file.read_text("utf-8"))]


def points_down(arrow: Arrow) -> bool:
    return HEIGHT[arrow.target] < HEIGHT[arrow.room]


def through_the_door(arrow: Arrow) -> bool:
    return not arrow.module or arrow.target in WITHOUT_DOOR


def test_every_room_stands_in_the_order() -> None:
    assert set(rooms()) - {"tests", "bench", "docs", "examples"} <= set(HEIGHT)


def test_no_import_points_up_or_sideways() -> None:
    assert [str(arrow) for arrow in all_arrows() if not points_down(arrow)] == []


def test_rooms_are_entered_through_their_init() -> None:
    assert [str(arrow) for arrow in all_arrows() if points_down(arrow) and not through_the_door(arrow)] == []


def test_rooms_import_each_other_relatively() -> None:
    found = []
    for file in sources():
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            found += [f"{file.relative_to(REPO)}:{node.lineno}" for n in names if n.split(".")[0] == "qworker"]
    assert found == []


def test_ground_rooms_use_the_standard_library_only() -> None:
    found = []
    for file in sources():
        room = file.relative_to(REPO).parts[0]
        for node in ast.walk(ast.parse(file.read_text("utf-8"))) if room in GROUND else ():
            outside = {name.split(".")[0] for name in _targets(node, ["qworker", room])}
            outside -= {"qworker", *sys.stdlib_module_names}
            found += [f"{file.relative_to(REPO)}: {name}" for name in sorted(outside)]
    assert found == []


def test_the_root_loads_no_room_by_itself() -> None:
    text = (REPO / "__init__.py").read_text("utf-8")
    at_import = [node for node in ast.parse(text).body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert [t for node in at_import for t in _targets(node, ["qworker"]) if t.startswith("qworker")] == []


@pytest.mark.parametrize(
    ("path", "text", "wrong"),
    [
        ("core/x.py", "from ..pool import Pool", True),
        ("transports/x.py", "def f():\n    from ..worker import Master", True),
        ("worker/x.py", "from ..beat import Beat", True),
        ("worker/x.py", "if TYPE_CHECKING:\n    from ..cli import main", True),
        ("transports/redis/x.py", "from ...results import Store", True),
        ("pool/x.py", "from .. import cli", True),
        ("pool/x.py", "import qworker.cli", True),
        ("tasks/x.py", "import_module('..results.store', __package__)", True),
        ("tasks/x.py", "importlib.import_module('qworker.results')", True),
        ("worker/x.py", "from ..pool import Pool", False),
        ("transports/redis/x.py", "from ...core.errors import QWorkerError\nfrom ..base import Transport", False),
        ("pool/x.py", "from .slots import Slot\nimport cli", False),
        ("tasks/x.py", "importlib.import_module(f'.{place}', __name__)\nimportlib.import_module('.app')", False),
    ],
)
def test_the_check_itself_sees_wrong_arrows_and_only_those(path: str, text: str, wrong: bool) -> None:
    assert any(not points_down(arrow) for arrow in arrows_of(path, text)) is wrong
