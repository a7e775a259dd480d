"""uxdp serve where things go wrong: interfaces that go, change or belong to others, lacking rights, hostile clients."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.privileged.test_serve import attached, example, mac, udp_frame
from tests.serving import RunningService, packet_socket, received, send_all, serving, wait_until
from tests.veth import HOST_ADDRESS, PEER_MAC, VethPair, veth_pair
from uxdp_runtime.ports.af_xdp import RingSizes, XdpSocket
from uxdp_runtime.ports.queue_owner import parse_sockets
from uxdp_runtime.serve.control_socket import RUN_FOLDER, ask, socket_path
from uxdp_runtime.serve.handover import data_socket_path

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("afxdp", "user")]

UXDP = str(Path(sys.executable).parent / "uxdp")
PORT_ERROR = 10


@pytest.fixture
def pair(afxdp: None) -> Iterator[VethPair]:
    with veth_pair() as made:
        yield made


def echoed(pair: VethPair, count: int = 50, interface: str = "") -> int:
    """Send frames to the host's end; return how many come back swapped."""
    frames = [udp_frame(number) for number in range(count)]
    with packet_socket(pair, pair.peer, interface) as raw:
        send_all(raw, frames)
        return len(received(raw, count, lambda data: data[:6] == mac(PEER_MAC)))


def refused(pair: VethPair, bundle: Path, *arguments: str, prefix: tuple[str, ...] = ()) -> tuple[int, str]:
    """Try to serve; return the exit status and what was said."""
    command = ["ip", "netns", "exec", pair.host, *prefix, UXDP, "serve", str(bundle), "--insecure-unsigned"]
    command += ["--af-xdp", pair.interface, *arguments]
    run = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert "Traceback" not in run.stderr, run.stderr
    return run.returncode, run.stderr


def test_interface_that_disappears_ends_alone(pair: VethPair, tmp_path: Path) -> None:
    pair.add("other")
    with serving(pair, example("l2_swap", tmp_path), "--tx", "ring", name="swap", interfaces="other,veth0") as service:
        assert echoed(pair, interface="other") == 50
        pair.ip(pair.host, "link", "del", "other")
        wait_until(lambda: service.ask("status")["interfaces"][0]["gone"], "seen")
        assert "other: the interface is gone" in service.log
        assert echoed(pair) == 50
        assert service.ask("status")["restarts"] == 0
        pair.ip(pair.host, "link", "del", "veth0")
        assert service.process.wait(timeout=10) == PORT_ERROR
        assert "no interface is left to serve" in service.log
        assert "Traceback" not in service.log


def test_interface_that_disappears_ends_a_service_in_the_kernel(pair: VethPair, tmp_path: Path) -> None:
    pair.add("other")
    pair.set_gro(pair.peer, on=True)
    bundle = example("l2_swap", tmp_path)
    with serving(pair, bundle, "--mode", "kernel", name="swap", interfaces="other,veth0") as service:
        pair.ip(pair.host, "link", "del", "other")
        wait_until(lambda: service.ask("status")["interfaces"][0]["gone"], "seen")
        assert service.ask("reload", bundle=str(bundle))["bundle"] == str(bundle)
        pair.ip(pair.host, "link", "del", "veth0")
        assert service.process.wait(timeout=10) == PORT_ERROR
        assert "no interface is left to serve" in service.log


def test_data_process_that_is_killed_after_an_interface_went_serves_the_others(pair: VethPair, tmp_path: Path) -> None:
    pair.add("other")
    with serving(pair, example("l2_swap", tmp_path), "--tx", "ring", name="swap", interfaces="other,veth0") as service:
        pair.ip(pair.host, "link", "del", "other")
        wait_until(lambda: service.ask("status")["interfaces"][0]["gone"], "seen")
        before = service.ask("status")["data_pid"]
        os.kill(before, 9)
        wait_until(lambda: service.ask("status")["data_pid"] not in (None, before), "a new data process")
        assert echoed(pair) == 50


def test_data_process_alone_ends_with_its_interface(pair: VethPair, tmp_path: Path) -> None:
    with serving(pair, example("l2_swap", tmp_path), "--tx", "ring", name="swap") as service:
        status = service.ask("status")
        os.kill(status["pid"], signal.SIGKILL)
        assert echoed(pair) == 50
        pair.ip(pair.host, "link", "del", "veth0")
        wait_until(lambda: not Path(f"/proc/{status['data_pid']}/exe").exists(), "ended")


