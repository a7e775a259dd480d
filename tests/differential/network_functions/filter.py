"""Traffic of filter.c: connections that its rules allow, deny, reject and limit, and packets about them."""

import ipaddress
import struct

from uxdp_runtime.frames import headers as h

from .conversation import Conversation, NetworkFunction, Sent
from .packets import MAC_HERE, MAC_THERE, addr4, ethernet, frame, frame4, frame6, icmp6, packet

DENY, ALLOW, REJECT, LIMIT = range(4)
HOST4, HOST6 = addr4("192.0.2.10"), ipaddress.ip_address("2001:db8::10").packed
CLIENT4, CLIENT6 = addr4("198.51.100.20"), ipaddress.ip_address("2001:db8:f::20").packed
BAD4 = addr4("203.0.113.66")
LIMIT_PACKETS = 5
# No clock gets beyond the first window: what a limit allows does not depend on when the frames come.
WINDOW_NS = 1 << 63


def _address(text: str) -> tuple[bytes, bytes]:
    """Return the address and the mask of a network, both as in IPv6."""
    network = ipaddress.ip_network(text)
    address, mask = network.network_address.packed, network.netmask.packed
    if network.version == 4:
        return bytes(10) + b"\xff\xff" + address, b"\xff" * 12 + mask
    return address, mask


def _rule(
    action: int,
    *,
    source: str = "::/0",
    dest: str = "::/0",
    proto: int = 0,
    ports: tuple[int, int] = (0, 65535),
    reports: bool = False,
    limit: int = 0,
) -> str:
    """Return a rule as bytes in hex."""
    data = b"".join((*_address(source), *_address(dest)))
    data += struct.pack("=4H4BI", 0, 65535, *ports, proto, action, reports, 0, limit)
    return data.hex(" ")


RULES = (
    _rule(DENY, source="203.0.113.0/24", reports=True),
    _rule(ALLOW, dest="192.0.2.10/32", proto=h.IPPROTO_TCP, ports=(80, 80), reports=True),
    _rule(ALLOW, dest="2001:db8::10/128", proto=h.IPPROTO_TCP, ports=(80, 443)),
    _rule(LIMIT, proto=h.IPPROTO_UDP, ports=(53, 53), limit=LIMIT_PACKETS, reports=True),
    _rule(ALLOW, dest="192.0.2.10/32", proto=h.IPPROTO_ICMP),
    _rule(ALLOW, dest="2001:db8::/64", proto=h.IPPROTO_ICMPV6),
    *(_rule(DENY, source=f"10.{number}.0.0/16", ports=(number, number)) for number in range(50)),
    _rule(REJECT, proto=h.IPPROTO_TCP, reports=True),
    _rule(ALLOW, proto=50),
)
SETTINGS = (
    *(f"rules:{4096 + number}={text}" for number, text in enumerate(RULES)),
    f'.bss:0={{"generation": 7, "num_rules": [0, {len(RULES)}]}}',
)


def _tcp(pair: tuple[bytes, bytes], ports: tuple[int, int], flags: int, *, data: bytes = b"", ack: int = 0) -> bytes:
    segment = h.tcp(pair, ports, data, flags=flags, seq=1000, ack=ack, options=b"\1" * 4)
    return frame(*pair, h.IPPROTO_TCP, segment)


def _connection(client: bytes, host: bytes) -> Conversation:
    """Open, use, close and open a TCP connection."""
    here, back = (client, host), (host, client)
    ports, turned = (3456, 80), (80, 3456)
    yield Sent("no syn", _tcp(here, ports, h.TCP_ACK), "DROP")
    yield Sent("syn and fin", _tcp(here, ports, h.TCP_SYN | h.TCP_FIN), "DROP")
    for _ in range(2):
        yield Sent("syn", _tcp(here, ports, h.TCP_SYN), "PASS")
        yield Sent("syn-ack", _tcp(back, turned, h.TCP_SYN | h.TCP_ACK), "PASS")
        yield Sent("data", _tcp(here, ports, h.TCP_ACK, data=b"GET /"), "PASS")
        yield Sent("error", _error(client, host, ports), "PASS")
        yield Sent("fin", _tcp(back, turned, h.TCP_FIN | h.TCP_ACK), "PASS")
    yield Sent("another", _tcp(here, (3457, 80), h.TCP_ACK), "DROP")
    yield Sent("error about another", _error(client, host, (3457, 80)), "DROP")


def _error(client: bytes, host: bytes, ports: tuple[int, int]) -> bytes:
    """Return an ICMP error of a router to the client's, that quotes the host's packet."""
    segment = h.tcp((host, client), ports[::-1], b"", flags=h.TCP_ACK, seq=1, ack=1)[:8]
    if len(host) == 4:
        quoted = h.ipv4(host, client, h.IPPROTO_TCP, 400) + segment
        return frame(BAD4, host, h.IPPROTO_ICMP, h.icmp(3, 4, (0, 1400), quoted))
    quoted = h.ipv6(host, client, h.IPPROTO_TCP, 400) + segment
    return frame(CLIENT6, host, h.IPPROTO_ICMPV6, icmp6(CLIENT6, host, 2, 0, (0, 1400), quoted))


