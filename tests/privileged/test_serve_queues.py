"""Several queues, several interfaces: which are served, by whom, and where per-CPU maps and redirects lead."""

import os
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.bound_bundles import bound_image
from tests.privileged.test_serve import example, mac, udp_frame
from tests.privileged.test_serve_accounting import pump
from tests.privileged.test_serve_verdicts import CASES, TO_IFINDEX, order, ports_pair
from tests.serving import RunningService, packet_socket, received, send_all, serving, wait_until
from tests.veth import PEER_MAC, VethPair, veth_pair
from uxdp_cc.build import BuildRequest, build
from uxdp_runtime.ports.interface import Interface, interface
from uxdp_runtime.serve import af_xdp_port
from uxdp_runtime.serve.options import ServeOptions
from uxdp_runtime.serve.service import Service

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("afxdp", "user")]

QUEUES = 4


@pytest.fixture
def wide(afxdp: None) -> Iterator[VethPair]:
    """A pair whose ends have several queues, between which the sending end chooses by a hash of the flow."""
    with veth_pair(queues=QUEUES) as pair:
        for namespace in (pair.host, pair.peer):
            pair.ip(namespace, "link", "set", pair.interface, "arp", "off")
        yield pair


def received_by_queue(service: RunningService) -> dict[int, int]:
    return {queue["queue"]: queue["rx_frames"] for queue in service.ask("stats")["queues"]}


def echoed(pair: VethPair, frames: list[bytes]) -> int:
    with packet_socket(pair, pair.peer) as raw:
        raw.settimeout(0.5)
        send_all(raw, frames)
        return len(received(raw, len(frames), lambda data: data[:6] == mac(PEER_MAC) and data[23:24] == b"\x11"))


def test_every_queue_is_served_by_a_thread_of_its_own(wide: VethPair, tmp_path: Path) -> None:
    frames = [udp_frame(number) for number in range(4000)]
    cpus = sorted(os.sched_getaffinity(0))
    with serving(wide, example("l2_swap", tmp_path), "--tx", "ring", "--cpus", str(cpus[-1]), name="wide") as service:
        assert echoed(wide, frames) == len(frames)
        counts = received_by_queue(service)
        assert counts.keys() == set(range(QUEUES))
        assert min(counts.values()) > 0
        assert sum(counts.values()) == len(frames)
        assert {queue["cpu"] for queue in service.ask("status")["interfaces"][0]["queues"]} == {cpus[-1]}
        threads = Path(f"/proc/{service.ask('status')['data_pid']}/task")
        pinned = [os.sched_getaffinity(int(thread.name)) for thread in threads.iterdir()]
        assert pinned.count({cpus[-1]}) >= QUEUES


def test_queues_that_are_not_served_take_the_fallback(wide: VethPair, tmp_path: Path) -> None:
    frames = [udp_frame(number) for number in range(2000)]
    with serving(wide, example("l2_swap", tmp_path), "--tx", "ring", "--queues", "1-2", name="some") as service:
        with packet_socket(wide, wide.host) as stack:
            back = echoed(wide, frames)
            stack.settimeout(0.3)
            passed = received(stack, len(frames), lambda data: data[23:24] == b"\x11")
        counts = received_by_queue(service)
        assert counts.keys() == {1, 2}
        assert sum(counts.values()) == back
        assert 0 < back < len(frames)
        assert back + len(passed) == len(frames)


def test_queue_that_does_not_exist_is_refused(wide: VethPair, tmp_path: Path) -> None:
    with (
        pytest.raises(AssertionError, match="ended with 10"),
        serving(wide, example("l2_swap", tmp_path), "--queues", "0-4", name="none"),
    ):
        pass
    assert "veth0: no RX queue 4: it has 4" in (tmp_path / "l2_swap.log").read_text()


def test_per_cpu_maps_have_a_slot_for_each_queue(wide: VethPair, tmp_path: Path) -> None:
    frames = [udp_frame(number) for number in range(2000)]
    with serving(wide, example("firewall", tmp_path), name="slots") as service:
        with packet_socket(wide, wide.peer) as raw:
            send_all(raw, frames)
        wait_until(lambda: service.totals()["rx"] == len(frames), "received")
        counts = received_by_queue(service)
        dump = service.ask("map-dump", map="counters", notation="bpftool")
        slots: Counter[int] = Counter()
        for element in dump["elements"]:
            for slot in element["values"]:
                slots[slot["cpu"]] += counted(slot["value"])
        assert dict(slots) == counts


def counted(value: object) -> int:
    if isinstance(value, dict):
        return int(value["packets"])
    assert isinstance(value, list)
    return int(struct.unpack_from("=Q", bytes(int(byte, 16) for byte in value))[0])


