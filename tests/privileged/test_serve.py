"""uxdp serve on a veth pair: verdicts as the kernel's, processes that end and are replaced, nothing that stays."""

import json
import os
import signal
import struct
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.serving import packet_socket, received, send_all, serving, wait_until
from tests.veth import HOST_ADDRESS, HOST_MAC, PEER_ADDRESS, PEER_MAC, VethPair, veth_pair
from uxdp_cc.build import BuildRequest, build
from uxdp_runtime.frames import headers as h

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("afxdp", "user")]

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def pair(afxdp: None) -> Iterator[VethPair]:
    with veth_pair() as made:
        yield made


def example(name: str, folder: Path) -> Path:
    path = folder / f"{name}.uxdp"
    path.write_bytes(built_example(name))
    return path


@cache
def built_example(name: str) -> bytes:
    return build(BuildRequest(sources=(f"{name}.c",), cwd=EXAMPLES / name)).bundle


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def udp_frame(number: int, payload_bytes: int = 30, *, destination: str = HOST_ADDRESS, port: int = 9) -> bytes:
    addresses = (bytes(map(int, PEER_ADDRESS.split("."))), bytes(map(int, destination.split("."))))
    segment = h.udp(addresses, (1000 + number % 60000, port), struct.pack("=I", number) + bytes(payload_bytes))
    ip = h.ipv4(*addresses, h.IPPROTO_UDP, len(segment))
    return h.ethernet(mac(HOST_MAC), mac(PEER_MAC), h.ETH_P_IP) + ip + segment


def attached(pair: VethPair) -> bool:
    run = pair.run(pair.host, "ip", "-json", "link", "show", "dev", pair.interface)
    return "xdp" in json.loads(run.stdout)[0]


def test_serve_passes_to_the_stack_and_ping_works(pair: VethPair, tmp_path: Path) -> None:
    with serving(pair, example("firewall", tmp_path), name="fw") as service:
        assert attached(pair)
        run = pair.run(pair.peer, "ping", "-c", "5", "-i", "0.02", "-W", "1", HOST_ADDRESS)
        assert " 0% packet loss" in run.stdout
        totals = service.totals()
        assert totals["pass"] >= 5
        assert totals["rx"] == sum(totals.values()) - totals["rx"]
        assert service.stop() == 0
    assert not attached(pair)


@pytest.mark.parametrize("tx", ["ring", "live", "auto"])
def test_serve_transmits_what_the_program_made_of_it(pair: VethPair, tmp_path: Path, tx: str) -> None:
    frames = [udp_frame(number, number % 900) for number in range(300)]
    pair.set_gro(pair.peer, on=True)
    with serving(pair, example("l2_swap", tmp_path), "--tx", tx, name="swap") as service:
        with packet_socket(pair, pair.peer) as raw:
            # A veth's ring has room for 256.
            for at in range(0, len(frames), 100):
                send_all(raw, frames[at : at + 100])
                wait_until(lambda at=at: service.totals()["rx"] >= at + 100, "received")
            back = received(raw, len(frames), lambda data: data[:6] == mac(PEER_MAC))
        assert back == [frame[6:12] + frame[:6] + frame[12:] for frame in frames]
        totals = service.totals()
        assert totals["tx"] >= len(frames)
        assert totals["lost"] == 0


def test_serve_where_the_driver_refuses_injected_frames_goes_by_the_ring(pair: VethPair, tmp_path: Path) -> None:
    frames = [udp_frame(number) for number in range(2000)]
    bundle = example("l2_swap", tmp_path)
    with serving(pair, bundle, "--tx", "auto", name="swap") as service, packet_socket(pair, pair.peer) as raw:
        send_all(raw, frames)
        wait_until(lambda: service.totals()["rx"] >= len(frames), "all received")
        lost = sum(queue["lost"]["refused"] for queue in service.ask("stats")["queues"])
        assert lost == service.totals()["lost"] == 0  # a first frame tells
        back = received(raw, len(frames), lambda data: data[:6] == mac(PEER_MAC))
        assert len(back) == len(frames) - lost
        assert service.totals()["tx"] == len(back)


