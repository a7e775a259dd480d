"""Traffic of the balancer: TCP, UDP and QUIC clients, ICMP about them, what is too big; and of decap, behind it."""

import ipaddress
import struct
from collections import defaultdict
from typing import NamedTuple

from uxdp_runtime.frames import headers as h

from .conversation import Conversation, NetworkFunction, Sent
from .packets import MAC_HERE, MAC_THERE, addr4, ethernet, frame, frame4, frame6, icmp6, ip_packet, packet


def addr6(text: str) -> bytes:
    """Return an IPv6 address's bytes."""
    return ipaddress.ip_address(text).packed


NO_SOURCE_PORT, NO_TABLE, QUIC, SOURCE_ROUTING, DEST_PORT_ONLY = (1 << bit for bit in range(5))
REAL_IPV6, REAL_GUE = 1, 2
# Of enum counter.
TABLE_EXPIRED, SHARED_TABLE = 4, 5
NOT_OURS, MALFORMED, DECAPPED_IPIP, DECAPPED_GUE = range(16, 20)
GUE_PORT = 9886
RING_SIZE = 251
MAX_FRAME, MAX_NEW = 1458, 400
GATEWAY_MAC = bytes.fromhex("0200000000fe")
OUTER4, OUTER6 = addr4("10.255.0.1"), addr6("2001:db8:ffff::1")
VIP4, VIP6 = addr4("192.0.2.80"), addr6("2001:db8::80")
QUIC4, ROUTED4, STATELESS4, EMPTY4 = (addr4(f"192.0.2.{last}") for last in (81, 82, 83, 84))
ROUTED6 = addr6("2001:db8::82")
ROUTED_CLIENT4, ROUTED_CLIENT6 = addr4("203.0.113.7"), addr6("2001:db8:7::7")
NEVER_NS = 1 << 63


class Real(NamedTuple):
    """A real server: where it is, and how packets get there."""

    address: bytes
    flags: int


REALS = {
    1: Real(addr4("10.1.0.1"), 0),
    2: Real(addr4("10.1.0.2"), REAL_GUE),
    3: Real(addr6("2001:db8:1::3"), REAL_IPV6),
    4: Real(addr6("2001:db8:1::4"), REAL_IPV6 | REAL_GUE),
    5: Real(addr4("10.1.0.5"), 0),
}
# VIP: address, port, protocol, flags, number, reals in its ring.
VIPS = (
    (VIP4, 80, h.IPPROTO_TCP, 0, 0, (1, 2, 3, 4)),
    (VIP4, 0, h.IPPROTO_UDP, NO_SOURCE_PORT, 1, (1, 2)),
    (VIP6, 80, h.IPPROTO_TCP, 0, 2, (3, 4)),
    (VIP6, 53, h.IPPROTO_UDP, DEST_PORT_ONLY, 3, (3, 4)),
    (QUIC4, 443, h.IPPROTO_UDP, QUIC, 4, (1, 2)),
    (ROUTED4, 80, h.IPPROTO_TCP, SOURCE_ROUTING, 5, (1, 2)),
    (ROUTED6, 80, h.IPPROTO_TCP, SOURCE_ROUTING, 2, (3, 4)),
    (STATELESS4, 80, h.IPPROTO_TCP, NO_TABLE, 6, (1, 2, 3)),
    (EMPTY4, 80, h.IPPROTO_TCP, 0, 7, (0,)),
)
NUM_RINGS = 8


def _settings() -> tuple[str, ...]:
    gateway = GATEWAY_MAC + bytes(2) + OUTER4 + OUTER6
    settings = [f"gateway:0={gateway.hex(' ')}"]
    for index, real in REALS.items():
        value = real.address.ljust(16, b"\0") + struct.pack("=I", real.flags)
        settings.append(f"reals:{index}={value.hex(' ')}")
    for address, port, proto, flags, number, members in VIPS:
        key = address.ljust(16, b"\0") + struct.pack("!HBB", port, proto, 0)
        settings.append(f"vips:{key.hex(' ')}={struct.pack('=II', flags, number).hex(' ')}")
        for slot in range(RING_SIZE):
            settings.append(f"rings:{number * RING_SIZE + slot}={members[slot % len(members)]}")
    settings += [f"server_ids:{0x0100 + index}={index}" for index in REALS]
    settings.append("server_ids:999=4095")  # a real that is out of service
    settings.append(f"source_routes4:{(struct.pack('=I', 24) + ROUTED_CLIENT4[:3] + bytes(1)).hex(' ')}=5")
    settings.append(f"source_routes6:{(struct.pack('=I', 48) + ROUTED_CLIENT6[:6] + bytes(10)).hex(' ')}=4")
    return tuple(settings)


