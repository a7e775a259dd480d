"""The load balancer in the kernel: the exact encapsulated frame, who serves which connection, and the numbers."""

import struct
from collections.abc import Callable

import pytest

from tests.privileged import frames as f
from tests.privileged.bpftool_run import Load, Outcome, Program, Verdict, u32, u64

pytestmark = pytest.mark.kernel

CLIENT, VIP, LOCAL = "192.0.2.1", "198.51.100.10", "10.0.0.1"
GATEWAY_MAC, OWN_MAC = bytes.fromhex("0200000000fe"), bytes.fromhex("020000000002")
REALS = [f"10.0.1.{i}" for i in range(8)]
RING_START, RING_SLOTS = 100, 31
SOURCE_AFFINITY, STATELESS = 1, 2
WEB, DNS = 0, 1  # ids of the two services: TCP port 80 and UDP port 53

PHI = 0x9E3779B97F4A7C15


def ring_slot(client: str, client_port: int, vip_port: int, proto: int, *, seed: int = 0) -> int:
    """Compute the position in the VIP's slice: two multiply-and-fold steps, scaled to the slice."""

    def mix(state: int, word: int) -> int:
        state = (state ^ word) * PHI % 2**64
        return state ^ state >> 32

    def little(data: bytes) -> int:
        return int.from_bytes(data, "little")

    addresses = little(f.address(client)) << 32 | little(f.address(VIP))
    ports = little(struct.pack("!H", client_port)) << 32 | little(struct.pack("!H", vip_port)) << 8
    state = mix(mix(seed, addresses), ports | proto)
    return (state % 2**32) * RING_SLOTS >> 32


def real_in_slot(slot: int) -> str:
    """Say which real the tests' ring has in a slot."""
    return REALS[slot * 5 % len(REALS)]


def service_key(port: int, proto: int) -> bytes:
    return f.address(VIP) + struct.pack("!HBB", port, proto, 0)


def configured(load: Load, *, flags: int = 0, **constants: bytes) -> Program:
    program = load("load_balancer", **constants)
    program.update("config", u32(0), GATEWAY_MAC + OWN_MAC + f.address(LOCAL))
    program.update("vips", service_key(80, f.TCP), u32(WEB, flags, RING_START, RING_SLOTS))
    program.update("vips", service_key(53, f.UDP), u32(DNS, flags, RING_START, RING_SLOTS))
    for index, real in enumerate(REALS):
        program.update("reals", u32(index), f.address(real))
    for slot in range(RING_SLOTS):
        set_slot(program, slot, real_in_slot(slot))
    return program


def set_slot(program: Program, slot: int, real: str) -> None:
    program.update("ring", u32(RING_START + slot), u32(REALS.index(real)))


def to_web(sport: int = 40000, flags: int = f.ACK, **fields: object) -> bytes:
    return f.ip4(f.tcp(b"GET /", sport=sport, flags=flags), f.TCP, **fields)


def to_dns(sport: int = 40000, **fields: object) -> bytes:
    return f.ip4(f.udp(b"query", sport=sport), f.UDP, **fields)


def encapsulated(frame: bytes, real: str) -> Outcome:
    """Wrap the packet as RFC 2003 says: one hop less inside, DF and an id of 0 outside."""
    end = 14 + struct.unpack("!H", frame[16:18])[0]
    ttl = bytes([frame[22] - 1])
    inner = f.patched(f.patched(frame[14:end], 8, ttl), 10, b"\0\0")
    header_len = (inner[0] & 15) * 4
    inner = f.patched(inner, 10, struct.pack("!H", f.checksum(inner[:header_len])))
    outer = f.ipv4(inner, 4, src=LOCAL, dst=real, tos=inner[1], ident=0, fragment=f.DF)
    return Outcome(Verdict.TX, f.ethernet(outer, f.ETH_IPV4, dst=GATEWAY_MAC, src=OWN_MAC) + frame[end:])


def served_by(program: Program, frame: bytes) -> str:
    """Run a frame and read the destination of the outer header."""
    outcome = program.run(frame)
    assert outcome.verdict == Verdict.TX
    return ".".join(map(str, outcome.frame[30:34]))


