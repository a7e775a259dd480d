"""``uxdp serve`` on DPDK, in a network namespace of its own, for tests."""

import os
import re
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.huge_pages import counting_on_huge_pages
from tests.serving import START_SECONDS, RunningService, answers, end_service, packet_socket, wait_until
from tests.veth import VethPair
from uxdp_runtime.frames.capture import read_capture
from uxdp_runtime.frames.capture_writer import CaptureWriter


@contextmanager
def namespace() -> Iterator[str]:
    """A network namespace, which goes with all that is in it; without IPv6, which sends what no test does."""
    name = f"uxdp-{uuid.uuid4().hex[:8]}"
    subprocess.run(["ip", "netns", "add", name], check=True, timeout=60)
    try:
        for group in ("all", "default"):
            word = f"net.ipv6.conf.{group}.disable_ipv6=1"
            subprocess.run(["ip", "netns", "exec", name, "sysctl", "-qw", word], check=True, timeout=60)
        yield name
    finally:
        subprocess.run(["ip", "netns", "del", name], check=False, timeout=60)


def serve_command(where: str, bundle: Path, *arguments: str, name: str) -> list[str]:
    """Return the command that serves a bundle in a namespace."""
    uxdp = str(Path(sys.executable).parent / "uxdp")
    return ["ip", "netns", "exec", where, uxdp, "serve", str(bundle), "--insecure-unsigned", "--name", name, *arguments]


def vdev_arguments(vdevs: Sequence[str]) -> list[str]:
    """Return the flags for virtual devices."""
    return [word for vdev in vdevs for word in ("--dpdk-vdev", vdev)]


@contextmanager
def serving_dpdk(
    where: str, bundle: Path, *arguments: str, name: str, vdevs: Sequence[str]
) -> Iterator[RunningService]:
    """Serve a bundle on virtual devices; it is ended afterwards, whatever happens."""
    log = bundle.with_name(f"{name}.log")
    command = serve_command(where, bundle, *vdev_arguments(vdevs), *arguments, name=name)
    with counting_on_huge_pages(), log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, text=True, start_new_session=True)
        service = RunningService(process, name, log)
        try:
            wait_until(lambda: answers(service), f"{name} serves: {log}", START_SECONDS, process)
        except BaseException:
            end_service(process)
            raise
    try:
        yield service
    finally:
        end_service(process)


def refused(where: str, bundle: Path, *arguments: str, vdevs: Sequence[str] = ()) -> tuple[int, str]:
    """Serve what is refused; return the exit code and what was said."""
    command = serve_command(where, bundle, *vdev_arguments(vdevs), *arguments, name="refused")
    with counting_on_huge_pages():
        run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return run.returncode, run.stderr


@dataclass(frozen=True)
class Captures:
    """A port that receives what a capture holds, and writes what it transmits to another."""

    vdev: str
    sent: Path

    def transmitted(self) -> list[bytes]:
        """Return the frames that were transmitted; complete when the service has stopped."""
        return [frame.data for frame in read_capture(self.sent)]


def captures(folder: Path, number: int, frames: Sequence[bytes]) -> Captures:
    """Return a net_pcap port that receives frames."""
    received, sent = folder / f"rx{number}.pcap", folder / f"tx{number}.pcap"
    with CaptureWriter(received) as writer:
        for at, data in enumerate(frames):
            writer.write(data, at * 1000)
    return Captures(f"net_pcap{number},rx_pcap={received},tx_pcap={sent}", sent)


def check_accounts(service: RunningService) -> dict[str, int]:
    """Return a service's totals: every frame that was received has a verdict, or was lost for a reason."""
    totals = service.totals()
    assert totals["rx"] == sum(totals.values()) - totals["rx"], totals
    return totals


def stop_and_count(service: RunningService) -> list[tuple[int, int]]:
    """Stop a service; return how many buffers came back, of how many, for each port."""
    assert service.stop() == 0
    found = re.findall(r"(\d+) of (\d+) buffers are back", service.log)
    return [(int(back), int(all_of_them)) for back, all_of_them in found]


@contextmanager
def packet_socket_in(where: str, interface: str) -> Iterator[socket.socket]:
    """A raw socket on an interface of a namespace."""
    with packet_socket(VethPair(where, where), where, interface) as raw:
        yield raw


def ports(service: RunningService) -> list[dict[str, Any]]:
    """Return what stats says of the ports."""
    found: list[dict[str, Any]] = service.ask("stats")["ports"]
    return found


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process and its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
