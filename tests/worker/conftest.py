"""The bench on which a consumer is tested, and the stage for a master."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.consumer_bench import Bench
from support.master_stage import Stage


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.close()


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage()
    yield stage
    stage.close()