def stats(program: Program, vip: int) -> dict[str, int]:
    numbers = program.total("vip_stats", u32(vip))
    return dict(zip(("packets", "bytes", "scheduled", "no_real", "expired"), numbers, strict=True))


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({}, id="plain"),
        pytest.param({"tos": 0xB9}, id="tos"),
        pytest.param({"ttl": 2}, id="ttl-2"),
        pytest.param({"ttl": 255}, id="ttl-255"),
        pytest.param({"fragment": 0}, id="may-fragment"),
        pytest.param({"options": b"\x01" * 40}, id="options"),
    ],
)
@pytest.mark.parametrize(
    ("proto", "segment", "port"),
    [(f.TCP, f.tcp(b"GET /"), 80), (f.UDP, f.udp(b"query"), 53), (f.UDP, f.udp(bytes(1400)), 53)],
    ids=["tcp", "udp", "udp-1400"],
)
def test_load_balancer_packet_to_vip_is_encapsulated(
    load: Load, proto: int, segment: bytes, port: int, fields: dict[str, object]
) -> None:
    program = configured(load)
    frame = f.ip4(segment, proto, **fields)
    assert program.run(frame) == encapsulated(frame, real_in_slot(ring_slot(CLIENT, 40000, port, proto)))
    counted = {"packets": 1, "bytes": len(frame) - 14, "scheduled": 1, "no_real": 0, "expired": 0}
    assert stats(program, WEB if port == 80 else DNS) == counted


@pytest.mark.parametrize("ident", [0x00FF, 0x1234, 0xA2E3, 0xA2E4, 0xA3E3, 0xFFFF])
def test_load_balancer_inner_checksum_is_exact(load: Load, ident: int) -> None:
    frame = to_web(ident=ident)
    outcome = configured(load).run(frame)
    assert f.checksum(outcome.frame[14:34]) == 0
    assert f.checksum(outcome.frame[34:54]) == 0


def test_load_balancer_frame_padding_is_not_counted(load: Load) -> None:
    program = configured(load)
    frame = f.ip4(f.udp(b""), f.UDP).ljust(60, b"\0")
    assert program.run(frame) == encapsulated(frame, real_in_slot(ring_slot(CLIENT, 40000, 53, f.UDP)))
    assert stats(program, DNS)["bytes"] == 28


@pytest.mark.parametrize("seed", [0, 0xDEADBEEF])
def test_load_balancer_ring_decides_for_new_flows(load: Load, seed: int) -> None:
    program = configured(load, hash_seed=u32(seed))
    clients = [(f"203.0.113.{i}", 1024 + 7 * i) for i in range(1, 33)]
    wanted = [real_in_slot(ring_slot(client, port, 80, f.TCP, seed=seed)) for client, port in clients]
    assert [served_by(program, to_web(sport=port, src=client)) for client, port in clients] == wanted
    assert len(set(wanted)) > 4
    assert stats(program, WEB)["scheduled"] == len(clients)


def test_load_balancer_known_connection_survives_ring_change(load: Load) -> None:
    program = configured(load)
    real = served_by(program, to_web(flags=f.SYN))
    for slot in range(RING_SLOTS):
        set_slot(program, slot, "10.0.1.7" if real != "10.0.1.7" else "10.0.1.6")
    assert served_by(program, to_web()) == real
    assert served_by(program, to_web(flags=f.FIN | f.ACK)) == real
    assert served_by(program, to_web(flags=f.SYN | f.ACK)) == real
    assert stats(program, WEB)["scheduled"] == 1
    flow = f.address(CLIENT) + f.address(VIP) + struct.pack("!HHB3x", 40000, 80, f.TCP)
    assert program.elements("connections") == {flow: [u64(0) + u32(REALS.index(real), 0)]}


def test_load_balancer_syn_asks_ring_again(load: Load) -> None:
    program = configured(load)
    served_by(program, to_web(flags=f.SYN))
    for slot in range(RING_SLOTS):
        set_slot(program, slot, "10.0.1.7")
    assert served_by(program, to_web(flags=f.SYN)) == "10.0.1.7"
    assert served_by(program, to_web()) == "10.0.1.7"
    assert stats(program, WEB)["scheduled"] == 2


def test_load_balancer_real_out_of_service_moves_its_connections(load: Load) -> None:
    program = configured(load)
    real = served_by(program, to_web())
    other = "10.0.1.7" if real != "10.0.1.7" else "10.0.1.6"
    for slot in range(RING_SLOTS):
        set_slot(program, slot, other)
    program.update("reals", u32(REALS.index(real)), bytes(4))
    assert served_by(program, to_web()) == other
    program.update("reals", u32(REALS.index(real)), f.address(real))
    assert served_by(program, to_web()) == other


@pytest.mark.parametrize(("timeout_ns", "stays"), [(30_000_000_000, True), (0, False)])
def test_load_balancer_udp_flow_stays_until_timeout(load: Load, timeout_ns: int, stays: bool) -> None:
    program = configured(load, udp_timeout_ns=u64(timeout_ns))
    real = served_by(program, to_dns())
    other = "10.0.1.7" if real != "10.0.1.7" else "10.0.1.6"
    for slot in range(RING_SLOTS):
        set_slot(program, slot, other)
    assert served_by(program, to_dns()) == (real if stays else other)


