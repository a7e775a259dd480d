"""The flow meter in the kernel: what it counts, and the events that libbpf's ring buffer reader receives."""

import ctypes
import struct
from dataclasses import dataclass

import pytest

from tests.privileged import frames as f
from tests.privileged.bpftool_run import Load, Outcome, Program, Verdict, u32

pytestmark = pytest.mark.kernel

METERED, NOT_IP, MALFORMED, TABLE_FULL, LOST_EVENTS = range(5)
NEW_FLOW, REPORT = range(2)
EVENT_BYTES = 80

SMALL_RING = (("#define EVENT_RING_BYTES (1 << 22)", "#define EVENT_RING_BYTES 4096"),)
TWO_FLOWS = (("#define MAX_FLOWS (1 << 20)", "#define MAX_FLOWS 2"),)


@dataclass(frozen=True)
class Event:
    """struct event of flow_meter.c."""

    kind: int
    cpu: int
    flow: bytes
    packets: int
    octets: int
    first_seen_ns: int
    last_seen_ns: int


def consume(program: Program) -> list[Event]:
    """Read all events through the system's libbpf, as any consumer would."""
    libbpf = ctypes.CDLL("libbpf.so.1", use_errno=True)
    sample_fn = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
    libbpf.ring_buffer__new.restype = ctypes.c_void_p
    libbpf.ring_buffer__new.argtypes = [ctypes.c_int, sample_fn, ctypes.c_void_p, ctypes.c_void_p]
    libbpf.ring_buffer__consume.argtypes = [ctypes.c_void_p]
    libbpf.ring_buffer__free.argtypes = [ctypes.c_void_p]
    libc = ctypes.CDLL(None)
    records: list[bytes] = []

    def receive(_context: int, data: int, size: int) -> int:
        records.append(ctypes.string_at(data, size))
        return 0

    callback = sample_fn(receive)
    fd = libbpf.bpf_obj_get(str(program.map_dir / "events").encode())
    assert fd >= 0
    try:
        ring = libbpf.ring_buffer__new(fd, callback, None, None)
        assert ring
        count = libbpf.ring_buffer__consume(ring)
        libbpf.ring_buffer__free(ring)
    finally:
        libc.close(fd)
    assert count == len(records)
    assert {len(record) for record in records} <= {EVENT_BYTES}
    return [Event(*struct.unpack("<II40sQQQQ", record)) for record in records]


def flow(src: str, dst: str, sport: int, dport: int, proto: int) -> bytes:
    def mapped(text: str) -> bytes:
        return f.address(text if ":" in text else f"::ffff:{text}")

    return mapped(src) + mapped(dst) + struct.pack("!HHB3x", sport, dport, proto)


def packets_and_bytes(program: Program) -> dict[bytes, tuple[int, ...]]:
    return {key: program.total("flows", key)[:2] for key in program.elements("flows")}


V4 = ("192.0.2.1", "198.51.100.10")
V6 = ("2001:db8::1", "2001:db8:f::10")
KINDS = {
    "ipv4-udp": (f.ip4(f.udp(b"query"), f.UDP), flow(*V4, 40000, 53, f.UDP)),
    "ipv4-tcp": (f.ip4(f.tcp(b"GET /"), f.TCP), flow(*V4, 40000, 80, f.TCP)),
    "ipv4-options": (f.ip4(f.udp(b"query"), f.UDP, options=b"\x01" * 12), flow(*V4, 40000, 53, f.UDP)),
    "ipv4-sctp": (f.ip4(struct.pack("!HHII", 5000, 5001, 1, 0), 132), flow(*V4, 5000, 5001, 132)),
    "ipv4-icmp": (f.ip4(f.icmp_echo(8, b"ping"), f.ICMP), flow(*V4, 0, 0, f.ICMP)),
    "ipv4-empty-esp": (f.ip4(b"", 50), flow(*V4, 0, 0, 50)),
    "ipv4-first-fragment": (f.ip4(f.udp(b"query"), f.UDP, fragment=f.MF), flow(*V4, 0, 0, f.UDP)),
    "ipv4-last-fragment": (f.ip4(b"tail", f.UDP, fragment=1), flow(*V4, 0, 0, f.UDP)),
    "ipv6-udp": (f.ip6(f.udp(b"query"), f.UDP), flow(*V6, 40000, 53, f.UDP)),
    "ipv6-tcp": (f.ip6(f.tcp(b"GET /"), f.TCP), flow(*V6, 40000, 80, f.TCP)),
    "ipv6-fragment": (f.ip6(bytes(8) + f.udp(b"query"), 44), flow(*V6, 0, 0, 44)),
    "ipv6-no-next-header": (f.ip6(b"", 59), flow(*V6, 0, 0, 59)),
}


@pytest.mark.parametrize(("frame", "key"), KINDS.values(), ids=KINDS)
def test_flow_meter_packet_is_counted_and_announced(load: Load, one_cpu: None, frame: bytes, key: bytes) -> None:
    program = load("flow_meter")
    padded = frame.ljust(60, b"\0")
    for sent in (frame, padded, frame):
        assert program.run(sent) == Outcome(Verdict.PASS, sent)
    octets = len(frame) - 14
    assert packets_and_bytes(program) == {key: (3, 3 * octets)}
    assert program.counters("counters") == {METERED: 3}
    (event,) = consume(program)
    assert (event.kind, event.flow, event.packets, event.octets) == (NEW_FLOW, key, 1, octets)
    assert 0 < event.first_seen_ns == event.last_seen_ns
    (_, _, first_seen_ns, last_seen_ns) = program.total("flows", key)
    assert event.first_seen_ns == first_seen_ns < last_seen_ns