def _wrapped(done: bytes, sent: bytes) -> int:
    """Check the outer headers of a packet, and that what they wrap is what was sent; return the real's index."""
    outside, before = ethernet(done), ethernet(sent)
    assert (outside.dest, outside.source) == (GATEWAY_MAC, before.dest)
    inner = before.content
    outer = packet(done, is_tunnel=True)
    (index,) = (index for index, real in REALS.items() if real.address == outer.dest)
    assert outer.source == (OUTER6 if REALS[index].flags & REAL_IPV6 else OUTER4)
    tos = inner[1] if inner[0] >> 4 == 4 else struct.unpack_from("!H", inner)[0] >> 4 & 0xFF
    assert (outer.ttl, outer.tos) == (64, tos)
    length = int.from_bytes(inner[2:4]) if inner[0] >> 4 == 4 else 40 + int.from_bytes(inner[4:6])
    content = outer.segment
    if REALS[index].flags & REAL_GUE:
        assert (outer.proto, outer.ports[1], outer.ports[0] >> 14) == (h.IPPROTO_UDP, GUE_PORT, 3)
        content = content[8:]
    else:
        assert outer.proto == (h.IPPROTO_IPIP if inner[0] >> 4 == 4 else h.IPPROTO_IPV6)
    assert content == inner[:length]
    ip_packet(content)
    return index


def _client(number: int, *, v6: bool) -> bytes:
    return addr6(f"2001:db8:c::{number:x}") if v6 else addr4(f"198.51.100.{number}")


def _tcp(pair: tuple[bytes, bytes], ports: tuple[int, int], flags: int = h.TCP_ACK, data: bytes = b"data") -> bytes:
    return frame(*pair, h.IPPROTO_TCP, h.tcp(pair, ports, data, flags=flags, seq=1, ack=1))


def conversation() -> Conversation:
    """Clients of all VIPs; then everything that is no ordinary connection."""
    seen: defaultdict[bytes, set[int]] = defaultdict(set)
    for number in range(1, 25):
        for vip in (VIP4, VIP6, STATELESS4, ROUTED4):
            pair = (_client(number, v6=len(vip) == 16), vip)
            ports = (20000 + number, 80)
            syn = _tcp(pair, ports, h.TCP_SYN, b"")
            real = _wrapped((yield Sent("syn", syn, "TX")), syn)
            for flags in (h.TCP_ACK, h.TCP_FIN | h.TCP_ACK):
                data = _tcp(pair, ports, flags)
                assert _wrapped((yield Sent("connection", data, "TX")), data) == real
            seen[vip].add(real)
            error = _error(pair, ports)
            assert _wrapped((yield Sent("error", error, "TX")), error) == real
        for vip, port in ((VIP4, 1234), (VIP6, 53)):
            pair = (_client(number, v6=len(vip) == 16), vip)
            datagram = frame(*pair, h.IPPROTO_UDP, h.udp(pair, (number, port), b"x" * number))
            for _ in range(2):
                seen[vip].add(_wrapped((yield Sent("udp", datagram, "TX")), datagram))
    assert (seen[VIP4], seen[VIP6], seen[STATELESS4]) == ({1, 2, 3, 4}, {3, 4}, {1, 2, 3})
    yield from _quic()
    yield from _routed()
    yield from _answers()
    yield from _not_balanced()
    yield from _flood()


def _error(pair: tuple[bytes, bytes], ports: tuple[int, int]) -> bytes:
    """Return what a router sends to the VIP about a packet of the real's to the client."""
    client, vip = pair
    router = _client(250, v6=len(vip) == 16)
    segment = h.tcp((vip, client), ports[::-1], b"", flags=h.TCP_ACK, seq=1, ack=1)
    if len(vip) == 4:
        quoted = h.ipv4(vip, client, h.IPPROTO_TCP, 1480) + segment
        return frame4(router, vip, h.IPPROTO_ICMP, h.icmp(3, 4, (0, 1400), quoted))
    quoted = h.ipv6(vip, client, h.IPPROTO_TCP, 1480) + segment
    return frame6(router, vip, h.IPPROTO_ICMPV6, icmp6(router, vip, 2, 0, (0, 1400), quoted))