def test_redirect_between_served_interfaces(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.uxdp"
    path.write_bytes(build(BuildRequest(sources=("verdicts.c",), cwd=CASES)).bundle)
    with ports_pair() as pair, serving(pair, path, name="both", interfaces="veth0,out1") as service:
        for source, target in (("veth0", "out1"), ("out1", "veth0"), ("veth0", "veth0")):
            frames = [order(number, TO_IFINDEX, pair.index(target), payload_bytes=number * 4) for number in range(300)]
            with packet_socket(pair, pair.peer, target) as arriving, packet_socket(pair, pair.peer, source) as raw:
                before = service.totals()["rx"]
                for at in range(0, len(frames), 100):  # a veth's ring has room for 256
                    send_all(raw, frames[at : at + 100])
                    wait_until(lambda want=before + at + 100: service.totals()["rx"] >= want, "received")
                assert received(arriving, len(frames), lambda data: data[12:14] == b"\x88\xb5") == frames
        by_interface = {queue["interface"]: queue["verdicts"]["redirect"] for queue in service.ask("stats")["queues"]}
        assert by_interface == {"veth0": 600, "out1": 300}
        assert service.totals()["lost"] == 0


def test_busy_polling_never_sleeps(wide: VethPair, tmp_path: Path) -> None:
    frames = [udp_frame(number) for number in range(400)]
    with serving(wide, example("l2_swap", tmp_path), "--busy-poll", "--tx", "ring", name="busy") as service:
        assert echoed(wide, frames) == len(frames)
        assert {queue["polls"] for queue in service.ask("stats")["queues"]} == {0}
        assert service.totals()["tx"] == len(frames)


def test_queues_of_each_numa_node_have_memory_there(tmp_path: Path) -> None:
    image = build(BuildRequest(sources=("verdicts.c",), cwd=CASES)).bundle
    with ports_pair() as pair, pair.entered(pair.host), bound_image(image) as bound:
        options = ServeOptions("verdicts.uxdp", interfaces=("veth0", "out1"), name="nodes", num_chunks=1024)
        with Service(bound, options) as service:
            pump(service, 0.2)
            near, elsewhere = (queue.plan.interface for queue in service.port.queues)
            assert (near.numa_node, elsewhere.numa_node) == (-1, -1)  # a veth is no device of any node
            assert len({queue.umem.address for queue in service.port.queues}) == 1

    def on_node_0(name: str) -> Interface:
        found = interface(name)
        return replace(found, numa_node=0) if name == "out1" else found

    with (
        ports_pair() as pair,
        pair.entered(pair.host),
        bound_image(image) as bound,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(af_xdp_port, "interface", on_node_0)
        with Service(bound, options) as service:
            pump(service, 0.2)
            first, second = service.port.queues
            assert (first.umem.numa_node, second.umem.numa_node) == (-1, 0)
            policies = Path("/proc/self/numa_maps").read_text()
            assert f"{second.umem.address:x} prefer:0" in policies
            assert f"{first.umem.address:x} default" in policies
            # A frame goes from one area to an interface of the other.
            frames = [order(number, TO_IFINDEX, pair.index("out1")) for number in range(100)]
            with packet_socket(pair, pair.peer, "out1") as arriving, packet_socket(pair, pair.peer) as raw:
                send_all(raw, frames)
                pump(service, 0.5)
                assert received(arriving, len(frames), lambda data: data[12:14] == b"\x88\xb5") == frames


@pytest.mark.parametrize("generic", [False, True], ids=["native", "generic"])
def test_passed_frames_reach_the_stack_once_and_in_order(wide: VethPair, tmp_path: Path, generic: bool) -> None:
    frames = [udp_frame(number, number % 1400) for number in range(3000)]
    with serving(wide, example("firewall", tmp_path), *(["--generic"] if generic else []), name="fw") as service:
        assert service.ask("status")["interfaces"][0]["attached"] == ("generic" if generic else "native")
        assert "falling back" not in service.log
        with packet_socket(wide, wide.host) as stack, packet_socket(wide, wide.peer) as raw:
            for at in range(0, len(frames), 100):
                send_all(raw, frames[at : at + 100])
                wait_until(lambda at=at: service.totals()["pass"] >= at + 100, "passed")
            stack.settimeout(0.3)
            # A generic program sees a frame after packet sockets do: there each is seen before, and once more after.
            seen = received(stack, 3 * len(frames), lambda data: data[23:24] == b"\x11")
        totals = service.totals()
        assert totals["rx"] == totals["pass"] == len(frames)  # none came by the program again
        copies = Counter(seen)
        assert set(copies) == set(frames)
        assert set(copies.values()) == {1}
        last: dict[int, int] = {}
        for frame in seen:  # in order within each flow, whose queue is always the same
            port, number = frame[34] << 8 | frame[35], struct.unpack_from("=I", frame, 42)[0]
            assert last.get(port, -1) < number
            last[port] = number


def test_driver_without_xdp_falls_back_to_generic_and_says_so_once(tmp_path: Path) -> None:
    with veth_pair() as pair:
        # A bridge has no XDP of its own.
        pair.ip(pair.host, "link", "add", "br0", "type", "bridge")
        pair.ip(pair.host, "link", "set", "veth0", "master", "br0")
        pair.ip(pair.host, "link", "set", "br0", "address", "02:00:00:00:00:0b", "up")
        with serving(pair, example("l2_swap", tmp_path), name="bridge", interfaces="br0") as service:
            assert service.ask("status")["interfaces"][0]["attached"] == "generic"
            assert service.log.count("falling back to generic XDP") == 1
            assert echoed(pair, [udp_frame(number) for number in range(100)]) == 100
