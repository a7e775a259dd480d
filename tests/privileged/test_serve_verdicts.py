"""Every verdict and every way to redirect, on live frames: what arrives where is what arrives with the kernel's XDP."""

import os
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.bound_bundles import bound_image
from tests.serving import RunningService, packet_socket, received, send_all, serving, wait_until
from tests.veth import HOST_MAC, PEER_MAC, VethPair, veth_pair
from uxdp_cc.build import BuildRequest, build
from uxdp_runtime.bpf import syscall
from uxdp_runtime.verify import verify

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("afxdp")]

CASES = Path(__file__).parents[1] / "cases" / "serve"
ABORTED, DROP, PASS, TX, REDIRECT = range(5)
INVALID, TX_MOVED, TX_SHORT, TO_IFINDEX, TO_DEVMAP, TO_DEVMAP_HASH, TO_CPU, TO_SOCKET, NOWHERE = range(10, 19)
WITH_PROGRAM = TO_DEVMAP_PROGRAM, TO_DEVMAP_HASH_PROGRAM, TO_CPU_PROGRAM = tuple(range(19, 22))
BROADCAST, EXCLUDE_INGRESS = 8, 16
ETH_P_802_EX1 = 0x88B5
XDP_FLAGS_DRV_MODE, XDP_FLAGS_SKB_MODE = 1 << 2, 1 << 1
PORTS = ("out1", "out2")
NO_INTERFACE = 200
# Where frames are looked for: the other ends of all interfaces, and the stack of the served one.
PLACES = (("peer", "veth0"), ("peer", "out1"), ("peer", "out2"), ("host", "veth0"))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return build(BuildRequest(sources=("verdicts.c",), cwd=CASES)).bundle


@contextmanager
def ports_pair() -> Iterator[VethPair]:
    with veth_pair() as pair:
        for name in PORTS:
            pair.add(name)
        for namespace in (pair.host, pair.peer):
            for name in (pair.interface, *PORTS):
                pair.run(namespace, "ip", "link", "set", name, "arp", "off")
        pair.set_gro(pair.peer, on=True)
        yield pair


def order(number: int, what: int, key: int = 0, flags: int = 0, *, payload_bytes: int = 60) -> bytes:
    macs = bytes.fromhex((HOST_MAC + PEER_MAC).replace(":", ""))
    payload = bytes((number + i) % 256 for i in range(payload_bytes))
    return macs + struct.pack("!HBBBI", ETH_P_802_EX1, what, key, flags, number) + payload


def orders(pair: VethPair) -> list[bytes]:
    """Return one frame for each kind of verdict, and some of other lengths, each with its number."""
    kinds = [
        *((what, 0, 0) for what in (ABORTED, DROP, PASS, TX, INVALID, TX_MOVED, TX_SHORT, NOWHERE)),
        *((TO_IFINDEX, pair.index(name), 0) for name in (*PORTS, pair.interface)),
        *((TO_IFINDEX, key, 0) for key in (0, NO_INTERFACE)),
        # By map: there, not there (with each action for that), to all, to all but where it came from.
        *((what, key, flags) for what in (TO_DEVMAP, TO_DEVMAP_HASH) for key in (1, 2, 3, 5, 99) for flags in range(4)),
        *((what, key, BROADCAST) for what in (TO_DEVMAP, TO_DEVMAP_HASH) for key in (1, 99)),
        *((what, 0, BROADCAST | EXCLUDE_INGRESS) for what in (TO_DEVMAP, TO_DEVMAP_HASH)),
        *((what, 1, flags) for what in (TO_DEVMAP, TO_CPU) for flags in (4, 32)),
        *((what, key, flags) for what in (TO_CPU, TO_SOCKET) for key in (0, 3, 99) for flags in (DROP, PASS, TX)),
    ]
    frames = [order(number, *kind) for number, kind in enumerate(kinds)]
    for what in (PASS, TX, TX_MOVED, TO_DEVMAP):
        frames += [order(len(frames) + i, what, 1, payload_bytes=size) for i, size in enumerate((1, 200, 1200, 1470))]
    # A veth does not wake a peer without a program for XDP_TX (veth_xdp_flush); for a redirect it does.
    return [*frames, order(len(frames), TO_IFINDEX, pair.index(pair.interface))]


