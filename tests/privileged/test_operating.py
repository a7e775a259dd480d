"""Seeing and operating a live service: status, stats, events, the table, metrics, what systemd is told."""

import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from prometheus_client.parser import text_string_to_metric_families

from tests.serving import end_service, packet_socket, send_all, serving, wait_until
from tests.veth import HOST_MAC, PEER_MAC, VethPair, veth_pair
from uxdp_cc.build import BuildRequest, build
from uxdp_runtime.cli import main
from uxdp_runtime.frames.capture import CaptureReader

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("afxdp", "user")]

EXAMPLES = Path(__file__).parents[2] / "examples"
FRAMES = [
    bytes.fromhex((HOST_MAC + PEER_MAC).replace(":", "")) + b"\x88\xb5" + number.to_bytes(4, "big") + bytes(60)
    for number in range(1000)
]


@pytest.fixture
def pair(afxdp: None) -> Iterator[VethPair]:
    with veth_pair() as made:
        made.set_gro(made.peer, on=True)
        yield made


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    path = tmp_path / "l2_swap.uxdp"
    path.write_bytes(build(BuildRequest(sources=("l2_swap.c",), cwd=EXAMPLES / "l2_swap")).bundle)
    return path


def uxdp(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, prog_name="uxdp")


def send(pair: VethPair, frames: list[bytes] = FRAMES) -> None:
    with packet_socket(pair, pair.peer) as raw:
        send_all(raw, frames)


def test_operator_sees_and_stops_a_service(pair: VethPair, bundle: Path) -> None:
    with serving(pair, bundle, name="edge") as service:
        send(pair)
        wait_until(lambda: service.totals()["tx"] >= len(FRAMES), "all transmitted")
        status = json.loads(uxdp("status", "edge", "--json").stdout)
        assert status["serving"] is True
        assert status["data_pid"] == service.ask("status")["data_pid"]
        listed = uxdp("status")
        assert (listed.exit_code, "veth0 (native)" in listed.stdout) == (0, True)
        (queue,) = json.loads(uxdp("stats", "edge", "--json").stdout)["queues"]
        assert queue["verdicts"]["tx"] == queue["rx_frames"] >= len(FRAMES)
        assert "tx" in uxdp("stats", "edge", "--watch", "--count", "2").stdout
        assert uxdp("stop", "edge").exit_code == 0
        assert service.process.wait(timeout=10) == 0
        assert uxdp("status", "edge").exit_code == 10


def test_events_are_one_json_object_each(pair: VethPair, bundle: Path) -> None:
    with serving(pair, bundle, "--log-json", name="edge") as service:
        killed = service.ask("status")["data_pid"]
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: service.ask("status")["data_pid"] not in (None, killed), "a new data process")
        assert service.stop() == 0
    events = [json.loads(line) for line in service.log.splitlines()]
    assert all(event.keys() == {"time", "level", "event", "message", "fields"} for event in events)
    names = [event["event"] for event in events]
    assert names[0] == "insecure"
    wanted = [
        *("attached", "bound", "data_process_serves", "data_process_ended", "data_process_serves"),
        *("stopping", "stopped"),
    ]
    assert [name for name in names if name in wanted] == wanted
    fields = {event["event"]: event["fields"] for event in events}
    assert fields["attached"] == {"interface": "veth0", "mode": "native", "fell_back": False}
    assert fields["bound"]["reason"] == "the driver has no zero-copy"
    assert (fields["data_process_ended"]["pid"], fields["data_process_ended"]["status"]) == (killed, -9)
    assert fields["stopped"]["lost"] == 0


def test_event_of_refused_injection_comes_once(bundle: Path) -> None:
    with veth_pair() as pair, serving(pair, bundle, name="edge") as service:  # without GRO at the peer
        told = "the driver takes no injected frames, transmitting by the ring"

        def is_told() -> bool:
            send(pair)  # it is tried when many frames come at once, which a busy machine may take several of these for
            return told in service.log

        wait_until(is_told, "the event", 10.0)
        send(pair)
        assert service.stop() == 0
    assert service.log.count(told) == 1