@pytest.mark.parametrize("tx", ["ring", "live"])
def test_interface_that_goes_down_and_up_is_served_on(pair: VethPair, tmp_path: Path, tx: str) -> None:
    pair.set_gro(pair.peer, on=True)
    with serving(pair, example("l2_swap", tmp_path), "--tx", tx, name="swap") as service:
        for _ in range(3):
            assert echoed(pair) == 50
            for state in ("down", "up"):
                seen = service.log.count(f"the interface is {state}")
                pair.ip(pair.host, "link", "set", "veth0", state)
                wait_until(lambda: service.log.count(f"the interface is {state}") > seen, state)  # noqa: B023
        assert echoed(pair) == 50
        assert service.ask("status")["restarts"] == 0
        totals = service.totals()
        assert totals["rx"] == sum(totals.values()) - totals["rx"]


def test_mtu_that_changes_is_reported_and_frames_of_it_are_served(pair: VethPair, tmp_path: Path) -> None:
    with serving(pair, example("l2_swap", tmp_path), "--tx", "ring", name="swap") as service:
        for namespace in (pair.host, pair.peer):
            pair.ip(namespace, "link", "set", "veth0", "mtu", "3000")
        wait_until(lambda: "the MTU is 3000, it was 1500" in service.log, "reported")
        with packet_socket(pair, pair.peer) as raw:
            send_all(raw, [udp_frame(1, 2900)])
            assert len(received(raw, 1, lambda data: data[:6] == mac(PEER_MAC))[0]) == len(udp_frame(1, 2900))


def test_mtu_that_does_not_fit_a_chunk_is_refused_with_the_remedy(pair: VethPair, tmp_path: Path) -> None:
    for namespace in (pair.host, pair.peer):
        pair.ip(namespace, "link", "set", "veth0", "mtu", "9000")
    status, said = refused(pair, example("l2_swap", tmp_path))
    assert status == PORT_ERROR
    assert "an MTU of 9000 does not fit chunks of 4096 bytes: at most 3382" in said
    assert "ip link set dev veth0 mtu 3382" in said
    assert not attached(pair)


def test_queue_count_that_grows_is_reported_and_the_rest_falls_back(tmp_path: Path) -> None:
    with veth_pair(queues=2) as pair:
        for namespace in (pair.peer, pair.host):
            pair.run(namespace, "ethtool", "-L", "veth0", "rx", "1", "tx", "1")
        with serving(pair, example("l2_swap", tmp_path), "--tx", "ring", name="swap") as service:
            pair.run(pair.host, "ethtool", "-L", "veth0", "rx", "2", "tx", "2", check=False)
            wait_until(lambda: "2 RX queues, it had 1; 1 are served" in service.log, "reported")
            assert service.ask("status")["serving"]


@contextmanager
def queue_taken(pair: VethPair) -> Iterator[None]:
    import mmap

    from uxdp_runtime.serve.queues import _address

    memory = mmap.mmap(-1, 64 * 4096)
    with pair.entered(pair.host), XdpSocket(RingSizes(64, 64, 64, 64)) as taken:
        taken.register_umem(_address(memory), len(memory), 4096)
        taken.make_rings()
        taken.bind(socket.if_nametoindex("veth0"), 0)
        yield


def test_queue_of_another_socket_is_refused_and_its_owner_named(pair: VethPair, tmp_path: Path) -> None:
    bundle = example("l2_swap", tmp_path)
    with queue_taken(pair):
        started = time.monotonic()
        status, said = refused(pair, bundle)
        assert time.monotonic() - started > 1.0  # it may be about to be given up
    assert status == PORT_ERROR
    assert "veth0: queue 0 cannot be had: it belongs to " in said
    assert f"process {os.getpid()} (" in said
    assert not attached(pair)


