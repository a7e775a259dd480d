"""Paths that name something else than a file, or something else a moment later."""

import os
import socket
import stat
import threading
import time
from pathlib import Path

import pytest

from tests.hostile.workbench import NAME, run_uxdp
from uxdp_bundle import sealed
from uxdp_bundle.container import open_bundle
from uxdp_bundle.errors import BundleFormatError, FileAccessError


def link_to_bundle(path: Path, image: bytes) -> None:
    target = path.with_name("target.uxdp")
    target.write_bytes(image)
    path.symlink_to(target.name)


def bind_socket(path: Path, _image: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        os.chdir(path.parent)
        listener.bind(path.name)


@pytest.mark.parametrize(
    ("make", "fragment"),
    [
        pytest.param(lambda path, image: None, "No such file", id="missing"),
        pytest.param(link_to_bundle, "is a symbolic link", id="symbolic-link"),
        pytest.param(lambda path, image: path.symlink_to("gone"), "is a symbolic link", id="dangling-link"),
        pytest.param(lambda path, image: path.symlink_to(path.name), "is a symbolic link", id="link-to-itself"),
        pytest.param(lambda path, image: path.symlink_to("/dev/zero"), "is a symbolic link", id="link-to-a-device"),
        pytest.param(lambda path, image: os.mkfifo(path), "is no regular file", id="fifo"),
        pytest.param(lambda path, image: path.mkdir(), "is no regular file", id="directory"),
        pytest.param(bind_socket, "No such device or address", id="socket"),
        pytest.param(
            lambda path, image: os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5)),
            "is no regular file",
            id="endless-device",
            marks=pytest.mark.skipif(os.geteuid() != 0, reason="mknod needs root: run as root"),
        ),
    ],
)
def test_anything_but_a_regular_file_is_refused(bench, minimal_image, monkeypatch, make, fragment):
    monkeypatch.chdir(bench.folder)
    make(bench.path, minimal_image)
    error = bench.refuses(None, FileAccessError, fragment)
    assert error.exit_code == 1


def during_read(monkeypatch, action) -> None:
    """Run ``action`` once, when the file's first bytes have been read."""
    read, actions = os.read, [action]

    def hooked(fd: int, count: int) -> bytes:
        data = read(fd, min(count, 1000))
        while actions:
            actions.pop()()
        return data

    monkeypatch.setattr(sealed.os, "read", hooked)


def rewrite(path: Path, image: bytes) -> None:
    """Write the same number of other bytes, as far from the beginning as has not been read."""
    with path.open("r+b") as file:
        file.seek(2000)
        file.write(b"\xff" * (len(image) - 2000))


def replace(path: Path, image: bytes) -> None:
    other = path.with_name("other")
    other.write_bytes(image)
    other.replace(path)


def swap_for_link(path: Path, _image: bytes) -> None:
    path.rename(path.with_name("moved"))
    path.symlink_to("moved")


def append(path: Path, _image: bytes) -> None:
    with path.open("ab") as file:
        file.write(bytes(5000))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda path, image: os.truncate(path, 1500), id="truncated"),
        pytest.param(append, id="growing"),
        pytest.param(rewrite, id="rewritten"),
        pytest.param(replace, id="replaced-by-the-same"),
        pytest.param(swap_for_link, id="replaced-by-a-link-to-it"),
        pytest.param(lambda path, image: path.unlink(), id="deleted"),
    ],
)
def test_file_that_changes_while_it_is_read_is_refused(bench, minimal_image, monkeypatch, change):
    bench.put(minimal_image)
    os.utime(bench.path, (1, 1))
    during_read(monkeypatch, lambda: change(bench.path, minimal_image))
    with pytest.raises(FileAccessError, match="changed while it was read"):
        bench.take("open")


def test_what_was_opened_stays_what_it_was(bench, minimal_image):
    bench.put(minimal_image)
    with open_bundle(bench.path) as bundle:
        bench.path.write_bytes(b"something else")
        assert bytes(bundle.memory.view) == minimal_image
        assert bundle.member("ir")


def test_file_under_a_busy_writer_is_whole_or_refused(bench, minimal_image):
    bench.put(minimal_image)
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            for image in (minimal_image[:5000] + bytes(len(minimal_image) - 5000), minimal_image):
                with bench.path.open("r+b") as file:
                    file.write(image)
                time.sleep(0.0005)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        until = time.monotonic() + 1
        refused = 0
        while time.monotonic() < until:
            try:
                with open_bundle(bench.path) as bundle:
                    assert bytes(bundle.memory.view) == minimal_image
            except (FileAccessError, BundleFormatError):
                refused += 1
    finally:
        stop.set()
        writer.join()
    assert refused > 0


@pytest.mark.parametrize("name", ["-x.uxdp", "a b.uxdp", "\n.uxdp", "ü.uxdp", "\x1b[2J.uxdp"])
def test_strange_file_name_cannot_forge_output(bench, name):
    (bench.folder / name).write_bytes(b"x")
    done = run_uxdp("authenticate", "--", name, folder=bench.folder)
    assert done.returncode == 3
    assert done.stderr.count("\n") == 1
    assert "\x1b" not in done.stderr


def test_path_that_is_no_text_is_refused(bench):
    path = os.fsencode(bench.folder) + b"/\xff.uxdp"
    Path(os.fsdecode(path)).write_bytes(b"x")
    done = run_uxdp("authenticate", os.fsdecode(b"\xff.uxdp"), folder=bench.folder)
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    assert NAME not in done.stderr