def test_generic_xdp_that_was_asked_for_is_no_fallback(pair: VethPair, bundle: Path) -> None:
    with serving(pair, bundle, "--generic", name="edge") as service:
        assert "veth0: attached, generic XDP" in service.log
        assert "frames are copied: generic XDP has no zero-copy" in service.log


def test_terminal_shows_a_live_table(pair: VethPair, bundle: Path, tmp_path: Path) -> None:
    leader, follower = pty.openpty()
    command = ["ip", "netns", "exec", pair.host, str(Path(sys.executable).parent / "uxdp"), "serve", str(bundle)]
    command += ["--af-xdp", pair.interface, "--insecure-unsigned", "--name", "edge"]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "40"}
    shown = b""

    def read() -> bytes:
        nonlocal shown
        while select.select([leader], [], [], 0.01)[0]:
            try:
                shown += os.read(leader, 1 << 16)
            except OSError:  # EIO: nobody has the other end any more
                break
        return shown

    process = subprocess.Popen(
        command, stdin=follower, stdout=follower, stderr=follower, env=environment, start_new_session=True
    )
    os.close(follower)
    try:
        wait_until(lambda: b"received" in read(), "the table", 20.0)
        send(pair)
        wait_until(lambda: re.search(rb"tx +\x1b?[^\n]*1000", read()) is not None, "the frames in the table", 10.0)
        process.send_signal(signal.SIGINT)
        wait_until(lambda: bool(read()) and process.poll() is not None, "the end", 10.0)
    finally:
        end_service(process)
        read()
        os.close(leader)
    assert process.returncode == 0
    assert b"stopping: " in shown
    assert shown.rstrip().endswith(b"lost") or b"stopped: 1000 frames received" in shown
    assert b"\x1b[?25h" in shown  # the cursor is back


def test_terminal_that_goes_away_ends_the_table_and_not_the_service(pair: VethPair, bundle: Path) -> None:
    leader, follower = pty.openpty()
    command = ["ip", "netns", "exec", pair.host, str(Path(sys.executable).parent / "uxdp"), "serve", str(bundle)]
    command += ["--af-xdp", pair.interface, "--insecure-unsigned", "--name", "edge"]
    process = subprocess.Popen(command, stdin=follower, stdout=follower, stderr=follower, start_new_session=True)
    os.close(follower)
    try:
        wait_until(lambda: bool(select.select([leader], [], [], 0.01)[0]) and _serves("edge"), "it serves", 20.0)
        os.close(leader)
        time.sleep(2.5)  # some refreshes
        assert _serves("edge")
        assert uxdp("stop", "edge").exit_code == 0
        assert process.wait(timeout=10) == 0
    finally:
        end_service(process)


def _serves(name: str) -> bool:
    return uxdp("status", name).exit_code == 0


def test_metrics_are_served_beside_frames(pair: VethPair, bundle: Path) -> None:
    with serving(pair, bundle, "--metrics", "127.0.0.1:0", name="edge") as service:
        send(pair)
        wait_until(lambda: service.totals()["tx"] >= len(FRAMES), "all transmitted")
        match = re.search(r"metrics on http://127\.0\.0\.1:(\d+)/metrics", service.log)
        assert match is not None
        body = b""
        with pair.entered(pair.host), socket.create_connection(("127.0.0.1", int(match[1])), timeout=5) as client:
            client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
            while data := client.recv(1 << 16):
                body += data
        families = list(text_string_to_metric_families(body.partition(b"\r\n\r\n")[2].decode()))
        found = {(sample.name, sample.labels.get("verdict")): sample.value for f in families for sample in f.samples}
        assert found[("uxdp_verdict_frames_total", "tx")] >= len(FRAMES)
        assert found[("uxdp_frame_latency_seconds_count", None)] >= len(FRAMES)


def test_metrics_address_that_cannot_be_had_ends_serve_before_it_attaches(pair: VethPair, bundle: Path) -> None:
    command = [str(Path(sys.executable).parent / "uxdp"), "serve", str(bundle), "--af-xdp", pair.interface]
    run = pair.run(pair.host, *command, "--insecure-unsigned", "--metrics", "192.0.2.1:9100", check=False)
    assert run.returncode == 10
    assert "--metrics 192.0.2.1:9100: cannot listen" in run.stderr
    assert "attached" not in run.stderr


