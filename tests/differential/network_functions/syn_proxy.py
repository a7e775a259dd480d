"""Traffic of syn_proxy.c: clients that bring their cookies back, and those that do not.

With timestamps a SYN-ACK depends on the clock, so that kernel and native code cannot be compared where it differs. So
there is another configuration without; cookies depend on the kernel's secret and the minute alone.
"""

import ipaddress
import struct
from functools import partial

from uxdp_runtime.frames import headers as h

from .conversation import Conversation, NetworkFunction, Sent
from .packets import MAC_HERE, MAC_THERE, addr4, ethernet, frame, frame4, frame6, packet

SERVER = (addr4("192.0.2.80"), ipaddress.ip_address("2001:db8::80").packed)
TRUSTED4 = addr4("198.51.100.7")
GUARDED, LIMITED, CLOSED = 80, 443, 8080
MAX_SYNS = 5
MSS4, MSS6 = 1460, 1440
TCP_ECE, TCP_CWR = 0x40, 0x80
NEVER_NS = 1 << 63
ISN = 0x12345678
TSVAL = 0xCAFE0001
# A cookie holds the MSS in its last bits: the next numbers are cookies for other ones.
WRONG = 4096
# Options of SYNs: what they are, and what of it the answer's timestamp has to hold.
NO_WSCALE = 0xF
_TS = struct.pack("!BBII", 8, 10, TSVAL, 0)
OPTIONS = {
    "none": (b"", None),
    "mss": (b"\2\4\5\xb4", None),
    "linux": (b"\2\4\5\xb4\4\2" + _TS + b"\1\3\3\7", 7 | 0x10),
    "no sack": (b"\2\4\2\x18\1\1" + _TS + b"\3\3\x0e\0", 14),
    "large scale": (_TS + b"\3\3\xff\1\4\2", 14 | 0x10),
    "no scale": (b"\1\1" + _TS, NO_WSCALE),
    "behind the end": (b"\0\1" + _TS, None),
    "broken length": (b"\1\1\x05\x00" + _TS + b"\1\1", None),
    "too long": (b"\2\4\5\xb4\x08\x0a\1\2", None),
    "full": (b"\1" * 24 + b"\4\2" + _TS + b"\3\3\1\0", 1 | 0x10),
}
assert all(len(data) % 4 == 0 for data, _ in OPTIONS.values())


def _client(number: int, *, v6: bool) -> bytes:
    return ipaddress.ip_address(f"2001:db8:5::{number:x}" if v6 else f"203.0.113.{number}").packed


def _tcp(
    pair: tuple[bytes, bytes],
    flags: int,
    *,
    port: int = GUARDED,
    seq: int = ISN,
    ack: int = 0,
    options: bytes = b"",
    data: bytes = b"",
) -> bytes:
    segment = h.tcp(pair, (4000, port), data, flags=flags, seq=seq, ack=ack, options=options)
    return frame(*pair, h.IPPROTO_TCP, segment)


def _answered(sent: bytes, done: bytes, wishes: int | None, *, ecn: bool) -> int:
    """Check a SYN-ACK; return its cookie. ``wishes`` is what its timestamp has to hold; None: it has none."""
    outside, syn = ethernet(done), packet(sent)
    assert (outside.dest, outside.source) == (MAC_THERE, MAC_HERE)
    seen = packet(done)
    assert (seen.source, seen.dest, seen.ports, seen.ttl) == (syn.dest, syn.source, syn.ports[::-1], 64)
    cookie, ack, words, flags, window = struct.unpack_from("!IIBBH", seen.segment, 4)
    has_ecn = ecn and wishes is not None
    assert (ack, flags, window) == (ISN + 1, h.TCP_SYN | h.TCP_ACK | (TCP_ECE if has_ecn else 0), 0)
    options = seen.segment[20 : (words >> 4) * 4]
    assert len(done) == len(sent) - len(syn.segment) + len(seen.segment)
    assert options[:4] == struct.pack("!BBH", 2, 4, MSS4 if len(seen.source) == 4 else MSS6)
    if wishes is None:
        assert options[4:] == b""
        return int(cookie)
    assert options[4:8] == (b"\4\2\x08\x0a" if wishes & 0x10 else b"\1\1\x08\x0a")
    tsval, echoed = struct.unpack_from("!II", options, 8)
    assert (tsval & 0x3F, echoed) == (wishes | (0x20 if ecn else 0), TSVAL)
    assert options[16:] == (b"" if wishes & 0xF == NO_WSCALE else b"\1\3\3\7")
    return int(cookie)


