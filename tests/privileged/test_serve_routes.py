"""A router in service follows the kernel's routes, neighbours and devices as they change."""

import os
import signal
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.isolated_user import isolate
from tests.serving import RunningService, packet_socket, run_folder, serving, wait_until
from tests.veth import HOST_MAC, PEER_MAC, VethPair, veth_pair
from uxdp_cc.build import BuildRequest, build
from uxdp_runtime.serve.control_socket import RUN_FOLDER

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("afxdp")]

CASES = Path(__file__).parents[1] / "cases" / "serve"
TARGET, GATEWAY = "192.0.2.5", "10.78.0.2"
GATEWAY_MACS = ("02:00:00:00:00:21", "02:00:00:00:00:22")
# What is heard of is seen at once; what only time tells takes a second (UXDP_ANSWER_TICKS, native/ask.h).
HEARD_SECONDS = 0.5


class Router:
    """A served router: frames go in at the peer's veth0 and come out at its out."""

    def __init__(self, pair: VethPair, service: RunningService, stack: ExitStack) -> None:
        self.pair, self.service = pair, service
        self._into = stack.enter_context(packet_socket(pair, pair.peer))
        self._out = stack.enter_context(packet_socket(pair, pair.peer, "out"))
        self._number = 0

    def ip(self, arguments: str) -> None:
        self.pair.ip(self.pair.host, *arguments.split())

    def forwarded(self, *, payload_bytes: int = 40, times: int = 20) -> list[bytes]:
        """Send frames; return those of them that came out."""
        self._number += 1
        mark = struct.pack("!I", self._number)
        frame = packet(mark.ljust(payload_bytes, b"."))
        for _ in range(times):
            self._into.send(frame)
        arrived = []
        self._out.settimeout(0.05)
        deadline = time.monotonic() + 0.5
        while len(arrived) < times and time.monotonic() < deadline:
            try:
                data = self._out.recv(65536)
            except TimeoutError:
                break
            if data[42:46] == mark:
                arrived.append(data)
        return arrived

    def goes_to(self, mac: str | None, **options: int) -> bool:
        """Whether frames are forwarded to this neighbour; None: not at all."""
        macs = {data[:6].hex(":") for data in self.forwarded(**options)}
        return macs == ({mac} if mac else set())


def packet(payload: bytes) -> bytes:
    """Return a UDP packet over Ethernet, to the router."""
    macs = bytes.fromhex((HOST_MAC + PEER_MAC).replace(":", ""))
    udp = struct.pack("!HHHH", 5, 6, 8 + len(payload), 0) + payload
    addresses = socket.inet_aton("10.77.0.1") + socket.inet_aton(TARGET)
    words = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0) + addresses
    total = sum(struct.unpack("!10H", words))
    total = (total & 0xFFFF) + (total >> 16)
    words = words[:10] + struct.pack("!H", ~total & 0xFFFF) + words[12:]
    return macs + struct.pack("!H", 0x0800) + words + udp


@pytest.fixture
def router(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Router]:
    isolate(monkeypatch, tmp_path)
    monkeypatch.setenv(RUN_FOLDER, run_folder(tmp_path / "run")[RUN_FOLDER])
    bundle = tmp_path / "router.uxdp"
    bundle.write_bytes(build(BuildRequest(sources=("router.c",), cwd=CASES)).bundle)
    with ExitStack() as stack:
        pair = stack.enter_context(veth_pair())
        pair.add("out")
        pair.set_gro(pair.peer, on=True)
        pair.ip(pair.host, "addr", "add", "10.78.0.1/24", "dev", "out")
        pair.run(pair.host, "sysctl", "-qw", "net.ipv4.ip_forward=1")
        service = stack.enter_context(serving(pair, bundle, name="router"))
        yield Router(pair, service, stack)


