"""Timers of a served program: they go on while no frames come, and in the data process that replaces one."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bundle_factory import build_case
from tests.isolated_user import isolate
from tests.serving import RunningService, packet_socket, run_folder, send_all, serving, wait_until
from tests.veth import VethPair, veth_pair
from uxdp_runtime.serve.control_socket import RUN_FOLDER

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("afxdp")]

FRAME = bytes(12) + b"\x88\xb5" + bytes(50)


@pytest.fixture
def service(afxdp: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[tuple[RunningService, VethPair]]:
    isolate(monkeypatch, tmp_path)
    monkeypatch.setenv(RUN_FOLDER, run_folder(tmp_path / "run")[RUN_FOLDER])
    bundle = tmp_path / "timers.uxdp"
    bundle.write_bytes(build_case("serve/timers"))
    with veth_pair() as pair, serving(pair, bundle, name="timers") as running:
        yield running, pair


def rounds(service: RunningService) -> list[int]:
    """Return how often each timer's callback ran."""
    elements = service.ask("map-dump", map="slots", zeros=True)["elements"]
    return [element["value"]["rounds"] for element in elements]


def test_timers_are_called_while_no_frames_come(service: tuple[RunningService, VethPair]) -> None:
    running, pair = service
    with packet_socket(pair, pair.peer) as raw:
        send_all(raw, [FRAME])
        wait_until(lambda: running.totals()["drop"] >= 1, "received")
        begun, before = time.monotonic(), rounds(running)[0]
        for _ in range(4):  # frames put the other one off
            time.sleep(0.1)
            send_all(raw, [FRAME])
        assert rounds(running)[1] == 0
        wait_until(lambda: rounds(running)[1] == 1, "the timer that was put off is called, once")
    ticks = rounds(running)[0] - before
    # Every 5 ms, and a sleeping worker wakes to the millisecond.
    assert (time.monotonic() - begun) / 0.008 < ticks + 40
    assert ticks <= (time.monotonic() - begun) / 0.005 + 2


def test_timers_go_on_in_the_data_process_that_replaces_one(service: tuple[RunningService, VethPair]) -> None:
    running, pair = service
    with packet_socket(pair, pair.peer) as raw:
        send_all(raw, [FRAME])
        wait_until(lambda: rounds(running)[0] > 5, "the timer is called")
    os.kill(running.ask("status")["data_pid"], signal.SIGKILL)
    wait_until(lambda: running.ask("status")["restarts"] == 1, "a new data process serves")
    before = rounds(running)[0]
    wait_until(lambda: rounds(running)[0] > before + 5, "the timer is called by the new one")