def test_load_balancer_source_affinity_ignores_client_port(load: Load) -> None:
    program = configured(load, flags=SOURCE_AFFINITY)
    wanted = real_in_slot(ring_slot(CLIENT, 0, 80, f.TCP))
    assert {served_by(program, to_web(sport=port)) for port in range(1024, 1040)} == {wanted}
    assert len(program.elements("connections")) == 16


@pytest.mark.parametrize("packet", [to_web, to_dns], ids=["tcp", "udp"])
def test_load_balancer_stateless_vip_follows_ring(load: Load, packet: Callable[[], bytes]) -> None:
    program = configured(load, flags=STATELESS)
    served_by(program, packet())
    for slot in range(RING_SLOTS):
        set_slot(program, slot, "10.0.1.7")
    assert served_by(program, packet()) == "10.0.1.7"
    assert program.elements("connections") == {}


@pytest.mark.parametrize("ttl", [0, 1])
def test_load_balancer_expired_packet_is_dropped(load: Load, ttl: int) -> None:
    program = configured(load)
    frame = to_web(ttl=ttl)
    assert program.run(frame) == Outcome(Verdict.DROP, frame)
    assert stats(program, WEB) == {"packets": 0, "bytes": 0, "scheduled": 0, "no_real": 0, "expired": 1}


@pytest.mark.parametrize(
    ("ring_start", "ring_slots"),
    [
        pytest.param(0, 0, id="no-slots"),
        pytest.param(1 << 20, 1, id="slot-beyond-ring"),
        pytest.param(0, 1, id="no-real"),
    ],
)
def test_load_balancer_vip_without_real_drops(load: Load, ring_start: int, ring_slots: int) -> None:
    program = configured(load)
    program.update("reals", u32(0), bytes(4))
    program.update("vips", service_key(80, f.TCP), u32(WEB, 0, ring_start, ring_slots))
    assert program.run(to_web()) == Outcome(Verdict.DROP, to_web())
    assert stats(program, WEB) == {"packets": 0, "bytes": 0, "scheduled": 0, "no_real": 1, "expired": 0}


def test_load_balancer_real_index_beyond_reals_drops(load: Load) -> None:
    program = configured(load)
    for slot in range(RING_SLOTS):
        program.update("ring", u32(RING_START + slot), u32(4096))
    assert program.run(to_web()) == Outcome(Verdict.DROP, to_web())
    assert stats(program, WEB)["no_real"] == 1


def test_load_balancer_vip_id_beyond_stats_aborts(load: Load) -> None:
    program = configured(load)
    program.update("vips", service_key(80, f.TCP), u32(1024, 0, RING_START, RING_SLOTS))
    assert program.run(to_web()) == Outcome(Verdict.ABORTED, to_web())


def test_load_balancer_without_config_passes(load: Load) -> None:
    program = configured(load)
    program.update("config", u32(0), bytes(16))
    assert program.run(to_web()) == Outcome(Verdict.PASS, to_web())


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(to_web(dst="198.51.100.11"), id="other-address"),
        pytest.param(f.ip4(f.tcp(dport=81), f.TCP), id="other-port"),
        pytest.param(f.ip4(f.udp(b"", dport=80), f.UDP), id="other-protocol"),
        pytest.param(f.ip4(f.icmp_echo(8, b"ping"), f.ICMP), id="icmp"),
        pytest.param(to_web(fragment=f.MF), id="first-fragment"),
        pytest.param(to_web(fragment=f.MF | 185), id="middle-fragment"),
        pytest.param(to_web(fragment=185), id="last-fragment"),
        pytest.param(f.patched(to_web(), 16, b"\x00\x27"), id="tcp-header-beyond-packet"),
        pytest.param(f.patched(to_dns(), 16, b"\x00\x1b"), id="udp-header-beyond-packet"),
        pytest.param(f.ethernet(f.vlan(to_web()[14:], f.ETH_IPV4), f.ETH_VLAN), id="vlan-tag"),
        pytest.param(f.ip6(f.tcp(), f.TCP), id="ipv6"),
        pytest.param(f.ARP_FRAME, id="arp"),
        *(pytest.param(frame, id=name) for name, frame in f.BAD_IP.items()),
    ],
)
def test_load_balancer_anything_else_passes_untouched(load: Load, frame: bytes) -> None:
    program = configured(load)
    assert program.run(frame) == Outcome(Verdict.PASS, frame)
    assert program.elements("connections") == {}


@pytest.mark.parametrize(
    "frame",
    [to_web(), to_dns(), to_web(options=b"\x01" * 8)],
    ids=["tcp", "udp", "options"],
)
def test_load_balancer_frame_truncated_anywhere_passes_untouched(load: Load, frame: bytes) -> None:
    program = configured(load)
    for cut in f.truncations(frame):
        assert program.run(cut) == Outcome(Verdict.PASS, cut)
    assert program.elements("connections") == {}
