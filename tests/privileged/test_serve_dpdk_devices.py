"""uxdp serve on DPDK's devices: rings, veth by AF_XDP, TAPs; several queues, huge pages, frames of several mbufs."""

import os
import re
import subprocess
import time
from pathlib import Path

import pytest

from tests.huge_pages import reserved_huge_pages
from tests.privileged.test_serve_dpdk import bundle, udp_frame
from tests.privileged.test_serve_verdicts import CASES, PASS, TX, order
from tests.serving import packet_socket, received, send_all, wait_until
from tests.serving_dpdk import (
    captures,
    check_accounts,
    cpu_seconds,
    packet_socket_in,
    ports,
    serving_dpdk,
    stop_and_count,
)
from tests.veth import veth_pair
from uxdp_cc.build import BuildRequest, build

pytestmark = [pytest.mark.kernel, pytest.mark.dpdk, pytest.mark.usefixtures("dpdk", "user")]

COUNTER = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u64);
} frames SEC(".maps");

SEC("xdp")
int counter(struct xdp_md *ctx)
{
	__u32 queue = ctx->rx_queue_index;
	__u64 *count = bpf_map_lookup_elem(&frames, &queue);

	if (count)
		*count += 1;
	return XDP_DROP;
}
char _license[] SEC("license") = "Dual MIT/GPL";
"""


def compiled(text: str, name: str, folder: Path) -> Path:
    (folder / f"{name}.c").write_text(text)
    path = folder / f"{name}.uxdp"
    path.write_bytes(build(BuildRequest(sources=(f"{name}.c",), cwd=folder)).bundle)
    return path


def test_ring_gives_back_what_was_redirected_into_it(where: str, tmp_path: Path) -> None:
    frames = [udp_frame(number, number % 900) for number in range(500)]
    port = captures(tmp_path, 0, frames)
    across = ["--ifindex", "5=net_pcap0", "--ifindex", "7=net_ring0"]
    across += ["--set", "across:5=net_ring0", "--set", "across:7=net_pcap0"]
    with serving_dpdk(
        where, bundle("bridge", tmp_path), *across, name="bridge", vdevs=[port.vdev, "net_ring0"]
    ) as service:
        wait_until(lambda: service.totals()["redirect"] == 2 * len(frames), "all are across")
        assert check_accounts(service)["lost"] == 0
        assert stop_and_count(service) == [(4096, 4096), (4096, 4096)]
    assert port.transmitted() == frames


def test_queues_have_workers_and_slots_of_per_cpu_maps_of_their_own(where: str, tmp_path: Path) -> None:
    path = compiled(COUNTER, "counter", tmp_path)
    arguments = ("--queues", "0-1", "--pass", "none", "--power", "pause")
    with serving_dpdk(where, path, *arguments, name="counter", vdevs=["net_null0"]) as service:
        wait_until(lambda: all(queue["rx_frames"] > 1000 for queue in service.ask("stats")["queues"]), "frames")
        elements = service.ask("map-dump", map="frames")["elements"]
        slots = [[slot["value"] for slot in element["values"]] for element in elements]
        # Queue 0 is worker 0's, and queue 1 worker 1's.
        assert [[count > 0 for count in counts[:2]] for counts in slots] == [[True, False], [False, True]]
        assert [queue["queue"] for queue in service.ask("stats")["queues"]] == [0, 1]
        assert stop_and_count(service) == [(8192, 8192)]


def test_huge_pages_are_used_if_there_are_enough(where: str, tmp_path: Path) -> None:
    port = captures(tmp_path, 0, [udp_frame(number) for number in range(10)])
    # Other tests' services take some, too, while there are any.
    with reserved_huge_pages(256) as has_room:
        if not has_room and "dpdk" in os.environ.get("UXDP_REQUIRE", "").split(","):
            pytest.fail("UXDP_REQUIRE=dpdk: the kernel has no room for huge pages")
        if not has_room:
            pytest.skip("the kernel has no room for huge pages")
        with serving_dpdk(where, bundle("l2_swap", tmp_path), name="huge", vdevs=[port.vdev]) as service:
            wait_until(lambda: service.totals()["tx"] == 10, "all transmitted")
            assert service.ask("status")["huge_pages"] is True
            assert "usual pages" not in service.log
            assert stop_and_count(service) == [(4096, 4096)]
    with serving_dpdk(where, bundle("l2_swap", tmp_path), name="usual", vdevs=["net_null0"]) as service:
        assert service.ask("status")["huge_pages"] is False
        assert re.search(r"DPDK uses usual pages: 67 MiB are needed, \d+ MiB are free in huge pages", service.log)


def test_frames_of_several_mbufs_go_where_their_verdict_says(where: str, tmp_path: Path) -> None:
    frames = [udp_frame(number, size) for number, size in enumerate((30, 1400, 1700, 1800, 3000, 3700, 5000, 8900))]
    text = (CASES / "bridge.c").read_text()
    for before, after in (('SEC("xdp")', 'SEC("xdp.frags")'), ("XDP_ABORTED", "XDP_PASS")):
        assert text.count(before) == 1
        text = text.replace(before, after)
    socket = f"socket={tmp_path}/memif.sock"
    vdevs = ["net_tap0,iface=source", f"net_memif0,role=server,{socket}", f"net_memif1,role=client,{socket}"]
    across = ["--chunk-bytes", "2048", "--ifindex", "5=net_tap0", "--set", "across:5=net_memif0"]
    with serving_dpdk(where, compiled(text, "long", tmp_path), *across, name="long", vdevs=vdevs) as service:
        subprocess.run(["ip", "-n", where, "link", "set", "source", "mtu", "9000"], check=True)
        wait_until(lambda: all(port["link"]["up"] for port in ports(service)), "the two are connected", 10.0)
        with packet_socket_in(where, "source") as raw, packet_socket_in(where, "net_memif1") as stack:
            send_all(raw, frames)
            assert received(stack, len(frames), lambda data: data[12:14] == b"\x08\x00") == frames
        totals = check_accounts(service)
        assert (totals["redirect"], totals["pass"], totals["lost"]) == (len(frames), len(frames), 0)
        assert stop_and_count(service) == [(4096, 4096)] * 3


@pytest.mark.parametrize("takes_several", [False, True])
def test_frames_that_cannot_be_taken_or_sent_are_lost_and_counted(
    where: str, tmp_path: Path, takes_several: bool
) -> None:
    frames = [udp_frame(number, size) for number, size in enumerate((30, 3700, 5000, 1400, 8900))]
    text = (Path(__file__).parents[2] / "examples/l2_swap/l2_swap.c").read_text()
    assert text.count('SEC("xdp")') == 1
    path = compiled(text.replace('SEC("xdp")', 'SEC("xdp.frags")') if takes_several else text, "swap", tmp_path)
    port = captures(tmp_path, 0, frames)
    with serving_dpdk(where, path, name="swap", vdevs=[port.vdev]) as service:
        wait_until(lambda: service.totals()["rx"] == len(frames), "all received")
        totals = check_accounts(service)
        assert (totals["tx"], totals["lost"]) == (3, 2)
        # net_pcap does not say that it transmits frames of several mbufs.
        assert service.ask("stats")["queues"][0]["lost"]["too_long" if takes_several else "fragmented"] == 2
        assert stop_and_count(service) == [(4096, 4096)]
    assert port.transmitted() == [frame[6:12] + frame[:6] + frame[12:] for frame in frames if len(frame) < 4000]


def test_what_passes_on_a_device_that_the_kernel_shares_is_received_by_its_interface(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.uxdp"
    path.write_bytes(build(BuildRequest(sources=("verdicts.c",), cwd=CASES)).bundle)
    orders = [order(number, (PASS, TX)[number % 2]) for number in range(64)]
    with veth_pair() as pair:
        vdev = "net_af_xdp0,iface=veth0"
        with serving_dpdk(pair.host, path, "--program", "verdicts", name="verdicts", vdevs=[vdev]) as service:
            assert "XDP_PASS to netdev" in service.log
            with (
                packet_socket(pair, pair.peer) as peer,
                packet_socket(pair, pair.host) as stack,
            ):
                send_all(peer, orders)
                back = received(peer, 32, lambda data: data[12:14] == b"\x88\xb5")
                passed = received(stack, 32, lambda data: data[12:14] == b"\x88\xb5")
            wait_until(lambda: service.totals()["pass"] >= 32, "all are accounted for")
            totals = check_accounts(service)
            assert (totals["pass"], totals["tx"], totals["lost"]) == (32, 32, 0)
            assert passed == orders[::2]
            assert len(back) == 32
            # The driver keeps what is in its rings, and its program attached: that one we detach.
            ((free, total),) = stop_and_count(service)
            assert (total, free > 4096 - 2048 - 64) == (4096, True)
            shown = ["ip", "-n", pair.host, "-d", "link", "show", "veth0"]
            assert "prog/xdp" not in subprocess.run(shown, check=True, capture_output=True, text=True).stdout


def test_unsent_frames_are_freed_and_counted(where: str, tmp_path: Path) -> None:
    frames = [udp_frame(number) for number in range(200)]
    port = captures(tmp_path, 0, frames)
    memif = f"net_memif0,role=server,socket={tmp_path}/nobody.sock"  # whose other end nobody has
    across = ["--ifindex", "5=net_pcap0", "--set", "across:5=net_memif0"]
    with serving_dpdk(where, bundle("bridge", tmp_path), *across, name="bridge", vdevs=[port.vdev, memif]) as service:
        wait_until(lambda: service.totals()["rx"] == len(frames), "all received")
        totals = check_accounts(service)
        assert (totals["redirect"], totals["lost"]) == (0, len(frames))
        assert service.ask("stats")["queues"][0]["lost"]["tx_ring_full"] == len(frames)
        assert stop_and_count(service) == [(4096, 4096), (4096, 4096)]


@pytest.mark.parametrize("power", ["pause", "interrupt"])
def test_who_waits_for_frames_leaves_the_cpu_alone(where: str, tmp_path: Path, power: str) -> None:
    frames = [udp_frame(number) for number in range(50)]
    vdevs = ["net_tap0,iface=source"]
    with serving_dpdk(where, bundle("l2_swap", tmp_path), "--power", power, name="swap", vdevs=vdevs) as service:
        pid = service.ask("status")["data_pid"]
        with packet_socket_in(where, "source") as raw:
            time.sleep(0.2)
            before, start = cpu_seconds(pid), time.monotonic()
            time.sleep(1.0)
            share = (cpu_seconds(pid) - before) / (time.monotonic() - start)
            assert share < 0.1, f"{share:.0%} of a CPU"
            for frame in frames:
                send_all(raw, [frame])
                (back,) = received(raw, 1, lambda data: data[12:14] == b"\x08\x00")
                assert back == frame[6:12] + frame[:6] + frame[12:]
        assert check_accounts(service)["tx"] == len(frames)
        assert stop_and_count(service) == [(4096, 4096)]


def test_pass_and_the_stacks_own_frames_go_by_the_tap_interface(where: str, tmp_path: Path) -> None:
    path = tmp_path / "verdicts.uxdp"
    path.write_bytes(build(BuildRequest(sources=("verdicts.c",), cwd=CASES)).bundle)
    orders = [order(number, PASS) for number in range(20)]
    vdevs = ["net_tap0,iface=source,mac=02:00:00:00:00:05"]
    with serving_dpdk(where, path, "--program", "verdicts", "--pass", "tap", name="verdicts", vdevs=vdevs) as service:
        shown = subprocess.run(
            ["ip", "netns", "exec", where, "cat", "/sys/class/net/net_tap0/address"], capture_output=True, text=True
        )
        assert shown.stdout.strip() == "02:00:00:00:00:05"
        with packet_socket_in(where, "source") as raw, packet_socket_in(where, "net_tap0") as stack:
            send_all(raw, orders)
            assert received(stack, 20, lambda data: data[12:14] == b"\x88\xb5") == orders
            send_all(stack, [udp_frame(1)])
            assert received(raw, 1, lambda data: data[12:14] == b"\x08\x00") == [udp_frame(1)]
        wait_until(lambda: service.ask("stats")["queues"][0]["stack_frames"] == 1, "the stack's frame is counted")
        assert check_accounts(service)["pass"] == 20
        assert stop_and_count(service) == [(4096, 4096)]
