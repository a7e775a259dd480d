"""A control process that is killed, and the next one, which takes over the maps of the data process that serves on."""

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving import RunningService, packet_socket, received, send_all, serving, wait_until
from tests.serving_state import Answer, answer, is_answer, question, state_bundle
from tests.veth import VethPair, veth_pair
from uxdp_runtime.serve.handover import Orphan, data_socket_path

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("user")]
ARGUMENTS = ("--program", "state", "--tx", "ring")


@pytest.fixture
def pair(kernel: None) -> Iterator[VethPair]:
    with veth_pair() as made:
        yield made


def ask_program(pair: VethPair) -> Answer:
    with packet_socket(pair, pair.peer) as raw:
        send_all(raw, [question(0)])
        (data,) = received(raw, 1, is_answer)
        return answer(data)


def orphaned(service: RunningService) -> int:
    """Kill the control process alone; return the data process."""
    status = service.ask("status")
    os.kill(status["pid"], signal.SIGKILL)
    service.process.wait(timeout=20)
    return int(status["data_pid"])


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_next_control_process_keeps_the_maps(pair: VethPair, tmp_path: Path) -> None:
    bundle = state_bundle(tmp_path)
    with serving(pair, bundle, *ARGUMENTS, "--set", 'flows:10.0.0.1={"frames": 40}', name="state") as first:
        first.ask("map-set", map="settings", key=0, value={"mark": 3})
        first.ask("map-set", map="stages", key=0, value="stage_two")
        first.ask("map-set", map="groups", key=0, value={"max_entries": 10})
        first.ask("map-set", map="groups[0]", key="10.0.0.1", value=0)
        assert ask_program(pair)[1:5] == (1, 3, 2, 41)
        orphan = orphaned(first)
        assert ask_program(pair)[1:5] == (1, 3, 2, 42)  # it serves on
        with serving(pair, bundle, *ARGUMENTS, name="state") as second:
            assert is_gone(orphan)
            assert "its maps are kept" in second.log
            assert ask_program(pair)[1:5] == (1, 3, 2, 43)
            assert second.ask("map-get", map="per_worker", key=0)["values"] == [{"cpu": 0, "value": 3}]
            assert second.ask("map-get", map=".bss", key=0)["value"] == {"seen": 3}
            assert second.ask("map-get", map="groups[0]", key="10.0.0.1")["value"] == 3
            # And once more.
            orphan = orphaned(second)
            with serving(pair, bundle, *ARGUMENTS, name="state") as third:
                assert ask_program(pair)[1:5] == (1, 3, 2, 44)
                assert third.stop() == 0
            assert is_gone(orphan)
    assert not data_socket_path("state").exists()


def test_next_control_process_with_another_bundle_starts_afresh(pair: VethPair, tmp_path: Path) -> None:
    with serving(pair, state_bundle(tmp_path), *ARGUMENTS, name="state") as first:
        first.ask("map-set", map="settings", key=0, value={"mark": 3})
        orphan = orphaned(first)
        other = state_bundle(tmp_path, "VERSION=2", name="other")
        with serving(pair, other, *ARGUMENTS, name="state") as second:
            assert is_gone(orphan)
            assert "its maps are lost: it serves another bundle" in second.log
            assert ask_program(pair)[1:4] == (2, 0, 1)


def test_data_process_hears_nobody_while_its_control_process_lives(pair: VethPair, tmp_path: Path) -> None:
    with serving(pair, state_bundle(tmp_path), *ARGUMENTS, name="state") as service:
        assert Orphan.find("state") is None
        assert data_socket_path("state").stat().st_mode & 0o777 == 0o600
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as intruder:
            intruder.connect(str(data_socket_path("state")))
            intruder.send(b"S")
            time.sleep(0.3)
            assert service.ask("status")["restarts"] == 0
            assert ask_program(pair).version == 1


def test_second_service_of_the_name_changes_nothing(pair: VethPair, tmp_path: Path) -> None:
    bundle = state_bundle(tmp_path)
    with serving(pair, bundle, *ARGUMENTS, name="state") as first:
        first.ask("map-set", map="settings", key=0, value={"mark": 3})
        again = bundle.rename(tmp_path / "again.uxdp")
        with serving(pair, again, *ARGUMENTS, name="state") as second:  # the first one answers in its place
            assert second.process.wait(timeout=20) == 10
            assert "a service of this name" in second.log
        assert ask_program(pair).mark == 3
        orphaned(first)
        with serving(pair, again, *ARGUMENTS, name="state"):
            assert ask_program(pair).mark == 3


def test_orphan_survives_clients_that_talk_nonsense(pair: VethPair, tmp_path: Path) -> None:
    bundle = state_bundle(tmp_path)
    with serving(pair, bundle, *ARGUMENTS, name="state") as first:
        first.ask("map-set", map="settings", key=0, value={"mark": 3})
        orphaned(first)
        for words in (b"X", b"", b"HH"):
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
                client.connect(str(data_socket_path("state")))
                client.send(words)
        assert ask_program(pair).mark == 3
        with serving(pair, bundle, *ARGUMENTS, name="state"):
            assert ask_program(pair).mark == 3


def test_orphan_goes_when_its_interface_goes(pair: VethPair, tmp_path: Path) -> None:
    with serving(pair, state_bundle(tmp_path), *ARGUMENTS, name="state") as service:
        orphan = orphaned(service)
        pair.ip(pair.host, "link", "del", pair.interface)
        wait_until(lambda: is_gone(orphan), "the orphan ends", 5.0)


def test_stopping_finishes_what_was_received(pair: VethPair, tmp_path: Path) -> None:
    count = 400  # several bursts
    with (
        serving(pair, state_bundle(tmp_path), *ARGUMENTS, name="state") as service,
        packet_socket(pair, pair.peer) as raw,
    ):
        data = service.ask("status")["data_pid"]
        os.kill(data, signal.SIGSTOP)
        send_all(raw, [question(number) for number in range(count)])
        service.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "stopping" in service.log, "it is told to stop")
        time.sleep(0.2)
        os.kill(data, signal.SIGCONT)
        assert [answer(item).number for item in received(raw, count, is_answer)] == list(range(count))
        assert service.process.wait(timeout=20) == 0
