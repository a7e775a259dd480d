"""A router on DPDK ports: the kernel has routes and neighbours of the interfaces that the ports stand for."""

import socket
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.isolated_user import isolate
from tests.serving import received, run_folder, send_all, wait_until
from tests.serving_dpdk import check_accounts, namespace, packet_socket_in, serving_dpdk, stop_and_count
from uxdp_cc.build import BuildRequest, build
from uxdp_runtime.frames import headers as h
from uxdp_runtime.serve.control_socket import RUN_FOLDER

pytestmark = [pytest.mark.kernel, pytest.mark.dpdk, pytest.mark.usefixtures("dpdk")]

CASES = Path(__file__).parents[1] / "cases" / "serve"
FLOWS = 200
GATEWAY = "10.78.0.2"
OWN_MAC, GATEWAY_MACS = "02:00:00:00:00:11", ("02:00:00:00:00:21", "02:00:00:00:00:22")


def packet(number: int, ttl: int) -> bytes:
    addresses = (bytes((10, 77, 0, number)), socket.inet_aton("192.0.2.5"))
    segment = h.udp(addresses, (1000 + number, 9), bytes(20))
    header = bytearray(h.ipv4(*addresses, h.IPPROTO_UDP, len(segment)))
    header[8], header[10:12] = ttl, bytes(2)
    total = sum(struct.unpack("!10H", header))
    header[10:12] = struct.pack("!H", ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF)
    return bytes(header) + segment


def forwarded(where: str, frames: Sequence[bytes], wanted: Sequence[bytes]) -> bool:
    with packet_socket_in(where, "source") as source, packet_socket_in(where, "sink") as sink:
        send_all(source, frames)
        sink.settimeout(0.5)
        return received(sink, len(frames), lambda data: data[12:14] == b"\x08\x00") == list(wanted)


def test_router_on_ports_follows_the_kernels_routes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    isolate(monkeypatch, tmp_path)
    monkeypatch.setenv(RUN_FOLDER, run_folder(tmp_path / "run")[RUN_FOLDER])
    path = tmp_path / "router.uxdp"
    path.write_bytes(build(BuildRequest(sources=("router.c",), cwd=CASES)).bundle)
    frames = [bytes(12) + b"\x08\x00" + packet(number, 64) for number in range(FLOWS)]

    def wanted(mac: str) -> list[bytes]:
        macs = bytes.fromhex((mac + OWN_MAC).replace(":", ""))
        return [macs + b"\x08\x00" + packet(number, 63) for number in range(FLOWS)]

    with namespace() as where:

        def ip(arguments: str) -> None:
            subprocess.run(["ip", "-n", where, *arguments.split()], check=True, timeout=60)

        ip("link add inside index 501 type veth peer name inside-end")
        ip(f"link add outside index 502 address {OWN_MAC} type veth peer name outside-end")
        for name, address in (("inside", "10.77.0.254/24"), ("outside", "10.78.0.1/24")):
            ip(f"link set {name} up")
            ip(f"link set {name}-end up")
            ip(f"addr add {address} dev {name}")
        ip(f"route add 192.0.2.0/24 via {GATEWAY}")
        ip(f"neigh add {GATEWAY} lladdr {GATEWAY_MACS[0]} dev outside nud permanent")
        subprocess.run(["ip", "netns", "exec", where, "sysctl", "-qw", "net.ipv4.ip_forward=1"], check=True, timeout=60)
        stands_for = ["--ifindex", "501=net_tap0", "--ifindex", "502=net_tap1"]
        taps = ["net_tap0,iface=source", "net_tap1,iface=sink"]
        with serving_dpdk(where, path, *stands_for, name="router", vdevs=taps) as service:
            assert forwarded(where, frames, wanted(GATEWAY_MACS[0]))
            ip(f"neigh replace {GATEWAY} lladdr {GATEWAY_MACS[1]} dev outside nud permanent")
            wait_until(lambda: forwarded(where, frames, wanted(GATEWAY_MACS[1])), "the new neighbour is taken")
            questions = service.ask("stats")["kernel_questions"]
            assert questions["asked"] >= 2 * FLOWS
            assert questions["failed"] == 0
            assert forwarded(where, frames, wanted(GATEWAY_MACS[1]))
            totals = check_accounts(service)
            assert totals["redirect"] >= 3 * FLOWS
            assert totals["lost"] == 0
            assert stop_and_count(service) == [(4096, 4096), (4096, 4096)]