def _quic() -> Conversation:
    pair = (_client(1, v6=False), QUIC4)

    def sent(message: bytes) -> bytes:
        return frame(*pair, h.IPPROTO_UDP, h.udp(pair, (5000, 443), message))

    version = b"\0\0\0\1"
    for index in REALS:
        identifier = bytes([0x07, 1, index, 9, 9, 9, 9, 9])
        for text, message in (
            ("quic short", b"\x40" + identifier + b"protected"),
            ("quic handshake", b"\xe0" + version + b"\x08" + identifier + b"\0"),
        ):
            data = sent(message)
            assert _wrapped((yield Sent(text, data, "TX")), data) == index
    by_ring = set()
    for text, message in (
        ("quic initial", b"\xc0" + version + b"\x08" + bytes((7, 1, 5)) + bytes(5) + b"\0"),
        ("quic unroutable", b"\x40" + bytes((0xE7, 1, 5)) + bytes(8)),
        ("quic unknown", b"\x40" + bytes((0x07, 9, 9)) + bytes(8)),
        ("quic out of service", b"\x40" + bytes((0x07, 3, 0xE7)) + bytes(8)),
        ("quic cut", b"\x40"),
        ("quic long cut", b"\xe0" + version),
    ):
        data = sent(message)
        by_ring.add(_wrapped((yield Sent(text, data, "TX")), data))
    assert len(by_ring) == 1
    assert by_ring < {1, 2}


def _routed() -> Conversation:
    for client, vip, real in ((ROUTED_CLIENT4, ROUTED4, 5), (ROUTED_CLIENT6, ROUTED6, 4)):
        for port in range(8):
            data = _tcp((client, vip), (port, 80))
            assert _wrapped((yield Sent("routed", data, "TX")), data) == real


def _answers() -> Conversation:
    echo = h.icmp(8, 0, (7, 1), b"ping" * 10)
    client = _client(3, v6=False)
    seen = packet((yield Sent("echo", frame4(client, VIP4, h.IPPROTO_ICMP, echo), "TX")))
    assert (seen.source, seen.dest, seen.segment[0], seen.segment[4:]) == (VIP4, client, 0, echo[4:])
    client = _client(3, v6=True)
    echo = icmp6(client, VIP6, 128, 0, (7, 1), b"ping" * 10)
    seen = packet((yield Sent("echo", frame6(client, VIP6, h.IPPROTO_ICMPV6, echo), "TX")))
    assert (seen.source, seen.dest, seen.segment[0], seen.segment[4:]) == (VIP6, client, 129, echo[4:])
    for vip, kind, size in ((VIP4, (3, 4), 64), (VIP6, (2, 0), 256)):
        client = _client(4, v6=len(vip) == 16)
        for length in (MAX_FRAME + 1 - 54 - (20 if len(vip) == 16 else 0), 1420):
            data = _tcp((client, vip), (4, 80), data=bytes(length))
            done = yield Sent("too big", data, "TX")
            outside = ethernet(done)
            assert (outside.dest, outside.source) == (MAC_THERE, MAC_HERE)
            seen = packet(done)
            assert (seen.source, seen.dest, tuple(seen.segment[:2])) == (vip, client, kind)
            assert int.from_bytes(seen.segment[4:8]) == MAX_FRAME - 14
            assert seen.segment[8:] == data[14 : 14 + size]
        data = _tcp((client, vip), (4, 80), data=bytes(length - 60))
        _wrapped((yield Sent("just fits", data, "TX")), data)


def _not_balanced() -> Conversation:
    pair = (_client(5, v6=False), VIP4)
    whole = _tcp(pair, (5, 80))
    yield Sent("no vip", _tcp((pair[0], addr4("192.0.2.99")), (5, 80)), "PASS")
    yield Sent("no port", _tcp(pair, (5, 81)), "PASS")
    yield Sent("no vip", _tcp((_client(5, v6=True), addr6("2001:db8::99")), (5, 80)), "PASS")
    yield Sent("no real", _tcp((pair[0], EMPTY4), (5, 80)), "DROP")
    yield Sent("fragment", frame4(*pair, h.IPPROTO_TCP, bytes(40), fragment=h.IP_MF), "DROP")
    extension = h.ipv6_fragment(h.IPPROTO_TCP, 0, more=True, ident=1)
    yield Sent("fragment", frame6(_client(5, v6=True), VIP6, h.IPPROTO_FRAGMENT, extension + bytes(40)), "DROP")
    yield Sent("cut", whole[:30], "DROP")
    yield Sent("cut", whole[:-1], "DROP")
    yield Sent("arp", h.ethernet(MAC_HERE, MAC_THERE, h.ETH_P_ARP) + bytes(46), "PASS")
    yield Sent("icmp", frame4(*pair, h.IPPROTO_ICMP, h.icmp(11, 0, (0, 0), bytes(28))), "PASS")
    yield Sent("sctp", frame4(*pair, 132, bytes(28)), "PASS")


