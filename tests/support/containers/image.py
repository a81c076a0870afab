"""Builds the image without an engine: every instruction of the Dockerfile is carried out, on layers of overlayfs.

The base image is this host with `python` and `pip` where the real one has them. So each RUN is tested exactly as it is
written, and so are the files that are copied and what is in the image at the end; the base image is not.
"""

from __future__ import annotations

import fnmatch
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from .dockerfile import DOCKERFILE, REPO, Instruction, Stage, stages

_RUN = """
set -eu
mount -t overlay overlay -o "lowerdir=/,upperdir=$WORK/upper,workdir=$WORK/work" "$WORK/root"
cd "$WORK/root"
mount -t proc proc proc
mount --rbind /dev dev
exec chroot . env --chdir="$DIRECTORY" sh -c "$COMMAND"
"""
_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"


class ImageBuild:
    """One build in `folder`; `top` is what the image, and its base, add to this host."""

    def __init__(self, folder: Path, **arguments: str) -> None:
        self._folder = folder
        self._base = _base_image(folder)
        self._stages: dict[str, Path] = {}
        self.top = folder
        for stage in stages(DOCKERFILE.read_text("utf-8"), **arguments):
            self._build(stage)

    def _build(self, stage: Stage) -> None:
        work = self._folder / f"stage-{len(self._stages)}"
        for name in ("work", "root"):
            (work / name).mkdir(parents=True)
        self._stages[stage.name] = self.top = upper = work / "upper"
        shutil.copytree(self._base, upper)
        environment, directory = stage.environment({"PATH": _PATH}) | stage.arguments, "/"
        for instruction in stage.instructions:
            if instruction.keyword == "WORKDIR":
                directory = instruction.text
                _inside(upper, directory).mkdir(parents=True, exist_ok=True)
            elif instruction.keyword == "COPY":
                self._copy(instruction, upper, directory)
            elif instruction.keyword == "RUN":
                self._run(instruction.text, work, directory, environment)

    def _run(self, command: str, work: Path, directory: str, environment: Mapping[str, str]) -> None:
        passed = {name: value for name, value in os.environ.items() if _is_about_network(name)}
        ended = subprocess.run(
            ["unshare", "--mount", "sh", "-c", _RUN],
            env={
                "HOME": os.environ.get("HOME", "/root"),
                **passed,
                **environment,
                "WORK": str(work),
                "DIRECTORY": directory,
                "COMMAND": command,
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert ended.returncode == 0, f"RUN {command}\n{ended.stdout}{ended.stderr}"

    def _copy(self, instruction: Instruction, upper: Path, directory: str) -> None:
        *options, source, target = instruction.words()
        stage = next((option.removeprefix("--from=") for option in options if option.startswith("--from=")), None)
        root = self._stages[stage] if stage is not None else REPO
        to = _inside(upper, str(PurePosixPath(directory) / target))
        to.parent.mkdir(parents=True, exist_ok=True)
        if (found := _inside(root, source)).is_dir():
            leave = None if stage is not None else _ignored
            shutil.copytree(found, to, symlinks=True, ignore=leave, dirs_exist_ok=True)
        else:
            shutil.copy(found, to)


def _ignored(folder: str, names: list[str]) -> set[str]:
    return {name for name in names if is_ignored((Path(folder) / name).relative_to(REPO))}


def is_ignored(path: Path) -> bool:
    """What .dockerignore keeps out; a pattern counts from the root, `**/` at its beginning for any folder."""
    lines = (REPO / ".dockerignore").read_text("utf-8").splitlines()
    for pattern in (line.strip() for line in lines if line.strip() and not line.startswith("#")):
        anywhere = pattern.removeprefix("**/")
        if fnmatch.fnmatchcase(path.name if anywhere != pattern else path.as_posix(), anywhere):
            return True
    return False


def _base_image(folder: Path) -> Path:
    """A layer with this Python as `python`, and a pip."""
    venv.create(folder / "base", with_pip=True, symlinks=True)
    programs = folder / "base-layer" / "usr" / "local" / "bin"
    programs.mkdir(parents=True)
    python = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    for name, command in {"python": str(python), "pip": f"{folder}/base/bin/python -m pip"}.items():
        (programs / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        (programs / name).chmod(0o755)
    return folder / "base-layer"


def _inside(root: Path, path: str) -> Path:
    return root / path.lstrip("/")


def _is_about_network(name: str) -> bool:
    """Whether a variable says how this host gets packages."""
    return name.startswith(("PIP_", "SSL_")) or name.lower() in {"http_proxy", "https_proxy", "no_proxy"}
