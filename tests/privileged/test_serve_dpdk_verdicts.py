"""Every verdict on DPDK ports: what arrives where is what arrives with the kernel's XDP; and no buffer is lost."""

import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.privileged.test_serve_verdicts import (
    CASES,
    ETH_P_802_EX1,
    PORTS,
    TO_CPU,
    TO_DEVMAP,
    TO_DEVMAP_HASH,
    XDP_FLAGS_DRV_MODE,
    as_in_the_kernel,
    by_number,
    orders,
    port_maps,
    ports_pair,
    settled,
)
from tests.serving import packet_socket, received, send_all, wait_until
from tests.serving_dpdk import check_accounts, serving_dpdk, stop_and_count
from tests.veth import VethPair
from uxdp_cc.build import BuildRequest, build

pytestmark = [pytest.mark.kernel, pytest.mark.dpdk, pytest.mark.usefixtures("dpdk", "afxdp", "user")]

# Where the kernel's stack is reached from a port that is not the kernel's.
STACK = "net_af_packet0"
PLACES = (("peer", "veth0"), ("peer", "out1"), ("peer", "out2"), ("host", STACK))


def packet_ports() -> list[str]:
    """Return devargs of ports on the host's ends of a pair's interfaces."""
    return [f"net_af_packet{number},iface={name}" for number, name in enumerate(("veth0", *PORTS))]


def settings(pair: VethPair) -> list[str]:
    return [
        word
        for name, items in port_maps(pair).items()
        for key, value in items.items()
        for word in ("--set", f"{name}:{key}={value}")
    ]


@contextmanager
def watched(pair: VethPair, places: Sequence[tuple[str, str]]) -> Iterator[list[list[bytes]]]:
    """Yield what arrives at places while the block runs; complete when it ends."""
    with ExitStack() as stack:
        namespaces = {"peer": pair.peer, "host": pair.host}
        sockets = [stack.enter_context(packet_socket(pair, namespaces[side], name)) for side, name in places]
        arrived: list[list[bytes]] = []
        yield arrived
        for raw in sockets:
            raw.settimeout(0.3)
            arrived.append(received(raw, 1 << 20, lambda data: data[12:14] == struct.pack("!H", ETH_P_802_EX1)))


def test_every_verdict_has_the_kernels_effect_and_frees_its_buffer(tmp_path: Path) -> None:
    image = build(BuildRequest(sources=("verdicts.c",), cwd=CASES)).bundle
    wanted, _frames = as_in_the_kernel(image, XDP_FLAGS_DRV_MODE)
    path = tmp_path / "verdicts.uxdp"
    path.write_bytes(image)
    with (
        ports_pair() as pair,
        serving_dpdk(pair.host, path, *settings(pair), name="verdicts", vdevs=packet_ports()) as service,
    ):
        frames = orders(pair)
        with watched(pair, PLACES) as arrived, packet_socket(pair, pair.peer) as raw:
            send_all(raw, frames)
            wait_until(lambda: settled(service) >= len(frames), "all are accounted for")
        for place, got, want in zip(PLACES, arrived, wanted, strict=True):
            assert by_number(got) == want, place
        totals = check_accounts(service)
        unknown_flags = sum(frame[14] in (TO_DEVMAP, TO_CPU) and frame[16] in (4, 32) for frame in frames)
        absent = sum(
            frame[14] in (TO_DEVMAP, TO_DEVMAP_HASH) and frame[15] in (5, 99) and frame[16] == 0 for frame in frames
        )
        assert totals["aborted"] == 2 + unknown_flags + absent
        lost = service.ask("stats")["queues"][0]["lost"]
        # bpf_redirect(0), an interface that is not served, and XDP_REDIRECT without a target.
        assert lost["no_target"] == sum(lost.values()) == 3
        assert stop_and_count(service) == [(4096, 4096)] * 3
