"""Traffic of telemetry.c: flows that begin and end, heavy sources, names, and packets that cannot be read."""

import ipaddress
import struct

from uxdp_runtime.frames import headers as h

from .conversation import Conversation, NetworkFunction, Sent
from .packets import MAC_HERE, MAC_THERE, addr4, frame, frame4

SERVER = (addr4("192.0.2.9"), ipaddress.ip_address("2001:db8::9").packed)
HEAVY_BYTES, SAMPLE_EVERY, SAMPLE_BYTES = 20_000, 7, 96
# Of enum counter.
NOT_IP, SAMPLES, SAMPLES_LOST = 1, 8, 9


def _client(number: int, *, v6: bool) -> bytes:
    return ipaddress.ip_address(f"2001:db8:6::{number:x}" if v6 else f"198.51.100.{number}").packed


def _passed(name: str, data: bytes) -> Conversation:
    done = yield Sent(name, data, "PASS")
    assert done == data


def conversation() -> Conversation:
    """TCP flows from SYN to FIN, UDP of all sizes, queries, and what is no flow."""
    for v6 in (False, True):
        for number in range(1, 13):
            here = (_client(number, v6=v6), SERVER[v6])
            back = here[::-1]
            steps = (
                ("syn", here, h.TCP_SYN, 0),
                ("syn-ack", back, h.TCP_SYN | h.TCP_ACK, 0),
                ("ack", here, h.TCP_ACK, 0),
                ("data", back, h.TCP_ACK, 200 * number - 100 if number < 7 else 1400),
                ("fin", here, h.TCP_FIN | h.TCP_ACK, 0),
                ("rst", back, h.TCP_RST, 0),
            )
            for text, pair, flags, size in steps:
                ports = (7000 + number, 80) if pair == here else (80, 7000 + number)
                segment = h.tcp(pair, ports, bytes(size), flags=flags, seq=1, ack=1)
                yield from _passed(text, frame(*pair, h.IPPROTO_TCP, segment))
            segment = h.udp(here, (number, 9), b"\xab" * (1 << number - 2 if number > 1 else 0))
            yield from _passed("udp", frame(*here, h.IPPROTO_UDP, segment))
            name = b"\x03www" + bytes([number]) + b"n" * number + b"\4test\0\0\1\0\1"
            query = struct.pack("!6H", number, 0x0100, 1, 0, 0, 0) + name
            yield from _passed("query", frame(*here, h.IPPROTO_UDP, h.udp(here, (number, 53), query)))
        for size in (0, 1, 12, 13, 75, 76, 77, 400):
            segment = h.udp(here, (size, 53), b"q" * size)
            yield from _passed("query of any size", frame(*here, h.IPPROTO_UDP, segment))
        for _ in range(40):
            segment = h.udp((_client(99, v6=v6), SERVER[v6]), (1, 2), bytes(1200))
            yield from _passed("heavy", frame(_client(99, v6=v6), SERVER[v6], h.IPPROTO_UDP, segment))
        yield from _passed("protocol", frame(*here, 47, bytes(30)))
        yield from _passed("cut", frame(*here, h.IPPROTO_UDP, b"\0\1"))
    yield from _passed("cut", frame4(SERVER[0], SERVER[0], h.IPPROTO_UDP, b"")[:30])
    yield from _passed("fragment", frame4(_client(1, v6=False), SERVER[0], h.IPPROTO_UDP, bytes(64), fragment=9))
    yield from _passed("arp", h.ethernet(MAC_HERE, MAC_THERE, h.ETH_P_ARP) + bytes(46))


TELEMETRY = NetworkFunction(
    sources=("telemetry.c",),
    entry="telemetry",
    conversation=conversation,
    params={"heavy_bytes": HEAVY_BYTES, "sample_every": SAMPLE_EVERY, "sample_bytes": SAMPLE_BYTES},
    constants=(*SERVER, struct.pack("!H", 53)),
    not_counted=frozenset({SAMPLES_LOST}),
    verdicts=frozenset({"PASS"}),
)
