"""The cache of compiled objects: right content or nothing, and nobody else's hand in it."""

import dataclasses
from pathlib import Path

import pytest

from uxdp_bundle.errors import KeyFileError
from uxdp_runtime.compile import cache
from uxdp_runtime.compile.compiler import NativeObject, ProgramSource, Target

TARGET = Target("x86_64", "x86-64-v3", "")
SOURCE = ProgramSource(b"ir", b"object", "program", ("program",), (), 2, {"a": 1}, {"b": b"\1"})
KEY = cache.cache_key("00", SOURCE, TARGET, "22")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def test_load_what_was_saved_is_given_back(directory: Path) -> None:
    assert cache.load(directory, KEY, TARGET, "22") is None
    cache.save(directory, KEY, NativeObject(b"code", TARGET, "22"))
    assert cache.load(directory, KEY, TARGET, "22") == NativeObject(b"code", TARGET, "22")
    assert (directory / KEY).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("position", [0, 20, -1], ids=["magic", "digest", "content"])
def test_load_damaged_file_is_nothing(directory: Path, position: int) -> None:
    cache.save(directory, KEY, NativeObject(b"code", TARGET, "22"))
    data = bytearray((directory / KEY).read_bytes())
    data[position] ^= 1
    (directory / KEY).write_bytes(data)
    assert cache.load(directory, KEY, TARGET, "22") is None


def test_load_writable_by_others_is_refused(directory: Path) -> None:
    cache.save(directory, KEY, NativeObject(b"code", TARGET, "22"))
    (directory / KEY).chmod(0o666)
    with pytest.raises(KeyFileError, match="0666"):
        cache.load(directory, KEY, TARGET, "22")
    (directory / KEY).chmod(0o600)
    directory.chmod(0o777)
    with pytest.raises(KeyFileError, match="0777"):
        cache.load(directory, KEY, TARGET, "22")
    with pytest.raises(KeyFileError, match="0777"):
        cache.save(directory, KEY, NativeObject(b"code", TARGET, "22"))


@pytest.mark.parametrize(
    "change",
    [
        {"object": b"other"},
        {"entry": "other"},
        {"num_cpus": 3},
        {"values": {"a": 2}},
        {"values": None},
        {"constants": {}},
    ],
    ids=["object", "entry", "cpus", "values", "unverified", "constants"],
)
def test_cache_key_depends_on_all_that_decides_the_code(change: dict[str, object]) -> None:
    assert cache.cache_key("00", dataclasses.replace(SOURCE, **change), TARGET, "22") != KEY
    assert cache.cache_key("01", SOURCE, TARGET, "22") != KEY
    assert cache.cache_key("00", SOURCE, Target("x86_64", "x86-64-v4", ""), "22") != KEY
    assert cache.cache_key("00", SOURCE, TARGET, "23") != KEY
