"""What a type checker sees of tasks: their arguments and their results."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import qworker

CODE = """\
from __future__ import annotations
from typing import Any
from qworker import App, Task, chain, current_task, get_task_logger, shared_task, AsyncResult

app = App("shop", broker="redis://h", task_default_queue="q")

@app.task
def add(x: int, y: int = 0) -> int:
    return x + y

@app.task(bind=True, queue="hipri", autoretry_for=(OSError,), retry_backoff=True, max_retries=5, time_limit=60)
def charge(self: Task[..., Any], order_id: int) -> str:
    if self.request.retries > 2:
        raise self.retry(countdown=5)
    return str(order_id)

class Base(Task[..., Any]):
    max_retries = 7

    def on_failure(self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None: ...

class Adder(Task[..., Any]):
    def run(self, x: int) -> int:
        return x

@app.task(base=Base, name="other")
def other() -> None: ...

reveal_type(add(1, y=2))
reveal_type(add.delay(1).get(timeout=1))
reveal_type(charge.delay(7).get())
reveal_type(charge.apply_async((7,), countdown=60, queue="hipri", priority=3, expires=3600, task_id="order-7").id)
reveal_type(chain(add.s(1, 2), add.s(3)))
reveal_type(app.send_task("x", args=[7]).get())
reveal_type(app.AsyncResult("i").status)
reveal_type(add.apply((1,)).get())
add.delay("1")
add.delay()
charge.delay(7, 8)
add(1, z=3)
app.register_task(Adder())
"""

REVEALED = ["int", "int", "str", "str", "qworker.tasks.canvas.chain", "Any", "str", "int"]


@pytest.mark.timeout(300)
def test_a_type_checker_knows_arguments_and_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    api = pytest.importorskip("mypy.api")
    above = Path(qworker.__file__).parent.parent
    if above.name != "site-packages":  # there mypy finds it by itself
        monkeypatch.setenv("MYPYPATH", str(above))
    file = tmp_path / "shop.py"
    file.write_text(CODE)
    out, err, _ = api.run(["--strict", "--cache-dir", str(tmp_path / "cache"), "--follow-imports=silent", str(file)])
    assert err == ""
    revealed = [name.removeprefix("builtins.") for name in re.findall(r'Revealed type is "(.*)"', out)]
    assert revealed == REVEALED, out
    wrong = [int(line) for line in re.findall(r"shop\.py:(\d+): error", out)]
    lines = CODE.splitlines()
    assert [lines[line - 1] for line in wrong] == [
        'add.delay("1")',
        "add.delay()",
        "charge.delay(7, 8)",
        "add(1, z=3)",
    ], out
