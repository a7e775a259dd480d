"""The READMEs and the examples without a long memory, in the kernel: verdict, exact frame, and what is in the maps.

load_balancer, flow_meter and payload_hash have files of their own. Expectations are computed from the frames alone
(``frames`` has checksums of its own), never from the program under test.
"""

import re
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.privileged import frames as f
from tests.privileged.bpftool_run import Load, Outcome, Program, Verdict, u32

pytestmark = pytest.mark.kernel

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = sorted(path.parent.name for path in EXAMPLES.glob("*/*.c"))


# --- the READMEs ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_readme_commands_as_typed_succeed(name: str, kernel: None, built: Callable[..., Path], tmp_path: Path) -> None:
    """Run the README's shell blocks in namespaces with an eth0 and a /sys/fs/bpf of their own."""
    readme = (EXAMPLES / name / "README.md").read_text()
    # Blocks with uxdp's own commands are for users who trust their development key, which root does not.
    blocks = re.findall(r"```sh\n(.*?)```", readme, re.DOTALL)
    typed = "".join(block for block in blocks if "uxdp replay" not in block)
    assert f"uxdp-cc -c {name}.c\n" in typed
    (tmp_path / f"{name}.uxdp").write_bytes(built(name).read_bytes())
    script = "mount -t bpf bpf /sys/fs/bpf\nip link add eth0 type veth peer name eth1\n"
    script += typed.replace(f"uxdp-cc -c {name}.c\n", "")
    command = ["unshare", "--mount", "--net", "sh", "-eux", "-c", script]
    result = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert result.returncode == 0, result.stderr


# --- l2_swap -------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 1, 46, 1500])
def test_l2_swap_unicast_frame_returns_to_sender(load: Load, length: int) -> None:
    program = load("l2_swap")
    payload = bytes(i % 251 for i in range(length))
    reply = f.ethernet(payload, 0x88B5, dst=f.CLIENT_MAC, src=f.LOCAL_MAC)
    assert program.run(f.ethernet(payload, 0x88B5)) == Outcome(Verdict.TX, reply)


@pytest.mark.parametrize("dst", ["ffffffffffff", "01005e000001", "333300000001"])
def test_l2_swap_group_address_passes_untouched(load: Load, dst: str) -> None:
    frame = f.ethernet(bytes(46), f.ETH_ARP, dst=bytes.fromhex(dst))
    assert load("l2_swap").run(frame) == Outcome(Verdict.PASS, frame)


# --- firewall ------------------------------------------------------------------------------------

RULE_ALLOWS, RULE_DENIES, DEFAULT_ALLOWS, DEFAULT_DENIES, OTHER_ALLOWED, OTHER_DENIED, TAGS, MALFORMED = range(8)


def with_tags(packet: bytes, proto: int, tags: int) -> bytes:
    for level in range(tags):
        packet = f.vlan(packet, proto, vid=level + 1)
        proto = f.ETH_QINQ if level == tags - 1 and tags > 1 else f.ETH_VLAN
    return f.ethernet(packet, proto)


def firewall_with_rules(load: Load, **constants: bytes) -> Program:
    program = load("firewall", **constants)
    for prefix, length, action in (("10.0.0.0", 8, 0), ("10.1.2.0", 24, 1), ("10.1.2.3", 32, 0)):
        program.update("rules4", u32(length) + f.address(prefix), u32(action))
    for prefix, length, action in (("2001:db8::", 32, 0), ("2001:db8:1::", 48, 1)):
        program.update("rules6", u32(length) + f.address(prefix), u32(action))
    return program


def assert_counted(program: Program, expected: dict[int, tuple[int, int]]) -> None:
    counted = {reason: program.total("counters", u32(reason)) for reason in range(8)}
    assert counted == {reason: expected.get(reason, (0, 0)) for reason in range(8)}


@pytest.mark.parametrize("tags", [0, 1, 2])
@pytest.mark.parametrize(
    ("src", "reason"),
    [
        ("10.9.9.9", RULE_DENIES),
        ("10.1.2.4", RULE_ALLOWS),
        ("10.1.2.3", RULE_DENIES),
        ("11.0.0.1", DEFAULT_ALLOWS),
        ("2001:db8:2::1", RULE_DENIES),
        ("2001:db8:1::1", RULE_ALLOWS),
        ("2001:db9::1", DEFAULT_ALLOWS),
    ],
)
def test_firewall_longest_prefix_decides(load: Load, src: str, reason: int, tags: int) -> None:
    program = firewall_with_rules(load)
    if ":" in src:
        frame = with_tags(f.ipv6(f.udp(b"x"), f.UDP, src=src), f.ETH_IPV6, tags)
    else:
        frame = with_tags(f.ipv4(f.udp(b"x"), f.UDP, src=src), f.ETH_IPV4, tags)
    verdict = Verdict.DROP if reason == RULE_DENIES else Verdict.PASS
    assert program.run(frame) == Outcome(verdict, frame)
    assert_counted(program, {reason: (1, len(frame))})


