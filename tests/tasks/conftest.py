"""Each test starts without a current application and leaves none behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from qworker.tasks.current import current_app


@pytest.fixture(autouse=True)
def no_current_app() -> Iterator[None]:
    current_app._app, current_app._is_chosen = None, False
    yield
    current_app._app, current_app._is_chosen = None, False
