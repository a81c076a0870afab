"""Results in a DynamoDB table, in Celery's items: for those whose broker is SQS. See `open_result_store`.

A success overwrites whatever is there, so successes travel in batches of 25. Any other state must not overwrite a
success, and a batch knows no conditions: each is a request of its own, with one. Up to eight requests run at a time.
Nothing tells a waiter: it asks, ever less often.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from ..core import log_events, logs
from ..core.errors import ConfigError, ResultStoreError
from . import dynamodb_table as table
from .base import SettingsLike, StoredResult
from .dynamodb_item import Item, Row, is_success, key_of, latest, meta_in, row_of
from .dynamodb_link import MOST_AT_ONCE, DynamoLink, Pauses, TableError
from .dynamodb_url import Place, read_place
from .expiry import Expiry, expiry_from
from .meta import is_ready
from .prefix import global_prefix

logger = logging.getLogger("qworker.results")

#: Most items in one BatchWriteItem; 25 of the largest stay below its 16 MB.
_BATCH: Final = 25
_POLL_FIRST_S: Final = 0.05
_POLL_LAST_S: Final = 2.0
_POLL_GROWTH: Final = 1.3
#: What DynamoDB says of an item that it will never take.
_BAD_ITEM: Final = frozenset({"SerializationException", "ValidationException"})
#: How often a write tries to be faster than others that write the same item.
_RACES: Final = 5

# An item of Celery's has no status, and a missing attribute differs from every value: hence `attribute_exists`.
_UNLESS_SUCCESS: Final = (
    "attribute_not_exists(#id) OR #ttl <= :now OR (attribute_exists(#status) AND #status <> :success)"
)


class DynamoDbResultStore:
    """A ResultStore in one table. One thread at a time; after a fork the child gets connections of its own."""

    def __init__(self, url: str, settings: SettingsLike) -> None:
        self._place = read_place(url, settings)
        self._link = DynamoLink(self._place)
        self._prefix = global_prefix(settings)
        self._expiry = _expiry(self._place, settings)
        self._compression = settings.get("result_compression")
        # What a `store` that failed had written: repeated as a whole, it would never end on a table with little
        # capacity.
        self._written: dict[str, bytes] = {}
        self._is_unprepared = False  # the table was out of reach when it was to be looked at

    def prepare(self) -> None:
        """Look at the table, and create it when told to. Raises ConfigError for what waiting would not repair."""
        try:
            self._link.open()
            self._find_or_create()
            if self._expires:
                table.warn_unless_expiring(self._link, self._place)
        except TableError as error:
            if error.is_lasting:
                raise ConfigError(str(error)) from error
            self._is_unprepared = True
            logs.say(
                logger, logging.WARNING, log_events.RESULTS_UNCHECKED, "{error}; starting nevertheless", error=error
            )

    def connect(self) -> None:
        """Reach the table or raise. It is created now if it could not be reached when it was to be created."""
        self.close()
        self._link.open()
        if self._is_unprepared:
            self._find_or_create()
            self._is_unprepared = False
        else:
            table.probe(self._link, self._place)

    def store(self, results: Sequence[StoredResult]) -> None:
        """Write all of them; a stored SUCCESS stays unless a newer SUCCESS comes. Ends within twice `timeout_s`.

        What did not get through may be stored again, together with the rest: the rest is not written twice.
        """
        rows = [row for row in self._rows(results) if self._written.get(row.key) != row.value]
        if not rows:
            self._written = {}
            return
        self._link.open()
        deadline = self._link.deadline()
        successes = [row for row in rows if row.is_success]
        jobs: list[Callable[[], None]] = [
            _job(self._write_batch, successes[at : at + _BATCH], deadline) for at in range(0, len(successes), _BATCH)
        ]
        jobs += [_job(self._write_unless_success, row, deadline) for row in rows if not row.is_success]
        _run(jobs)
        self._written = {}

    def fetch(self, task_id: str) -> bytes | None:
        """The stored meta, or None. Sees whatever was stored before."""
        return self._fetch(task_id, is_certain=True)

    def wait(self, task_id: str, timeout_s: float | None) -> bytes | None:
        """The meta once its status is final, or None when the time is over. Asks at growing intervals, at last 2 s."""
        deadline = float("inf") if timeout_s is None else time.monotonic() + timeout_s
        pause_s, is_certain = _POLL_FIRST_S, True
        while True:
            # A certain read costs twice as much: for the first look and the last one.
            meta = self._fetch(task_id, is_certain=is_certain)
            if meta is not None and is_ready(meta):
                return meta
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                if is_certain:
                    return None
                # The time ended during a cheap look, which may have been told old news.
                is_certain = True
                continue
            nap_s = pause_s * random.uniform(0.75, 1.25)
            is_certain = nap_s >= left_s
            time.sleep(min(nap_s, left_s))
            pause_s = min(pause_s * _POLL_GROWTH, _POLL_LAST_S)

    def forget(self, task_id: str) -> None:
        """Delete the stored meta."""
        self._link.open()
        self._call("delete_item", self._link.deadline(), Key=self._key(task_id))

    def close(self) -> None:
        """Drop the connections."""
        self._link.close()

    @property
    def _expires(self) -> bool:
        return self._expiry != Expiry(None, None)

    def _find_or_create(self) -> None:
        try:
            table.probe(self._link, self._place)
        except TableError as error:
            if error.code != "ResourceNotFoundException" or not self._place.creates_table:
                raise
            table.create(self._link, self._place, expires=self._expires)

    def _rows(self, results: Sequence[StoredResult]) -> list[Row]:
        now = time.time()
        found = (
            row_of(result, key_of(result.task_id, self._prefix), self._expiry, self._compression, now)
            for result in latest(results)
        )
        return [row for row in found if row is not None]

    def _write_batch(self, rows: Sequence[Row], deadline: float) -> None:
        try:
            self._write_all(rows, deadline)
        except TableError as error:
            if error.code not in _BAD_ITEM:
                raise
            if len(rows) == 1:
                self._drop(rows[0], error)
                return
            for row in rows:  # one item spoils its batch
                self._write_batch([row], deadline)

    def _write_all(self, rows: Sequence[Row], deadline: float) -> None:
        """Write successes. A batch is not atomic: what DynamoDB had no capacity for comes back, and is sent again."""
        name, pauses = self._place.table, Pauses(deadline)
        left = {row.key: row for row in rows}
        while True:
            puts = [{"PutRequest": {"Item": row.item}} for row in left.values()]
            answer = self._link.call("batch_write_item", deadline, RequestItems={name: puts})
            refused = {put["PutRequest"]["Item"]["id"]["S"] for put in answer.get("UnprocessedItems", {}).get(name, ())}
            self._written.update((key, row.value) for key, row in left.items() if key not in refused)
            left = {key: row for key, row in left.items() if key in refused}
            if not left:
                return
            if not pauses.rest():
                raise ResultStoreError(f"the result store, {self._link.shown}, has no capacity for {len(left)} results")

    def _write_unless_success(self, row: Row, deadline: float) -> None:
        values = {":now": {"N": str(int(time.time()))}, ":success": {"S": "SUCCESS"}}
        names = {"#id": "id", "#ttl": "ttl", "#status": "status"}
        try:
            if not self._put(row, deadline, _UNLESS_SUCCESS, names, values):
                self._write_after_look(row, deadline)
        except TableError as error:
            if error.code not in _BAD_ITEM:
                raise
            self._drop(row, error)
        self._written[row.key] = row.value

    def _drop(self, row: Row, error: TableError) -> None:
        """It would be refused for ever, and everything behind it would wait."""
        logs.say(
            logger,
            logging.ERROR,
            log_events.RESULT_LOST,
            "the result {result} is lost: {error}",
            result=row.key,
            error=error,
        )
        self._written[row.key] = row.value

    def _write_after_look(self, row: Row, deadline: float) -> None:
        """The condition cannot read Celery's items: read the item here, and replace it only if it is still the same."""
        for _ in range(_RACES):
            stored = self._get(row.key, is_certain=True)
            if is_success(stored, time.time()):
                return
            if not stored or "result" not in stored:
                condition, names, values = "attribute_not_exists(#result)", {"#result": "result"}, {}
            else:
                condition, names, values = "#result = :seen", {"#result": "result"}, {":seen": stored["result"]}
            if self._put(row, deadline, condition, names, values):
                return
        raise ResultStoreError(f"the result store, {self._link.shown}: others keep writing {row.key}")

    def _put(self, row: Row, deadline: float, condition: str, names: dict[str, str], values: Item) -> bool:
        """Write under a condition; whether it held."""
        more: dict[str, Any] = {"ExpressionAttributeValues": values} if values else {}
        try:
            self._call(
                "put_item",
                deadline,
                Item=row.item,
                ConditionExpression=condition,
                ExpressionAttributeNames=names,
                **more,
            )
        except TableError as error:
            if error.code != "ConditionalCheckFailedException":
                raise
            return False
        return True

    def _fetch(self, task_id: str, *, is_certain: bool) -> bytes | None:
        self._link.open()
        return meta_in(self._get(key_of(task_id, self._prefix), is_certain=is_certain), time.time())

    def _get(self, key: str, *, is_certain: bool) -> Item | None:
        answer = self._call("get_item", self._link.deadline(), Key={"id": {"S": key}}, ConsistentRead=is_certain)
        return answer.get("Item")

    def _key(self, task_id: str) -> Item:
        return {"id": {"S": key_of(task_id, self._prefix)}}

    def _call(self, action: str, deadline: float, **request: Any) -> dict[str, Any]:
        return self._link.call(action, deadline, TableName=self._place.table, **request)


def _expiry(place: Place, settings: SettingsLike) -> Expiry:
    """The URL's `ttl_seconds` says more than the settings."""
    if place.ttl_s is None:
        return expiry_from(settings)
    ttl_s = place.ttl_s if place.ttl_s > 0 else None
    return Expiry(ttl_s, ttl_s)


def _job(write: Callable[[Any, float], None], what: Any, deadline: float) -> Callable[[], None]:
    return lambda: write(what, deadline)


def _run(jobs: Sequence[Callable[[], None]]) -> None:
    """Do them all, several at a time; raise the first error when all have ended."""
    if len(jobs) == 1:
        jobs[0]()
        return
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(min(MOST_AT_ONCE, len(jobs)), "qworker-results") as threads:
        done = [threads.submit(job) for job in jobs]
    for future in done:
        future.result()