def test_queue_owner_parse_malformed_yields_nothing() -> None:
    whole = bytes.fromhex("2c0000001400020001000000000000002c030000d204000000000000000000000c0001000700000003000000")
    assert list(parse_sockets(whole)) == [(7, 3, 1234)]
    for end in range(len(whole)):
        assert list(parse_sockets(whole[:end])) == []
    for at in range(0, len(whole), 2):
        damaged = whole[:at] + b"\xff\xff" + whole[at + 2 :]
        assert len(list(parse_sockets(damaged))) <= 1


@contextmanager
def other_program(pair: VethPair, folder: Path, *, by_link: bool) -> Iterator[None]:
    """Have another program on the interface, attached as ip(8) does, or by a bpf_link."""
    from tests.bound_bundles import bound_image
    from uxdp_runtime.bpf import syscall
    from uxdp_runtime.verify import verify

    path = example("firewall", folder)
    if not by_link:
        pair.ip(pair.host, "link", "set", "veth0", "xdpdrv", "obj", str(path), "sec", "xdp")
        yield
        return
    with bound_image(path.read_bytes()) as bound, verify(bound) as verified, pair.entered(pair.host):
        (program,) = verified.programs.values()
        link = syscall.create_xdp_link(program.fd, socket.if_nametoindex("veth0"), 1 << 2)
        try:
            yield
        finally:
            os.close(link)


@pytest.mark.parametrize("by_link", [False, True], ids=["netlink", "link"])
def test_other_program_is_named_and_replaced_only_if_asked(pair: VethPair, tmp_path: Path, by_link: bool) -> None:
    bundle = example("l2_swap", tmp_path)
    with other_program(pair, tmp_path, by_link=by_link):
        status, said = refused(pair, bundle)
        assert status == PORT_ERROR
        assert re.search(r"veth0: another XDP program is attached: firewall \(id \d+\)", said), said
        assert "--replace" in said
        assert attached(pair)
        with serving(pair, bundle, "--replace", "--tx", "ring", name="swap") as service:
            assert echoed(pair) == 50
            assert service.stop() == 0
        assert not attached(pair)


@pytest.mark.parametrize("capability", ["net_raw", "net_admin", "bpf"])
def test_lacking_capability_is_named(pair: VethPair, tmp_path: Path, capability: str) -> None:
    dropped = f"-{capability},-sys_admin"
    prefix = ("setpriv", f"--bounding-set={dropped}", f"--inh-caps={dropped}", "--no-new-privs")
    status, said = refused(pair, example("l2_swap", tmp_path), prefix=prefix)
    assert status not in (0, 1)
    assert f"CAP_{capability.upper()}" in said, said
    assert not attached(pair)


def test_umem_beyond_the_memlock_limit_is_refused_with_the_remedy(pair: VethPair, tmp_path: Path) -> None:
    prefix = ("prlimit", "--memlock=65536:65536", "setpriv", "--bounding-set=-ipc_lock,-sys_resource")
    status, said = refused(pair, example("l2_swap", tmp_path), prefix=(*prefix, "--inh-caps=-ipc_lock,-sys_resource"))
    assert status == PORT_ERROR
    assert "cannot be locked" in said
    assert "raise the memlock limit, which is 64 KiB" in said
    assert not attached(pair)


def test_without_free_huge_pages_usual_ones_do_and_status_says_so(pair: VethPair, tmp_path: Path) -> None:
    meminfo = Path("/proc/meminfo").read_text()
    free = re.search(r"^HugePages_Free:\s+(\d+)$", meminfo, re.MULTILINE)
    with serving(pair, example("l2_swap", tmp_path), "--tx", "ring", name="swap") as service:
        if free is None or free[1] == "0":
            assert service.ask("status")["huge_pages"] is False
        assert "huge page" not in service.log
        assert echoed(pair) == 50


def test_two_services_of_one_name_the_second_is_refused(pair: VethPair, tmp_path: Path) -> None:
    pair.add("other")
    bundle = example("l2_swap", tmp_path)
    with serving(pair, bundle, "--tx", "ring", name="swap") as service:
        command = ["ip", "netns", "exec", pair.host, UXDP, "serve", str(bundle), "--insecure-unsigned"]
        command += ["--af-xdp", "other", "--name", "swap"]
        run = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
        assert run.returncode == PORT_ERROR
        assert "a service of this name is running" in run.stderr
        assert data_socket_path("swap").exists()  # it was not touched
        assert service.ask("status")["serving"]
        assert echoed(pair) == 50


