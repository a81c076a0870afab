from __future__ import annotations

import zlib

import pytest

from qworker import ConfigError, EncodeError
from qworker.tasks import compression, serializers
from qworker.tasks.typed_json import DecodeError


@pytest.mark.parametrize("name", ["json", "yaml", "msgpack", "pickle"])
def test_what_one_serializer_writes_it_reads(name: str) -> None:
    encoded = serializers.dumps([[1, "é", None, 2.5], {"a": [True]}], name)
    assert serializers.loads(encoded.data, encoded.content_type, encoded.content_encoding) == (
        [[1, "é", None, 2.5], {"a": [True]}]
    )


def test_names_and_content_types_are_both_accepted() -> None:
    assert serializers.accepted_types(["json", "application/x-yaml"]) == {"application/json", "application/x-yaml"}


def test_an_unknown_serializer_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match="did you mean 'msgpack'"):
        serializers.accepted_types(["msgpak"])


@pytest.mark.parametrize(("name", "module"), [("yaml", "yaml"), ("msgpack", "msgpack")])
def test_a_missing_package_is_named_with_the_way_to_install_it(
    name: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, module, None)  # what Python itself keeps for "not importable"
    with pytest.raises(ConfigError, match=rf"pip install 'qworker\[{name}\]'"):
        serializers.accepted_types([name])
    with pytest.raises(ConfigError, match="not installed"):
        serializers.dumps([1], name)


@pytest.mark.parametrize("name", ["yaml", "msgpack", "pickle"])
def test_what_a_serializer_cannot_express_cannot_be_sent(name: str) -> None:
    with pytest.raises(EncodeError, match=name):
        serializers.dumps([lambda: None], name)


@pytest.mark.parametrize("kind", sorted(serializers.accepted_types(["json", "yaml", "msgpack", "pickle"])))
def test_rubbish_is_a_decode_error(kind: str) -> None:
    with pytest.raises(DecodeError):
        serializers.loads(b"\xc1{[\x00rubbish", kind, "binary")


METHODS = ["gzip", "bzip2", "lzma"]


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("data", [b"", b"abc" * 1000])
def test_what_is_packed_unpacks_up_to_the_very_limit(name: str, data: bytes) -> None:
    kind = compression.content_type_of(name)
    assert compression.decompress(compression.compress(data, kind), kind, len(data)) == data


@pytest.mark.parametrize("name", METHODS)
def test_one_byte_beyond_the_limit_is_too_much(name: str) -> None:
    kind = compression.content_type_of(name)
    with pytest.raises(compression.TooLarge):
        compression.decompress(compression.compress(b"x" * 5001, kind), kind, 5000)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("damage", [lambda packed: packed[:-1], lambda packed: b"rubbish" + packed, lambda _: b""])
def test_damaged_data_is_a_decode_error(name: str, damage: object) -> None:
    kind = compression.content_type_of(name)
    packed = compression.compress(b"abc" * 100, kind)
    with pytest.raises(DecodeError):
        compression.decompress(damage(packed), kind, 10_000)  # type: ignore[operator]


def test_a_real_gzip_stream_is_read_as_well() -> None:
    packer = zlib.compressobj(wbits=31)
    packed = packer.compress(b"abc") + packer.flush()
    assert compression.decompress(packed, "application/x-gzip", 10) == b"abc"


@pytest.mark.parametrize("name", ["zstd", "brotli"])
def test_a_method_whose_package_is_missing_says_what_to_install(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("backports.zstd", "compression.zstd", "brotli"):
        monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(ConfigError, match="pip install"):
        compression.compress(b"abc", compression.content_type_of(name))


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(ConfigError, match="there is no compression 'zip'"):
        compression.content_type_of("zip")
    with pytest.raises(LookupError):
        compression.decompress(b"", "application/zip", 10)
