import errno
import fcntl
import mmap
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from uxdp_bundle import sealed
from uxdp_bundle.errors import BundleFormatError, FileAccessError
from uxdp_bundle.sealed import read_sealed, seal_bytes

SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
MAX_BYTES = 1 << 20


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    return path


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def refusal(path: object) -> FileAccessError:
    """Return the error with which a file is refused, and check that no descriptor stays open."""
    before = open_descriptors()
    with pytest.raises(FileAccessError) as caught:
        read_sealed(path, MAX_BYTES)
    assert open_descriptors() == before
    return caught.value


def during_read(monkeypatch: pytest.MonkeyPatch, action: Callable[[], object]) -> None:
    """Run ``action`` once, when the first bytes have been read."""
    read = os.read
    actions = [action]

    def hooked(fd: int, count: int) -> bytes:
        data = read(fd, count)
        while actions:
            actions.pop()()
        return data

    monkeypatch.setattr(sealed.os, "read", hooked)


def test_read_sealed_regular_file_gives_its_bytes(file):
    memory = read_sealed(file, MAX_BYTES)
    assert bytes(memory.view) == b"content"
    assert memory.view.readonly
    assert Path(memory.path).read_bytes() == b"content"
    memory.close()


def test_read_sealed_file_of_several_chunks_gives_its_bytes(file, monkeypatch):
    monkeypatch.setattr(sealed, "_CHUNK_BYTES", 3)
    memory = read_sealed(str(file), 7)
    assert bytes(memory.view) == b"content"
    memory.close()


def test_read_sealed_empty_file_gives_no_bytes(file):
    file.write_bytes(b"")
    memory = read_sealed(file, MAX_BYTES)
    assert bytes(memory.view) == b""
    memory.close()


@pytest.mark.parametrize("make", [lambda file: read_sealed(file, MAX_BYTES), lambda _: seal_bytes(b"content")])
def test_sealed_memory_cannot_be_changed(file, make):
    memory = make(file)
    assert fcntl.fcntl(memory.fd, fcntl.F_GET_SEALS) == SEALS
    assert not os.get_inheritable(memory.fd)
    for change in (lambda: os.pwrite(memory.fd, b"x", 0), lambda: os.ftruncate(memory.fd, 1)):
        with pytest.raises(PermissionError):
            change()
    with pytest.raises(PermissionError):
        mmap.mmap(memory.fd, 7, prot=mmap.PROT_READ | mmap.PROT_WRITE, flags=mmap.MAP_SHARED)
    memory.close()


def test_seal_bytes_descriptor_stands_at_the_beginning():
    memory = seal_bytes(memoryview(b"for a child's standard input"))
    assert os.read(memory.fd, 100) == b"for a child's standard input"
    memory.close()


def test_seal_bytes_failure_leaves_no_descriptor_open(monkeypatch):
    before = open_descriptors()
    monkeypatch.setattr(sealed.os, "write", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "no space")))
    with pytest.raises(OSError, match="no space"):
        seal_bytes(b"content")
    assert open_descriptors() == before


def test_sealed_memory_is_independent_of_the_file_afterwards(file):
    memory = read_sealed(file, MAX_BYTES)
    file.write_bytes(b"CHANGED")
    assert bytes(memory.view) == b"content"
    memory.close()


def test_close_twice_is_harmless(file):
    before = open_descriptors()
    memory = read_sealed(file, MAX_BYTES)
    memory.close()
    memory.close()
    assert open_descriptors() == before
    with pytest.raises(ValueError, match="released"):
        bytes(memory.view)


def test_close_while_a_slice_is_held_keeps_the_slice_alive(file):
    # As the frames of an exception hold slices while it leaves a with statement.
    memory = read_sealed(file, MAX_BYTES)
    part = memory.view[:3]
    memory.close()
    assert memory.fd == -1
    assert bytes(part) == b"con"


def test_read_sealed_symbolic_link_is_refused_with_its_target(file):
    link = file.with_name("link")
    link.symlink_to(file)
    error = refusal(link)
    assert error.errno == errno.ELOOP
    assert str(error) == f"{link}: is a symbolic link, expected a regular file"
    assert str(file) in error.remedy


