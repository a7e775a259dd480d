"""uxdp serve on DPDK: frames as replay's, byte for byte; all buffers back; processes that end and are replaced."""

import json
import struct
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.serving import received, send_all, wait_until
from tests.serving_dpdk import (
    captures,
    check_accounts,
    packet_socket_in,
    ports,
    serving_dpdk,
    stop_and_count,
)
from tests.veth import HOST_MAC, PEER_MAC
from uxdp_cc.build import BuildRequest, build
from uxdp_runtime.frames import headers as h
from uxdp_runtime.frames.capture import read_capture

pytestmark = [pytest.mark.kernel, pytest.mark.dpdk, pytest.mark.usefixtures("dpdk", "user")]

EXAMPLES = Path(__file__).parents[2] / "examples"
CASES = Path(__file__).parents[1] / "cases" / "serve"
VERDICTS = ("aborted", "drop", "pass", "tx", "redirect")


@cache
def image(name: str) -> bytes:
    folder = EXAMPLES / name if (EXAMPLES / name).exists() else CASES
    return build(BuildRequest(sources=(f"{name}.c",), cwd=folder)).bundle


def bundle(name: str, folder: Path) -> Path:
    path = folder / f"{name}.uxdp"
    path.write_bytes(image(name))
    return path


def udp_frame(number: int, payload_bytes: int = 30) -> bytes:
    macs = bytes.fromhex((HOST_MAC + PEER_MAC).replace(":", ""))
    addresses = (bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2)))
    segment = h.udp(addresses, (1000 + number % 60000, 9), struct.pack("=I", number) + bytes(payload_bytes))
    return h.ethernet(macs[:6], macs[6:], h.ETH_P_IP) + h.ipv4(*addresses, h.IPPROTO_UDP, len(segment)) + segment


def replayed(path: Path, received: str, folder: Path, *arguments: str) -> tuple[list[bytes], dict[str, int]]:
    """Return what uxdp replay transmits, and its verdicts."""
    command = [str(Path(sys.executable).parent / "uxdp"), "replay", str(path), received, "-o", str(folder / "out.pcap")]
    command.append("--insecure-unsigned")
    run = subprocess.run([*command, "--unverified", "--json", *arguments], capture_output=True, text=True, check=True)
    return [frame.data for frame in read_capture(folder / "out.pcap")], json.loads(run.stdout)["verdicts"]


def test_frames_of_a_capture_are_transmitted_as_replay_transmits_them(where: str, tmp_path: Path) -> None:
    frames = [udp_frame(number, number % 1400) for number in range(3000)]
    port = captures(tmp_path, 0, frames)
    path = bundle("l2_swap", tmp_path)
    with serving_dpdk(where, path, name="swap", vdevs=[port.vdev]) as service:
        wait_until(lambda: service.totals()["tx"] == len(frames), "all transmitted")
        totals = check_accounts(service)
        assert totals["lost"] == totals["pass"] == 0
        assert stop_and_count(service) == [(4096, 4096)]
    expected, verdicts = replayed(path, str(tmp_path / "rx0.pcap"), tmp_path)
    assert verdicts == {"TX": len(frames)}
    assert port.transmitted() == expected


def test_two_processes_joined_by_memif_swap_what_comes_from_a_tap(where: str, tmp_path: Path) -> None:
    frames = [udp_frame(number, number % 1200) for number in range(300)]
    socket = f"socket={tmp_path}/memif.sock,id=1"
    across = [word for pair in ("5=net_tap0", "7=net_memif1") for word in ("--ifindex", pair)]
    across += ["--set", "across:5=net_memif1", "--set", "across:7=5"]
    server, client = [f"net_memif0,role=server,{socket}"], ["net_tap0,iface=source", f"net_memif1,role=client,{socket}"]
    with serving_dpdk(where, bundle("l2_swap", tmp_path), name="swap", vdevs=server) as swap:
        (found,) = ports(swap)
        assert not found["link"]["up"]  # nobody is at the other end
        wait_until(lambda: "net_memif0: the link is down" in swap.log, "the link is down")
        with serving_dpdk(where, bundle("bridge", tmp_path), *across, name="bridge", vdevs=client) as bridge:
            wait_until(lambda: "net_memif0: the link is up" in swap.log, "the link is up")
            with packet_socket_in(where, "source") as raw:
                send_all(raw, frames)
                back = received(raw, len(frames), lambda data: data[12:14] == b"\x08\x00")
            assert back == [frame[6:12] + frame[:6] + frame[12:] for frame in frames]
            assert check_accounts(swap) == {**dict.fromkeys(VERDICTS, 0), "rx": 300, "tx": 300, "lost": 0}
            assert check_accounts(bridge)["redirect"] == 2 * len(frames)
            assert stop_and_count(bridge) == [(4096, 4096), (4096, 4096)]
        assert stop_and_count(swap) == [(4096, 4096)]


def test_no_thread_of_the_data_process_has_capabilities_or_other_calls(where: str, tmp_path: Path) -> None:
    with serving_dpdk(where, bundle("l2_swap", tmp_path), name="swap", vdevs=["net_null0"]) as service:
        tasks = list(Path(f"/proc/{service.ask('status')['data_pid']}/task").iterdir())
        assert len(tasks) >= 3  # main, the queue's, and EAL's own
        for task in tasks:
            fields = dict(line.split(":\t", 1) for line in (task / "status").read_text().splitlines() if ":\t" in line)
            for name in ("CapEff", "CapPrm", "CapInh"):
                assert int(fields[name], 16) == 0, (fields["Name"], name)
            assert (fields["NoNewPrivs"].strip(), fields["Seccomp"].strip()) == ("1", "2"), fields["Name"]
        assert stop_and_count(service) == [(4096, 4096)]


def test_timers_are_called_while_no_frames_come(where: str, tmp_path: Path) -> None:
    port = captures(tmp_path, 0, [udp_frame(0)])
    with serving_dpdk(where, bundle("timers", tmp_path), name="timers", vdevs=[port.vdev]) as service:

        def rounds() -> list[int]:
            elements = service.ask("map-dump", map="slots", zeros=True)["elements"]
            return [element["value"]["rounds"] for element in elements]

        wait_until(lambda: rounds()[0] > 20, "the timer is called")
        wait_until(lambda: rounds()[1] == 1, "the timer that no frame puts off is called")