def test_flow_meter_directions_and_ports_are_different_flows(load: Load) -> None:
    program = load("flow_meter")
    program.run(f.ip4(f.udp(b"a"), f.UDP))
    program.run(f.ip4(f.udp(b"b", sport=53, dport=40000), f.UDP, src=V4[1], dst=V4[0]))
    program.run(f.ip4(f.udp(b"c", sport=40001), f.UDP))
    assert packets_and_bytes(program) == {
        flow(*V4, 40000, 53, f.UDP): (1, 29),
        flow(V4[1], V4[0], 53, 40000, f.UDP): (1, 29),
        flow(*V4, 40001, 53, f.UDP): (1, 29),
    }


@pytest.mark.parametrize(
    ("report_every", "reported"),
    [(1024, [1024, 2048]), (1000, [1000, 2000]), (0, [])],
    ids=["default", "thousand", "never"],
)
def test_flow_meter_flow_that_goes_on_is_reported(
    load: Load, one_cpu: None, report_every: int, reported: list[int]
) -> None:
    program = load("flow_meter", report_every=u32(report_every))
    frame, key = KINDS["ipv4-udp"]
    program.run(frame, repeat=2500)
    events = consume(program)
    assert [(event.kind, event.packets) for event in events] == [(NEW_FLOW, 1), *((REPORT, n) for n in reported)]
    assert {event.flow for event in events} == {key}
    assert program.counters("counters") == {METERED: 2500}


def test_flow_meter_flow_entered_beforehand_is_not_announced(load: Load) -> None:
    program = load("flow_meter")
    frame, key = KINDS["ipv6-tcp"]
    program.update("flows", key, bytes(32))
    program.run(frame)
    assert consume(program) == []
    assert packets_and_bytes(program) == {key: (1, len(frame) - 14)}


def test_flow_meter_deleted_flow_is_new_again(load: Load) -> None:
    program = load("flow_meter")
    frame, key = KINDS["ipv4-tcp"]
    program.run(frame)
    program.delete("flows", key)
    program.run(frame)
    assert [(event.kind, event.packets) for event in consume(program)] == [(NEW_FLOW, 1), (NEW_FLOW, 1)]


def test_flow_meter_full_table_counts_untracked_packets(load: Load) -> None:
    program = load("flow_meter", edits=TWO_FLOWS)
    for sport in (1, 2, 3, 2, 4):
        assert program.run(f.ip4(f.udp(b"", sport=sport), f.UDP)).verdict == Verdict.PASS
    assert program.counters("counters") == {METERED: 3, TABLE_FULL: 2}
    assert set(packets_and_bytes(program)) == {flow(*V4, sport, 53, f.UDP) for sport in (1, 2)}
    assert len(consume(program)) == 2


def test_flow_meter_full_ring_counts_lost_events(load: Load, one_cpu: None) -> None:
    program = load("flow_meter", edits=SMALL_RING, report_every=u32(1))
    program.run(KINDS["ipv4-udp"][0], repeat=100)
    # A record takes its 80 bytes and a header of 8 (BPF_RINGBUF_HDR_SZ); the ring never fills up to its last byte.
    fit = (4096 - 1) // (EVENT_BYTES + 8)
    assert program.counters("counters") == {METERED: 100, LOST_EVENTS: 100 - fit}
    assert [event.packets for event in consume(program)] == list(range(1, fit + 1))


@pytest.mark.parametrize("frame", [f.ARP_FRAME, f.TAGGED_FRAME], ids=["arp", "vlan-tag"])
def test_flow_meter_frame_that_is_not_ip_is_counted(load: Load, frame: bytes) -> None:
    program = load("flow_meter")
    assert program.run(frame) == Outcome(Verdict.PASS, frame)
    assert program.counters("counters") == {NOT_IP: 1}


@pytest.mark.parametrize(
    "frame",
    [
        *(pytest.param(frame, id=name) for name, frame in f.BAD_IP.items()),
        pytest.param(f.ip4(b"\0\0\0", f.UDP).ljust(60, b"\0"), id="ipv4-ports-beyond-packet"),
        pytest.param(f.ip6(b"\0\0\0", f.TCP).ljust(70, b"\0"), id="ipv6-ports-beyond-packet"),
    ],
)
def test_flow_meter_malformed_packet_is_not_metered(load: Load, frame: bytes) -> None:
    program = load("flow_meter")
    assert program.run(frame) == Outcome(Verdict.PASS, frame)
    assert program.counters("counters") == {MALFORMED: 1}
    assert program.elements("flows") == {}


@pytest.mark.parametrize("kind", ["ipv4-options", "ipv6-tcp"])
def test_flow_meter_frame_truncated_anywhere_is_not_metered(load: Load, kind: str) -> None:
    program = load("flow_meter")
    cut = list(f.truncations(KINDS[kind][0]))
    for frame in cut:
        assert program.run(frame) == Outcome(Verdict.PASS, frame)
    assert program.counters("counters") == {MALFORMED: len(cut)}
    assert program.elements("flows") == {}
