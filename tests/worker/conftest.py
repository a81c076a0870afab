"""The bench on which a consumer is tested."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.consumer_bench import Bench


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.close()