def test_failure_is_the_last_json_object(pair: VethPair, bundle: Path) -> None:
    command = [str(Path(sys.executable).parent / "uxdp"), "serve", str(bundle), "--af-xdp", "nothere", "--log-json"]
    run = pair.run(pair.host, *command, "--insecure-unsigned", check=False)
    events = [json.loads(line) for line in run.stderr.splitlines()]
    assert (events[-1]["level"], events[-1]["event"], run.returncode) == ("error", "failed", 10)
    assert events[-1]["fields"]["context"] == "nothere"


def test_kernel_mode_is_seen_and_operated_alike(pair: VethPair, bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "notify"
    heard: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.settimeout(5.0)
        environment = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "1000000"}
        metrics = ("--metrics", "127.0.0.1:0")
        with serving(pair, bundle, "--mode", "kernel", *metrics, name="edge", environment=environment) as service:
            while "WATCHDOG=1" not in heard or not any("the kernel serves veth0" in line for line in heard):
                heard += manager.recv(4096).decode().split("\n")
            assert heard[0] == "READY=1"
            assert "metrics on http://127.0.0.1:" in service.log
            assert "runs" in uxdp("stats", "edge").stdout
            assert uxdp("status", "edge").exit_code == 0
            assert uxdp("stop", "edge").exit_code == 0
            while heard[-1] != "STOPPING=1":
                heard += manager.recv(4096).decode().split("\n")


def test_service_manager_is_told_ready_alive_and_stopping(pair: VethPair, bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "notify"
    environment = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "1000000"}
    heard: list[str] = []

    def hear() -> list[str]:
        while select.select([manager], [], [], 0.01)[0]:
            heard.extend(manager.recv(4096).decode().split("\n"))
        return heard

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        with serving(pair, bundle, name="edge", environment=environment) as service:
            wait_until(lambda: hear().count("WATCHDOG=1") >= 3, "the watchdog is told", 15.0)
            assert heard[0] == "READY=1"
            assert any(line.startswith("STATUS=serving veth0: ") for line in heard)
            # A data process that hangs must not look alive.
            os.kill(service.ask("status")["data_pid"], signal.SIGSTOP)
            time.sleep(0.7)
            hear()
            told = heard.count("WATCHDOG=1")
            time.sleep(1.5)
            assert hear().count("WATCHDOG=1") - told <= 1
            os.kill(service.ask("status")["data_pid"], signal.SIGCONT)
            wait_until(lambda: hear().count("WATCHDOG=1") >= told + 3, "the watchdog is told again", 15.0)
            assert service.stop() == 0
        assert hear()[-1] == "STOPPING=1"


def test_config_file_serves_like_flags(pair: VethPair, bundle: Path, tmp_path: Path) -> None:
    config = tmp_path / "nf.toml"
    config.write_text('on-failure = "drop"\ntx = "ring"\nqueues = [0]\nlog-json = true\n')
    with serving(pair, bundle, "--config", str(config), name="edge") as service:
        send(pair)
        wait_until(lambda: service.totals()["tx"] >= len(FRAMES), "all transmitted")
        (queue,) = service.ask("stats")["queues"]
        assert (queue["tx_by_ring"] >= len(FRAMES), queue["tx_by_injection"]) == (True, 0)
        assert '"event": "attached"' in service.log


def test_samples_are_every_nth_frame_with_its_verdict(pair: VethPair, bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "samples.pcapng"
    with serving(pair, bundle, "--pcap-sample", "10", str(path), name="edge") as service:
        send(pair)
        wait_until(lambda: service.totals()["tx"] >= len(FRAMES), "all transmitted")
        (queue,) = service.ask("stats")["queues"]
        assert queue["samples_taken"] + queue["samples_missed"] == queue["rx_frames"] // 10
        # A data process that comes later goes on with the same ring.
        killed = service.ask("status")["data_pid"]
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: service.ask("status")["data_pid"] not in (None, killed), "a new data process")
        send(pair)
        wait_until(lambda: service.totals()["tx"] >= 2 * len(FRAMES), "all transmitted")
        (queue,) = service.ask("stats")["queues"]
        assert service.stop() == 0
    with CaptureReader(path) as reader:
        frames = list(reader)
    assert len(frames) == queue["samples_taken"] >= 150
    sent = [frame.data[14:18] for frame in frames if frame.data[12:14] == b"\x88\xb5"]
    assert sent[:5] == [FRAMES[number][14:18] for number in range(9, 50, 10)]
    # As the program left them: its own MAC addresses, swapped.
    assert {frame.data[:12] for frame in frames} == {bytes.fromhex((PEER_MAC + HOST_MAC).replace(":", ""))}
    assert b"XDP_TX, queue 0" in path.read_bytes()