def port_maps(pair: VethPair) -> dict[str, dict[int, int]]:
    """Return the contents of the maps: a port of its own, one twice, and the interface that frames come from."""
    out1, out2 = (pair.index(name) for name in PORTS)
    devices = {1: out1, 2: out2, 3: pair.index(pair.interface)}
    return {"ports": devices, "hashed_ports": devices, "cpus": {0: 192}}


def orders_with_programs() -> list[bytes]:
    """Return frames for each verdict of the second program, by each map; not there, and without a program."""
    kinds = [(what, key, DROP) for what in WITH_PROGRAM for key in [1] * 12 + [3, 7]]
    kinds += [(TO_CPU_PROGRAM, 0, DROP)]
    return [order(number, *kind, payload_bytes=60 + number) for number, kind in enumerate(kinds)]


def maps_with_programs(pair: VethPair) -> dict[str, dict[int, tuple[str, int, str]]]:
    """Return the contents of maps as (member, target, program)."""
    out1, out2 = (pair.index(name) for name in PORTS)
    devices = {1: ("ifindex", out1, "leaving"), 2: ("ifindex", out2, "leaving"), 3: ("ifindex", out2, "")}
    return {
        "ports_with_program": devices,
        "hashed_with_program": devices,
        "cpus_with_program": {1: ("qsize", 192, "arriving"), 0: ("qsize", 192, "")},
    }


@contextmanager
def watched(pair: VethPair) -> Iterator[list[list[bytes]]]:
    """Yield what arrives at each of PLACES while the block runs; complete when it ends."""
    with ExitStack() as stack:
        namespaces = {"peer": pair.peer, "host": pair.host}
        sockets = [stack.enter_context(packet_socket(pair, namespaces[side], name)) for side, name in PLACES]
        arrived: list[list[bytes]] = []
        yield arrived
        time.sleep(0.3)
        for raw in sockets:
            raw.settimeout(0.2)
            arrived.append(received(raw, 1 << 20, lambda data: data[12:14] == struct.pack("!H", ETH_P_802_EX1)))


@contextmanager
def attached_in_the_kernel(
    pair: VethPair, image: bytes, maps: Mapping[str, Mapping[int, int | tuple[str, int, str]]], mode: int
) -> Iterator[None]:
    """Attach the verified program itself to the served interface."""
    with ExitStack() as stack:
        bound = stack.enter_context(bound_image(image))
        verified = stack.enter_context(verify(bound))
        with pair.entered(pair.host):
            for name, items in maps.items():
                for key, value in items.items():
                    if isinstance(value, int):
                        content = struct.pack("=I", value)
                    else:
                        _member, target, program = value
                        content = struct.pack("=Ii", target, verified.programs[program].fd if program else 0)
                    verified.maps[name].update(struct.pack("=I", key), content)
            link = syscall.create_xdp_link(verified.programs["verdicts"].fd, pair.index(pair.interface), mode)
        try:
            yield
        finally:
            os.close(link)


def by_number(frames: Sequence[bytes]) -> list[bytes]:
    """Sort frames by the number they carry: those of different verdicts overtake each other."""
    return sorted(frames, key=lambda frame: (frame[17:21], frame))


def as_in_the_kernel(image: bytes, mode: int) -> tuple[list[list[bytes]], list[bytes]]:
    with ports_pair() as pair, attached_in_the_kernel(pair, image, port_maps(pair), mode):
        with watched(pair) as arrived, packet_socket(pair, pair.peer) as raw:
            frames = orders(pair)
            send_all(raw, frames)
        return [by_number(place) for place in arrived], frames


