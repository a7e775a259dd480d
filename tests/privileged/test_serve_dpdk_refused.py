"""What uxdp serve on DPDK refuses: one error that says what to do, its exit code, and nothing left behind."""

import subprocess
from pathlib import Path

import pytest

from tests.privileged.test_serve_dpdk import bundle
from tests.serving_dpdk import refused, serving_dpdk, stop_and_count

pytestmark = [pytest.mark.kernel, pytest.mark.dpdk, pytest.mark.usefixtures("dpdk", "user")]

USAGE, NOT_SERVED = 2, 10
NULL = ["net_null0"]


def interfaces(where: str) -> list[str]:
    shown = subprocess.run(["ip", "-n", where, "-br", "link"], check=True, capture_output=True, text=True).stdout
    return [line.split()[0] for line in shown.splitlines()]


@pytest.mark.parametrize(
    ("arguments", "vdevs", "status", "said"),
    [
        (["--dpdk", "0000:7f:1f.7"], [], NOT_SERVED, ["0000:7f:1f.7: DPDK has made no port of it", "dpdk-devbind.py"]),
        (["--dpdk", "eth0"], [], USAGE, ["--dpdk: 'eth0', expected a PCI address such as 0000:18:00.0"]),
        ([], ["net_nonsense0"], NOT_SERVED, ["net_nonsense0: DPDK does not start", "such as net_memif0?"]),
        ([], ["net_memif0,role=third"], NOT_SERVED, ["net_memif0: DPDK has made no port", "Unknown role: third"]),
        ([], ["net_pcap0,rx_pcap=/none.pcap"], NOT_SERVED, ["net_pcap0: DPDK has made no port", "No such file"]),
        ([], ["net_af_xdp0,iface=none0"], NOT_SERVED, ["net_af_xdp0: DPDK has made no port of it"]),
        (["--eal", "--nonsense"], NULL, NOT_SERVED, ["DPDK does not start", "unrecognized option '--nonsense'"]),
        (["--eal", "--in-memory -m 999999"], NULL, NOT_SERVED, ["net_null0: DPDK does not start", "hugepage"]),
        (["--lcores", "99"], NULL, NOT_SERVED, ["core 99 unavailable", "name CPUs that this process may use"]),
        (["--chunks", "512"], NULL, NOT_SERVED, ["net_null0: 512 buffers, and its RX queues alone take", "--chunks"]),
        (
            ["--queues", "0-1024", "--pass", "none", "--chunks", "256"],
            NULL,
            NOT_SERVED,
            ["net_null0: 1025 queues are wanted", "--queues"],
        ),
        (["--queues", "0-256", "--pass", "tap"], NULL, NOT_SERVED, ["a TAP interface has at most 256 queues"]),
        (["--queues", "1-2"], NULL, NOT_SERVED, ["all of a DPDK device's queues are served, from 0 on"]),
        (["--ifindex", "3=net_x"], NULL, USAGE, ["--ifindex: 'net_x' is no device that is served"]),
        (["--power", "interrupt"], NULL, NOT_SERVED, ["net_null0: net_null has no interrupts", "say --power pause"]),
        (["--pass", "netdev"], NULL, USAGE, ["net_null0: the kernel has no interface on it", "say --pass tap"]),
        (["--busy-poll"], NULL, USAGE, ["--busy-poll: is not for DPDK"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) and value and value[0][:1] in "-n" else None,
)
def test_refusal_says_what_to_do_and_leaves_nothing(
    where: str, tmp_path: Path, arguments: list[str], vdevs: list[str], status: int, said: list[str]
) -> None:
    path = bundle("l2_swap", tmp_path)
    result, text = refused(where, path, *arguments, vdevs=vdevs)
    assert result == status, text
    assert text.count("uxdp: error: ") == 1
    assert "Traceback" not in text
    for words in said:
        assert words in text
    assert interfaces(where) == ["lo"]


def test_device_that_another_service_has_is_refused(where: str, tmp_path: Path) -> None:
    path = bundle("l2_swap", tmp_path)
    vdev = f"net_memif0,role=server,socket={tmp_path}/memif.sock"
    with serving_dpdk(where, path, name="first", vdevs=[vdev]) as first:
        for arguments, said in (((), "TAP interface net_memif0"), (("--pass", "none"), "Address already in use")):
            status, text = refused(where, path, *arguments, vdevs=[vdev])
            assert (status, said in text) == (NOT_SERVED, True), text
        assert first.ask("status")["restarts"] == 0
        assert stop_and_count(first) == [(4096, 4096)]
    assert interfaces(where) == ["lo"]
