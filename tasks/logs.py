"""Loggers for use in tasks."""

from __future__ import annotations

import logging


def get_task_logger(name: str) -> logging.Logger:
    """Return the logger called `name`, as `logging.getLogger` does.

    A worker writes the name and id of the running task into every line that is logged while it runs, whichever logger
    it comes from; this function is here because applications written for Celery call it.
    """
    return logging.getLogger(name)