def test_services_of_one_name_started_at_once_one_of_them_runs(pair: VethPair, tmp_path: Path) -> None:
    bundle = example("l2_swap", tmp_path)
    pair.add("other")
    socket_path("swap").parent.mkdir(parents=True, exist_ok=True)
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(socket_path("swap")))  # as one leaves it that was killed
    dead.close()
    started = []
    for name in ("veth0", "other"):
        command = ["ip", "netns", "exec", pair.host, UXDP, "serve", str(bundle), "--insecure-unsigned"]
        command += ["--af-xdp", name, "--name", "swap"]
        output = (tmp_path / f"{name}.log").open("w")
        started.append(subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True))
    try:
        wait_until(lambda: sum(process.poll() is not None for process in started) == 1, "one is refused", 30.0)
        wait_until(socket_path("swap").exists, "the other serves", 30.0)
        wait_until(lambda: bool(ask("swap", {"command": "status"})["serving"]), "the other serves", 30.0)
        assert [process.poll() for process in started].count(PORT_ERROR) == 1
    finally:
        for process in started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(timeout=20)


def test_run_folder_that_cannot_be_used_is_one_error(pair: VethPair, tmp_path: Path) -> None:
    bundle = example("l2_swap", tmp_path)
    prefix = ("env", f"{RUN_FOLDER}={tmp_path / ('x' * 120)}")
    status, said = refused(pair, bundle, prefix=prefix)
    assert status == PORT_ERROR
    assert "the control socket cannot be made" in said


def test_program_that_aborts_every_frame_is_seen(pair: VethPair, tmp_path: Path) -> None:
    from uxdp_cc.build import BuildRequest, build

    source = tmp_path / "aborts.c"
    source.write_text(
        '#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\nSEC("xdp") int aborts(struct xdp_md *ctx) '
        '{ return XDP_ABORTED; }\nchar _license[] SEC("license") = "GPL";\n'
    )
    path = tmp_path / "aborts.uxdp"
    path.write_bytes(build(BuildRequest(sources=("aborts.c",), cwd=tmp_path)).bundle)
    with serving(pair, path, name="aborts") as service, packet_socket(pair, pair.peer) as raw:
        send_all(raw, [udp_frame(number) for number in range(1000)])
        wait_until(lambda: service.totals()["aborted"] >= 1000, "counted")
        totals = service.totals()
        assert totals["rx"] == totals["aborted"] == 1000


def test_frames_of_all_lengths_are_accounted_for(pair: VethPair, tmp_path: Path) -> None:
    pair.run(pair.peer, "ip", "link", "set", "veth0", "arp", "off")
    bundle = example("payload_hash", tmp_path)
    with serving(pair, bundle, name="hash") as service, packet_socket(pair, pair.peer) as raw:
        whole = udp_frame(7, 1500)
        sent = 0
        for length in range(1, 1515):
            try:
                raw.send(whole[:length])
                sent += 1
            except OSError:
                assert length < 14  # the kernel sends no frame without a header; some it fills up
        assert sent >= 1501
        wait_until(lambda: service.totals()["rx"] >= sent, "received")
        totals = service.totals()
        assert totals["rx"] == sum(totals.values()) - totals["rx"] == sent
        assert totals["lost"] == 0


def test_overload_is_counted_as_the_kernels_losses(pair: VethPair, tmp_path: Path) -> None:
    with serving(pair, example("l2_swap", tmp_path), "--tx", "ring", name="swap") as service:
        data_pid = service.ask("status")["data_pid"]
        os.kill(data_pid, 19)  # SIGSTOP: nobody reads the ring
        try:
            with packet_socket(pair, pair.peer) as raw:
                send_all(raw, [udp_frame(number) for number in range(6000)])
                wait_until(lambda: kernel_losses(service) >= 6000 - 4096 - 64, "counted")
        finally:
            os.kill(data_pid, 18)
        wait_until(lambda: service.totals()["rx"] + kernel_losses(service) == 6000, "all are accounted for")
        totals = service.totals()
        assert totals["rx"] == sum(totals.values()) - totals["rx"]
        assert service.ask("status")["restarts"] == 0


