"""The table itself: is it there, is it ours to use, does it delete what has expired; and, when told to, its creation.

Called by the store before a worker starts, so that what only a person can repair stops the start.
"""

from __future__ import annotations

import logging
import time
from typing import Final

from ..core import log_events, logs
from .dynamodb_link import DynamoLink, Pauses, TableError
from .dynamodb_url import Place

logger = logging.getLogger("qworker.results")

_TTL_ATTRIBUTE: Final = "ttl"
#: How long a new table may take to become usable: usually some ten seconds.
_CREATION_S: Final = 90.0
_PROBE: Final = {"id": {"S": "qworker-check"}}


def probe(link: DynamoLink, place: Place) -> None:
    """Read an item that is not there: that needs no right that the store does not need anyway. Raises TableError."""
    try:
        link.call("get_item", link.deadline(), TableName=place.table, Key=_PROBE)
    except TableError as error:
        if error.code == "ResourceNotFoundException":
            advice = "create it, correct table or region, or let the worker do it: ?create_table=true"
            raise TableError(f"{error}: {advice}", error.code, is_lasting=True) from error
        if error.code == "ValidationException":
            wanted = "its partition key must be the string 'id', and it must have no sort key"
            raise TableError(f"{error}: {wanted}", error.code, is_lasting=True) from error
        raise


def create(link: DynamoLink, place: Place, *, expires: bool) -> None:
    """Create the table and wait until it can be used; with `expires` it deletes what has expired. Raises TableError."""
    capacity = {"ReadCapacityUnits": place.read or 1, "WriteCapacityUnits": place.write or 1}
    billing = (
        {"BillingMode": "PROVISIONED", "ProvisionedThroughput": capacity}
        if place.read or place.write
        else {"BillingMode": "PAY_PER_REQUEST"}
    )
    try:
        link.call(
            "create_table",
            link.deadline(),
            TableName=place.table,
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            **billing,
        )
        logs.say(logger, logging.INFO, log_events.TABLE_CREATED, "created {table}", table=link.shown)
    except TableError as error:
        if error.code != "ResourceInUseException":
            raise
        # Another worker was faster: wait for its table.
        expires = False
    _await_active(link, place)
    if expires:
        specification = {"Enabled": True, "AttributeName": _TTL_ATTRIBUTE}
        link.call("update_time_to_live", link.deadline(), TableName=place.table, TimeToLiveSpecification=specification)


def warn_unless_expiring(link: DynamoLink, place: Place) -> None:
    """Say so when nothing deletes what has expired: readers do not see it, but it is paid for."""
    try:
        answer = link.call("describe_time_to_live", link.deadline(), TableName=place.table)
    except TableError as error:
        logger.debug("cannot see whether expired results are deleted: %s", error)
        return
    found = answer.get("TimeToLiveDescription", {})
    is_on = found.get("TimeToLiveStatus") in ("ENABLED", "ENABLING")
    if not is_on or found.get("AttributeName") != _TTL_ATTRIBUTE:
        logs.say(
            logger,
            logging.WARNING,
            log_events.RESULTS_NEVER_EXPIRE,
            "{shown} does not delete expired results: aws dynamodb update-time-to-live --table-name {table} "
            "--time-to-live-specification Enabled=true,AttributeName={attribute}",
            shown=link.shown,
            table=place.table,
            attribute=_TTL_ATTRIBUTE,
        )


def _await_active(link: DynamoLink, place: Place) -> None:
    pauses = Pauses(time.monotonic() + _CREATION_S)
    while True:
        answer = link.call("describe_table", link.deadline(), TableName=place.table)
        if answer["Table"]["TableStatus"] == "ACTIVE":
            return
        if not pauses.rest():
            raise TableError(f"{link.shown} was created, but is not usable after {_CREATION_S:g} s", is_lasting=True)
