"""Bursts on DPDK whose frames have one verdict or several, of programs that move frames' ends or do not."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.serving import wait_until
from tests.serving_dpdk import captures, check_accounts, serving_dpdk, stop_and_count
from uxdp_cc.build import BuildRequest, build
from uxdp_runtime.ports.dpdk_abi import BURST

pytestmark = [pytest.mark.kernel, pytest.mark.dpdk, pytest.mark.usefixtures("dpdk", "user")]

CASES = Path(__file__).parents[1] / "cases"
ABORTED, DROP, PASS, TX = 0, 1, 2, 3
UNKNOWN = 9
BURSTS: dict[str, Sequence[int]] = {
    "all sent": [TX] * 300,
    "all dropped": [DROP] * 300,
    "all passed": [PASS] * 300,
    "none known": [UNKNOWN] * 300,
    "mixed": [TX, DROP, DROP, PASS, ABORTED, TX, UNKNOWN] * 50,
    "burst by burst": [TX] * BURST + [DROP] * BURST + [PASS] * BURST + [TX] * 2 * BURST + [DROP] * 100,
}


@pytest.mark.parametrize("moves", [False, True], ids=["in-place", "moves"])
@pytest.mark.parametrize("name", BURSTS)
def test_frames_go_where_their_verdict_says(name: str, moves: bool, where: str, tmp_path: Path) -> None:
    verdicts = BURSTS[name]
    defined = ("-DMOVES",) if moves else ()
    path = tmp_path / "orders.uxdp"
    path.write_bytes(build(BuildRequest(sources=("orders.c",), cwd=CASES, clang_args=defined)).bundle)
    frames = [bytes(12) + b"\x88\xb5" + bytes((verdict,)) + bytes(45 + at % 700) for at, verdict in enumerate(verdicts)]
    port = captures(tmp_path, 0, frames)
    with serving_dpdk(where, path, "--chunk-bytes", "2048", name="orders", vdevs=[port.vdev]) as service:
        wait_until(lambda: service.totals()["rx"] == len(frames), "all are received")
        totals = check_accounts(service)
        assert totals["tx"] == verdicts.count(TX)
        assert totals["drop"] == verdicts.count(DROP)
        assert totals["pass"] == verdicts.count(PASS)
        assert totals["aborted"] == verdicts.count(ABORTED) + verdicts.count(UNKNOWN)
        elements = service.ask("map-dump", map="counts")["elements"]
        assert sum(element["value"] for element in elements) == len(frames)
        assert stop_and_count(service) == [(4096, 4096)]
    sent = [frame[:15] + b"\xaa" + frame[16 : -4 if moves else None] for frame in frames if frame[14] == TX]
    assert port.transmitted() == sent


def test_frames_of_several_mbufs_among_others_are_counted_in_order(where: str, tmp_path: Path) -> None:
    """A program without xdp.frags takes no frame that one buffer does not hold; those around it go on."""
    path = tmp_path / "orders.uxdp"
    path.write_bytes(build(BuildRequest(sources=("orders.c",), cwd=CASES)).bundle)
    lengths = [3000, 60, 3000, 60, 60, 5000, 5000, 900, 3000]
    frames = [bytes(12) + b"\x88\xb5" + bytes((TX,)) + bytes(length - 15) for length in lengths]
    port = captures(tmp_path, 0, frames)
    with serving_dpdk(where, path, "--chunk-bytes", "2048", name="orders", vdevs=[port.vdev]) as service:
        wait_until(lambda: service.totals()["rx"] == len(frames), "all are received")
        assert check_accounts(service)["tx"] == 4
        assert service.ask("stats")["queues"][0]["lost"]["fragmented"] == 5
        assert stop_and_count(service) == [(4096, 4096)]
    assert [len(frame) for frame in port.transmitted()] == [60, 60, 60, 900]
