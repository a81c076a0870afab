"""The rules that a worker's image has to keep, read off the Dockerfile; `tox -e docker` has hadolint look as well."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from qworker.cli.root import root

from support.containers import DOCKERFILE, REPO, instructions, is_ignored, stages

TEXT = DOCKERFILE.read_text("utf-8")
LAST = stages(TEXT)[-1]
ENTRYPOINT = REPO / "docker" / "entrypoint"


def test_every_stage_has_the_one_base_that_a_build_argument_names() -> None:
    assert {stage.base for stage in stages(TEXT, BASE="registry.example.com/python:3.12")} == {
        "registry.example.com/python:3.12"
    }


def test_the_base_is_slim_and_pinned_to_a_release() -> None:
    assert re.search(r":3\.\d+-slim-[a-z]+$", LAST.base)


def test_the_image_starts_as_a_numbered_user_without_rights() -> None:
    order = [instruction.keyword for instruction in LAST.instructions]
    assert re.fullmatch(r"[1-9]\d{3,}:0", LAST.last("USER").text)
    assert order.index("USER") < order.index("ENTRYPOINT")
    assert "RUN" not in order[order.index("USER") :]


@pytest.mark.parametrize("keyword", ["ENTRYPOINT", "HEALTHCHECK"])
def test_what_is_started_is_started_without_a_shell(keyword: str) -> None:
    assert re.search(r"\[\".+\"\]$", LAST.last(keyword).text)


def test_the_entrypoint_is_copied_to_where_it_is_started_and_may_be_executed() -> None:
    (target,) = LAST.last("ENTRYPOINT").words()
    assert ["docker/entrypoint", target] in [copy.words() for copy in LAST.all("COPY")]
    assert os.access(ENTRYPOINT, os.X_OK)
    assert ENTRYPOINT.read_text("utf-8").startswith("#!/bin/sh\n")


def test_nothing_is_fetched_or_left_behind() -> None:
    everything = instructions(TEXT)
    assert [
        i for i in everything if i.keyword == "ADD" or (i.keyword == "RUN" and re.search(r"curl|wget", i.text))
    ] == []
    runs = [instruction.text for instruction in everything if instruction.keyword == "RUN"]
    assert [run for run in runs if "pip" in run.split() and "--no-cache-dir" not in run] == []
    assert [run for run in runs if "apt-get install" in run and "rm -rf /var/lib/apt/lists" not in run] == []
    assert LAST.all("COPY")[0].words()[0] == "--from=venv"


def test_term_begins_a_soft_shutdown() -> None:
    environment = LAST.environment({"PATH": "/bin"})
    assert LAST.last("STOPSIGNAL").text == "SIGTERM"
    assert environment["REMAP_SIGTERM"] == "SIGQUIT"
    assert float(environment["QWORKER_SOFT_SHUTDOWN_TIMEOUT"]) == 25
    assert environment["PATH"].startswith("/opt/qworker/bin:")


def test_python_writes_at_once_and_no_bytecode() -> None:
    environment = LAST.environment({"PATH": "/bin"})
    assert environment["PYTHONUNBUFFERED"] == environment["PYTHONDONTWRITEBYTECODE"] == "1"


@pytest.mark.parametrize(
    "path", [".git", ".env", "tests", "docs", "core/__pycache__", "shop.db", "key.pem", "prod.env"]
)
def test_what_the_image_does_not_need_stays_out_of_the_build(path: str) -> None:
    assert is_ignored(Path(path))


def test_everything_that_a_wheel_is_made_of_is_in_the_build() -> None:
    listed = subprocess.run(["git", "-C", REPO, "ls-files"], capture_output=True, text=True).stdout.split("\n")
    files = [Path(line) for line in listed if line] or [path.relative_to(REPO) for path in REPO.glob("[!.]*/**/*")]
    rooms = {path for path in files if path.parts[0] not in {"tests", "docs", "bench", "examples"}}
    needed = {path for path in rooms if path.suffix in {".py", ".lua", ".cfg", ".toml", ".typed", ".service"}}
    kept_out = {path for path in needed if any(is_ignored(part) for part in [path, *path.parents[:-1]])}
    assert kept_out == set()
    assert not is_ignored(Path("docker"))
    assert not is_ignored(Path("docker/entrypoint"))
    assert {Path("core/errors.py"), Path("transports/lua/claim.lua")} <= needed
    assert not any(
        is_ignored(Path(name)) for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "py.typed")
    )


def test_what_the_entrypoint_reads_from_files_are_options_of_the_worker() -> None:
    options = {f"QWORKER_{(param.name or '').upper()}" for param in root.params}
    named = set(re.findall(r"^from_file (\w+)$", ENTRYPOINT.read_text("utf-8"), re.MULTILINE))
    assert named
    assert named <= options


def test_the_entrypoint_falls_back_on_what_the_image_sets() -> None:
    text = ENTRYPOINT.read_text("utf-8")
    for name in ("REMAP_SIGTERM", "QWORKER_SOFT_SHUTDOWN_TIMEOUT"):
        assert f'{name}="${{{name}-{LAST.environment({"PATH": ""})[name]}}}"' in text
