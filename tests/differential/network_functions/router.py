"""Traffic of router.c, in a network namespace with interfaces, routes and neighbours of its own."""

import ipaddress
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from uxdp_runtime.bpf.network_namespace import NetworkNamespace
from uxdp_runtime.frames import headers as h

from .conversation import Conversation, NetworkFunction, Sent
from .packets import MAC_HERE, MAC_THERE, addr4, ethernet, frame4, frame6, packet

# Interface number N has the index 500 + N, the networks 10.N.0.0/24 and 2001:db8:N::/64, and the neighbour 2 in them.
# BPF_PROG_TEST_RUN says that all frames come by the loopback: which of them it stands for is told by the tag.
INGRESS = 1
SERVED = {1: (501, 0), 2: (502, 0), 3: (502, 30)}
LOGICAL = {0: 501, 10: 502, 30: 503}
SHORT_MTU = 1400
FORWARDED4, FORWARDED6 = "10.50.9.9", "2001:db8:50::9"
SOURCE4, SOURCE6 = addr4("10.1.0.77"), ipaddress.ip_address("2001:db8:1::77").packed
SPOOFED = 8


def _own_mac(number: int) -> bytes:
    return bytes.fromhex(f"0200000001{number:02x}")


def _neighbour_mac(number: int) -> bytes:
    return bytes.fromhex(f"0200000002{number:02x}")


def _script() -> str:
    """Return commands of ``ip -batch``."""
    lines = ["link set lo up"]
    for number in range(1, 5):
        own, other = (mac(number).hex(":") for mac in (_own_mac, _neighbour_mac))
        lines += [
            f"link add v{number} address {own} index {500 + number} type veth peer name p{number}",
            f"link set p{number} up",
            f"link set v{number} up",
            f"addr add 10.{number}.0.1/24 dev v{number}",
            f"addr add 2001:db8:{number}::1/64 dev v{number} nodad",
            f"neigh replace 10.{number}.0.2 lladdr {other} nud permanent dev v{number}",
            f"neigh replace 2001:db8:{number}::2 lladdr {other} nud permanent dev v{number}",
        ]
    for number in (2, 3):
        lines.append(f"route add 10.{number * 25}.0.0/16 via 10.{number}.0.2")
        lines.append(f"route add 2001:db8:{number * 25}::/48 via 2001:db8:{number}::2")
    for number, kind in ((66, "blackhole"), (67, "unreachable"), (68, "prohibit")):
        lines.append(f"route add {kind} 10.{number}.0.0/16")
        lines.append(f"route add {kind} 2001:db8:{number}::/48")
    lines.append(f"link set v3 mtu {SHORT_MTU}")
    return "\n".join(lines)


@contextmanager
def environment() -> Iterator[None]:
    """Have the calling thread in a namespace that routes."""
    with NetworkNamespace() as namespace, namespace.entered():
        for name in ("ipv4/ip_forward", "ipv6/conf/default/forwarding", "ipv6/conf/all/forwarding"):
            Path("/proc/sys/net", name).write_text("1")
        subprocess.run(["ip", "-batch", "-"], input=_script(), text=True, check=True, timeout=60)
        yield


def _settings() -> tuple[str, ...]:
    settings = [f"devices:{index}={index}" for index in (501, 502)]
    for vlan, index in LOGICAL.items():
        settings.append(f'logical:{{"ifindex": {INGRESS}, "vlan": {vlan}}}={index}')
    for number, (ifindex, vlan) in SERVED.items():
        settings.append(f'physical:{500 + number}={{"ifindex": {ifindex}, "vlan": {vlan}}}')
    return tuple(settings)


def _sent(source: bytes, dest: str, *, vlan: int = 0, ttl: int = 64, size: int = 20, proto: int = 17) -> bytes:
    to = ipaddress.ip_address(dest).packed
    segment = h.udp((source, to), (1111, 2222), bytes(size)) if proto == h.IPPROTO_UDP else bytes(size)
    if len(to) == 4:
        data = frame4(source, to, proto, segment, ttl=ttl, tos=0x2A)
    else:
        data = frame6(source, to, proto, segment, hop_limit=ttl, flow=0x12345)
    return data if not vlan else data[:12] + struct.pack("!HH", h.ETH_P_8021Q, 0xA000 | vlan) + data[12:]


def _forwarded(sent: bytes, done: bytes, number: int, vlan: int) -> None:
    """Check a frame that left by an interface."""
    outside = ethernet(done)
    assert (outside.dest, outside.source) == (_neighbour_mac(number), _own_mac(number))
    assert outside.vlans == ((vlan,) if vlan else ())
    seen, was = packet(done), packet(sent)
    assert seen.ttl == was.ttl - 1
    assert (seen.source, seen.dest, seen.tos, seen.segment) == (was.source, was.dest, was.tos, was.segment)