@pytest.mark.parametrize(
    ("make", "number", "fragment"),
    [
        pytest.param(lambda path: None, errno.ENOENT, "No such file", id="missing"),
        pytest.param(os.mkdir, errno.EINVAL, "is no regular file", id="directory"),
        pytest.param(os.mkfifo, errno.EINVAL, "is no regular file", id="fifo-without-writer"),
        pytest.param(lambda path: path.symlink_to("nowhere"), errno.ELOOP, "symbolic link", id="dangling-link"),
        pytest.param(lambda path: path.symlink_to(path.name), errno.ELOOP, "symbolic link", id="link-to-itself"),
        pytest.param(
            lambda path: socket.socket(socket.AF_UNIX).bind(str(path)), errno.ENXIO, "No such device", id="socket"
        ),
    ],
)
def test_read_sealed_anything_but_a_regular_file_is_refused(tmp_path, make, number, fragment):
    path = tmp_path / "x"
    make(path)
    error = refusal(path)
    assert error.errno == number
    assert error.context == str(path)
    assert fragment in error.message


@pytest.mark.parametrize(
    ("path", "number", "fragment"),
    [
        pytest.param("/dev/null", errno.EINVAL, "is no regular file", id="device"),
        pytest.param("/proc/self/status", errno.EAGAIN, "changed while it was read", id="proc-file"),
        pytest.param("a\0b", errno.EINVAL, "null", id="zero-byte-in-name"),
        pytest.param("x" * 300, errno.ENAMETOOLONG, "too long", id="name-too-long"),
        pytest.param("/dev/null/x", errno.ENOTDIR, "Not a directory", id="below-a-file"),
    ],
)
def test_read_sealed_unusable_path_is_refused(path, number, fragment):
    error = refusal(path)
    assert error.errno == number
    assert fragment in error.message


def test_read_sealed_file_over_the_limit_is_refused_before_it_is_read(tmp_path, monkeypatch):
    path = tmp_path / "sparse"
    path.touch()
    os.truncate(path, 1 << 40)
    monkeypatch.setattr(sealed.os, "read", lambda *_: pytest.fail("was read"))
    with pytest.raises(BundleFormatError, match="1099511627776 bytes, at most 1048576 allowed") as caught:
        read_sealed(path, MAX_BYTES)
    assert caught.value.context == str(path)


def append(file: Path) -> None:
    with file.open("ab") as stream:
        stream.write(b"more")


def rewrite(file: Path) -> None:
    with file.open("r+b") as stream:
        stream.write(b"CONTENT")


def replace(file: Path) -> None:
    other = file.with_name("other")
    other.write_bytes(b"content")
    other.replace(file)


def relink(file: Path) -> None:
    file.rename(file.with_name("moved"))
    file.symlink_to("moved")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(append, id="grown"),
        pytest.param(lambda file: os.truncate(file, 3), id="truncated"),
        pytest.param(lambda file: os.truncate(file, 0), id="emptied"),
        pytest.param(rewrite, id="rewritten-in-place"),
        pytest.param(replace, id="replaced"),
        pytest.param(relink, id="replaced-by-a-link-to-itself"),
        pytest.param(Path.unlink, id="deleted"),
        pytest.param(lambda file: os.utime(file, (1, 1)), id="touched"),
    ],
)
def test_read_sealed_file_that_changes_meanwhile_is_refused(file, monkeypatch, change):
    os.utime(file, (1, 2))
    monkeypatch.setattr(sealed, "_CHUNK_BYTES", 4)
    during_read(monkeypatch, lambda: change(file))
    error = refusal(file)
    assert error.errno == errno.EAGAIN
    assert str(error) == f"{file}: changed while it was read"
    assert "rename" in error.remedy


def test_read_sealed_read_error_is_a_file_access_error(file, monkeypatch):
    def fail(_fd: int, _count: int) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(sealed.os, "read", fail)
    error = refusal(file)
    assert (error.errno, error.message) == (errno.EIO, "Input/output error")
    assert isinstance(error.__cause__, OSError)
