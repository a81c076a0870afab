"""What `pip install` brings: the packages of setup.cfg, which are the folders, and nothing beside `qworker`."""

from __future__ import annotations

import configparser
import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
AT_HOME = {"tests", "bench", "docs", "examples"}  # folders that are never installed


def setup_cfg() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(REPO / "setup.cfg", encoding="utf-8")
    return parser


def folders() -> set[str]:
    """Every folder with an `__init__.py` as a dotted package name, `qworker` for the root."""
    inits = (init.parent.relative_to(REPO).parts for init in REPO.rglob("__init__.py"))
    return {".".join(("qworker", *parts)) for parts in inits if not _is_home(parts)}


def _is_home(parts: tuple[str, ...]) -> bool:
    return bool(parts) and (parts[0] in AT_HOME or parts[0] in {"build", "dist"} or parts[0].startswith("."))


def installed() -> set[str]:
    """The installed files of the distribution, as paths relative to site-packages, without bytecode."""
    files = importlib.metadata.files("qworker") or []
    return {str(file) for file in files if file.suffix != ".pyc"}


def test_the_package_list_equals_the_folders() -> None:
    listed = set(setup_cfg()["options"]["packages"].split())
    assert listed == folders()


def test_nothing_but_qworker_reaches_site_packages() -> None:
    tops = {file.split("/")[0] for file in installed()}
    assert {top for top in tops if not top.startswith((".", "qworker-"))} == {"qworker"}


def test_the_wheel_holds_exactly_the_files_of_the_checkout() -> None:
    inside = {file for file in installed() if file.startswith("qworker/")}
    packages = [REPO.joinpath(*name.split(".")[1:]) for name in folders()]
    wanted = [file for package in packages for file in package.glob("*.py")]
    wanted += [file for room in REPO.glob("[a-z]*/__init__.py") for file in room.parent.rglob("*.lua")]
    wanted += [REPO / "py.typed", *(REPO / "systemd").glob("qworker*")]
    assert inside == {f"qworker/{file.relative_to(REPO)}" for file in wanted}


def test_tests_run_against_the_installed_package_and_not_the_checkout() -> None:
    import qworker

    assert Path(qworker.__file__).resolve().parent != REPO


def test_the_version_is_told_once() -> None:
    import qworker

    assert qworker.__version__ == setup_cfg()["metadata"]["version"] == importlib.metadata.version("qworker")


def test_every_requirement_has_a_lower_bound() -> None:
    options = setup_cfg()
    lines = options["options"]["install_requires"].split("\n")
    lines += [line for extra in options["options.extras_require"].values() for line in extra.split("\n")]
    assert [line for line in lines if line and not re.search(r">=\d", line)] == []


def test_importing_the_package_loads_no_heavy_module() -> None:
    heavy = {"asyncio", "boto3", "celery", "redis", "rich", "sqlite3"}
    code = "import sys, qworker; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert heavy.isdisjoint(done.stdout.split())
