"""A stock Celery client in the test's own process."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import celery


@contextmanager
def celery_client(broker: str, backend: str, **settings: Any) -> Iterator[celery.Celery]:
    """An application with results on Redis; nothing of it is left open."""
    app = celery.Celery("client", broker=broker, backend=backend)
    app.conf.update(settings)
    try:
        yield app
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # Celery leaves some sockets to the collector
            gc.collect()  # and results, which are in cycles: one that goes later would open a connection anew
        app.close()
        app.backend.result_consumer.stop()
        app.backend.client.connection_pool.disconnect()
