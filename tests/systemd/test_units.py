"""The shipped units: what systemd itself says of them, and that their numbers fit the worker's."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

import qworker
from qworker.systemd import Service, service_unit, shipped, template_unit

UNITS = Path(str(qworker.__file__)).parent / "systemd"
SHIPPED = ("qworker@.service", "qworker.slice", "qworker.target")
#: Above this, `systemd-analyze security` takes a service for exposed.
MOST_EXPOSED = 3.0


def analyzer() -> str:
    """systemd-analyze, if it is new enough to judge a file (250)."""
    found = shutil.which("systemd-analyze")
    if found is None:
        pytest.skip("needs the command systemd-analyze")
    version = int(re.findall(r"\d+", subprocess.run([found, "--version"], capture_output=True, text=True).stdout)[0])
    if version < 250:
        pytest.skip("needs the command systemd-analyze of systemd 250")
    return found


def service(**other: object) -> str:
    """The unit of an application with some options."""
    given = {
        "name": "shop",
        "command": ["/usr/bin/env", "qworker", "-A", "shop", "-Q", "a,b", "-n", "w@%h", "--config", "a b"],
        "bin_folder": "/srv/shop/.venv/bin",
        "workdir": "/srv/shop",
        "env_file": "/etc/qworker/shop.env",
        "user": "deploy",
    }
    return service_unit(Service(**(given | other)), "Made for a test.")  # type: ignore[arg-type]


def values(text: str, name: str) -> list[str]:
    return re.findall(rf"^{name}=(.*)$", text, re.MULTILINE)


def units(kind: str) -> str:
    """What is shipped, and what `qworker systemd` writes."""
    return {
        "shipped": lambda: shipped("qworker@.service"),
        "template": lambda: template_unit(["/usr/bin/env", "qworker"], "/opt/venv/bin", "Made for a test.", "deploy"),
        "service": service,
        "in home": lambda: service(workdir="/home/me/shop", memory_max="2G", group="www"),
        "in a strange place": lambda: service(workdir="/srv/my 100%", bin_folder='/srv/my "100%/$HOME/bin'),
        "template in a strange place": lambda: template_unit(["/bin/env"], "/srv/my 100%/bin", "Made for a test."),
        "of the user": lambda: service(user="", env_file="%h/.config/qworker/shop.env"),
    }[kind]()


def test_a_folder_with_any_name_is_one_entry_of_the_path() -> None:
    made = units("in a strange place")
    assert values(made, "Environment")[0] == r'"PATH=/srv/my \"100%%/$HOME/bin:/usr/local/bin:/usr/bin:/bin"'
    (path,) = [value for value in values(units("template in a strange place"), "Environment") if "PATH" in value]
    assert path.startswith('"PATH=/srv/%i/.venv/bin:')
    assert path.endswith(':/srv/my 100%%/bin:/usr/local/bin:/usr/bin:/bin"')


KINDS = ("shipped", "template", "service", "in home", "of the user", "in a strange place")


@pytest.mark.parametrize("kind", [*KINDS, "template in a strange place"])
def test_systemd_finds_nothing_wrong_with_the_unit(kind: str, tmp_path: Path) -> None:
    name = "qworker@.service" if kind.partition(" ")[0] in ("shipped", "template") else "qworker-shop.service"
    for other in SHIPPED[1:]:
        (tmp_path / other).write_text(shipped(other))
    (tmp_path / name).write_text(units(kind))
    user = ["--user"] if kind == "of the user" else []
    done = subprocess.run(
        [analyzer(), *user, "verify", "--man=no", *(str(path) for path in tmp_path.iterdir())],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "XDG_RUNTIME_DIR": str(tmp_path), "HOME": str(tmp_path)},
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("kind", ["shipped", "template", "service", "in home"])
def test_systemd_takes_the_service_for_well_confined(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "qworker-shop.service"
    path.write_text(units(kind))
    done = subprocess.run(
        [analyzer(), "security", "--offline=true", "--no-pager", str(path)], capture_output=True, text=True
    )
    level = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert level is not None, done.stdout + done.stderr
    assert float(level[1]) < MOST_EXPOSED


@pytest.mark.parametrize("soft_s", [0.0, 25.0, 300.5])
def test_systemd_waits_longer_than_a_soft_stop_may_take(soft_s: float) -> None:
    text = service(soft_s=soft_s)
    assert f"QWORKER_SOFT_SHUTDOWN_TIMEOUT={soft_s:g}" in text
    assert int(values(text, "TimeoutStopSec")[0]) >= soft_s + 15


def test_the_shipped_template_has_the_numbers_of_a_made_unit() -> None:
    made, template = service(), shipped("qworker@.service")
    for name in ("TimeoutStopSec", "WatchdogSec"):
        assert values(made, name) == values(template, name)


@pytest.mark.parametrize(("deaf_s", "watchdog_s"), [(30.0, 60), (120.0, 240), (1.5, 30), (0.0, 60)])
def test_the_watchdog_leaves_the_worker_time_to_mend_itself(deaf_s: float, watchdog_s: int) -> None:
    assert values(service(deaf_s=deaf_s), "WatchdogSec") == [str(watchdog_s)]


def test_the_command_is_written_so_that_systemd_reads_the_same_words() -> None:
    assert values(service(), "ExecStart") == ['/usr/bin/env qworker -A shop -Q a,b -n w@%%h --config "a b"']
    strange = service(command=["/bin/true", 'a"b\\c', "$HOME", "100%", "", "tab\t"])
    assert values(strange, "ExecStart") == ['/bin/true "a\\"b\\\\c" "$$HOME" 100%% "" "tab\\t"']


def test_what_lies_in_a_home_or_in_tmp_is_shown_to_the_service() -> None:
    assert values(service(), "ProtectHome") == ["yes"]
    assert values(service(), "PrivateTmp") == ["yes"]
    assert values(service(workdir="/home/me/shop"), "ProtectHome") == ["read-only"]
    assert values(service(interpreter="/home/me/venv/bin/python"), "ProtectHome") == ["read-only"]
    assert values(service(bin_folder="/tmp/venv/bin"), "PrivateTmp") == ["no"]


def test_a_users_unit_asks_for_nothing_that_only_the_system_can_do() -> None:
    text = service(user="")
    for name in ("User", "ProtectSystem", "CapabilityBoundingSet", "After"):
        assert values(text, name) == []
    assert values(text, "WantedBy") == ["default.target qworker.target"]
    assert values(text, "NoNewPrivileges") == ["yes"]


def test_the_unit_of_an_application_differs_from_the_template_only_where_it_must() -> None:
    names = re.compile(r"^(\w+)=.*$", re.MULTILINE)
    template, made = shipped("qworker@.service"), service(group="deploy")
    assert set(names.findall(made)) == set(names.findall(template))
    same = [name for name in names.findall(template) if values(made, name) == values(template, name)]
    assert {"NotifyAccess", "KillMode", "RestartPreventExitStatus", "SystemCallFilter", "OOMPolicy"} <= set(same)
