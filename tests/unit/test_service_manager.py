"""What systemd is told, heard by a fake of its socket."""

import os
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from uxdp_runtime.errors import PortError
from uxdp_runtime.serve.service_manager import ServiceManager

SECOND = 10**9


@pytest.fixture(params=["path", "abstract"])
def listener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    address = str(tmp_path / "notify") if request.param == "path" else f"@uxdp-test-{uuid.uuid4().hex}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address if address.startswith("/") else "\0" + address[1:])
        manager.settimeout(2.0)
        yield manager, address


def test_manager_is_told_line_by_line(listener: tuple[socket.socket, str]) -> None:
    heard, address = listener
    with ServiceManager(address) as manager:
        assert manager.tell("READY=1", "STATUS=serving")
        assert heard.recv(4096) == b"READY=1\nSTATUS=serving"
        manager.tell_status("one\ntwo")
        manager.tell_status("one\ntwo")  # nothing new
        manager.tell_status("three")
        assert [heard.recv(4096), heard.recv(4096)] == [b"STATUS=one two", b"STATUS=three"]
        assert not manager.tell_alive([1])  # nobody asked for it


def test_watchdog_is_told_only_while_all_queues_go_on(listener: tuple[socket.socket, str]) -> None:
    heard, address = listener
    now = 100 * SECOND
    with ServiceManager(address, watchdog_seconds=10.0) as manager:
        assert manager.tell_alive([1, 1], lambda: now)
        assert not manager.tell_alive([2, 2], lambda: now + SECOND)  # not half the time
        assert manager.tell_alive([2, 2], lambda: now + 5 * SECOND)
        assert not manager.tell_alive([3, 2], lambda: now + 11 * SECOND)  # one hangs
        assert not manager.tell_alive([4, 2], lambda: now + 12 * SECOND)
        assert manager.tell_alive([5, 3], lambda: now + 13 * SECOND)
    heard.setblocking(False)
    assert [heard.recv(4096) for _ in range(3)] == [b"WATCHDOG=1"] * 3
    with pytest.raises(BlockingIOError):
        heard.recv(4096)


def test_manager_is_found_in_the_environment(listener: tuple[socket.socket, str]) -> None:
    _heard, address = listener
    mine, another = str(os.getpid()), str(os.getpid() + 1)
    assert ServiceManager.from_environment({}) is None
    for environment, seconds in (
        ({}, None),
        ({"WATCHDOG_USEC": "2500000"}, 2.5),
        ({"WATCHDOG_USEC": "2500000", "WATCHDOG_PID": mine}, 2.5),
        ({"WATCHDOG_USEC": "2500000", "WATCHDOG_PID": another}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ):
        manager = ServiceManager.from_environment({"NOTIFY_SOCKET": address, **environment})
        assert manager is not None
        with manager:
            assert manager.watchdog_seconds == seconds


@pytest.mark.parametrize("address", ["/nowhere/notify", "@uxdp-nobody-listens", "vsock:2:1234", "x"])
def test_manager_that_is_not_there_is_named(address: str) -> None:
    with pytest.raises(PortError, match="cannot notify") as caught:
        ServiceManager.from_environment({"NOTIFY_SOCKET": address})
    assert address in caught.value.context


def test_manager_that_is_gone_or_does_not_read_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "notify"
    heard = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    heard.bind(str(path))
    with ServiceManager(str(path), watchdog_seconds=1.0) as manager:
        taken = sum(manager.tell("STATUS=x") for _ in range(10_000))
        assert 0 < taken < 10_000  # and nothing blocked
        heard.close()
        assert not manager.tell("STATUS=x")
        assert not manager.tell_alive([1])
