"""A tiny SQS over HTTP that answers each request after a set time, and counts: `python -m bench.sqs_emulator PORT MS`.

Not a mock for tests (those speak to moto): as fast as one Python process can be, so that what is measured is the
worker. Knows standard queues, batches, long polls and visibility timeouts. `GET /` tells how many requests of each
action there were, `GET /left` how many messages are visible or in flight.
"""

from __future__ import annotations

import asyncio
import heapq
import json
import sys
import time
import uuid
from collections import Counter, deque
from typing import Any


class Message:
    """One message; `handle` is that of its last receipt."""

    __slots__ = ("body", "handle", "id", "receives", "sent", "wanted")

    def __init__(self, body: str) -> None:
        self.body = body
        self.id = str(uuid.uuid4())
        self.handle = ""
        self.receives = 0
        self.sent = str(int(time.time() * 1000))
        self.wanted: dict[str, Any] = {}


class Queue:
    """Visible messages in order, hidden ones by the time at which they come back."""

    def __init__(self) -> None:
        self.visible: deque[Message] = deque()
        self.flying: dict[str, Message] = {}
        self.until: dict[str, float] = {}
        self.heap: list[tuple[float, str]] = []
        self.arrived = asyncio.Event()

    def put(self, message: Message) -> None:
        """At the back."""
        self.visible.append(message)
        self.arrived.set()

    def wake(self, now: float) -> None:
        """Let what was hidden come back when it is time."""
        while self.heap and self.heap[0][0] <= now:
            at, handle = heapq.heappop(self.heap)
            if self.until.get(handle) == at:
                del self.until[handle]
                self.put(self.flying.pop(handle))

    def hide(self, handle: str, seconds: float) -> bool:
        """Out of sight for so long; False for a handle that is not valid."""
        if handle not in self.flying:
            return False
        at = time.monotonic() + seconds
        self.until[handle] = at
        heapq.heappush(self.heap, (at, handle))
        return True

    async def receive(self, most: int, wait_s: float, seconds: float) -> list[Message]:
        """Take up to `most`, waiting for the first."""
        until = time.monotonic() + wait_s
        while True:
            now = time.monotonic()
            self.wake(now)
            if self.visible or now >= until:
                break
            self.arrived.clear()
            try:
                await asyncio.wait_for(self.arrived.wait(), min(until - now, 1.0))
            except asyncio.TimeoutError:
                pass
        taken = [self.visible.popleft() for _ in range(min(most, len(self.visible)))]
        for message in taken:
            message.handle = uuid.uuid4().hex
            message.receives += 1
            self.flying[message.handle] = message
            self.hide(message.handle, seconds)
        return taken


class Emulator:
    """All queues of one account."""

    def __init__(self, port: int, latency_s: float) -> None:
        self.port = port
        self.latency_s = latency_s
        self.queues: dict[str, Queue] = {}
        self.counts: Counter[str] = Counter()

    async def run(self) -> None:
        """Serve for ever."""
        server = await asyncio.start_server(self.serve, "127.0.0.1", self.port, backlog=512)
        async with server:
            await server.serve_forever()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            while line := await reader.readline():
                length, action = 0, ""
                answer: Any
                while (header := await reader.readline()) not in (b"\r\n", b""):
                    name, _, value = header.partition(b":")
                    name = name.lower()
                    if name == b"content-length":
                        length = int(value)
                    elif name == b"x-amz-target":
                        action = value.strip().rpartition(b".")[2].decode()
                body = await reader.readexactly(length) if length else b"{}"
                if line.startswith(b"GET"):
                    left = sum(len(queue.visible) + len(queue.flying) for queue in self.queues.values())
                    status, answer = 200, left if b"/left" in line else dict(self.counts)
                else:
                    started = time.monotonic()
                    status, answer = await self.answer(action, json.loads(body))
                    await asyncio.sleep(max(0.0, started + self.latency_s - time.monotonic()))
                content = json.dumps(answer).encode()
                head = f"HTTP/1.1 {status} OK\r\nContent-Type: application/x-amz-json-1.0\r\n"
                writer.write(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def answer(self, action: str, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Status and JSON for one request."""
        self.counts[action] += 1
        if action in ("CreateQueue", "GetQueueUrl"):
            name = asked["QueueName"]
            if action == "CreateQueue":
                self.queues.setdefault(name, Queue())
            if name not in self.queues:
                return 400, {"__type": "com.amazonaws.sqs#QueueDoesNotExist", "message": "no such queue"}
            return 200, {"QueueUrl": f"http://127.0.0.1:{self.port}/1/{name}"}
        queue = self.queues[asked["QueueUrl"].rpartition("/")[2]]
        if action == "GetQueueAttributes":
            queue.wake(time.monotonic())
            return 200, {
                "Attributes": {"ApproximateNumberOfMessages": str(len(queue.visible)), "VisibilityTimeout": "30"}
            }
        if action == "ReceiveMessage":
            found = await queue.receive(
                asked.get("MaxNumberOfMessages", 1), asked.get("WaitTimeSeconds", 0), asked.get("VisibilityTimeout", 30)
            )
            return 200, {"Messages": [_shown(message) for message in found]} if found else {}
        done, failed = [], []
        for entry in asked["Entries"]:
            if self.carry_out(action, queue, entry):
                done.append({"Id": entry["Id"], "MessageId": "m"})
            else:
                failed.append({"Id": entry["Id"], "SenderFault": True, "Code": "ReceiptHandleIsInvalid"})
        return 200, {"Successful": done, "Failed": failed}

    def carry_out(self, action: str, queue: Queue, entry: dict[str, Any]) -> bool:
        """One entry of a batch; whether it was possible."""
        if action == "SendMessageBatch":
            queue.put(Message(entry["MessageBody"]))
            return True
        handle = entry["ReceiptHandle"]
        if action == "DeleteMessageBatch":
            queue.until.pop(handle, None)
            return queue.flying.pop(handle, None) is not None
        return queue.hide(handle, entry["VisibilityTimeout"])


def _shown(message: Message) -> dict[str, Any]:
    attributes = {"ApproximateReceiveCount": str(message.receives), "SentTimestamp": message.sent}
    return {"MessageId": message.id, "ReceiptHandle": message.handle, "Body": message.body, "Attributes": attributes}


if __name__ == "__main__":
    asyncio.run(Emulator(int(sys.argv[1]), float(sys.argv[2]) / 1000).run())
