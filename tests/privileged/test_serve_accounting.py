"""Every frame is accounted for, and every chunk is somebody's: under random frames, load and killed processes."""

import ctypes
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.bound_bundles import bound_image
from tests.privileged.test_serve import EXAMPLES, example, udp_frame
from tests.serving import RunningService, packet_socket, send_all, serving, wait_until
from tests.veth import VethPair, veth_pair
from uxdp_cc.build import BuildRequest, build
from uxdp_runtime.frames.generate import generate
from uxdp_runtime.ports.af_xdp_abi import Ring
from uxdp_runtime.ports.port_abi import QueueState
from uxdp_runtime.serve.options import ServeOptions
from uxdp_runtime.serve.queues import XskQueue
from uxdp_runtime.serve.service import Service

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("afxdp", "user")]

LONG = bool(os.environ.get("UXDP_LONG"))
NAMES = ("l2_swap", "firewall", "load_balancer", "icmp_echo", "flow_meter", "payload_hash")
USER, FILL, TX = range(3)  # enum uxdp_chunk_owner
CHUNK_BYTES = 4096
# What the kernel may have taken out of the fill ring and not yet used: a frame's worth (xp_alloc).
KERNEL_HOLDS = 2


@pytest.fixture
def quiet(afxdp: None) -> Iterator[VethPair]:
    """A pair on which nobody speaks but the test."""
    with veth_pair() as pair:
        for namespace in (pair.host, pair.peer):
            pair.ip(namespace, "addr", "flush", "dev", pair.interface)
            pair.ip(namespace, "link", "set", pair.interface, "arp", "off")
        pair.set_gro(pair.peer, on=True)
        yield pair


def veth_drops(pair: VethPair) -> int:
    """Return what the sending veth dropped, because the other end's ring was full."""
    run = pair.run(pair.peer, "ip", "-json", "-s", "link", "show", "dev", pair.interface)
    return int(json.loads(run.stdout)[0]["stats64"]["tx"]["dropped"])


def kernel_drops(service: RunningService) -> int:
    counts = [queue["kernel"] for queue in service.ask("stats")["queues"]]
    return sum(kernel["rx_dropped"] + kernel["rx_ring_full"] + kernel["rx_invalid"] for kernel in counts)


def timed(service: RunningService) -> int:
    return sum(sum(queue["latency_ns_log2"]) for queue in service.ask("stats")["queues"])


def settled(service: RunningService) -> int:
    totals = service.totals()
    return sum(totals.values()) - totals["rx"]


@pytest.mark.parametrize("name", NAMES)
def test_random_frames_add_up(quiet: VethPair, tmp_path: Path, name: str) -> None:
    count = 1_000_000 if LONG else 100_000
    frames = [frame.data for frame in generate(4096, 7, max_length=1500)]
    with serving(quiet, example(name, tmp_path), name=name.replace("_", "-")) as service:
        sent = 0
        with packet_socket(quiet, quiet.peer) as raw:
            while sent < count:
                send_all(raw, frames)
                sent += len(frames)
        wait_until(lambda: settled(service) + kernel_drops(service) + veth_drops(quiet) == sent, "all accounted", 20.0)
        totals = service.totals()
        assert totals["rx"] == settled(service)
        assert totals["rx"] + kernel_drops(service) + veth_drops(quiet) == sent
        # Nothing is lost but where the kernel loses it, too: a stack that takes no more, a ring that is full.
        lost = Counter[str]()
        for queue in service.ask("stats")["queues"]:
            lost.update(queue["lost"])
        assert set(+lost) <= {"refused", "tx_ring_full"}
        assert service.ask("status")["restarts"] == 0
        wait_until(lambda: timed(service) == totals["rx"], "the time of all is counted")
        print(f"{name}: {sent} sent, {totals}, {kernel_drops(service)} dropped by the kernel before, {dict(+lost)}")


def words(address: int, count: int, kind: type = ctypes.c_uint64) -> list[int]:
    return list((kind * count).from_address(address))


def entries(ring: Ring, words_each: int) -> list[int]:
    """Return the addresses in a ring, between consumer and producer."""
    producer, consumer = (ctypes.c_uint32.from_address(at).value for at in (ring.producer, ring.consumer))
    stored = words(ring.descriptors, (ring.mask + 1) * words_each)
    return [stored[(consumer + i & ring.mask) * words_each] for i in range((producer - consumer) & 0xFFFFFFFF)]


