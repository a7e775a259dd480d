"""Data processes on DPDK that end, are replaced or reloaded; control processes that end: maps and counters stay."""

import os
import signal
from pathlib import Path

import pytest

from tests.privileged.test_serve_handover import is_gone
from tests.serving import RunningService, packet_socket, received, send_all, wait_until
from tests.serving_dpdk import check_accounts, serving_dpdk, stop_and_count
from tests.serving_state import Answer, answer, is_answer, question, state_bundle
from tests.veth import VethPair, veth_pair

pytestmark = [pytest.mark.kernel, pytest.mark.dpdk, pytest.mark.usefixtures("dpdk", "afxdp", "user")]

VDEV = "net_af_packet0,iface=veth0"
ARGUMENTS = ("--program", "state", "--pass", "none", "--power", "pause", "--set", 'flows:10.0.0.1={"frames": 0}')


def ask_program(pair: VethPair) -> Answer:
    with packet_socket(pair, pair.peer) as raw:
        send_all(raw, [question(1)])
        (data,) = received(raw, 1, is_answer)
        return answer(data)


def next_data_process(service: RunningService, before: int) -> None:
    wait_until(lambda: service.ask("status")["data_pid"] not in (None, before), "another data process", 10.0)


def test_maps_and_counters_outlive_data_processes_and_control_processes(tmp_path: Path) -> None:
    bundle = state_bundle(tmp_path)
    with veth_pair() as pair, serving_dpdk(pair.host, bundle, *ARGUMENTS, name="state", vdevs=[VDEV]) as first:
        first.ask("map-set", map="settings", key=0, value={"mark": 3})
        assert ask_program(pair)[1:5] == (1, 3, 1, 1)
        for number in range(2):
            before = first.ask("status")["data_pid"]
            os.kill(before, signal.SIGKILL)
            next_data_process(first, before)
            assert ask_program(pair)[1:5] == (1, 3, 1, 2 + number)
        assert first.ask("status")["restarts"] == 2
        totals = check_accounts(first)
        assert (totals["tx"], totals["lost"]) == (3, 0)
        # Another version keeps the maps, too; nobody serves for a moment.
        done = first.ask("reload", bundle=str(state_bundle(tmp_path, "VERSION=2", name="newer")))
        assert done["dropped"] == []
        assert ask_program(pair)[1:5] == (2, 3, 1, 4)
        # So does the next control process, when the last one was killed.
        data = first.ask("status")["data_pid"]
        first.process.kill()
        first.process.wait()
        assert ask_program(pair)[1:5] == (2, 3, 1, 5)
        newer = tmp_path / "newer.uxdp"
        with serving_dpdk(pair.host, newer, *ARGUMENTS, name="state", vdevs=[VDEV]) as second:
            assert "its maps are kept" in second.log
            assert is_gone(data)
            assert ask_program(pair)[1:5] == (2, 3, 1, 6)
            assert stop_and_count(second) == [(4096, 4096)]
