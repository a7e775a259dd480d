"""Traffic of dns_limiter.c: resolvers with and without policies, blocked names, floods, and what is no query."""

import ipaddress
import struct

from uxdp_runtime.frames import headers as h

from .conversation import Conversation, NetworkFunction, Sent
from .packets import MAC_HERE, MAC_THERE, addr4, ethernet, frame, frame4, packet

SERVER = (addr4("192.0.2.53"), ipaddress.ip_address("2001:db8::53").packed)
RESOLVERS = (addr4("198.51.100.1"), ipaddress.ip_address("2001:db8:1::1").packed)
EXEMPT, BANNED, MANY = addr4("10.0.0.9"), addr4("10.66.1.1"), addr4("203.0.113.200")
DEFAULT_RATE, DEFAULT_SLIP, MANY_RATE = 12, 3, 2
TYPE_A, TYPE_ANY = 1, 255
RECURSION_DESIRED, REFUSED, TRUNCATED = 0x0100, 0x8005, 0x8200
EDNS = bytes.fromhex("0000291000000000000000")  # an OPT record
# No clock gets beyond the first window.
WINDOW_NS = 1 << 63
MAX_NAME = 64


def name(text: str) -> bytes:
    """Return a name as on the wire, without the root's byte."""
    return b"".join(bytes([len(label)]) + label.encode() for label in text.split(".") if label)


def query(text: str, kind: int = TYPE_A, *, flags: int = RECURSION_DESIRED, more: bytes = EDNS) -> bytes:
    """Return a query's message."""
    question = name(text) + struct.pack("!BHH", 0, kind, 1)
    return struct.pack("!6H", 0xBEEF, flags, 1, 0, 0, bool(more)) + question + more


def _blocked(text: str) -> str:
    key = name(text)[::-1]
    data = struct.pack("=I", len(key) * 8) + key.ljust(MAX_NAME, b"\0")
    return f"blocked:{data.hex(' ')}=0"


def _asked(source: bytes, message: bytes, *, port: int = 53) -> bytes:
    dest = SERVER[len(source) == 16]
    return frame(source, dest, h.IPPROTO_UDP, h.udp((source, dest), (5353, port), message))


def _check_answer(done: bytes, source: bytes, message: bytes, flags: int) -> None:
    """See that a short answer fits its query."""
    outside = ethernet(done)
    assert (outside.dest, outside.source) == (MAC_THERE, MAC_HERE)
    seen = packet(done)
    assert (seen.source, seen.dest, seen.ports) == (SERVER[len(source) == 16], source, (53, 5353))
    assert struct.unpack_from("!6H", seen.segment, 8) == (0xBEEF, flags | RECURSION_DESIRED, 1, 0, 0, 0)
    question = message[12 : len(message) - len(EDNS)]
    assert seen.segment[20:] == question
    assert done.endswith(question)


def conversation() -> Conversation:
    """Ask, be refused, flood."""
    for source in RESOLVERS:
        for text in ("evil.example", "ads.EVIL.example", "x.y.z.tracker.test"):
            message = query(text)
            done = yield Sent("blocked", _asked(source, message), "TX")
            _check_answer(done, source, message, REFUSED)
        message = query("example.org", TYPE_ANY)
        done = yield Sent("any", _asked(source, message), "TX")
        _check_answer(done, source, message, REFUSED)
        allowed = ("example", "notevil.example", "evil.example.org", "", "a" * 60, "b" * 63 + ".c", "d.e" * 30)
        for text in allowed:
            frame_sent = _asked(source, query(text))
            done = yield Sent(f"allowed {text}", frame_sent, "PASS")
            assert done == frame_sent
        for number in range(DEFAULT_RATE - len(allowed)):
            yield Sent("within the limit", _asked(source, query(f"n{number}.example.org")), "PASS")
        message = query("over.example.org")
        for number in range(3 * DEFAULT_SLIP):
            slips = number % DEFAULT_SLIP == DEFAULT_SLIP - 1
            done = yield Sent("over the limit", _asked(source, message), "TX" if slips else "DROP")
            if slips:
                _check_answer(done, source, message, TRUNCATED)
        yield Sent("over the limit, a pointer", _asked(source, query("x")[:12] + b"\xc0\x0c\0\1\0\1"), "DROP")
    neighbour = RESOLVERS[0][:3] + b"\xfe"
    yield Sent("the same network", _asked(neighbour, query("example.org")), "DROP")
    yield from _policies()
    yield from _no_queries(RESOLVERS[1][:8] + bytes(8))


def _policies() -> Conversation:
    for _ in range(2 * DEFAULT_RATE):
        yield Sent("exempt", _asked(EXEMPT, query("evil.example")), "PASS")
    yield Sent("banned", _asked(BANNED, query("example.org")), "DROP")
    for number in range(MANY_RATE + 5):
        yield Sent("no slip", _asked(MANY, query("example.org")), "PASS" if number < MANY_RATE else "DROP")


def _no_queries(source: bytes) -> Conversation:
    frames = {
        "another port": _asked(source, query("example.org"), port=54),
        "a response": _asked(source, query("example.org", flags=0x8000)),
        "an update": _asked(source, query("example.org", flags=0x2800)),
        "two questions": _asked(source, b"\0\1\0\0\0\2" + query("example.org")[6:]),
        "short": _asked(source, b"\0\1\0\0\0\1"),
        "arp": h.ethernet(MAC_HERE, MAC_THERE, h.ETH_P_ARP) + bytes(46),
        "fragment": frame4(MANY, SERVER[0], h.IPPROTO_UDP, bytes(64), fragment=h.IP_MF),
        "tcp": frame4(MANY, SERVER[0], h.IPPROTO_TCP, bytes(64)),
    }
    for text, data in frames.items():
        yield Sent(text, data, "PASS")


DNS_LIMITER = NetworkFunction(
    sources=("dns_limiter.c",),
    entry="dns_limiter",
    conversation=conversation,
    settings=(
        'policies4:{"bits": 8, "addr": "10.0.0.0"}={"flags": 1}',
        'policies4:{"bits": 16, "addr": "10.66.0.0"}={"flags": 2}',
        f'policies4:{{"bits": 25, "addr": "203.0.113.128"}}={{"rate": {MANY_RATE}}}',
        'policies6:{"bits": 48, "addr": "2001:db8:66::"}={"flags": 2}',
        _blocked("evil.example"),
        _blocked("tracker.test"),
    ),
    params={"window_ns": WINDOW_NS, "default_rate": DEFAULT_RATE, "default_slip": DEFAULT_SLIP},
    constants=(*SERVER, *RESOLVERS, EXEMPT, BANNED, struct.pack("!H", 53)),
    verdicts=frozenset({"PASS", "DROP", "TX"}),
)