def check_chunks(queue: XskQueue) -> Counter[int]:
    """Check that each chunk is owned once, while nothing moves; return how many each side owns."""
    rx, tx, fill, completion = (
        [address // CHUNK_BYTES - queue.plan.worker * queue.state.num_chunks for address in entries(ring, each)]
        for ring, each in zip(queue.rings, (2, 2, 1, 1), strict=True)
    )
    owners = words(ctypes.addressof(queue.state) + ctypes.sizeof(QueueState), queue.state.num_chunks, ctypes.c_uint8)
    filled = {chunk for chunk, owner in enumerate(owners) if owner == FILL}
    transmitted = {chunk for chunk, owner in enumerate(owners) if owner == TX}
    assert len(set(fill)) == len(fill) and len(set(rx)) == len(rx)
    assert not set(fill) & set(rx)
    assert set(fill) | set(rx) <= filled
    assert len(filled) - len(fill) - len(rx) <= KERNEL_HOLDS
    assert set(tx) | set(completion) == transmitted
    assert len(set(tx)) == len(tx) and len(set(completion)) == len(completion)
    return Counter(owners)


@contextmanager
def load(pair: VethPair, seconds: float) -> Iterator[Callable[[], int]]:
    """Send frames from a process of its own; yields a function that waits for its end."""
    frames = [udp_frame(number, number % 1400) for number in range(512)]
    child = os.fork()
    if child == 0:
        try:
            with packet_socket(pair, pair.peer) as raw:
                deadline = time.monotonic() + seconds
                while time.monotonic() < deadline:
                    send_all(raw, frames)
        finally:
            os._exit(0)
    try:
        yield lambda: os.waitpid(child, 0)[1]
    finally:
        try:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        except (ProcessLookupError, ChildProcessError):
            pass  # waited for already


def pump(service: Service, seconds: float) -> None:
    """Run the service's event loop for a while."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        for key, mask in service.selector.select(min(left, 0.01)):
            key.data(mask)
        service._tick()


@pytest.mark.parametrize("tx", ["ring", "auto"])
def test_chunks_are_owned_once_after_data_processes_were_killed_under_load(quiet: VethPair, tx: str) -> None:
    kills, dice = (400 if LONG else 40), random.Random(5)
    image = build(BuildRequest(sources=("l2_swap.c",), cwd=EXAMPLES / "l2_swap")).bundle
    options = ServeOptions("l2_swap.uxdp", interfaces=(quiet.interface,), name="kills", tx=tx, num_chunks=1024)
    with bound_image(image) as bound, quiet.entered(quiet.host), Service(bound, options) as service:
        (queue,) = service.port.queues
        with load(quiet, kills * 0.1) as finish:
            for number in range(kills):
                pump(service, dice.random() * 0.05)
                pid = service.data_pid
                assert pid is not None
                os.kill(pid, signal.SIGKILL)
                service._pause = 0.0
                wait_for(service, lambda number=number: service.restarts == number + 1 and service.data_pid is not None)
            finish()
        pump(service, 0.5)
        assert service.data_pid is not None
        os.kill(service.data_pid, signal.SIGSTOP)
        time.sleep(0.1)
        owned = check_chunks(queue)
        os.kill(service.data_pid, signal.SIGCONT)
        # All that is nobody's business goes back to where frames are received into.
        assert owned[FILL] >= 1024 - 64 - owned[TX]
        state = queue.state
        counted = sum(state.verdict_frames) + sum(state.lost)
        assert state.rx_frames == counted > 1000
        print(f"{kills} kills: {state.rx_frames} received, {list(state.lost)} lost, owners {dict(owned)}")


def wait_for(service: Service, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        pump(service, 0.005)


def rss_kib(pid: int) -> int:
    """Return what a process has in memory, but for its maps: flow_meter's ring buffer fills as long as it runs."""
    total, is_map = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        first, *rest = line.split()
        if not first.endswith(":"):
            is_map = rest[-1] == "(deleted)" and rest[-2].startswith("/memfd:uxdp-")
        elif first == "Rss:" and not is_map:
            total += int(rest[0])
    assert total
    return total


def test_memory_is_stable_under_load(quiet: VethPair, tmp_path: Path) -> None:
    seconds = 60 if LONG else 10
    with serving(quiet, example("flow_meter", tmp_path), name="soak") as service:
        pids = [service.ask("status")[key] for key in ("pid", "data_pid")]
        with load(quiet, seconds + 2):
            time.sleep(2)  # whatever is touched once has been
            before = [rss_kib(pid) for pid in pids]
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline:
                service.ask("stats")
                time.sleep(0.1)
            after = [rss_kib(pid) for pid in pids]
        print(f"control and data process: {before} KiB, {seconds} s later {after} KiB")
        for first, last in zip(before, after, strict=True):
            assert last - first < 512
        assert service.ask("status")["restarts"] == 0


def test_idle_service_uses_little_cpu_and_survives_being_asked(quiet: VethPair, tmp_path: Path) -> None:
    with serving(quiet, example("l2_swap", tmp_path), name="idle") as service:
        pids = [service.ask("status")[key] for key in ("pid", "data_pid")]
        time.sleep(0.5)
        before = sum(cpu_seconds(pid) for pid in pids)
        time.sleep(3)
        used = (sum(cpu_seconds(pid) for pid in pids) - before) / 3
        print(f"idle: {100 * used:.1f} % of a CPU")
        assert used < 0.05


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