def test_router_follows_routes_neighbours_and_devices(router: Router) -> None:
    assert router.goes_to(None)
    router.ip(f"neigh replace {GATEWAY} lladdr {GATEWAY_MACS[0]} dev out nud permanent")
    router.ip(f"route add 192.0.2.0/24 via {GATEWAY}")
    wait_until(lambda: router.goes_to(GATEWAY_MACS[0]), "the new route is taken")

    seconds = []
    for number in range(1, 6):
        mac = GATEWAY_MACS[number % 2]
        router.ip(f"neigh replace {GATEWAY} lladdr {mac} dev out nud permanent")
        seconds.append(wait_until(lambda mac=mac: router.goes_to(mac), "the new neighbour is taken"))
    assert sorted(seconds)[2] < HEARD_SECONDS

    assert router.goes_to(mac, payload_bytes=1200)
    router.ip("link set out mtu 1000")
    assert wait_until(lambda: router.goes_to(None, payload_bytes=1200), "it is too long now") < HEARD_SECONDS
    assert router.goes_to(mac)

    for change, back in (
        ("link set out down", "link set out up"),
        ("route del 192.0.2.0/24", f"route add 192.0.2.0/24 via {GATEWAY}"),
        ("rule add prohibit to 192.0.2.0/24", "rule del prohibit to 192.0.2.0/24"),
        (f"neigh del {GATEWAY} dev out", f"neigh add {GATEWAY} lladdr {mac} dev out nud permanent"),
    ):
        router.ip(change)
        assert wait_until(lambda: router.goes_to(None), change) < HEARD_SECONDS
        router.ip(back)
        if "down" in change:
            router.ip(f"route replace 192.0.2.0/24 via {GATEWAY}")
            router.ip(f"neigh replace {GATEWAY} lladdr {mac} dev out nud permanent")
        wait_until(lambda: router.goes_to(mac), back)

    router.pair.run(router.pair.host, "sysctl", "-qw", "net.ipv4.conf.veth0.forwarding=0")
    assert wait_until(lambda: router.goes_to(None), "it does not forward") < HEARD_SECONDS
    router.pair.run(router.pair.host, "sysctl", "-qw", "net.ipv4.conf.veth0.forwarding=1")
    wait_until(lambda: router.goes_to(mac), "it forwards again")

    # A neighbour that is confirmed changes no answer; the answer's own time passes meanwhile.
    asked, began = router.service.ask("stats")["kernel_questions"]["asked"], time.monotonic()
    for number in range(20):
        state = ("stale", "reachable")[number % 2]
        router.ip(f"neigh replace {GATEWAY} lladdr {mac} dev out nud {state}")
        assert router.goes_to(mac)
    asked = router.service.ask("stats")["kernel_questions"]["asked"] - asked
    assert asked <= 2 + (time.monotonic() - began)
    counted = router.service.ask("stats")["kernel_questions"]
    assert counted["failed"] == 0
    assert counted["asked"] > 10
    assert counted["remembered"] > counted["asked"]


def test_router_goes_on_with_another_process_another_version_and_without_a_control_process(router: Router) -> None:
    def set_gateway(number: int) -> None:
        router.ip(f"neigh replace {GATEWAY} lladdr {GATEWAY_MACS[number]} dev out nud permanent")

    set_gateway(0)
    router.ip(f"route add 192.0.2.0/24 via {GATEWAY}")
    wait_until(lambda: router.goes_to(GATEWAY_MACS[0]), "the new route is taken")
    asked = [router.service.ask("stats")["kernel_questions"]["asked"]]
    os.kill(router.service.ask("status")["data_pid"], signal.SIGKILL)
    # Nobody hears of this: the next data process must not believe what was answered to the last one.
    set_gateway(1)
    wait_until(lambda: router.service.ask("status")["restarts"] == 1, "it is restarted")
    wait_until(lambda: router.goes_to(GATEWAY_MACS[1]), "another data process forwards")
    asked.append(router.service.ask("stats")["kernel_questions"]["asked"])
    router.service.ask("reload")
    wait_until(lambda: router.goes_to(GATEWAY_MACS[1]), "another version forwards")
    asked.append(router.service.ask("stats")["kernel_questions"]["asked"])
    assert asked == sorted(set(asked))

    data_pid = router.service.ask("status")["data_pid"]
    os.kill(router.service.process.pid, signal.SIGKILL)
    router.service.process.wait(timeout=20)
    try:
        set_gateway(0)
        assert wait_until(lambda: router.goes_to(GATEWAY_MACS[0]), "the new neighbour is taken") < HEARD_SECONDS
    finally:
        os.kill(data_pid, signal.SIGKILL)
