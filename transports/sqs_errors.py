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
    LATE = "late: its claim has ended"  # told by the outbox: it was not sent at all
    MISSING = "missing: there is no such queue any more"
    REFUSED = "refused"  # credentials, their rights, or a KMS key
    SKEWED = "skewed"  # this machine's clock is wrong, or the request took minutes: time may mend it
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
        "DisabledException",  # KMS's, as the next four
        "InvalidKeyUsageException",
        "InvalidStateException",
        "KmsDisabled",
        "KmsInvalidKeyUsage",
        "KmsInvalidState",
        "KmsNotFound",
        "KmsOptInRequired",
        "NotFoundException",
        "IncompleteSignature",
        "IncompleteSignatureException",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidSecurity",
        "InvalidSignatureException",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
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
        "RequestAbortedException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestTimeout",
        "RequestTimeoutException",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)


_SKEWED: Final = frozenset({"RequestExpired", "RequestTimeTooSkewed"})
#: A signature that is too old or too young has the code of a wrong one, and says so.
_SKEWED_WORDS: Final = ("Signature expired", "Signature not yet current")
#: A request that is refused with one of these, and with a code that is not known, would be refused again.
_WRONG_STATUS: Final = (400, 413)


def trouble_of(code: str, status: int = 400, said: str = "") -> Trouble:
    """Return the trouble that an AWS error code means; an unknown one is judged by its HTTP status.

    A code that is a number is no word of SQS's: something on the way has answered.
    """
    if said.startswith(_SKEWED_WORDS):
        return Trouble.SKEWED
    word = code.rpartition(".")[2].rpartition("#")[2]  # AWS.SimpleQueueService.NonExistentQueue, com.amazonaws.sqs#…
    for words, trouble in (
        (_GONE, Trouble.GONE),
        (_MISSING, Trouble.MISSING),
        (_REFUSED, Trouble.REFUSED),
        (_BUSY, Trouble.BUSY),
        (_SKEWED, Trouble.SKEWED),
    ):
        if word in words:
            return trouble
    if status in (401, 403):
        return Trouble.REFUSED
    return Trouble.WRONG if status in _WRONG_STATUS and not code.isdigit() else Trouble.BUSY


def translate(error: Exception, doing: str, who: str = "SQS") -> TransportError | ConfigError:
    """Return our exception for one of botocore's. `doing` says in words for people what `who` was asked for."""
    from botocore import exceptions as aws

    if isinstance(error, aws.ClientError):
        return _refusal(error.response, doing, who)
    if isinstance(error, aws.NoCredentialsError | aws.PartialCredentialsError | aws.ProfileNotFound):
        return ConfigError(
            f"{doing}: {error}; put them into the URL (sqs://KEY:SECRET@), into AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or give this machine an IAM role"
        )
    trouble = TransportError(f"{doing}: {who} is out of reach: {error}")
    trouble.nothing_sent = isinstance(error, aws.EndpointConnectionError | aws.ConnectTimeoutError)
    return trouble


def _refusal(response: Any, doing: str, who: str) -> SqsRefusal:
    found = response.get("Error", {})
    code = str(found.get("Code", "Unknown"))
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 400))
    # After the first line a refused signature is followed by what was signed, the session token included (P10).
    said = str(found.get("Message", "")).partition("\n")[0][:300]
    trouble = trouble_of(code, status, said)
    if trouble is Trouble.SKEWED:
        said += " (is the clock of this machine right?)"
    return SqsRefusal(f"{doing}: {who} says {code}: {said}", trouble, code)
