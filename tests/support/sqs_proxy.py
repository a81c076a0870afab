"""An HTTP proxy before moto: counts requests, and breaks those that a test names, as AWS and networks do."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, NamedTuple

from .moto_server import LOGIN
from .waiting import wait_until


class Request(NamedTuple):
    """One request that has passed: its action (`ReceiveMessage`), and what was asked and answered."""

    action: str
    asked: dict[str, Any]
    answered: dict[str, Any]


#: What a fault does to a request: an answer (status, JSON) in its place, or None = let it pass.
Fault = Callable[[dict[str, Any]], tuple[int, dict[str, Any]] | None]


def throttled(asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """What AWS says when there are too many requests."""
    return 400, {"__type": "com.amazonaws.sqs#RequestThrottled", "message": "Request is throttled."}


class SqsProxy:
    """Passes requests on to `endpoint`'s port. A context manager."""

    def __init__(self, port: int) -> None:
        self.requests: list[Request] = []
        self.begun: Counter[str] = Counter()  # requests that have come, answered or not
        self.faults: dict[str, tuple[Fault, int]] = {}
        self.drops: Counter[str] = Counter()  # answers that never arrive although the request was carried out
        self.halves: Counter[str] = Counter()  # answers of which one half arrives
        self.is_cut = False
        self.target = port
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.proxy = self
        self.port = int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """As a broker."""
        return f"sqs://{LOGIN}@127.0.0.1:{self.port}"

    def counts(self) -> Counter[str]:
        """How many of each action have passed."""
        return Counter(request.action for request in list(self.requests))

    def of(self, action: str) -> list[Request]:
        """Those of one action."""
        return [request for request in list(self.requests) if request.action == action]

    def held(self) -> dict[str, int]:
        """The receipts that were neither deleted nor released, and for how many seconds each was last claimed."""
        held: dict[str, int] = {}
        for _, asked, answered in list(self.requests):
            for message in answered.get("Messages", ()):
                held[message["ReceiptHandle"]] = asked["VisibilityTimeout"]
            done = {entry["Id"] for entry in answered.get("Successful", ())}
            for entry in asked.get("Entries", ()):
                if entry["Id"] in done and entry.get("ReceiptHandle") in held:
                    held[entry["ReceiptHandle"]] = entry.get("VisibilityTimeout", 0)
        return {receipt: seconds for receipt, seconds in held.items() if seconds}

    def break_(self, action: str, fault: Fault, times: int = 1) -> None:
        """Let the next `times` requests of `action` meet `fault`."""
        self.faults[action] = (fault, times)

    def fault_for(self, action: str) -> Fault | None:
        """What this request meets, if anything; it is one of the `times`."""
        with self._lock:
            self.begun[action] += 1
            fault, times = self.faults.get(action, (None, 0))
            if fault is None or times <= 0:
                return None
            self.faults[action] = (fault, times - 1)
            return fault

    def is_named(self, action: str, kind: Counter[str]) -> bool:
        """Whether this answer is one of those of which `drops`, or `halves`, says how many."""
        with self._lock:
            is_one = kind[action] > 0
            kind[action] -= is_one
            return is_one

    def __enter__(self) -> SqsProxy:
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._server.hang_up()


def hidden_for(proxy: SqsProxy) -> list[int]:
    """For how long messages were made invisible, in order."""
    requests = proxy.of("ChangeMessageVisibilityBatch")
    return [entry["VisibilityTimeout"] for request in requests for entry in request.asked["Entries"]]


class _Server(ThreadingHTTPServer):
    proxy: SqsProxy
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, *arguments: Any) -> None:
        self._lines: set[socket.socket] = set()  # of callers, and to the server behind
        self._lock = threading.Lock()
        super().__init__(*arguments)

    @contextmanager
    def holding(self, line: socket.socket) -> Iterator[None]:
        """While the block lasts, `hang_up` ends this connection."""
        with self._lock:
            self._lines.add(line)
        try:
            yield
        finally:
            with self._lock:
                self._lines.discard(line)

    def finish_request(self, request: Any, client_address: Any) -> None:
        with self.holding(request):
            super().finish_request(request, client_address)

    def hang_up(self) -> None:
        """End every connection, and so the threads that wait on one: long polls outlive who began them."""

        def is_quiet() -> bool:
            with self._lock:
                for line in self._lines:
                    with suppress(OSError):
                        line.shutdown(socket.SHUT_RDWR)
                return not self._lines

        wait_until(is_quiet, "all connections have ended")

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        proxy = self.server.proxy
        body = self.rfile.read(int(self.headers["Content-Length"]))
        action = self.headers.get("X-Amz-Target", "").rpartition(".")[2]
        asked = json.loads(body) if action and body else {}
        if proxy.is_cut:
            self.close_connection = True
            return
        answer = self._broken(proxy, action, asked)
        if answer is None:
            answer = self._pass_on(proxy.target, body)
            if proxy.is_cut:
                self.close_connection = True
                return
        status, content = answer
        proxy.requests.append(Request(action, asked, json.loads(content) if action and content else {}))
        if proxy.is_named(action, proxy.drops):
            self.close_connection = True
            return
        is_half = proxy.is_named(action, proxy.halves)
        if is_half:
            self.close_connection = True
        self.send_response(status)
        self.send_header("Content-Type", "application/x-amz-json-1.0" if action else "text/xml")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if is_half else content)

    def _broken(self, proxy: SqsProxy, action: str, asked: dict[str, Any]) -> tuple[int, bytes] | None:
        fault = proxy.fault_for(action)
        answer = fault(asked) if fault is not None else None
        return None if answer is None else (answer[0], json.dumps(answer[1]).encode())

    def _pass_on(self, port: int, body: bytes) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=40)
        try:
            headers = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "connection")}
            connection.connect()
            with self.server.holding(connection.sock):
                connection.request("POST", self.path, body, headers | {"Host": f"127.0.0.1:{port}"})
                answer = connection.getresponse()
                return answer.status, answer.read()
        finally:
            connection.close()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing to say."""
