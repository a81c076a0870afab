"""What "Moving from Celery" promises: its two applications are one, for clients and workers of both kinds."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import made
from made.celery_options import OPTIONS
from support import wait_until

PAGE = Path(made.__file__).resolve().parent.parent / "celery.md"
LIMIT_S = 100.0
CLIENT = "from tasks import charge; print(charge.delay(7).get(timeout=90))"


@pytest.mark.timeout(300)
def test_a_client_and_a_worker_of_different_kinds_work_together(tmp_path: Path, redis_url: str) -> None:
    env = {**os.environ, "BROKER": redis_url, "RESULTS": redis_url, "PYTHONWARNINGS": "ignore"}
    for kind, text in re.findall(r"<!-- (\w+): tasks\.py -->\n```python\n(.*?)^```$", PAGE.read_text(), re.M | re.S):
        folder = tmp_path / kind
        folder.mkdir()
        (folder / "tasks.py").write_text(text)
    for client, worker in (("before", "after"), ("after", "before")):
        with (tmp_path / f"{worker}.log").open("wb") as log:
            process = subprocess.Popen(command_of(worker), cwd=tmp_path / worker, env=env, stdout=log, stderr=log)
        try:
            done = subprocess.run(
                [sys.executable, "-c", CLIENT],
                cwd=tmp_path / client, env=env, capture_output=True, text=True, timeout=LIMIT_S,
            )  # fmt: skip
        finally:
            process.terminate()
            wait_until(lambda process=process: process.poll() is not None, "the worker has stopped", LIMIT_S)
        assert done.stdout == "charged 7\n", done.stderr + (tmp_path / f"{worker}.log").read_text()


def command_of(kind: str) -> list[str]:
    if kind == "after":
        return [sys.executable, "-m", "qworker", "-A", "tasks", "-c", "1", "-Q", "shop"]
    return [sys.executable, "-m", "celery", "-A", "tasks", "worker", "-c", "1", "-Q", "shop"]


def test_the_applications_differ_in_two_imports_and_a_name() -> None:
    before, after = re.findall(r"<!-- \w+: tasks\.py -->\n```python\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
    assert [line for line in after.splitlines() if line not in before.splitlines()] == [
        "from qworker import App, get_task_logger",
        'app = App("tasks", broker=os.environ["BROKER"], backend=os.environ["RESULTS"])',
    ]


def test_the_page_has_every_option_of_celerys_worker_and_no_other() -> None:
    script = (
        "from celery.bin.celery import celery; from celery.bin.worker import worker\n"
        "print(*(o for p in celery.params + worker.params for o in p.opts if o.startswith('--')))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert set(OPTIONS) >= set(done.stdout.split())
    assert len(re.findall(r"^\| `--", made.fill(PAGE.read_text()), re.M)) == len(OPTIONS)


@pytest.mark.parametrize(
    "word", ["shared_task", "current_task", "chain", "signature", "Ignore", "Reject", "AsyncResult"]
)
def test_the_names_that_the_page_promises_are_there(word: str) -> None:
    import qworker

    assert hasattr(qworker, word)


def test_what_is_not_there_is_refused_as_the_page_says() -> None:
    for words in (["beat"], ["-B"], ["inspect", "active"], ["-P", "gevent"], ["-P", "threads"], ["multi", "start"]):
        command = [sys.executable, "-m", "qworker", "-A", "nothing", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 2, (words, done.stderr)
    done = subprocess.run(
        [sys.executable, "-m", "qworker", "-b", "amqp://", "queues"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 4, done.stderr