def _rejected(client: bytes, host: bytes) -> Conversation:
    """Send TCP that is answered by a RST."""
    pair, ports = (client, host), (5555, 23)
    for flags, data, ack in ((h.TCP_SYN, b"", 0), (h.TCP_ACK | h.TCP_PSH, b"hello", 77), (h.TCP_FIN, b"x" * 90, 0)):
        done = yield Sent("rejected", _tcp(pair, ports, flags, data=data, ack=ack), "TX")
        outside = ethernet(done)
        assert (outside.dest, outside.source) == (MAC_THERE, MAC_HERE)
        seen = packet(done)
        assert (seen.source, seen.dest, seen.ports) == (host, client, ports[::-1])
        assert len(done) == 14 + (20 if len(host) == 4 else 40) + 20
        seq, acked, words, answer = struct.unpack_from("!IIBB", seen.segment, 4)
        taken = len(data) + (flags & (h.TCP_SYN | h.TCP_FIN) > 0)
        if flags & h.TCP_ACK:
            assert (seq, acked, answer) == (ack, 0, h.TCP_RST)
        else:
            assert (seq, acked, answer) == (0, 1000 + taken, h.TCP_RST | h.TCP_ACK)
        assert words == 0x50
    yield Sent("rst", _tcp(pair, ports, h.TCP_RST), "DROP")


def conversation() -> Conversation:
    """Meet every rule."""
    for client, host in ((CLIENT4, HOST4), (CLIENT6, HOST6)):
        yield from _connection(client, host)
        yield from _rejected(client, host)
        for number in range(LIMIT_PACKETS):
            segment = h.udp((client, host), (1000 + number, 53), b"query")
            allowed = len(client) == 4
            yield Sent("limited", frame(client, host, h.IPPROTO_UDP, segment), "PASS" if allowed else "DROP")
        # Known connections do not count.
        segment = h.udp((CLIENT4, HOST4), (1000, 53), b"again")
        yield Sent("known", frame(CLIENT4, HOST4, h.IPPROTO_UDP, segment), "PASS")
    denied = h.udp((BAD4, HOST4), (1, 53), b"")
    yield Sent("denied", frame4(BAD4, HOST4, h.IPPROTO_UDP, denied), "DROP")
    yield Sent("esp", frame4(CLIENT4, HOST4, 50, bytes(20)), "PASS")
    yield Sent("no rule", frame4(CLIENT4, HOST4, 132, bytes(20)), "DROP")
    echo = h.icmp(8, 0, (7, 1), b"ping")
    yield Sent("echo", frame4(CLIENT4, HOST4, h.IPPROTO_ICMP, echo), "PASS")
    yield Sent("redirect", frame4(CLIENT4, HOST4, h.IPPROTO_ICMP, h.icmp(5, 0, (0, 0), b"")), "PASS")
    yield Sent("fragment", frame4(CLIENT4, HOST4, h.IPPROTO_UDP, bytes(24), fragment=3), "DROP")
    yield Sent("arp", h.ethernet(MAC_HERE, MAC_THERE, h.ETH_P_ARP) + bytes(46), "PASS")
    tagged = frame4(CLIENT4, HOST4, h.IPPROTO_ICMP, echo)
    tagged = tagged[:12] + b"\x88\xa8\0\7\x81\0\0\x09" + tagged[12:]
    yield Sent("tagged", tagged, "PASS")
    yield Sent("cut tag", tagged[:16], "DROP")
    yield from _extensions()


def _extensions() -> Conversation:
    segment = h.tcp((CLIENT6, HOST6), (999, 443), b"", flags=h.TCP_SYN, seq=1, ack=0)
    options = h.ipv6_options(h.IPPROTO_TCP, bytes(12))
    first = h.ipv6_fragment(h.IPPROTO_DSTOPTS, 0, more=True, ident=1)
    routing = h.ipv6_routing(h.IPPROTO_FRAGMENT, 0, 0, (HOST6,))
    chain = routing + first + options + segment
    yield Sent("extension headers", frame6(CLIENT6, HOST6, h.IPPROTO_ROUTING, chain), "PASS")
    later = h.ipv6_fragment(h.IPPROTO_TCP, 64, more=False, ident=1)
    yield Sent("later fragment", frame6(CLIENT6, HOST6, h.IPPROTO_FRAGMENT, later + bytes(64)), "DROP")
    endless = h.ipv6_options(h.IPPROTO_DSTOPTS) * 7
    yield Sent("too many", frame6(CLIENT6, HOST6, h.IPPROTO_DSTOPTS, endless), "DROP")
    yield Sent("cut", frame6(CLIENT6, HOST6, h.IPPROTO_ROUTING, chain)[:60], "DROP")


FILTER = NetworkFunction(
    sources=("filter.c",),
    entry="filter",
    conversation=conversation,
    settings=SETTINGS,
    params={"limit_window_ns": WINDOW_NS},
    constants=(HOST4, HOST6, CLIENT4, BAD4),
    verdicts=frozenset({"PASS", "DROP", "TX"}),
)