def conversation(*, strict: bool) -> Conversation:
    """Route by every interface and to every end; ``strict``: sources are looked at."""
    sources = {0: (SOURCE4, SOURCE6)}
    sources |= {
        vlan: (addr4(f"10.{number}.0.77"), ipaddress.ip_address(f"2001:db8:{number}::77").packed)
        for vlan, number in ((10, 2), (30, 3))
    }
    for vlan, pair in sources.items():
        for number, tag in ((1, 0), (2, 0), (3, 30)):
            ends = (
                (f"10.{number}.0.2", f"2001:db8:{number}::2"),
                (f"10.{number * 25}.1.1", f"2001:db8:{number * 25}::1"),
            )
            for ttl, dests in zip((64, 2, 255), ends[: 1 if number == 1 else 2], strict=False):
                for source, dest in zip(pair, dests, strict=True):
                    sent = _sent(source, dest, vlan=vlan, ttl=ttl)
                    done = yield Sent(f"forwarded from {vlan} to {number}", sent, "REDIRECT")
                    _forwarded(sent, done, number, tag)
    for source, dests in ((SOURCE4, ("10.50.3.3", "10.66.1.1", "10.67.1.1", "10.68.1.1")), (SOURCE6, _DISCARDED6)):
        elsewhere = ipaddress.ip_address("172.16.0.1" if len(source) == 4 else "2001:db8:ffff::1").packed
        yield Sent("another source", _sent(elsewhere, dests[0]), "DROP" if strict else "REDIRECT")
        for dest in dests[1:]:
            yield Sent("discarded", _sent(source, dest), "DROP")
    # From an address here, as an answer would be: the check of sources does not matter.
    for source, number in ((SOURCE4, "10.{}"), (SOURCE6, "2001:db8:{}:")):
        end = (".0.2", ".0.9", ".0.1") if len(source) == 4 else (":2", ":9", ":1")
        yield Sent("not served", _sent(source, number.format(4) + end[0]), "PASS")
        yield Sent("no neighbour", _sent(source, number.format(2) + end[1]), "PASS")
        yield Sent("here", _sent(source, number.format(2) + end[2]), "PASS")
        yield Sent("too long", _sent(source, number.format(3) + end[0], size=SHORT_MTU - 20), "PASS")
        yield Sent("last hop", _sent(source, number.format(2) + end[0], ttl=1), "PASS")
        yield Sent("another tag", _sent(source, number.format(2) + end[0], vlan=99), "PASS")
        yield Sent("cut", _sent(source, number.format(2) + end[0])[:-3], "DROP")
        yield Sent("cut tag", _sent(source, number.format(2) + end[0], vlan=10)[:17], "DROP")
    yield Sent("no route", _sent(SOURCE4, "172.31.0.1"), "PASS")
    yield Sent("no route", _sent(SOURCE6, "2001:db9::1"), "PASS")
    yield Sent("multicast", _sent(SOURCE4, "224.0.0.5"), "DROP or PASS")
    yield Sent("link-local", _sent(SOURCE6, "fe80::1"), "PASS")
    yield Sent("hop by hop", _sent(SOURCE6, "2001:db8:2::2", proto=0), "PASS")
    yield Sent("arp", h.ethernet(MAC_HERE, MAC_THERE, h.ETH_P_ARP) + bytes(46), "PASS")


_DISCARDED6 = ("2001:db8:50::3", "2001:db8:66::1", "2001:db8:67::1", "2001:db8:68::1")
_SETTINGS = _settings()
_ADDRESSES = tuple(
    ipaddress.ip_address(text).packed
    for text in ("10.1.0.2", "10.2.0.2", "10.3.0.2", "10.50.1.1", "2001:db8:1::2", "2001:db8:2::2", "2001:db8:75::1")
)


def _router(*, strict: bool) -> NetworkFunction:
    return NetworkFunction(
        sources=("router.c",),
        entry="router",
        conversation=partial(conversation, strict=strict),
        environment=environment,
        settings=_SETTINGS,
        params={"strict_source": strict},
        constants=_ADDRESSES,
        not_counted=frozenset() if strict else frozenset({SPOOFED}),
        verdicts=frozenset({"PASS", "DROP", "REDIRECT"}),
        targets_unknown=True,
    )


ROUTER, ROUTER_STRICT = _router(strict=False), _router(strict=True)