def conversation(*, timestamps: bool) -> Conversation:
    """Connect with all kinds of options, then without permission."""
    for v6 in (False, True):
        for number, (text, (options, wishes)) in enumerate(OPTIONS.items(), 1):
            pair = (_client(number, v6=v6), SERVER[v6])
            ecn = number % 2 == 0
            early = _tcp(pair, h.TCP_ACK, seq=ISN + 1, ack=77)
            yield Sent("no cookie", early, "DROP")
            syn = _tcp(pair, h.TCP_SYN | (TCP_ECE | TCP_CWR if ecn else 0), options=options)
            done = yield Sent(f"syn with {text}", syn, "TX")
            cookie = _answered(syn, done, wishes if timestamps else None, ecn=ecn)
            follow = {"seq": ISN + 1, "ack": cookie + 1 & 0xFFFFFFFF}
            yield Sent("a wrong cookie", _tcp(pair, h.TCP_ACK, seq=ISN + 1, ack=cookie + WRONG & 0xFFFFFFFF), "DROP")
            yield Sent("rst without connection", _tcp(pair, h.TCP_RST | h.TCP_ACK, **follow), "DROP")
            another = (_client(number + 100, v6=v6), SERVER[v6])
            yield Sent("another's cookie", _tcp(another, h.TCP_ACK, **follow), "DROP")
            yield Sent("cookie", _tcp(pair, h.TCP_ACK, **follow), "PASS")
            yield Sent("data", _tcp(pair, h.TCP_ACK, seq=ISN + 1, ack=5, data=b"GET /"), "PASS")
            yield Sent("fin", _tcp(pair, h.TCP_FIN | h.TCP_ACK, seq=ISN + 6, ack=5), "PASS")
        yield from _limited(v6=v6, first=not v6)
        yield from _refused(v6=v6)
    for _ in range(3):
        yield Sent("trusted", _tcp((TRUSTED4, SERVER[0]), h.TCP_SYN), "PASS")
        yield Sent("trusted", _tcp((TRUSTED4, SERVER[0]), h.TCP_ACK), "PASS")
    yield Sent("udp", frame4(_client(1, v6=False), SERVER[0], h.IPPROTO_UDP, bytes(8)), "PASS")
    yield Sent("udp", frame6(_client(1, v6=True), SERVER[1], h.IPPROTO_UDP, bytes(8)), "PASS")
    yield Sent("arp", h.ethernet(MAC_HERE, MAC_THERE, h.ETH_P_ARP) + bytes(46), "PASS")


def _limited(*, v6: bool, first: bool) -> Conversation:
    """A port that is guarded once too many SYNs came."""
    for number in range(2 * MAX_SYNS):
        pair = (_client(number, v6=v6), SERVER[v6])
        below = first and number < MAX_SYNS
        if below:
            yield Sent("below the limit", _tcp(pair, h.TCP_ACK, port=LIMITED), "PASS")
        yield Sent("limited", _tcp(pair, h.TCP_SYN, port=LIMITED), "PASS" if below else "TX")
    yield Sent("over the limit", _tcp(pair, h.TCP_ACK, port=LIMITED), "DROP")


def _refused(*, v6: bool) -> Conversation:
    pair = (_client(9, v6=v6), SERVER[v6])
    yield Sent("closed", _tcp(pair, h.TCP_SYN, port=CLOSED), "DROP")
    for flags in (h.TCP_SYN | h.TCP_FIN, h.TCP_SYN | h.TCP_RST, 0, h.TCP_FIN, h.TCP_SYN | h.TCP_ACK):
        yield Sent("flags", _tcp(pair, flags), "DROP")
    whole = _tcp(pair, h.TCP_SYN, options=OPTIONS["linux"][0])
    yield Sent("cut", whole[:-4], "DROP")
    yield Sent("cut", whole[:20], "DROP")
    short = bytearray(_tcp(pair, h.TCP_SYN))
    short[14 + (40 if v6 else 20) + 12] = 0x40
    yield Sent("short header", bytes(short), "DROP")
    if v6:
        fragment = h.ipv6_fragment(h.IPPROTO_TCP, 0, more=True, ident=1)
        yield Sent("fragment", frame6(*pair, h.IPPROTO_FRAGMENT, fragment + bytes(40)), "DROP")
    else:
        yield Sent("fragment", frame4(*pair, h.IPPROTO_TCP, bytes(40), fragment=2), "DROP")


def _syn_proxy(*, timestamps: bool) -> NetworkFunction:
    trusted = struct.pack("=I", 120) + bytes(10) + b"\xff\xff" + TRUSTED4[:3] + bytes(1)
    return NetworkFunction(
        sources=("syn_proxy.c",),
        entry="syn_proxy",
        conversation=partial(conversation, timestamps=timestamps),
        settings=(
            f'guards:{GUARDED}={{"max_syns": 0}}',
            f'guards:{LIMITED}={{"max_syns": {MAX_SYNS}}}',
            f"trusted:{trusted.hex(' ')}=1",
        ),
        params={"timestamps": timestamps, "window_ns": NEVER_NS},
        constants=(*SERVER, TRUSTED4),
        verdicts=frozenset({"PASS", "DROP", "TX"}),
        by_chance=timestamps,
    )


SYN_PROXY, SYN_PROXY_TIMESTAMPS = _syn_proxy(timestamps=False), _syn_proxy(timestamps=True)
