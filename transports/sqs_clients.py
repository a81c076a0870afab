"""Clients of SQS: one per account and kind of request, made when needed, shared by all threads of one transport.

The only file that makes botocore work: its import takes a third of a second, so it waits until a transport connects.
botocore's own retries are off: what to repeat, and when, is decided where the request belongs to somebody.

A long poll gets a client of its own, because its read time-out has to be longer than the poll.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from typing import Any, Final

from ..core.errors import QWorkerError
from ..core.quiet import quiet_botocore
from .sqs_errors import translate
from .sqs_url import Account

logger = logging.getLogger("qworker.transports")

#: AWS's region when nothing else names one: kombu's default too.
DEFAULT_REGION: Final = "us-east-1"
#: Connections of each client, beside one for each queue's long poll.
CONNECTIONS: Final = 24
#: A role's token is renewed so long before it ends.
_TOKEN_BUFFER_S: Final = 120


@cache
def _loader() -> Any:
    """What botocore has read of its service models: read once for all sessions, and for all children of a process."""
    from botocore.session import Session

    quiet_botocore()  # first of all: each model that it reads is worth a line to it
    return Session().get_component("data_loader")


def preload_botocore() -> None:
    """Import botocore and have it read its models of SQS: 0.4 s, and 25 MiB that children then share. Never raises."""
    if find_spec("botocore") is None:
        return
    try:
        from botocore.session import Session

        loader = _loader()
        session = Session()
        session.set_credentials("nobody", "nothing")
        session.register_component("data_loader", loader)
        session.create_client("sqs", region_name=DEFAULT_REGION).close()
    except Exception:  # whoever publishes is told what is wrong; here nobody has asked yet
        logger.debug("botocore could not be loaded ahead", exc_info=True)


class Clients:
    """Makes clients. Any thread. `options` are the adapter's; `polled` is how many queues are polled side by side."""

    def __init__(self, options: Mapping[str, Any], polled: int = 0) -> None:
        self._connections = CONNECTIONS + polled
        self._timeout_s: float = options.get("socket_timeout", 5.0)
        self._wait_s: float = options.get("wait_time_seconds", 10)
        self._role: str | None = options.get("sts_role_arn")
        self._role_s = int(options.get("sts_token_timeout", 900))
        self._role_buffer_s = int(options.get("sts_token_buffer_time", _TOKEN_BUFFER_S))
        self._lock = threading.Lock()
        self._sessions: dict[Account, Any] = {}
        self._made: dict[tuple[Account, str], Any] = {}

    def call(
        self, account: Account, action: str, doing: str, request: Mapping[str, Any], *, polls: bool = False
    ) -> Any:
        """Send one request, `action` in botocore's spelling. Raises TransportError or ConfigError, told as `doing`."""
        try:
            return getattr(self._client(account, "poll" if polls else "call"), action)(**request)
        except QWorkerError:
            raise
        except Exception as error:  # botocore's errors share no base class with urllib3's, which pass through at times
            raise translate(error, doing) from error

    def region_of(self, account: Account) -> str:
        """The region in which this account's queues are looked for. Raises ConfigError."""
        return account.region or self._session(account).get_config_variable("region") or DEFAULT_REGION

    def storage(self, account: Account) -> Any:
        """The client of S3 for this account, for large payloads. Its errors are botocore's."""
        return self._client(account, "s3")

    def renew(self) -> None:
        """Look for credentials anew: those that were refused may have been replaced where they came from."""
        with self._lock:
            self._made, self._sessions = {}, {}  # not closed: others may be in the middle of a request

    def close(self) -> None:
        """Close every connection; requests under way fail. A later call makes new clients."""
        with self._lock:
            made, self._made = list(self._made.values()), {}
            self._sessions.clear()
        for client in made:
            client.close()

    def _client(self, account: Account, kind: str) -> Any:
        client = self._made.get((account, kind))
        if client is not None:
            return client
        with self._lock:
            client = self._made.get((account, kind))
            if client is None:
                client = self._made[account, kind] = self._make(account, kind)
            return client

    def _make(self, account: Account, kind: str) -> Any:
        from botocore.config import Config

        read_s = self._timeout_s + (self._wait_s if kind == "poll" else 0)
        config = Config(
            connect_timeout=self._timeout_s,
            read_timeout=read_s,
            retries={"total_max_attempts": 1, "mode": "standard"},
            max_pool_connections=self._connections,
            parameter_validation=False,  # ours are made here; it costs a tenth of each call
            tcp_keepalive=True,
            # An emulator has no host name for each bucket.
            s3={"addressing_style": "path"} if account.endpoint else None,
        )
        session = self._session(account)
        region = account.region or session.get_config_variable("region") or DEFAULT_REGION
        endpoint = account.endpoint
        if kind == "s3" and os.environ.get("AWS_ENDPOINT_URL_S3"):
            endpoint = None
        service = "s3" if kind == "s3" else "sqs"
        return session.create_client(service, region_name=region, endpoint_url=endpoint, config=config)

    def _session(self, account: Account) -> Any:
        session = self._sessions.get(account)
        if session is None:
            from botocore.session import Session

            loader = _loader()
            session = Session()
            session.register_component("data_loader", loader)
            if account.key_id:
                session.set_credentials(account.key_id, account.secret, account.token)
            if self._role:
                session._credentials = self._as_role(session, account)
            self._sessions[account] = session
        return session

    def _as_role(self, session: Any, account: Account) -> Any:
        """Credentials of the role, renewed before they end. botocore has no public way to hand them to a session."""
        from botocore.config import Config
        from botocore.credentials import RefreshableCredentials

        # Everybody who has something to ask waits for the new token.
        config = Config(
            connect_timeout=self._timeout_s, read_timeout=self._timeout_s, retries={"total_max_attempts": 2}
        )

        def assume() -> dict[str, str]:
            # Whoever emulates SQS emulates STS at the same place; AWS_ENDPOINT_URL_STS says otherwise.
            place = None if os.environ.get("AWS_ENDPOINT_URL_STS") else account.endpoint
            region = account.region or session.get_config_variable("region") or DEFAULT_REGION
            sts = plain.create_client("sts", region_name=region, endpoint_url=place, config=config)
            try:
                found = sts.assume_role(RoleArn=self._role, RoleSessionName="qworker", DurationSeconds=self._role_s)[
                    "Credentials"
                ]
            except Exception as error:  # botocore's errors share no base class
                raise translate(error, f"assuming the role {self._role}", "STS") from error
            finally:
                sts.close()
            return {
                "access_key": found["AccessKeyId"],
                "secret_key": found["SecretAccessKey"],
                "token": found["SessionToken"],
                "expiry_time": found["Expiration"].isoformat(),
            }

        from botocore.session import Session

        plain = Session()
        if account.key_id:
            plain.set_credentials(account.key_id, account.secret, account.token)
        # botocore renews a quarter of an hour ahead, which is the whole life of a token of 900 s.
        buffer_s = min(self._role_buffer_s, self._role_s // 2)
        return RefreshableCredentials.create_from_metadata(
            assume(),
            refresh_using=assume,
            method="sts-assume-role",
            advisory_timeout=buffer_s,
            mandatory_timeout=buffer_s // 2,
        )
