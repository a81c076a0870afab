"""`qworker systemd install|print`: what an operator types, gets and is told."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .conftest import Qworker

APP = """
from qworker import App
app = App("shop", broker="sqlite:///b.db", worker_deaf_timeout=120, worker_soft_shutdown_timeout=90)
"""


@pytest.fixture(autouse=True)
def _application(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An application in the working directory; its import leaves no trace."""
    (tmp_path / "shop.py").write_text(APP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    sys.modules.pop("shop", None)


@pytest.fixture
def printed(qworker: Qworker) -> Callable[..., str]:
    """The unit of the application."""

    def call(*arguments: str) -> str:
        done = qworker("systemd", "print", "-A", "shop", "--run-as", "deploy", *arguments)
        sys.modules.pop("shop", None)
        assert done.code == 0, done.err
        return done.out

    return call


INSTALL = ("systemd", "install", "-A", "shop", "--run-as", "deploy", "--directory", "units")


def values(text: str, name: str) -> list[str]:
    return re.findall(rf"^{name}=(.*)$", text, re.MULTILINE)


def test_print_shows_a_unit_with_the_workers_options_as_they_were_typed(
    printed: Callable[..., str], tmp_path: Path
) -> None:
    unit = printed("-Q", "a, b", "-c", "auto", "--autoscale", "8,2", "--time-limit", "60", "--purge")
    [command] = values(unit, "ExecStart")
    assert command.startswith(os.path.dirname(sys.executable))
    for words in ("-A shop", '-Q "a, b"', "-c auto", "--autoscale 8,2", "--time-limit 60", "--discard"):
        assert f" {words}" in command
    assert values(unit, "User") == ["deploy"]
    assert values(unit, "WorkingDirectory") == [str(tmp_path)]
    assert values(unit, "EnvironmentFile") == ["-/etc/qworker/shop.env"]


def test_the_numbers_come_from_the_command_line_then_the_application_then_the_defaults(
    printed: Callable[..., str], tmp_path: Path
) -> None:
    def numbers(*arguments: str) -> tuple[str, str]:
        unit = printed(*arguments)
        return values(unit, "TimeoutStopSec")[0], values(unit, "WatchdogSec")[0]

    assert numbers("--soft-shutdown-timeout", "300") == ("320", "240")
    assert numbers() == ("110", "240")
    assert numbers("--no-import") == ("45", "60")


def test_memory_environment_file_name_and_directory_are_taken_over(printed: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "shop.py").rename(tmp_path / "inner" / "shop.py")
    unit = printed(
        *("--workdir", "inner", "--memory-max", "2G", "--env-file", "/etc/shop.env", "--name", "shop-hipri"),
    )
    assert values(unit, "MemoryMax") == ["2G"]
    assert values(unit, "EnvironmentFile") == ["-/etc/shop.env"]
    assert values(unit, "WorkingDirectory") == [f"{tmp_path}/inner"]
    assert values(unit, "StateDirectory") == ["qworker/shop-hipri"]


def test_install_writes_the_unit_a_slice_and_a_target_and_says_what_to_type_next(
    qworker: Qworker, tmp_path: Path
) -> None:
    done = qworker(*INSTALL, "-c", "4")
    assert done.code == 0, done.err
    units = sorted(path.name for path in (tmp_path / "units").iterdir())
    assert units == ["qworker-shop.service", "qworker.slice", "qworker.target"]
    assert (tmp_path / "units" / "qworker-shop.service").stat().st_mode & 0o777 == 0o644
    assert "systemctl daemon-reload" in done.out
    assert "systemctl enable --now qworker-shop" in done.out
    again = qworker(*INSTALL, "-c", "4")
    assert (again.code, again.out.count("unchanged")) == (0, 3)


def test_install_does_not_write_over_what_somebody_has_changed(qworker: Qworker, tmp_path: Path) -> None:
    assert qworker(*INSTALL).code == 0
    unit, target = tmp_path / "units" / "qworker-shop.service", tmp_path / "units" / "qworker.target"
    unit.write_text("[Service]\nExecStart=/bin/true\n")
    target.write_text("# mine\n")
    refused = qworker(*INSTALL)
    assert refused.code != 0
    assert "--force" in refused.err
    assert "/bin/true" in unit.read_text()
    assert qworker(*INSTALL, "--force").code == 0
    assert "/bin/true" not in unit.read_text()
    target.write_text("# mine\n")
    assert "kept" in qworker(*INSTALL).out
    assert target.read_text() == "# mine\n"


def test_a_dry_run_writes_nothing(qworker: Qworker, tmp_path: Path) -> None:
    done = qworker(*INSTALL, "--dry-run")
    assert done.code == 0, done.err
    assert "would write units/qworker-shop.service" in done.out
    assert "ExecStart=" in done.out
    assert not (tmp_path / "units").exists()


def test_a_directory_that_cannot_be_written_is_said_with_a_way_out(qworker: Qworker, tmp_path: Path) -> None:
    (tmp_path / "units").write_text("no folder")
    done = qworker(*INSTALL)
    assert done.code != 0
    assert "units" in done.err.splitlines()[-1]


def test_a_users_unit_goes_to_the_users_own_folder(qworker: Qworker, tmp_path: Path) -> None:
    done = qworker("systemd", "install", "-A", "shop", "--user", XDG_CONFIG_HOME=str(tmp_path / "conf"))
    assert done.code == 0, done.err
    unit = (tmp_path / "conf/systemd/user/qworker-shop.service").read_text()
    assert values(unit, "User") == []
    assert "systemctl --user enable --now qworker-shop" in done.out
    assert "enable-linger" in done.out


def test_a_template_runs_many_workers_and_takes_no_worker_options(qworker: Qworker, tmp_path: Path) -> None:
    done = qworker("systemd", "print", "--template", "--run-as", "deploy:www")
    assert done.code == 0, done.err
    assert (values(done.out, "User"), values(done.out, "Group")) == (["deploy"], ["www"])
    assert values(done.out, "EnvironmentFile") == ["-/etc/qworker/%i.env"]
    assert values(done.out, "ExecStart")[0].startswith(os.path.dirname(sys.executable))
    refused = qworker("systemd", "print", "--template", "--run-as", "deploy", "-c", "4")
    assert refused.code == 2


def test_the_environment_file_has_a_whole_path(printed: Callable[..., str], tmp_path: Path) -> None:
    assert values(printed("--env-file", "own.env"), "EnvironmentFile") == [f"-{tmp_path}/own.env"]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ([], 2, "install or print"),
        (["instal"], 2, "'install'"),
        (["print", "--run-as", "deploy"], 2, "no application"),
        (["print", "-A", "nothing_here", "--run-as", "deploy"], 3, "nothing_here"),
        (["print", "-A", "shop", "-c", "0"], 2, "without children"),
        (["print", "-A", "shop", "--run-as", "deploy", "-b", "redis://:s3cret@h/0"], 2, "QWORKER_BROKER="),
        (["print", "-A", "shop", "--run-as", "deploy", "--detach"], 2, "--detach"),
        (["print", "-A", "shop", "--run-as", "deploy", "--name", "my shop"], 2, "--name 'my shop'"),
        (["print", "-A", "shop", "--run-as", "deploy", "--name", "../shop"], 2, "--name '../shop'"),
        (["print", "-A", "shop", "--run-as", "deploy", "--memory-max", "2 G"], 2, "--memory-max '2 G'"),
        (["print", "-A", "shop", "--run-as", "de ploy"], 2, "--run-as 'de ploy'"),
        (["install", "-A", "shop", "--run-as", "deploy", "--conurrency", "4"], 2, "--concurrency"),
    ],
)
def test_mistakes_are_said_in_a_line(
    qworker: Qworker, tmp_path: Path, arguments: list[str], code: int, says: str
) -> None:
    done = qworker("systemd", *arguments)
    assert done.code == code
    assert says in done.err
    assert "s3cret" not in done.out + done.err
