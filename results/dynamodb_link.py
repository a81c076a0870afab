"""The DynamoDB client: opened on first use and again after a fork; every call has its time. Used by `dynamodb`.

The only file here that makes botocore work: its import takes a third of a second, so it waits for the first call.
botocore's own retries are off: its waits know nothing of our deadline, and the caller has leases to renew.
"""

from __future__ import annotations

import os
import random
import time
from importlib.util import find_spec
from typing import Any, Final

from ..core.errors import ConfigError, ResultStoreError
from ..core.quiet import quiet_botocore
from .dynamodb_url import LOCAL_REGION, Place

#: Requests of one batch that are under way together.
MOST_AT_ONCE: Final = 8
_FIRST_PAUSE_S: Final = 0.05
_LAST_PAUSE_S: Final = 1.0
_BUSY: Final = frozenset(
    {
        "InternalServerError",
        "LimitExceededException",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "ServiceUnavailable",
        "Throttling",
        "ThrottlingException",
    }
)
_REFUSED: Final = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "IncompleteSignatureException",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "OptInRequired",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)


class TableError(ResultStoreError):
    """What DynamoDB, or the way to it, has said no with. `code` is AWS's word, empty when nobody answered.

    `is_passing`: the same again may succeed soon. `is_lasting`: only a person can change it.
    """

    def __init__(self, text: str, code: str = "", *, is_passing: bool = False, is_lasting: bool = False) -> None:
        super().__init__(text)
        self.code = code
        self.is_passing = is_passing
        self.is_lasting = is_lasting


class Pauses:
    """The waits between tries of one thing: growing, with jitter, and none beyond `deadline` (monotonic)."""

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        self._next_s = _FIRST_PAUSE_S

    def rest(self) -> bool:
        """Wait for the next try; False, at once, when there is no time for one."""
        pause_s = self._next_s * random.uniform(0.5, 1.0)
        if time.monotonic() + pause_s >= self._deadline:
            return False
        time.sleep(pause_s)
        self._next_s = min(self._next_s * 2, _LAST_PAUSE_S)
        return True


class DynamoLink:
    """Calls to DynamoDB about one table. One thread opens it; `call` may then run in several at a time."""

    def __init__(self, place: Place) -> None:
        if find_spec("botocore") is None:
            raise ConfigError("results in DynamoDB need boto3: pip install 'qworker[sqs]'")
        self._place = place
        self._client: Any = None
        self._pid = 0

    @property
    def shown(self) -> str:
        """The table and its region, for messages."""
        region = self._client.meta.region_name if self._client else self._place.region
        at = f" at {self._place.endpoint}" if self._place.endpoint else ""
        return f"the DynamoDB table {self._place.table!r} in {region or 'the default region'}{at}"

    def deadline(self) -> float:
        """The moment (monotonic) after which a verb that begins now starts no further try."""
        return time.monotonic() + self._place.timeout_s

    def open(self) -> None:
        """Make the client unless there is one of this process. Opens no connection. Raises TableError."""
        if self._client is not None and self._pid == os.getpid():
            return
        # One that a fork brought along is only let go: what it holds is the parent's too.
        self._client = None
        try:
            self._client = _make_client(self._place)
        except Exception as error:  # botocore's errors have no base class that holds them all
            raise TableError(str(self._translate(error, "the settings")), is_lasting=True) from error
        self._pid = os.getpid()

    def call(self, action: str, deadline: float, **request: Any) -> dict[str, Any]:
        """Send one request, `action` in botocore's spelling, again while it is only busy. Raises TableError."""
        pauses = Pauses(deadline)
        while True:
            if time.monotonic() >= deadline:
                raise TableError(f"the result store, {self.shown}, is too slow", is_passing=True)
            try:
                answer: dict[str, Any] = getattr(self._client, action)(**request)
                return answer
            except Exception as error:  # botocore's errors have no base class that holds them all
                trouble = self._translate(error, action)
                if not trouble.is_passing or not pauses.rest():
                    raise trouble from error

    def close(self) -> None:
        """Drop the connections. Never raises."""
        client, self._client = self._client, None
        if client is not None and self._pid == os.getpid():
            client.close()

    def _translate(self, error: Exception, action: str) -> TableError:
        from botocore import exceptions as aws

        where = f"the result store, {self.shown},"
        if isinstance(error, aws.ClientError):
            return _refusal(error.response, where, action)
        if isinstance(error, aws.NoCredentialsError | aws.PartialCredentialsError | aws.ProfileNotFound):
            advice = "put them into the URL, into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give an IAM role"
            return TableError(f"{where} needs credentials: {error}; {advice}", is_lasting=True)
        return TableError(f"{where} cannot be reached: {_short(str(error))}", is_passing=True)


def _refusal(response: Any, where: str, action: str) -> TableError:
    found = response.get("Error", {})
    code = str(found.get("Code", "Unknown")).rpartition("#")[2]
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 400))
    is_passing = code in _BUSY or status >= 500 or status == 429
    # A refused signature is explained with the whole request, session token included: not for the log.
    told = "" if "ignature" in code else f": {_short(str(found.get('Message', '')))}"
    if is_passing:
        return TableError(f"{where} is busy ({code}){told}", code, is_passing=True)
    if code == "ResourceNotFoundException":
        return TableError(f"{where} does not exist", code, is_lasting=True)
    return TableError(f"{where} refuses {action} ({code}){told}", code, is_lasting=code in _REFUSED)


def _make_client(place: Place) -> Any:
    from botocore.config import Config
    from botocore.session import Session

    quiet_botocore()
    session = Session(profile=place.profile)
    if place.key_id:
        session.set_credentials(place.key_id, place.secret, place.token)
    region = place.region or session.get_config_variable("region") or LOCAL_REGION
    config = Config(
        # A verb ends at most one request after its deadline: twice `timeout_s` in all.
        connect_timeout=place.timeout_s / 2,
        read_timeout=place.timeout_s / 2,
        retries={"total_max_attempts": 1, "mode": "standard"},
        max_pool_connections=MOST_AT_ONCE,
        tcp_keepalive=True,
    )
    if place.role:
        _assume(session, place, region, config)
    return session.create_client("dynamodb", region_name=region, endpoint_url=place.endpoint, config=config)


def _assume(session: Any, place: Place, region: str, config: Any) -> None:
    """Let the session act in a role; its tokens are renewed before they end. botocore has no public way to say so."""
    from botocore.credentials import AssumeRoleCredentialFetcher, DeferredRefreshableCredentials

    def client_of(service: str, **options: Any) -> Any:
        # Whoever emulates DynamoDB emulates STS at the same place; AWS_ENDPOINT_URL_STS says otherwise.
        endpoint = None if os.environ.get("AWS_ENDPOINT_URL_STS") else place.endpoint
        return session.create_client(service, region_name=region, endpoint_url=endpoint, config=config, **options)

    fetcher = AssumeRoleCredentialFetcher(
        client_of,
        session.get_credentials(),
        place.role,
        extra_args={"RoleSessionName": "qworker", "DurationSeconds": place.role_s},
    )
    credentials = DeferredRefreshableCredentials(fetcher.fetch_credentials, "sts-assume-role")
    # botocore renews a quarter of an hour ahead, which is the whole life of a token of 900 s: one for each request.
    credentials._advisory_refresh_timeout = place.role_s // 5
    credentials._mandatory_refresh_timeout = place.role_s // 10
    session._credentials = credentials


def _short(text: str) -> str:
    return " ".join(text.split())[:300]
