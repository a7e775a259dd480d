"""The payload hash in the kernel: fingerprints against the hash written down a second time, and the blocklist."""

import struct
from collections.abc import Callable

import pytest

from tests.privileged import frames as f
from tests.privileged.bpftool_run import Load, Outcome, Program, Verdict, u64

pytestmark = pytest.mark.kernel

HASHED, BLOCKED, SKIPPED, MALFORMED = range(4)
MAX_HASHED_BYTES = 1504
PHI32, PHI64 = 0x9E3779B1, 0x9E3779B97F4A7C55


def fingerprint(payload: bytes) -> int:
    """Compute the hash of payload_hash.c."""
    lanes = [(i + 1) * PHI32 % 2**32 for i in range(8)]
    hashed = payload[:MAX_HASHED_BYTES]
    hashed += bytes(-len(hashed) % 32)
    for block in struct.iter_unpack("<8I", hashed):
        for i, word in enumerate(block):
            lane = lanes[i] ^ (word ^ word >> 15) * PHI32 % 2**32
            lanes[i] = (lane << 11 | lane >> 21) * 9 % 2**32
    state = len(payload)
    for high, low in zip(lanes[::2], lanes[1::2], strict=True):
        state = (state ^ (high << 32 | low)) * PHI64 % 2**64
        state ^= state >> 29
    return state * PHI64 % 2**64


def histogram(program: Program) -> dict[int, tuple[int, int]]:
    """Read the buckets in use: packets of all CPUs, and the fingerprint of the CPU that saw the packet."""
    buckets = {}
    for key, values in program.elements("histogram").items():
        slots = [struct.unpack("<QQ", value) for value in values]
        packets = sum(slot[0] for slot in slots)
        if packets:
            buckets[int.from_bytes(key, "little")] = (packets, max(slot[1] for slot in slots))
    return buckets


def payload_of(length: int) -> bytes:
    return bytes((i * i + 7 * i) % 251 for i in range(length))


SHAPES: dict[str, Callable[[bytes], bytes]] = {
    "ipv4-udp": lambda data: f.ip4(f.udp(data), f.UDP),
    "ipv4-tcp": lambda data: f.ip4(f.tcp(data), f.TCP),
    "ipv4-options-tcp-options": lambda data: f.ip4(f.tcp(data, options=b"\x01" * 40), f.TCP, options=b"\x01" * 40),
    "ipv6-udp": lambda data: f.ip6(f.udp(data), f.UDP),
    "ipv6-tcp": lambda data: f.ip6(f.tcp(data, options=b"\x01" * 12), f.TCP),
    "ethernet-padding": lambda data: f.ip4(f.udp(data), f.UDP).ljust(60, b"\xaa"),
    "behind-the-datagram": lambda data: f.ip4(f.udp(data) + b"ignored", f.UDP),
}


@pytest.mark.parametrize("length", [1, 31, 32, 33, 64, 95, 1472, 1504, 1505, 3000])
@pytest.mark.parametrize("shape", SHAPES)
def test_payload_hash_fingerprint_is_recorded(load: Load, shape: str, length: int) -> None:
    program = load("payload_hash")
    frame = SHAPES[shape](payload_of(length))
    if shape == "behind-the-datagram":
        frame = f.patched(frame, 38, struct.pack("!H", 8 + length))
    assert program.run(frame) == Outcome(Verdict.PASS, frame)
    expected = fingerprint(payload_of(length))
    assert histogram(program) == {expected >> 56: (1, expected)}
    assert program.counters("counters") == {HASHED: 1}


def test_payload_hash_trailing_zeroes_change_fingerprint(load: Load) -> None:
    program = load("payload_hash")
    program.run(f.ip4(f.udp(b"payload"), f.UDP))
    program.run(f.ip4(f.udp(b"payload\0"), f.UDP))
    assert {last for _, last in histogram(program).values()} == {fingerprint(b"payload"), fingerprint(b"payload\0")}


def test_payload_hash_blocked_fingerprint_is_dropped_from_any_sender(load: Load) -> None:
    program = load("payload_hash")
    blocked = payload_of(700)
    program.update("blocklist", u64(fingerprint(blocked)), u64(0))
    for i, shape in enumerate(("ipv4-udp", "ipv4-tcp", "ipv6-udp")):
        frame = SHAPES[shape](blocked)
        assert program.run(frame) == Outcome(Verdict.DROP, frame)
        assert program.values("blocklist", u64(fingerprint(blocked))) == [u64(i + 1)]
    assert program.run(SHAPES["ipv4-udp"](payload_of(699))).verdict == Verdict.PASS
    assert program.counters("counters") == {HASHED: 4, BLOCKED: 3}


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(f.ip4(f.icmp_echo(8, b"ping"), f.ICMP), id="icmp"),
        pytest.param(f.ip4(f.udp(b""), f.UDP), id="udp-without-payload"),
        pytest.param(f.ip4(f.tcp(b""), f.TCP), id="tcp-without-payload"),
        pytest.param(f.ip4(f.udp(b"data"), f.UDP, fragment=f.MF), id="first-fragment"),
        pytest.param(f.ip4(f.udp(b"data"), f.UDP, fragment=3), id="last-fragment"),
        pytest.param(f.ip6(bytes(8) + f.udp(b"data"), 0), id="ipv6-hop-by-hop-options"),
        pytest.param(f.TAGGED_FRAME, id="vlan-tag"),
        pytest.param(f.ARP_FRAME, id="arp"),
    ],
)
def test_payload_hash_anything_else_is_skipped(load: Load, frame: bytes) -> None:
    program = load("payload_hash")
    assert program.run(frame) == Outcome(Verdict.PASS, frame)
    assert program.counters("counters") == {SKIPPED: 1}
    assert histogram(program) == {}


@pytest.mark.parametrize(
    "frame",
    [
        *(pytest.param(frame, id=name) for name, frame in f.BAD_IP.items()),
        pytest.param(f.patched(f.ip4(f.udp(b"data"), f.UDP), 38, b"\x00\x07"), id="udp-length-7"),
        pytest.param(f.patched(f.ip4(f.udp(b"data"), f.UDP), 38, b"\x00\x0d"), id="udp-length-beyond-packet"),
        pytest.param(f.patched(f.ip4(f.tcp(b"data"), f.TCP), 46, b"\x40"), id="tcp-header-length-16"),
        pytest.param(f.patched(f.ip4(f.tcp(b"data"), f.TCP), 46, b"\xf0"), id="tcp-header-beyond-packet"),
    ],
)
def test_payload_hash_malformed_packet_is_counted(load: Load, frame: bytes) -> None:
    program = load("payload_hash")
    assert program.run(frame) == Outcome(Verdict.PASS, frame)
    assert program.counters("counters") == {MALFORMED: 1}
    assert histogram(program) == {}


@pytest.mark.parametrize("shape", ["ipv4-udp", "ipv4-options-tcp-options", "ipv6-tcp"])
def test_payload_hash_frame_truncated_anywhere_is_malformed(load: Load, shape: str) -> None:
    program = load("payload_hash")
    cut = list(f.truncations(SHAPES[shape](payload_of(70))))
    for frame in cut:
        assert program.run(frame) == Outcome(Verdict.PASS, frame)
    assert program.counters("counters") == {MALFORMED: len(cut)}
    assert histogram(program) == {}
