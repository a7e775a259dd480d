import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit import trust_fixtures
from tests.unit.trust_fixtures import Directories, give_away, write
from uxdp_bundle import trusted_files
from uxdp_bundle.errors import KeyFileError, RollbackError
from uxdp_bundle.rollback import MAX_SECURITY_VERSION, RollbackState

isolated = trust_fixtures.isolated


@pytest.fixture
def state(isolated: Directories) -> RollbackState:
    return RollbackState.load()


def test_load_is_below_the_state_directory(isolated: Directories):
    assert RollbackState.load().directory == isolated.state / "rollback"


def test_check_of_nothing_accepts_and_writes_nothing(state, isolated: Directories):
    state.check("nf", 0)
    assert state.highest("nf") is None
    assert not isolated.state.exists()


def test_record_then_check(state):
    state.record("nf", 3)
    assert state.highest("nf") == 3
    state.check("nf", 3)
    state.check("nf", 4)
    with pytest.raises(RollbackError, match="security_version 2 of 'nf' is older than 3") as caught:
        state.check("nf", 2)
    assert caught.value.exit_code == 4
    assert str(state.path("nf")) in caught.value.remedy
    state.check("other", 0)


def test_record_is_monotone(state):
    for version in (3, 1, 3, 0):
        state.record("nf", version)
        assert state.highest("nf") == 3
    state.record("nf", MAX_SECURITY_VERSION)
    assert state.highest("nf") == MAX_SECURITY_VERSION


def test_record_file_is_small_private_and_canonical(state):
    state.record("nf", 3)
    path = state.path("nf")
    assert path.read_bytes() == b'{"name":"nf","security_version":3}\n'
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert sorted(os.listdir(path.parent)) == [".lock", "nf.json"]


def test_names_do_not_collide(state):
    names = ["a", "a.json", "A", "a..", "a" * 64]
    for version, name in enumerate(names, start=1):
        state.record(name, version)
    assert [state.highest(name) for name in names] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("name", ["", ".", "..", "../nf", "/etc/passwd", "a/b", "nul\0", "-x", "a" * 65])
def test_name_that_no_bundle_has_raises(state, name):
    for use in (state.highest, lambda name: state.check(name, 0), lambda name: state.record(name, 0)):
        with pytest.raises(KeyFileError, match="is no bundle name"):
            use(name)


@pytest.mark.parametrize("version", [-1, MAX_SECURITY_VERSION + 1])
def test_record_version_out_of_range_raises(state, version):
    with pytest.raises(KeyFileError, match=r"expected 0\.\."):
        state.record("nf", version)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not JSON"),
        (b"3", "expected an object"),
        (b"\xff", "not UTF-8"),
        (b"{}", "not the record of 'nf'"),
        (b'{"name":"other","security_version":3}', "not the record of 'nf'"),
        (b'{"name":"nf","security_version":true}', "not the record of 'nf'"),
        (b'{"name":"nf","security_version":"3"}', "not the record of 'nf'"),
        (b'{"name":"nf","security_version":3,"x":1}', "not the record of 'nf'"),
        (b'{"name":"nf","security_version":3,"security_version":0}', "stands twice"),
        (b'{"name":"nf","security_version":-1}', "-1, expected 0.."),
        (b'{"name":"nf","security_version":2147483648}', "2147483648, expected"),
        (b" " * 5000, "more than 4096 bytes"),
    ],
    ids=[
        "empty",
        "integer",
        "not-utf-8",
        "empty-object",
        "other-name",
        "boolean",
        "string",
        "unknown-key",
        "duplicate-key",
        "negative",
        "too-large",
        "long",
    ],
)
def test_damaged_state_is_an_error_and_stays(state, content, message):
    state.record("nf", 1)
    path = write(state.path("nf"), content, 0o600)
    with pytest.raises(KeyFileError) as caught:
        state.check("nf", 5)
    assert message in caught.value.message
    assert caught.value.context.startswith(str(path))
    with pytest.raises(KeyFileError):
        state.record("nf", 5)
    assert path.read_bytes() == content


@pytest.mark.parametrize("what", ["directory", "file"])
@pytest.mark.parametrize("defect", ["world-writable", "other-owner", "symlink"])
def test_state_in_the_power_of_others_raises(state, monkeypatch, what, defect):
    state.record("nf", 1)
    path = state.path("nf") if what == "file" else state.directory
    if defect == "other-owner":
        give_away(path, monkeypatch)
    elif defect == "symlink":
        path.rename(path.with_name("real"))
        path.symlink_to("real")
    else:
        path.chmod(0o777)
    with pytest.raises(KeyFileError):
        state.check("nf", 0)
    with pytest.raises(KeyFileError):
        state.record("nf", 2)


def test_record_write_error_leaves_the_old(state, monkeypatch):
    state.record("nf", 1)

    def full(path: Path, data: bytes, mode: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(trusted_files, "replace_file", full)
    with pytest.raises(KeyFileError, match="cannot be written: No space"):
        state.record("nf", 2)
    assert state.highest("nf") == 1


def test_record_by_many_processes_keeps_the_highest(state):
    program = (
        "import sys; from uxdp_bundle.rollback import RollbackState\n"
        "for i in range(20): RollbackState.load().record('nf', i * 4 + int(sys.argv[1]))"
    )
    processes = [subprocess.Popen([sys.executable, "-c", program, str(i)]) for i in range(4)]
    assert [process.wait(timeout=60) for process in processes] == [0] * 4
    assert state.highest("nf") == 19 * 4 + 3
    assert sorted(os.listdir(state.directory)) == [".lock", "nf.json"]