def test_firewall_default_deny_drops_sources_without_rule(load: Load) -> None:
    program = firewall_with_rules(load, default_action=u32(0), not_ip_action=u32(0))
    allowed, unknown = f.ip4(src="10.1.2.4"), f.ip4(src="11.0.0.1")
    unknown6 = f.ip6(src="2001:db9::1")
    assert program.run(allowed).verdict == Verdict.PASS
    assert program.run(unknown).verdict == Verdict.DROP
    assert program.run(unknown6).verdict == Verdict.DROP
    assert program.run(f.ARP_FRAME).verdict == Verdict.DROP
    assert_counted(
        program,
        {
            RULE_ALLOWS: (1, len(allowed)),
            DEFAULT_DENIES: (2, len(unknown) + len(unknown6)),
            OTHER_DENIED: (1, len(f.ARP_FRAME)),
        },
    )


def test_firewall_deleted_rule_uncovers_wider_one(load: Load) -> None:
    program = firewall_with_rules(load)
    program.delete("rules4", u32(24) + f.address("10.1.2.0"))
    assert program.run(f.ip4(src="10.1.2.4")).verdict == Verdict.DROP


def test_firewall_arp_frame_passes(load: Load) -> None:
    program = load("firewall")
    assert program.run(f.ARP_FRAME) == Outcome(Verdict.PASS, f.ARP_FRAME)
    assert_counted(program, {OTHER_ALLOWED: (1, len(f.ARP_FRAME))})


def test_firewall_three_tags_are_dropped(load: Load) -> None:
    program = load("firewall")
    frame = with_tags(f.ipv4(b"", f.UDP), f.ETH_IPV4, 3)
    assert program.run(frame) == Outcome(Verdict.DROP, frame)
    assert_counted(program, {TAGS: (1, len(frame))})


@pytest.mark.parametrize("frame", f.BAD_IP.values(), ids=f.BAD_IP)
def test_firewall_malformed_packet_is_dropped(load: Load, frame: bytes) -> None:
    program = load("firewall")
    assert program.run(frame) == Outcome(Verdict.DROP, frame)
    assert_counted(program, {MALFORMED: (1, len(frame))})


@pytest.mark.parametrize("version", [4, 6])
def test_firewall_frame_truncated_anywhere_is_dropped(load: Load, version: int) -> None:
    program = load("firewall")
    packet, proto = (f.ipv4(b"data", f.UDP), f.ETH_IPV4) if version == 4 else (f.ipv6(b"data", f.UDP), f.ETH_IPV6)
    cut = list(f.truncations(with_tags(packet, proto, 2)))
    for frame in cut:
        assert program.run(frame) == Outcome(Verdict.DROP, frame)
    assert_counted(program, {MALFORMED: (len(cut), sum(map(len, cut)))})


# --- icmp_echo -----------------------------------------------------------------------------------

HERE4, HERE6, PEER4, PEER6 = "198.51.100.10", "2001:db8:f::10", "192.0.2.1", "2001:db8::1"
REPLY_MACS = {"dst": f.CLIENT_MAC, "src": f.LOCAL_MAC}


def ping4(payload: bytes = b"abcdefg", **fields: object) -> bytes:
    return f.ip4(f.icmp_echo(8, payload), f.ICMP, **fields)


def echo6(kind: int, payload: bytes = b"abcdefg", code: int = 0) -> bytes:
    return f.icmp_echo(kind, payload, pseudo=f.pseudo6(PEER6, HERE6, 8 + len(payload), f.ICMPV6), code=code)


def ping6(payload: bytes = b"abcdefg", **fields: object) -> bytes:
    return f.ip6(echo6(128, payload), f.ICMPV6, **fields)


def word_for_checksum(want: int) -> bytes:
    """Find the two bytes of payload with which an echo request has this checksum."""
    (without,) = struct.unpack("!H", f.icmp_echo(8, b"\0\0")[2:4])
    return struct.pack("!H", (without - want) % 0xFFFF)


@pytest.mark.parametrize("ttl", [1, 63, 64, 255])
@pytest.mark.parametrize("payload", [b"", b"odd", bytes(range(256)) * 5], ids=["empty", "odd", "long"])
def test_icmp_echo_ipv4_request_is_answered(load: Load, payload: bytes, ttl: int) -> None:
    program = load("icmp_echo")
    packet = f.ipv4(f.icmp_echo(0, payload), f.ICMP, src=HERE4, dst=PEER4, ttl=64)
    assert program.run(ping4(payload, ttl=ttl)) == Outcome(Verdict.TX, f.ethernet(packet, f.ETH_IPV4, **REPLY_MACS))
    assert program.counters("replies") == {0: 1}


