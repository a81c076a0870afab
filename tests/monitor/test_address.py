"""What `--http` may say, and where sockets are looked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from qworker.core.errors import ConfigError
from qworker.monitor import Place, parse
from qworker.monitor.address import file_name, folders, is_loopback, make_folder


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("127.0.0.1:9540", Place(host="127.0.0.1", port=9540)),
        ("localhost:1", Place(host="localhost", port=1)),
        ("[::1]:9540", Place(host="::1", port=9540)),
        (":9540", Place(host="0.0.0.0", port=9540)),
        ("http://127.0.0.1:9540/", Place(host="127.0.0.1", port=9540)),
        ("unix:/run/x.sock", Place(path="/run/x.sock")),
        ("unix:///run/x.sock", Place(path="/run/x.sock")),
        ("off", Place()),
    ],
)
def test_an_address_is_read(text: str, place: Place) -> None:
    assert parse(text) == place


@pytest.mark.parametrize("text", ["9540", "host", "host:", "host:port", "host:99999", "host:-1", "on", "host:٣"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="HOST:PORT"):
        parse(text)


def test_only_loopback_is_loopback() -> None:
    assert all(map(is_loopback, ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"]))
    assert not any(map(is_loopback, ["0.0.0.0", "::", "10.0.0.1", "128.0.0.1", "localhost", ""]))


def test_the_runtime_directory_comes_first() -> None:
    assert folders({"XDG_RUNTIME_DIR": "/run/user/7"})[0] == "/run/user/7/qworker"
    assert folders({"TMPDIR": "/somewhere"})[-1].startswith("/somewhere/qworker-")


def test_a_node_name_stays_in_its_folder() -> None:
    assert "/" not in file_name("../../etc/x@host")
    assert file_name("a b\n@h") == "a_b_@h.sock"


def test_a_folder_that_others_may_write_into_is_not_used(tmp_path: Path) -> None:
    assert make_folder(str(tmp_path / "mine"))
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    assert not make_folder(str(open_to_all))
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    assert not make_folder(str(tmp_path / "link"))
    (tmp_path / "file").touch()
    assert not make_folder(str(tmp_path / "file"))
