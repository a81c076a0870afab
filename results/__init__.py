"""Result stores and AsyncResult. AsyncResult is in `asyncresult`, so that a worker need not load it."""

from .base import ResultStore, SettingsLike, StoredResult
from .registry import open_result_store

__all__ = ["ResultStore", "SettingsLike", "StoredResult", "open_result_store"]