@pytest.mark.parametrize("payload", [b"", b"odd", bytes(range(256)) * 5], ids=["empty", "odd", "long"])
def test_icmp_echo_ipv6_request_is_answered(load: Load, payload: bytes) -> None:
    program = load("icmp_echo")
    packet = f.ipv6(echo6(129, payload), f.ICMPV6, src=HERE6, dst=PEER6, hop_limit=64)
    reply = Outcome(Verdict.TX, f.ethernet(packet, f.ETH_IPV6, **REPLY_MACS))
    assert program.run(ping6(payload, hop_limit=3)) == reply
    assert program.counters("replies") == {1: 1}


@pytest.mark.parametrize("check", [0x0000, 0x0001, 0x07FF, 0x0800, 0xF7FE, 0xF7FF, 0xF800, 0xFFFE])
def test_icmp_echo_checksum_at_carry_boundary_is_exact(load: Load, check: int) -> None:
    payload = word_for_checksum(check)
    request = ping4(payload)
    assert request[36:38] == struct.pack("!H", check)
    outcome = load("icmp_echo").run(request)
    assert outcome.frame[34:] == f.icmp_echo(0, payload)


def test_icmp_echo_frame_padding_is_kept(load: Load) -> None:
    packet = f.ipv4(f.icmp_echo(0, b"abcdefg"), f.ICMP, src=HERE4, dst=PEER4)
    reply = f.ethernet(packet, f.ETH_IPV4, **REPLY_MACS).ljust(60, b"\0")
    assert load("icmp_echo").run(ping4().ljust(60, b"\0")) == Outcome(Verdict.TX, reply)


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(f.ip4(f.icmp_echo(0, b"x"), f.ICMP), id="ipv4-echo-reply"),
        pytest.param(f.ip4(f.icmp_echo(8, b"x", code=1), f.ICMP), id="ipv4-code-1"),
        pytest.param(ping4(fragment=f.MF), id="ipv4-first-fragment"),
        pytest.param(ping4(fragment=185), id="ipv4-later-fragment"),
        pytest.param(ping4(options=b"\x01" * 4), id="ipv4-options"),
        pytest.param(ping4(dst="224.0.0.1"), id="ipv4-to-multicast"),
        pytest.param(ping4(dst="255.255.255.255"), id="ipv4-to-broadcast"),
        pytest.param(ping4(src="0.0.0.0"), id="ipv4-from-unspecified"),
        pytest.param(ping4(src="127.0.0.1"), id="ipv4-from-loopback"),
        pytest.param(ping4(src="224.0.0.1"), id="ipv4-from-multicast"),
        pytest.param(f.ip4(f.icmp_echo(8, b"x"), f.UDP), id="ipv4-other-protocol"),
        pytest.param(f.ip6(echo6(129), f.ICMPV6), id="ipv6-echo-reply"),
        pytest.param(f.ip6(echo6(128, code=1), f.ICMPV6), id="ipv6-code-1"),
        pytest.param(f.ip6(echo6(135), f.ICMPV6), id="ipv6-neighbour-solicitation"),
        pytest.param(f.ip6(bytes(8) + echo6(128), 0), id="ipv6-hop-by-hop-options"),
        pytest.param(ping6(dst="ff02::1"), id="ipv6-to-multicast"),
        pytest.param(ping6(src="::"), id="ipv6-from-unspecified"),
        pytest.param(ping6(src="ff02::1"), id="ipv6-from-multicast"),
        pytest.param(f.patched(ping4(), 0, f.BROADCAST_MAC), id="to-broadcast-mac"),
        pytest.param(f.ethernet(f.vlan(ping4()[14:], f.ETH_IPV4), f.ETH_VLAN), id="vlan-tag"),
        pytest.param(f.patched(ping4(), 14, b"\x65"), id="ipv4-version-6"),
        pytest.param(f.patched(ping4(), 16, b"\x00\x1b"), id="ipv4-length-below-headers"),
        pytest.param(f.patched(ping6(), 14, b"\x40"), id="ipv6-version-4"),
        pytest.param(f.patched(ping6(), 18, b"\x00\x07"), id="ipv6-length-below-header"),
        pytest.param(f.ARP_FRAME, id="arp"),
    ],
)
def test_icmp_echo_anything_else_passes_untouched(load: Load, frame: bytes) -> None:
    program = load("icmp_echo")
    assert program.run(frame) == Outcome(Verdict.PASS, frame)
    assert program.counters("replies") == {}


@pytest.mark.parametrize("frame", [ping4(), ping6()], ids=["ipv4", "ipv6"])
def test_icmp_echo_frame_truncated_anywhere_passes_untouched(load: Load, frame: bytes) -> None:
    program = load("icmp_echo")
    for cut in f.truncations(frame):
        assert program.run(cut) == Outcome(Verdict.PASS, cut)
    assert program.counters("replies") == {}