@pytest.mark.parametrize(
    ("mode", "arguments"),
    [
        (XDP_FLAGS_DRV_MODE, ("--tx", "auto")),
        (XDP_FLAGS_DRV_MODE, ("--tx", "live")),
        (XDP_FLAGS_DRV_MODE, ("--tx", "ring")),
        (XDP_FLAGS_SKB_MODE, ("--generic",)),
    ],
    ids=["native-auto", "native-live", "native-ring", "generic"],
)
@pytest.mark.usefixtures("user")
def test_every_verdict_has_the_kernels_effect(
    bundle: bytes, tmp_path: Path, mode: int, arguments: tuple[str, ...]
) -> None:
    wanted, _frames = as_in_the_kernel(bundle, mode)
    path = tmp_path / "verdicts.uxdp"
    path.write_bytes(bundle)
    with ports_pair() as pair:
        settings = [
            word
            for name, items in port_maps(pair).items()
            for key, value in items.items()
            for word in ("--set", f"{name}:{key}={value}")
        ]
        with serving(pair, path, *settings, *arguments, name="verdicts") as service:
            with watched(pair) as arrived, packet_socket(pair, pair.peer) as raw:
                frames = orders(pair)
                send_all(raw, frames)
                wait_until(lambda: settled(service) >= len(frames), "all are accounted for")
            for place, got, want in zip(PLACES, arrived, wanted, strict=True):
                assert by_number(got) == want, place
            totals = service.totals()
            assert totals["rx"] == settled(service)
            # An invalid verdict counts as ABORTED, as the kernel's tracepoint and drivers treat it.
            unknown_flags = sum(frame[14] in (TO_DEVMAP, TO_CPU) and frame[16] in (4, 32) for frame in frames)
            # A verdict of 0 for a key that is not there.
            absent = sum(
                frame[14] in (TO_DEVMAP, TO_DEVMAP_HASH) and frame[15] in (5, 99) and frame[16] == 0 for frame in frames
            )
            assert totals["aborted"] == 2 + unknown_flags + absent
            lost = service.ask("stats")["queues"][0]["lost"]
            assert lost["no_target"] == 2  # bpf_redirect(0), and XDP_REDIRECT without a target
            assert sum(lost.values()) - lost["no_target"] - lost["refused"] == 0


@pytest.mark.usefixtures("user")
def test_programs_of_devmaps_and_cpumaps_run_on_what_is_redirected(bundle: bytes, tmp_path: Path) -> None:
    frames = orders_with_programs()
    with ports_pair() as pair, attached_in_the_kernel(pair, bundle, maps_with_programs(pair), XDP_FLAGS_DRV_MODE):
        with watched(pair) as in_kernel, packet_socket(pair, pair.peer) as raw:
            send_all(raw, frames)
        indices = {pair.index(name): name for name in (pair.interface, *PORTS)}
    path = tmp_path / "verdicts.uxdp"
    path.write_bytes(bundle)
    with ports_pair() as pair:
        assert {pair.index(name): name for name in (pair.interface, *PORTS)} == indices
        settings = [
            word
            for name, items in maps_with_programs(pair).items()
            for key, (member, target, program) in items.items()
            for word in ("--set", f'{name}:{key}={{"{member}": {target}, "bpf_prog": "{program}"}}')
        ]
        with serving(pair, path, "--program", "verdicts", *settings, name="verdicts") as service:
            with watched(pair) as arrived, packet_socket(pair, pair.peer) as raw:
                send_all(raw, frames)
                wait_until(lambda: settled(service) >= len(frames), "all are accounted for")
            for place, got, want in zip(PLACES, arrived, in_kernel, strict=True):
                assert by_number(got) == by_number(want), place
            assert [len(place) > 0 for place in arrived] == [False, True, True, True]
            assert sum(service.ask("stats")["queues"][0]["lost"].values()) == 0
            shown = service.ask("map-get", map="ports_with_program", key=1, notation="addresses")["value"]
            assert shown == {"ifindex": "out1", "bpf_prog": "leaving"}
            assert service.ask("map-get", map="ports_with_program", key=3, notation="addresses")["value"] == "out2"


def settled(service: RunningService) -> int:
    totals = service.totals()
    return sum(totals.values()) - totals["rx"]