def _flood() -> Conversation:
    """More connections than may be remembered."""
    pair = (_client(6, v6=False), VIP4)
    for port in range(MAX_NEW):
        syn = _tcp(pair, (30000 + port, 80), h.TCP_SYN, b"")
        yield Sent("flood", syn, "TX")


def decap_conversation() -> Conversation:
    """What balancer sends, on a real."""
    for v6 in (False, True):
        pair = (_client(1, v6=v6), VIP6 if v6 else VIP4)
        inner = ethernet(_tcp(pair, (1, 80))).content
        for outer in ((OUTER4, REALS[1].address), (OUTER6, REALS[3].address)):
            gue = h.udp(outer, (0xC123, GUE_PORT), inner, with_checksum=len(outer[0]) == 16)
            for text, proto, segment in (
                ("ipip", h.IPPROTO_IPV6 if v6 else h.IPPROTO_IPIP, inner),
                ("gue", h.IPPROTO_UDP, gue),
            ):
                done = yield Sent(text, frame(*outer, proto, segment), "PASS")
                outside = ethernet(done)
                assert (outside.dest, outside.source, outside.content) == (MAC_HERE, MAC_THERE, inner)
                assert outside.ethertype == (h.ETH_P_IPV6 if v6 else h.ETH_P_IP)
    for outer in ((OUTER4, REALS[1].address), (OUTER6, REALS[3].address)):
        for text, proto, segment in (
            ("nothing inside", h.IPPROTO_IPIP, b""),
            ("no ip inside", h.IPPROTO_IPIP, bytes(20)),
            ("nothing in gue", h.IPPROTO_UDP, h.udp(outer, (1, GUE_PORT), b"")),
        ):
            yield Sent(text, frame(*outer, proto, segment), "DROP")
        for text, pair, proto, segment in (
            ("another address", outer[::-1], h.IPPROTO_IPIP, inner),
            ("another port", outer, h.IPPROTO_UDP, h.udp(outer, (1, 53), inner)),
            ("tcp", outer, h.IPPROTO_TCP, bytes(20)),
        ):
            data = frame(*pair, proto, segment)
            done = yield Sent(text, data, "PASS")
            assert done == data


_SMALL = ("-DMAX_VIPS=16", f"-DRING_SIZE={RING_SIZE}", "-DTABLE_SIZE=4096", "-DMAX_SERVER_IDS=1024")
_PARAMS = {
    "max_frame_bytes": MAX_FRAME,
    "udp_timeout_ns": NEVER_NS,
    "flood_window_ns": NEVER_NS,
    "max_new": MAX_NEW,
}
BALANCER = NetworkFunction(
    sources=("balancer/balancer.c",),
    clang_args=_SMALL,
    entry="balancer",
    conversation=conversation,
    settings=_settings(),
    params=_PARAMS,
    constants=(VIP4, VIP6, QUIC4, ROUTED4),
    not_counted=frozenset({TABLE_EXPIRED, SHARED_TABLE, DECAPPED_IPIP, DECAPPED_GUE}),
    verdicts=frozenset({"PASS", "DROP", "TX"}),
)
DECAP = NetworkFunction(
    sources=("balancer/balancer.c",),
    clang_args=_SMALL,
    entry="decap",
    conversation=decap_conversation,
    settings=tuple(
        f"decap_addresses:{address.ljust(16, bytes(1)).hex(' ')}=1" for address in (REALS[1].address, REALS[3].address)
    ),
    constants=(REALS[1].address, REALS[3].address),
    not_counted=frozenset(range(DECAPPED_GUE)) - {NOT_OURS, MALFORMED, DECAPPED_IPIP},
    verdicts=frozenset({"PASS", "DROP"}),
)
