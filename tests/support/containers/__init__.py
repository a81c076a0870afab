"""What the tests of the image share: containers without an engine, control groups, and a reader of the Dockerfile."""

from __future__ import annotations

from .cgroups import NoCgroup, limited
from .container import Container, environment, why_no_containers
from .dockerfile import DOCKERFILE, REPO, Stage, instructions, stages
from .image import ImageBuild, is_ignored

__all__ = [
    "DOCKERFILE",
    "REPO",
    "Container",
    "ImageBuild",
    "NoCgroup",
    "Stage",
    "environment",
    "instructions",
    "is_ignored",
    "limited",
    "stages",
    "why_no_containers",
]
