"""The application that gets fuzzed: copied into the test's folder as `fuzzed.py`. Every run leaves a line in runs.txt.

The line is the SHA-1 of the message's bytes: ids and arguments are just what a mutation may have changed.
"""

import hashlib
import json
import logging
import os
from pathlib import Path
from typing import Any

from qworker import App, Task

_FOLDER = Path(__file__).parent
_SETUP = json.loads((_FOLDER / "setup.json").read_text()) if (_FOLDER / "setup.json").exists() else {}
app = App(
    "fuzzed",
    task_default_queue="fuzz",
    accept_content=["json", "yaml", "msgpack"],
    worker_max_message_bytes=400_000,
    **_SETUP,
)
logging.getLogger("qworker.task").setLevel(logging.CRITICAL)  # thousands of refusals


class Watched(Task[..., Any]):
    """Notes each run before the function is called: a call that does not fit is a run as well."""

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        message = self.request.message
        if message is not None:
            digest = hashlib.sha1(message.origin_raw, usedforsecurity=False).hexdigest()
            fd = os.open(_FOLDER / "runs.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.write(fd, f"{digest}\n".encode())
            os.close(fd)


@app.task(base=Watched, name="wapp.add")
def add(x: Any, y: Any = 0) -> Any:
    return x + y


@app.task(base=Watched, name="wapp.ident")
def ident(*args: Any, **kwargs: Any) -> Any:
    return [args, kwargs]


@app.task(base=Watched, name="wapp.xsum")
def xsum(numbers: Any) -> Any:
    return sum(numbers)


@app.task(base=Watched, name="wapp.boom")
def boom(*args: Any) -> None:
    raise ValueError("bad thing", *args)


@app.task(base=Watched, name="wapp.noresult", ignore_result=True)
def noresult(*args: Any) -> None:
    pass


@app.task(base=Watched, name="wapp.once", acks_late=False)
def once(*args: Any) -> Any:
    return args


@app.task(base=Watched, name="wapp.flaky", bind=True, max_retries=2)
def flaky(self: Any, *args: Any) -> None:
    raise self.retry(exc=OSError("not yet"), countdown=0.01)


@app.task(base=Watched, name="wapp.errcb")
def errcb(request: Any, exc: Any, traceback: Any) -> str:
    return f"{request.id} {exc!r}"


@app.task(base=Watched, name="wapp.errcb1")
def errcb1(task_id: Any) -> Any:
    return task_id


@app.task(name="fuzz.good")
def good(number: int) -> int:
    return number
