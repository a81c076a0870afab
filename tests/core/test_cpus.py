"""How many CPUs may be used: affinity and the cgroup's quota, whichever is less."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from qworker.core.cgroups import Cgroups
from qworker.core.cpus import cpu_bounds, cpu_quota, usable_cpus

ALLOWED = len(os.sched_getaffinity(0))


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host of 16 CPUs whose /sys/fs/cgroup is a folder of the test."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(16)))
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    (tmp_path / "fs").mkdir()
    return tmp_path


def put(host: Path, path: str, text: str) -> None:
    (host / "fs" / path).parent.mkdir(parents=True, exist_ok=True)
    (host / "fs" / path).write_text(text)


def cpus(host: Path, membership: str) -> int:
    (host / "cgroup").write_text(membership)
    return usable_cpus(Cgroups(host / "fs", host / "cgroup"))


def test_without_a_quota_the_affinity_counts(host: Path) -> None:
    put(host, "app/cpu.max", "max 100000\n")

    assert cpus(host, "0::/app\n") == 16


@pytest.mark.parametrize(
    ("quota", "expected"), [("200000 100000", 2), ("150000 100000", 2), ("10000 100000", 1), ("9900000 100000", 16)]
)
def test_a_quota_of_version_2_is_rounded_up(host: Path, quota: str, expected: int) -> None:
    put(host, "app/cpu.max", quota + "\n")

    assert cpus(host, "0::/app\n") == expected


def test_the_tightest_quota_on_the_way_up_counts(host: Path) -> None:
    put(host, "slice/cpu.max", "300000 100000\n")
    put(host, "slice/app/cpu.max", "max 100000\n")

    assert cpus(host, "0::/slice/app\n") == 3


def test_in_a_container_the_root_is_our_own_cgroup(host: Path) -> None:
    put(host, "cpu.max", "200000 100000\n")

    assert cpus(host, "0::/\n") == 2
    assert cpus(host, "0::/docker/0123abcd\n") == 2


@pytest.mark.parametrize("mount", ["cpu", "cpu,cpuacct"])
def test_a_quota_of_version_1(host: Path, mount: str) -> None:
    put(host, f"{mount}/app/cpu.cfs_quota_us", "250000\n")
    put(host, f"{mount}/app/cpu.cfs_period_us", "100000\n")

    assert cpus(host, "5:memory:/app\n4:cpu,cpuacct:/app\n0::/\n") == 3


def test_version_1_without_a_quota_says_minus_one(host: Path) -> None:
    put(host, "cpu/app/cpu.cfs_quota_us", "-1\n")
    put(host, "cpu/app/cpu.cfs_period_us", "100000\n")

    assert cpus(host, "4:cpu:/app\n") == 16


@pytest.mark.parametrize("text", ["", "garbage", "0::/app\n\n::\n", "0::/../..\n", "4:cpu:/x\n"])
def test_what_cannot_be_read_limits_nothing(host: Path, text: str) -> None:
    put(host, "app/cpu.max", "nonsense")

    assert cpus(host, text) == 16


def test_on_this_machine_it_is_between_one_and_the_affinity() -> None:
    assert 1 <= usable_cpus() <= ALLOWED


def test_on_a_hybrid_host_the_tree_of_version_2_is_beside_the_others(host: Path) -> None:
    put(host, "unified/app/cpu.max", "200000 100000\n")

    assert cpus(host, "4:memory:/x\n0::/app\n") == 2


@pytest.mark.parametrize(
    ("quota", "words"),
    [
        ("max 100000", ""),
        ("200000 100000", "2 CPUs of quota on a 16-core host"),
        ("100000 100000", "1 CPU of quota on a 16-core host"),
        ("150000 100000", "1.5 CPUs of quota on a 16-core host"),
        ("6400000 100000", ""),
    ],
)
def test_the_quota_is_told_when_it_is_what_limits(host: Path, quota: str, words: str) -> None:
    put(host, "app/cpu.max", quota + "\n")
    (host / "cgroup").write_text("0::/app\n")

    assert cpu_bounds(Cgroups(host / "fs", host / "cgroup")) == words


def test_the_affinity_is_told_when_it_is_what_limits(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {1, 2, 3})

    assert cpu_bounds(Cgroups(host / "fs", host / "nothing")) == "may use 3 of 16 CPUs"
    assert cpu_quota(Cgroups(host / "fs", host / "nothing")) is None
