"""What the tests of the image share: containers without an engine, control groups, and a reader of the Dockerfile."""

from __future__ import annotations

from .cgroups import NoCgroup, limited
from .container import Container, environment, why_no_containers
from .dockerfile import DOCKERFILE, REPO, Stage, instructions, stages

__all__ = [
    "DOCKERFILE",
    "REPO",
    "Container",
    "NoCgroup",
    "Stage",
    "environment",
    "instructions",
    "limited",
    "stages",
    "why_no_containers",
]
