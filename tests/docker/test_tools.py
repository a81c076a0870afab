"""What others' tools say of our files: hadolint of the Dockerfile, Kubernetes' own schemas of the manifests."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from support.containers import DOCKERFILE, REPO

pytestmark = pytest.mark.image

MANIFESTS = sorted((REPO / "docker" / "kubernetes").glob("*.yaml"))
#: Kinds of others than Kubernetes itself, for which its schemas say nothing.
FOREIGN = {"Kustomization", "ScaledObject", "PodMonitor"}


def test_hadolint_has_nothing_to_say() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or "hadolint"
    done = subprocess.run([hadolint, "--failure-threshold", "style", DOCKERFILE], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_manifests_are_what_kubernetes_accepts(path: Path) -> None:
    validate = pytest.importorskip("kubernetes_validate")
    for document in yaml.safe_load_all(path.read_text("utf-8")):
        if document["kind"] not in FOREIGN:
            validate.validate(document, validate.latest_version(), strict=True)
