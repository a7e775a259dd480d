"""Frames that are longer than a chunk: several buffers for programs with frags, as in the kernel."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.privileged.test_serve_verdicts import (
    ABORTED,
    CASES,
    DROP,
    PASS,
    TO_IFINDEX,
    TX,
    TX_MOVED,
    TX_SHORT,
    XDP_FLAGS_DRV_MODE,
    attached_in_the_kernel,
    order,
    settled,
)
from tests.serving import packet_socket, received, send_all, serving, wait_until
from tests.veth import VethPair, veth_pair
from uxdp_cc.build import BuildRequest, build

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("afxdp", "user")]

SIZES = (100, 3300, 3500, 3818, 3819, 4000, 7000, 8900)
MTU = 9000


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("frags")
    text = (CASES / "verdicts.c").read_text()
    # Those in the values of maps, too: maps that programs redirect to belong to one kind of them.
    assert text.count('SEC("xdp') == 3
    (folder / "verdicts.c").write_text(text.replace('SEC("xdp', 'SEC("xdp.frags'))
    return build(BuildRequest(sources=("verdicts.c",), cwd=folder)).bundle


@contextmanager
def jumbo_pair() -> Iterator[VethPair]:
    with veth_pair() as pair:
        for namespace in (pair.host, pair.peer):
            pair.ip(namespace, "link", "set", "veth0", "mtu", str(MTU), "arp", "off")
        pair.set_gro(pair.peer, on=True)
        yield pair


def orders(what: int, key: int = 0) -> list[bytes]:
    return [order(number, what, key, payload_bytes=size) for number, size in enumerate(SIZES)]


def came_back(pair: VethPair, frames: list[bytes], count: int | None = None) -> list[bytes]:
    with packet_socket(pair, pair.peer) as raw:
        raw.settimeout(0.2)
        send_all(raw, frames)
        return received(raw, len(frames) if count is None else count, lambda data: data[12:14] == b"\x88\xb5")


@pytest.mark.parametrize("what", [TX, TX_MOVED, TX_SHORT], ids=["as-it-was", "longer", "shorter"])
def test_transmitted_frames_of_several_buffers_are_the_kernels(bundle: bytes, tmp_path: Path, what: int) -> None:
    with jumbo_pair() as pair, attached_in_the_kernel(pair, bundle, {}, XDP_FLAGS_DRV_MODE):
        # The last one wakes the peer, see test_serve_verdicts.
        frames = [*orders(what), order(99, TO_IFINDEX, pair.index("veth0"))]
        *wanted, _last = came_back(pair, frames)
    assert len(wanted) == (2 if what == TX_MOVED else len(SIZES))  # what has fragments does not grow at its end
    path = tmp_path / "verdicts.uxdp"
    path.write_bytes(bundle)
    with jumbo_pair() as pair, serving(pair, path, "--tx", "ring", name="jumbo") as service:
        for _ in range(50):
            assert came_back(pair, orders(what), len(wanted)) == wanted
        assert came_back(pair, orders(what)) == wanted  # and no more
        totals = service.totals()
        assert (totals["rx"], totals["tx"]) == (51 * len(SIZES), 51 * len(wanted))


def test_frames_of_several_buffers_are_accounted_for(bundle: bytes, tmp_path: Path) -> None:
    path = tmp_path / "verdicts.uxdp"
    path.write_bytes(bundle)
    with jumbo_pair() as pair, serving(pair, path, name="jumbo") as service:
        for what in (DROP, ABORTED, PASS):
            before = settled(service)
            with packet_socket(pair, pair.host) as stack, packet_socket(pair, pair.peer) as raw:
                send_all(raw, orders(what) * 20)
                wait_until(lambda: settled(service) >= before + 20 * len(SIZES), "accounted for")  # noqa: B023
                stack.settimeout(0.3)
                passed = received(stack, 1 << 10, lambda data: data[12:14] == b"\x88\xb5")
            if what == PASS:
                # What cannot be given back to the stack is lost, and said so.
                assert [len(frame) for frame in passed] == [len(f) for f in orders(what) * 20 if len(f) <= 3400]
        totals = service.totals()
        lost = service.ask("stats")["queues"][0]["lost"]
        assert totals["rx"] == settled(service) == 60 * len(SIZES)
        assert (totals["drop"], totals["aborted"]) == (160, 160)
        assert lost["too_long"] == 20 * sum(len(frame) > 3400 for frame in orders(PASS)) == totals["lost"]