def kernel_losses(service: RunningService) -> int:
    kernel = [queue["kernel"] for queue in service.ask("stats")["queues"]]
    return sum(counts["rx_dropped"] + counts["rx_ring_full"] for counts in kernel)


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00" * 4096 + b"\n",
        b"{" * 100000 + b"\n",
        b"\n" * 5000,
        b'{"command": "status"' * 3 + b"\n",
        b'{"command": ["status"]}\n{"command": {}}\n{"command": null}\n[]\n1\n"x"\n',
        b'{"command": "no such"}\n' * 200,
        b"x" * (5 << 20),
        bytes(range(256)) * 64,
    ],
    ids=["zeros", "deep", "empty-lines", "unfinished", "types", "unknown", "endless-line", "bytes"],
)
def test_control_socket_garbage_leaves_the_service_alone(pair: VethPair, tmp_path: Path, garbage: bytes) -> None:
    with serving(pair, example("l2_swap", tmp_path), "--tx", "ring", name="swap") as service:
        for _ in range(10):
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(5)
                client.connect(str(socket_path("swap")))
                try:
                    client.sendall(garbage)
                    client.shutdown(socket.SHUT_WR)
                    while client.recv(65536):
                        pass
                except OSError:
                    continue  # cut off
        assert echoed(pair) == 50
        assert service.ask("status")["restarts"] == 0


def test_control_socket_flood_and_slow_clients_do_not_keep_others_out(pair: VethPair, tmp_path: Path) -> None:
    with serving(pair, example("l2_swap", tmp_path), "--tx", "ring", name="swap") as service:
        clients = []
        for _ in range(200):
            client = socket.socket(socket.AF_UNIX)
            client.settimeout(5)
            connect(client)
            try:
                client.send(b'{"comm')  # and no more
            except OSError:
                continue  # cut off already
            clients.append(client)
        assert service.ask("status")["serving"]
        assert echoed(pair) == 50
        for client in clients:
            client.close()


def connect(client: socket.socket) -> None:
    """Connect to the service; a full backlog is not for ever."""
    for _ in range(500):
        try:
            client.connect(str(socket_path("swap")))
        except BlockingIOError:
            time.sleep(0.01)
            continue
        return
    pytest.fail("the service accepts nobody")


def test_control_socket_requests_sent_at_once_are_all_answered(pair: VethPair, tmp_path: Path) -> None:
    with (
        serving(pair, example("l2_swap", tmp_path), "--tx", "ring", name="swap"),
        socket.socket(socket.AF_UNIX) as client,
    ):
        client.settimeout(5)
        client.connect(str(socket_path("swap")))
        client.sendall(b'{"command": "status"}\n' * 100)
        with client.makefile("rb") as stream:
            answers = [json.loads(stream.readline()) for _ in range(100)]
        assert {answer["ok"]["name"] for answer in answers} == {"swap"}


def test_host_is_reachable_under_a_program_that_passes(pair: VethPair, tmp_path: Path) -> None:
    # A veth leaves checksums and segmentation to hardware that does not exist; AF_XDP gets its frames as they are.
    pair.run(pair.peer, "ethtool", "-K", "veth0", "tx", "off")
    with serving(pair, example("firewall", tmp_path), name="fw") as service:
        pair.ip(pair.peer, "neigh", "flush", "dev", "veth0")
        run = pair.run(pair.peer, "ping", "-c", "3", "-i", "0.05", "-W", "2", HOST_ADDRESS)
        assert " 0% packet loss" in run.stdout
        assert "lladdr" in pair.run(pair.peer, "ip", "neigh", "show", HOST_ADDRESS).stdout
        with pair.entered(pair.host):
            listener = socket.create_server((HOST_ADDRESS, 2222))
        with pair.entered(pair.peer):
            talking = socket.create_connection((HOST_ADDRESS, 2222), timeout=10)
        with listener, talking:
            accepted, _address = listener.accept()
            with accepted:
                accepted.settimeout(10)
                data = os.urandom(1 << 20)
                sender = os.fork()
                if sender == 0:
                    talking.sendall(data)
                    os._exit(0)
                got = bytearray()
                while len(got) < len(data):
                    got += accepted.recv(1 << 16)
                os.waitpid(sender, 0)
                assert got == data
        totals = service.totals()
        assert totals["lost"] == 0