def test_samples_that_nobody_takes_are_missed_and_counted(pair: VethPair, bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "samples.pcapng"
    with serving(pair, bundle, "--pcap-sample", "1", str(path), name="edge") as service:
        os.kill(service.process.pid, signal.SIGSTOP)  # the control process; frames go on
        send(pair)
        time.sleep(0.5)
        os.kill(service.process.pid, signal.SIGCONT)
        wait_until(lambda: service.totals()["tx"] >= len(FRAMES), "all transmitted")
        (queue,) = service.ask("stats")["queues"]
        assert queue["samples_taken"] + queue["samples_missed"] == queue["rx_frames"]
        assert queue["samples_missed"] > 0
        assert service.stop() == 0
    assert f"{queue['samples_taken']} frames in {path}, {queue['samples_missed']} missed" in service.log


def test_samples_on_a_full_disk_end_and_serving_goes_on(pair: VethPair, bundle: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(disk)], check=True, timeout=10)
    try:
        with serving(pair, bundle, "--pcap-sample", "1", str(disk / "samples.pcapng"), name="edge") as service:
            send(pair)
            wait_until(lambda: "sampling has ended, serving goes on" in service.log, "the disk is full", 10.0)
            send(pair)
            wait_until(lambda: service.totals()["tx"] >= 2 * len(FRAMES), "all transmitted")
            assert service.stop() == 0
        assert service.log.count("sampling has ended") == 1
        with CaptureReader(disk / "samples.pcapng") as reader:
            assert all(len(frame.data) >= 14 for frame in reader)
    finally:
        subprocess.run(["umount", str(disk)], check=True, timeout=10)


def test_perf_map_names_what_the_data_process_runs(pair: VethPair, bundle: Path) -> None:
    with serving(pair, bundle, "--perf-map", name="edge") as service:
        wait_until(lambda: "perf finds the names" in service.log, "the map")
        for _ in range(2):  # the second data process has a map, too
            pid = service.ask("status")["data_pid"]
            path = Path(f"/tmp/perf-{pid}.map")
            wait_until(path.exists, "the map of this process")
            lines = [line.split(" ", 2) for line in path.read_text().splitlines()]
            found = {name: (int(start, 16), int(size, 16)) for start, size, name in lines}
            program = service.ask("status")["program"]
            start, size = found[f"uxdp_run [{program}, worker 0]"]
            assert "uxdp_af_xdp_serve" in found
            modes = []
            for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
                low, high = (int(word, 16) for word in line.split()[0].split("-"))
                if low <= start and start + size <= high:
                    modes.append(line.split()[1])
            assert modes == ["r-xp"]
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda pid=pid: service.ask("status")["data_pid"] not in (None, pid), "a new data process")
            wait_until(lambda path=path: not path.exists(), "the old map is removed")
        last = Path(f"/tmp/perf-{service.ask('status')['data_pid']}.map")
        wait_until(last.exists, "the last map")
        assert service.stop() == 0
    assert not last.exists()


def test_log_on_a_full_disk_changes_nothing_else(pair: VethPair, bundle: Path) -> None:
    command = ["ip", "netns", "exec", pair.host, str(Path(sys.executable).parent / "uxdp"), "serve", str(bundle)]
    command += ["--af-xdp", pair.interface, "--insecure-unsigned", "--name", "edge"]
    with Path("/dev/full").open("w") as full:
        process = subprocess.Popen(command, stdout=full, stderr=full, start_new_session=True)
    try:
        wait_until(lambda: _serves("edge"), "it serves", 20.0)
        send(pair)
        wait_until(lambda: "1000" in uxdp("stats", "edge").stdout, "all transmitted")
        assert uxdp("stop", "edge").exit_code == 0
        assert process.wait(timeout=10) == 0
    finally:
        end_service(process)
