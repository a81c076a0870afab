"""What the command line accepts, and what it says to what it does not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import qworker.cli.worker_cmd
from qworker import __version__
from qworker.core.cpus import usable_cpus
from qworker.worker import WorkerOptions

from .conftest import Qworker

WORKER_OPTIONS = """
-A --app -b --broker --result-backend --config --workdir -C --no-color -q --quiet --version
-n --hostname -D --detach -S --statedb -l --loglevel -O --optimization --prefetch-multiplier
-c --concurrency -P --pool -E --task-events --time-limit --soft-time-limit --max-tasks-per-child --max-memory-per-child
--purge --discard -Q --queues -X --exclude-queues -I --include
--without-gossip --without-mingle --without-heartbeat --heartbeat-interval --autoscale
-B --beat -s --schedule --scheduler -f --logfile --pidfile --uid --gid --umask --executable
--soft-shutdown-timeout --burst --max-memory-hard --recycle-jitter --log-format --http --reload
"""
LATER = """
-S=x -E -B -s=x --scheduler=x
--reload
--async-concurrency=5 --pool=threads --pool=solo
"""
COMMANDS = ("worker", "demo", "call", "result", "queues", "purge", "dead", "report")


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[WorkerOptions]:
    """The options that a worker would have been started with."""
    found: list[WorkerOptions] = []

    def run_worker(options: WorkerOptions, companions: object, image: object) -> int:
        found.append(options)
        return 0

    monkeypatch.setattr(qworker.cli.worker_cmd, "run_worker", run_worker)
    return found


def test_help_shows_every_worker_option_and_every_command(qworker: Qworker) -> None:
    code, out, _ = qworker("--help")

    assert code == 0
    words = out.replace(",", " ").replace("/", " ").split()
    assert [option for option in WORKER_OPTIONS.split() if option not in words] == []
    assert all(f"  {name} " in out for name in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_help(qworker: Qworker, command: str) -> None:
    code, out, err = qworker(command, "--help")

    assert (code, err) == (0, "")
    assert out.startswith("Usage: qworker")


@pytest.mark.parametrize("arguments", [("--version",), ("worker", "--version")])
def test_the_version_is_shown(qworker: Qworker, arguments: tuple[str, ...]) -> None:
    assert qworker(*arguments) == (0, f"qworker {__version__}\n", "")


@pytest.mark.parametrize(
    "arguments",
    [
        "-A shop -c 4 -Q hipri",
        "-A shop -c 4 -Q hipri worker",
        "-A shop worker -c 4 -Q hipri",
        "worker -A shop -c 4 -Q hipri",
        "worker --app=shop --concurrency=4 --queues=hipri",
    ],
)
def test_the_word_worker_may_stand_anywhere_or_nowhere(
    qworker: Qworker, started: list[WorkerOptions], arguments: str
) -> None:
    assert qworker(*arguments.split()).code == 0
    assert started == [WorkerOptions(app="shop", concurrency=4, queues=("hipri",))]


def test_a_value_that_is_called_worker_is_no_command(qworker: Qworker, started: list[WorkerOptions]) -> None:
    qworker("-A", "worker", "-Q", "worker", "worker")

    assert started == [WorkerOptions(app="worker", queues=("worker",))]


def test_every_available_option_reaches_the_worker(qworker: Qworker, started: list[WorkerOptions]) -> None:
    arguments = (
        "-A shop -b redis://h/1 --result-backend redis://h/2 --config conf --workdir /tmp -C -q -n w@%h -l debug "
        "-O fair --prefetch-multiplier 2 -c 3 -P prefork --purge -Q a,b, -X c -I m,n -f w.log --log-format json --burst"
    )
    assert qworker(*arguments.split()).code == 0

    assert started == [
        WorkerOptions(
            app="shop",
            broker="redis://h/1",
            result_backend="redis://h/2",
            workdir="/tmp",
            config="conf",
            nodename="w@%h",
            queues=("a", "b"),
            exclude_queues=("c",),
            include=("m", "n"),
            concurrency=3,
            prefetch_multiplier=2,
            optimization="fair",
            loglevel="DEBUG",
            log_format="json",
            logfile="w.log",
            colour=False,
            quiet=True,
            purge=True,
            burst=True,
        )
    ]


def test_every_option_is_read_from_the_environment(qworker: Qworker, started: list[WorkerOptions]) -> None:
    environment = {
        "QWORKER_APP": "shop",
        "QWORKER_CONCURRENCY": "3",
        "QWORKER_QUEUES": "a,b",
        "QWORKER_RESULT_BACKEND": "redis://h/2",
        "QWORKER_LOG_FORMAT": "logfmt",
        "QWORKER_NO_COLOR": "1",
        "QWORKER_HOSTNAME": "w1",
        "QWORKER_OPTIMIZATION": "fair",
        "QWORKER_PURGE": "yes",
    }
    qworker(**environment)
    qworker("worker", "-c", "auto", "-Q", "c", **environment)

    common = {"app": "shop", "result_backend": "redis://h/2", "log_format": "logfmt", "colour": False}
    more = {"nodename": "w1", "optimization": "fair", "purge": True}
    assert started == [
        WorkerOptions(concurrency=3, queues=("a", "b"), **common, **more),  # type: ignore[arg-type]
        WorkerOptions(concurrency=usable_cpus(), queues=("c",), **common, **more),  # type: ignore[arg-type]
    ]


def test_a_variable_that_no_option_has_is_warned_of_with_the_nearest_one(
    qworker: Qworker, started: list[WorkerOptions]
) -> None:
    of_kubernetes = {"QWORKER_SERVICE_HOST": "10.0.0.1", "QWORKER_PORT": "tcp://10.0.0.1:80", "QWORKER_PORT_8_TCP": "x"}
    err = qworker("-A", "shop", QWORKER_CONCURENCY="3", QWORKER_XYZZY="1", QWORKER_CALL_QUEUE="q", **of_kubernetes).err

    warned = [line.partition("the variable ")[2] for line in err.splitlines() if "the variable " in line]
    assert warned == [
        "QWORKER_CONCURENCY is none of the worker's options and does nothing; did you mean QWORKER_CONCURRENCY?",
        "QWORKER_XYZZY is none of the worker's options and does nothing",
    ]
    assert started == [WorkerOptions(app="shop")]


def test_a_variable_that_says_which_version_is_installed_is_left_alone(
    qworker: Qworker, started: list[WorkerOptions]
) -> None:
    assert qworker("-A", "shop", QWORKER_VERSION="1.2.3") == (0, "", "")
    assert started == [WorkerOptions(app="shop")]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("", "no application"),
        ("-A shop --conccurency 3", "--concurrency"),
        ("-A shop --queue a", "--queues"),
        ("-A shop wroker", "did you mean 'worker'?"),
        ("-A shop quues", "did you mean 'queues'?"),
        ("-A shop xyzzy", "there are worker, demo, call"),
        ("-A shop dead lst", "did you mean 'list'?"),
        ("-A shop dead requeue", "Give IDs, --all or -Q"),
        ("-A shop dead purge", "Give IDs, --all, --older-than"),
        ("-A shop dead purge --all t1", "not both"),
        ("-A shop dead purge --older-than soon", "is no age"),
        ("-A shop dead", "which one: list, purge, requeue, show?"),
        ("-A shop -c 0", "a worker without children runs nothing"),
        ("-A shop -c -1", "a worker without children runs nothing"),
        ("-A shop -c many", "'many' is not a whole number"),
        ("-A shop -O fiar", "did you mean 'fair'?"),
        ("-A shop -P preforked", "did you mean 'prefork'?"),
        ("-A shop --log-format jsn", "did you mean 'json'?"),
        ("-A shop -l dbug", "did you mean 'debug'?"),
        ("-A shop -Q ,", "holds no name"),
        ("-A shop --prefetch-multiplier 0", "always limited"),
        ("-A shop --time-limit soon", "not a number of seconds"),
        ("-A shop --autoscale 3,10", "the larger number first"),
        ("-A shop --soft-shutdown-timeout -1", "not less than 0"),
        ("-A", "requires an argument"),
        ("-A shop -c 2 queues", "--concurrency is an option of the worker and means nothing to 'queues'"),
        ("queues", "no application and no broker"),
        ("-A shop call", "Missing argument"),
        ("-A shop call add --args 7", "is not a list"),
        ("-A shop call add --args [7", "is not JSON"),
        ("-A shop call add --kwargs [7]", "is not an object"),
        ("-A shop call add --eta soon", "is not an ISO 8601 time"),
        ("-A shop call add --expires soon", "is not an ISO 8601 time"),
        ("-A shop call add --priority 10", "priority"),
        ("-A shop result", "Missing argument"),
    ],
)
def test_a_usage_error_is_one_line_that_names_what_would_do(qworker: Qworker, arguments: str, line: str) -> None:
    ended = qworker(*arguments.split())

    assert ended.code == 2
    assert ended.out == ""
    assert ended.error_line.startswith("qworker: ")
    assert line in ended.error_line


@pytest.mark.parametrize(
    "option",
    LATER.split(),
)
def test_an_option_whose_feature_comes_later_says_so(
    qworker: Qworker, started: list[WorkerOptions], option: str
) -> None:
    name, _, value = option.partition("=")
    ended = qworker("-A", "shop", name, *([value] if value else []))

    assert ended.code == 2
    assert "is not in this version" in ended.error_line
    assert started == []


def test_a_later_option_is_refused_in_the_environment_too(qworker: Qworker) -> None:
    assert "--scheduler is not in this version" in qworker("-A", "shop", QWORKER_SCHEDULER="x").error_line


def test_what_the_environment_says_to_the_worker_concerns_no_other_command(qworker: Qworker) -> None:
    assert qworker("report", QWORKER_CONCURRENCY="0", QWORKER_AUTOSCALE="3,1").code == 0


@pytest.mark.parametrize("command", ["beat", "inspect", "dashboard"])
def test_a_command_that_comes_later_says_so(qworker: Qworker, command: str) -> None:
    ended = qworker("-A", "shop", command)

    assert ended.code == 2
    assert f"{command!r} is not in this version" in ended.error_line


@pytest.mark.parametrize(
    "option",
    ["--without-gossip", "--without-mingle", "--without-heartbeat", "--heartbeat-interval 5", "--executable python"],
)
def test_an_option_that_means_nothing_here_is_said_once_at_debug(
    qworker: Qworker, started: list[WorkerOptions], option: str
) -> None:
    quiet = qworker("-A", "shop", *option.split())
    loud = qworker("-A", "shop", "-l", "debug", *option.split())

    assert len(started) == 2
    assert quiet.err == ""
    assert f"DEBUG/MainProcess] {option.split()[0]} means nothing to this worker" in loud.error_line


def test_python_m_qworker_is_the_same_command(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-m", "qworker", "--version"], cwd=tmp_path, capture_output=True, timeout=30
    )

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, f"qworker {__version__}\n".encode(), b"")


def test_the_version_and_the_help_load_nothing_heavy() -> None:
    code = (
        "import sys; from qworker.cli.entry import run; run([{!r}]);"
        "print(*sorted({{name.partition('.')[0] for name in sys.modules}}), file=sys.stderr)"
    )
    for argument in ("--version", "--help"):
        ended = subprocess.run(
            [sys.executable, "-c", code.format(argument)], capture_output=True, text=True, timeout=30
        )
        loaded = set(ended.stderr.split())
        assert "qworker" in loaded
        assert not loaded & {"redis", "hiredis", "billiard", "psutil", "sqlite3", "asyncio", "ssl", "celery", "kombu"}


def test_a_command_that_is_started_with_closed_streams_has_streams(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(
        "import os, sys\nfrom qworker import App\napp = App('shop', broker='sqlite:///closed.db')\n"
        "for stream in (sys.stdin, sys.stdout, sys.stderr):\n    stream.fileno()\n"
        "assert all(os.path.samefile(f'/proc/self/fd/{fd}', os.devnull) for fd in range(3))\n"
    )
    command = f"exec {sys.executable} -m qworker -A shop -c 1 --burst --logfile log.txt <&- >&- 2>&-"
    assert subprocess.run(["sh", "-c", command], cwd=tmp_path, timeout=60).returncode == 0
    assert "stopped, exit code 0" in (tmp_path / "log.txt").read_text()


@pytest.mark.parametrize("buffered", [True, False])
@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("-A shop -c 1 --burst 2>/dev/full", 0),
        ("-A shop -c 1 --burst >/dev/full 2>&1", 0),
        ("-A shop --no-such-option 2>/dev/full", 2),
        ("-A nowhere 2>/dev/full", 3),
        ("--version >/dev/full", 70),
    ],
)
def test_a_stream_that_takes_nothing_changes_no_exit_code(
    tmp_path: Path, command: str, code: int, buffered: bool
) -> None:
    (tmp_path / "shop.py").write_text("from qworker import App\napp = App('shop', broker='sqlite:///full.db')\n")
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    env |= {} if buffered else {"PYTHONUNBUFFERED": "1"}
    line = f"exec {sys.executable} -m qworker {command}"
    assert subprocess.run(["sh", "-c", line], cwd=tmp_path, env=env, timeout=60).returncode == code
