"""What an error of SQS or of the way to it means here: one of a few troubles, or an exception of ours.

Called by sqs_clients (every request passes there) and by the outbox, for the entries of a batch.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, Final

from ..core.errors import ConfigError, TransportError


class Trouble(Enum):
    """What to do about a refused request or entry."""

    BUSY = "busy"  # wait, then the same again
    GONE = "gone"  # the receipt handle is not valid any more: somebody else has the message, or nobody
    MISSING = "missing"  # there is no such queue
    REFUSED = "refused"  # credentials or their rights
    WRONG = "wrong"  # the request itself: the same again would be refused again


class SqsRefusal(TransportError):
    """SQS has answered with an error. `trouble` says what kind, `code` is AWS's own word."""

    def __init__(self, text: str, trouble: Trouble, code: str) -> None:
        super().__init__(text)
        self.trouble = trouble
        self.code = code
        self.nothing_sent = True


_GONE: Final = frozenset({"ReceiptHandleIsInvalid", "MessageNotInflight", "InvalidParameterValue"})
_MISSING: Final = frozenset({"QueueDoesNotExist", "NonExistentQueue", "InvalidAddress"})
_REFUSED: Final = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "AuthFailure",
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidSecurity",
        "MissingAuthenticationToken",
        "NotAuthorized",
        "OptInRequired",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
        "KmsAccessDenied",
    }
)
_BUSY: Final = frozenset(
    {
        "InternalError",
        "InternalFailure",
        "KmsThrottled",
        "OverLimit",
        "RequestLimitExceeded",
        "RequestThrottled",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)


def trouble_of(code: str, status: int = 400) -> Trouble:
    """Return the trouble that an AWS error code means; an unknown one is judged by its HTTP status."""
    word = code.rpartition(".")[2].rpartition("#")[2]  # AWS.SimpleQueueService.NonExistentQueue, com.amazonaws.sqs#…
    for words, trouble in (
        (_GONE, Trouble.GONE),
        (_MISSING, Trouble.MISSING),
        (_REFUSED, Trouble.REFUSED),
        (_BUSY, Trouble.BUSY),
    ):
        if word in words:
            return trouble
    return Trouble.BUSY if status >= 500 or status == 429 else Trouble.WRONG


def translate(error: Exception, doing: str) -> TransportError | ConfigError:
    """Return our exception for one of botocore's. `doing` says what was asked for, in words for people."""
    from botocore import exceptions as aws

    if isinstance(error, aws.ClientError):
        return _refusal(error.response, doing)
    if isinstance(error, aws.NoCredentialsError | aws.PartialCredentialsError | aws.ProfileNotFound):
        return ConfigError(
            f"{doing}: {error}; put them into the URL (sqs://KEY:SECRET@), into AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or give this machine an IAM role"
        )
    trouble = TransportError(f"{doing}: SQS is out of reach: {error}")
    trouble.nothing_sent = isinstance(error, aws.EndpointConnectionError | aws.ConnectTimeoutError)
    return trouble


def _refusal(response: Any, doing: str) -> SqsRefusal:
    found = response.get("Error", {})
    code = str(found.get("Code", "Unknown"))
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 400))
    # After the first line a refused signature is followed by what was signed, the session token included (P10).
    said = str(found.get("Message", "")).partition("\n")[0][:300]
    return SqsRefusal(f"{doing}: SQS says {code}: {said}", trouble_of(code, status), code)