def test_serve_transmits_frames_with_their_new_length(pair: VethPair, tmp_path: Path) -> None:
    settings = (
        f'config:0={{"gateway_mac": "{PEER_MAC}", "local_mac": "{HOST_MAC}", "local_addr": "10.255.0.9"}}',
        'vips:{"addr": "192.0.2.1", "port": 53, "proto": 17}={"id": 1, "ring_slots": 1}',
        "ring:0=0",
        "reals:0=10.1.0.1",
    )
    arguments = [word for setting in settings for word in ("--set", setting)]
    frames = [udp_frame(number, 100, destination="192.0.2.1", port=53) for number in range(20)]
    bundle = example("load_balancer", tmp_path)
    with serving(pair, bundle, *arguments, "--tx", "ring", name="lb"), packet_socket(pair, pair.peer) as raw:
        send_all(raw, frames)
        back = received(raw, len(frames), lambda data: data[:6] == mac(PEER_MAC) and data[23] == 4)
    assert [len(data) for data in back] == [len(frame) + 20 for frame in frames]
    assert {data[30:34] for data in back} == {bytes((10, 1, 0, 1))}
    assert [data[54:58] for data in back] == [frame[34:38] for frame in frames]  # the inner ports, in order


def test_data_process_that_is_killed_is_replaced_with_its_maps(pair: VethPair, tmp_path: Path) -> None:
    with serving(pair, example("l2_swap", tmp_path), "--tx", "ring", name="swap") as service:
        with packet_socket(pair, pair.peer) as raw:
            for _ in range(3):
                before = service.ask("status")
                frames_before = service.totals()["tx"]
                os.kill(before["data_pid"], signal.SIGKILL)
                old = (None, before["data_pid"])
                took = wait_until(lambda old=old: service.ask("status")["data_pid"] not in old, "a new data process")
                assert took < 0.5
                frames = [udp_frame(number) for number in range(100)]
                send_all(raw, frames)
                assert len(received(raw, 100, lambda data: data[:6] == mac(PEER_MAC))) == 100
                assert service.totals()["tx"] == frames_before + 100  # counters survive, too
        assert service.ask("status")["restarts"] == 3
        assert service.log.count("ended by signal 9") == 3


def test_nothing_stays_attached_when_both_processes_are_killed(pair: VethPair, tmp_path: Path) -> None:
    with serving(pair, example("l2_swap", tmp_path), name="swap") as service:
        status = service.ask("status")
        os.kill(status["pid"], signal.SIGKILL)
        os.kill(status["data_pid"], signal.SIGKILL)
        took = wait_until(lambda: not attached(pair), "detached", 2.0)
        assert took < 0.5
        run = pair.run(pair.peer, "ping", "-c", "2", "-i", "0.02", "-W", "1", HOST_ADDRESS)
        assert " 0% packet loss" in run.stdout


def test_data_process_serves_on_without_its_control_process(pair: VethPair, tmp_path: Path) -> None:
    with serving(pair, example("l2_swap", tmp_path), "--tx", "ring", name="swap") as service:
        status = service.ask("status")
        os.kill(status["pid"], signal.SIGKILL)
        try:
            with packet_socket(pair, pair.peer) as raw:
                send_all(raw, [udp_frame(number) for number in range(50)])
                assert len(received(raw, 50, lambda data: data[:6] == mac(PEER_MAC))) == 50
        finally:
            os.kill(status["data_pid"], signal.SIGKILL)


def test_data_process_has_no_capabilities_and_a_filter(pair: VethPair, tmp_path: Path) -> None:
    with serving(pair, example("l2_swap", tmp_path), name="swap") as service:
        text = Path(f"/proc/{service.ask('status')['data_pid']}/status").read_text()
        fields = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
        for name in ("CapEff", "CapPrm", "CapInh"):
            assert int(fields[name], 16) == 0, name
        assert fields["NoNewPrivs"].strip() == "1"
        assert fields["Seccomp"].strip() == "2"
