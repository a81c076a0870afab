"""How much memory the kernel lets us have: the tightest limit of our own cgroup and of those above it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from qworker.core.cgroups import Cgroups
from qworker.core.memory_limit import memory_limit, mib

MIB = 1024 * 1024
HOST = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A host whose /sys/fs/cgroup is a folder of the test."""
    (tmp_path / "fs").mkdir()
    return tmp_path


def put(host: Path, path: str, number: int | str) -> None:
    (host / "fs" / path).parent.mkdir(parents=True, exist_ok=True)
    (host / "fs" / path).write_text(f"{number}\n")


def limit(host: Path, membership: str) -> int | None:
    (host / "cgroup").write_text(membership)
    return memory_limit(Cgroups(host / "fs", host / "cgroup"))


def test_a_limit_of_version_2(host: Path) -> None:
    put(host, "app/memory.max", 64 * MIB)

    assert limit(host, "0::/app\n") == 64 * MIB


def test_max_is_no_limit(host: Path) -> None:
    put(host, "app/memory.max", "max")
    put(host, "app/memory.high", "max")

    assert limit(host, "0::/app\n") is None


def test_what_slows_down_counts_like_what_kills(host: Path) -> None:
    put(host, "app/memory.max", 64 * MIB)
    put(host, "app/memory.high", 48 * MIB)

    assert limit(host, "0::/app\n") == 48 * MIB


def test_the_tightest_limit_on_the_way_up_counts(host: Path) -> None:
    put(host, "memory.max", 128 * MIB)
    put(host, "slice/memory.max", 32 * MIB)
    put(host, "slice/app/memory.max", 64 * MIB)

    assert limit(host, "0::/slice/app\n") == 32 * MIB


def test_in_a_container_the_root_is_our_own_cgroup(host: Path) -> None:
    put(host, "memory.max", 64 * MIB)
    put(host, "memory/memory.limit_in_bytes", 32 * MIB)

    assert limit(host, "0::/\n") == 64 * MIB
    assert limit(host, "0::/docker/0123abcd\n") == 64 * MIB
    assert limit(host, "4:memory:/docker/0123abcd\n") == 32 * MIB


def test_a_limit_of_version_1(host: Path) -> None:
    put(host, "memory/memory.limit_in_bytes", 9223372036854771712)
    put(host, "memory/app/memory.limit_in_bytes", 64 * MIB)

    assert limit(host, "5:cpu:/app\n4:memory:/app\n0::/\n") == 64 * MIB
    assert limit(host, "4:memory:/\n") is None


def test_more_than_the_host_has_limits_nothing(host: Path) -> None:
    put(host, "app/memory.max", HOST)

    assert limit(host, "0::/app\n") is None


@pytest.mark.parametrize("text", ["", "garbage", "0::/app\n\n::\n", "0::/../..\n", "4:memory:/x\n"])
def test_what_cannot_be_read_limits_nothing(host: Path, text: str) -> None:
    put(host, "app/memory.max", "nonsense")

    assert limit(host, text) is None


@pytest.mark.parametrize(
    ("number", "words"), [(512 * MIB, "512 MiB"), (1536 * MIB, "1.5 GiB"), (64 * 1024 * MIB, "64 GiB")]
)
def test_memory_is_told_in_the_unit_that_a_person_would_take(number: int, words: str) -> None:
    assert mib(number) == words
