"""The cache of compiled objects: right content or nothing, and nobody else's hand in it."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.trust_fixtures import give_away
from uxdp_bundle.errors import KeyFileError
from uxdp_runtime.compile import cache, targets
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


def test_cache_key_depends_on_what_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {KEY}
    for name, value in (("_compiler_digest", "other"), ("_llvm", "0.51.0")):
        with monkeypatch.context() as changed:
            changed.setattr(cache, name, lambda value=value: value)
            keys.add(cache.cache_key("00", SOURCE, TARGET, "22"))
    with monkeypatch.context() as changed:
        changed.setattr(cache, "native_library", lambda _machine: b"another version's")
        keys.add(cache.cache_key("00", SOURCE, TARGET, "22"))
    keys.add(cache.cache_key("00", SOURCE, Target("aarch64", "x86-64-v3", ""), "22"))
    keys.add(cache.cache_key("00", SOURCE, Target("x86_64", "x86-64-v3", "-avx2"), "22"))
    assert len(keys) == 6
    assert cache.cache_key("00", SOURCE, TARGET, "22") == KEY


@pytest.mark.parametrize("data", [b"", b"uxdp-native-1\n", b"\0" * 4096], ids=["empty", "cut-off", "zeros"])
def test_load_truncated_file_is_nothing_and_is_replaced(directory: Path, data: bytes) -> None:
    cache.save(directory, KEY, NativeObject(b"code", TARGET, "22"))
    (directory / KEY).write_bytes(data)
    assert cache.load(directory, KEY, TARGET, "22") is None
    cache.save(directory, KEY, NativeObject(b"code", TARGET, "22"))
    assert cache.load(directory, KEY, TARGET, "22") == NativeObject(b"code", TARGET, "22")


@pytest.mark.parametrize("what", ["directory", "file", "symlink"])
def test_load_in_the_power_of_others_is_refused(directory: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    cache.save(directory, KEY, NativeObject(b"code", TARGET, "22"))
    path = directory / KEY
    if what == "symlink":
        path.rename(directory.parent / "elsewhere")
        path.symlink_to(directory.parent / "elsewhere")
    else:
        give_away(directory if what == "directory" else path, monkeypatch)
    with pytest.raises(KeyFileError) as raised:
        cache.load(directory, KEY, TARGET, "22")
    assert "UXDP_CACHE_DIR" in raised.value.remedy


def test_save_that_fails_leaves_what_was_there(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.save(directory, KEY, NativeObject(b"code", TARGET, "22"))

    def fail(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(KeyFileError, match="No space left") as raised:
        cache.save(directory, KEY, NativeObject(b"other", TARGET, "22"))
    assert "UXDP_CACHE_DIR" in raised.value.remedy
    assert [path.name for path in directory.iterdir()] == [KEY]
    assert cache.load(directory, KEY, TARGET, "22") == NativeObject(b"code", TARGET, "22")


# Writes and reads the same few names as the others do; what is read is nothing or whole.
_CONCURRENT = """
import sys
from pathlib import Path
from uxdp_runtime.compile import cache, targets
from uxdp_runtime.compile.compiler import NativeObject, Target
directory, own = Path(sys.argv[1]), sys.argv[2].encode()
target = Target("x86_64", "x86-64-v3", "")
for number in range(60):
    key = f"{number % 3}"
    cache.save(directory, key, NativeObject(key.encode() + own * (1 << 16), target, "22"))
    for _ in range(10):
        found = cache.load(directory, key, target, "22")
        content = found.data
        assert content[:1] == key.encode() and len(content) == 1 + (1 << 16), len(content)
        assert len(set(content[1:])) == 1, "two writers in one file"
"""


def test_cache_of_several_processes_never_shows_half_a_file(directory: Path) -> None:
    processes = [
        subprocess.Popen([sys.executable, "-c", _CONCURRENT, str(directory), name], stderr=subprocess.PIPE)
        for name in "abcd"
    ]
    for process in processes:
        _, stderr = process.communicate(timeout=120)
        assert process.returncode == 0, stderr.decode()
    assert sorted(path.name for path in directory.iterdir()) == ["0", "1", "2"]


# The machine's CPU


def test_load_target_what_was_saved_is_given_back(directory: Path) -> None:
    key = cache.target_key()
    assert cache.load_target(directory, key) is None
    cache.save_target(directory, key, TARGET)
    assert cache.load_target(directory, key) == TARGET
    (directory / key).write_bytes(b"damaged")
    assert cache.load_target(directory, key) is None
    cache.save(directory, key, NativeObject(b'{"cpu": 1}', TARGET, "22"))
    assert cache.load_target(directory, key) is None


def test_host_target_is_asked_of_llvm_once(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = targets.host_target(directory)
    assert first == targets.host_target()
    monkeypatch.setattr(targets, "_ask_for_host", lambda: pytest.fail("LLVM was asked again"))
    assert targets.host_target(directory) == first


def test_target_key_is_of_the_cpu_and_not_of_the_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "processor : 0\nmodel name : A\ncpu MHz : 1000\nflags : fpu\n\nprocessor : 1\n"

    def key(cpuinfo: str) -> str:
        monkeypatch.setattr(Path, "read_text", lambda _path: cpuinfo)
        return cache.target_key()

    assert key(text) == key(text.replace("1000", "2000"))
    assert key(text) != key(text.replace("fpu", "fpu avx"))
    assert key(text) != key(text.replace("name : A", "name : B"))
