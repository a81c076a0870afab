"""The dice of a fuzz run, printed so that a failure can be repeated."""

from __future__ import annotations

import pytest

from support.chaos.scale import new_seed


@pytest.fixture
def seed() -> int:
    """What the dice of this test began with; shown when it fails."""
    seed = new_seed()
    print(f"seed: run this test again with QWORKER_CHAOS_SEED={seed}")  # noqa: T201
    return seed
