"""Build frames from scratch, with checksums of their own: the expectations of tests must not come from the code tested.

Addresses are given as text, everything else as numbers; a builder returns the header with its payload.
"""

import ipaddress
import struct
from collections.abc import Iterator
from typing import Any

MIN_FRAME_BYTES = 14  # ETH_HLEN: the least that BPF_PROG_TEST_RUN takes

CLIENT_MAC = bytes.fromhex("020000000001")
LOCAL_MAC = bytes.fromhex("020000000002")
BROADCAST_MAC = b"\xff" * 6

ETH_IPV4, ETH_IPV6, ETH_ARP, ETH_VLAN, ETH_QINQ = 0x0800, 0x86DD, 0x0806, 0x8100, 0x88A8
ICMP, TCP, UDP, ICMPV6 = 1, 6, 17, 58
FIN, SYN, ACK = 0x01, 0x02, 0x10
DF, MF = 0x4000, 0x2000


def checksum(data: bytes) -> int:
    """Compute the Internet checksum of RFC 1071."""
    padded = data + b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def address(text: str) -> bytes:
    """Pack an IPv4 or IPv6 address."""
    return ipaddress.ip_address(text).packed


def ethernet(payload: bytes, proto: int, *, dst: bytes = LOCAL_MAC, src: bytes = CLIENT_MAC) -> bytes:
    """Build an Ethernet frame."""
    return dst + src + struct.pack("!H", proto) + payload


def vlan(payload: bytes, proto: int, *, vid: int = 100) -> bytes:
    """Build what follows the ethertype of a tagged frame: tag control, ethertype, payload."""
    return struct.pack("!HH", vid, proto) + payload


def ipv4(
    payload: bytes,
    proto: int,
    *,
    src: str = "192.0.2.1",
    dst: str = "198.51.100.10",
    ttl: int = 64,
    tos: int = 0,
    ident: int = 0x1234,
    fragment: int = DF,
    options: bytes = b"",
) -> bytes:
    """Build an IPv4 packet; ``options`` is a multiple of four bytes."""
    header_len = 20 + len(options)
    start = struct.pack("!BBHHHBB", 0x40 | header_len // 4, tos, header_len + len(payload), ident, fragment, ttl, proto)
    addresses = address(src) + address(dst)
    check = checksum(start + b"\0\0" + addresses + options)
    return start + struct.pack("!H", check) + addresses + options + payload


def ipv6(
    payload: bytes, proto: int, *, src: str = "2001:db8::1", dst: str = "2001:db8:f::10", hop_limit: int = 64
) -> bytes:
    """Build an IPv6 packet."""
    return struct.pack("!IHBB", 6 << 28, len(payload), proto, hop_limit) + address(src) + address(dst) + payload


def icmp_echo(kind: int, payload: bytes, *, pseudo: bytes = b"", code: int = 0) -> bytes:
    """Build an ICMP or ICMPv6 echo message; the latter's checksum needs the pseudo-header."""
    rest = struct.pack("!HH", 0x4711, 3) + payload
    check = checksum(pseudo + bytes([kind, code, 0, 0]) + rest)
    return struct.pack("!BBH", kind, code, check) + rest


def pseudo6(src: str, dst: str, length: int, proto: int) -> bytes:
    """Build the pseudo-header that IPv6's upper layers sum up (RFC 8200, section 8.1)."""
    return address(src) + address(dst) + struct.pack("!II", length, proto)


def udp(payload: bytes, *, sport: int = 40000, dport: int = 53) -> bytes:
    """Build a UDP datagram without a checksum, which none of the programs reads."""
    return struct.pack("!HHHH", sport, dport, 8 + len(payload), 0) + payload


def tcp(payload: bytes = b"", *, sport: int = 40000, dport: int = 80, flags: int = ACK, options: bytes = b"") -> bytes:
    """Build a TCP segment without a checksum, which none of the programs reads."""
    offset = (20 + len(options)) // 4 << 4
    return struct.pack("!HHIIBBHHH", sport, dport, 1, 2, offset, flags, 65535, 0, 0) + options + payload


def truncations(frame: bytes) -> Iterator[bytes]:
    """Cut the frame after every byte that leaves an Ethernet header."""
    return (frame[:length] for length in range(MIN_FRAME_BYTES, len(frame)))


def patched(frame: bytes, offset: int, value: bytes) -> bytes:
    return frame[:offset] + value + frame[offset + len(value) :]


def ip4(payload: bytes = b"", proto: int = UDP, **fields: Any) -> bytes:
    return ethernet(ipv4(payload, proto, **fields), ETH_IPV4)


def ip6(payload: bytes = b"", proto: int = UDP, **fields: Any) -> bytes:
    return ethernet(ipv6(payload, proto, **fields), ETH_IPV6)


ARP_FRAME = ethernet(bytes(28), ETH_ARP)
TAGGED_FRAME = ethernet(vlan(ipv4(udp(b"tagged"), UDP), ETH_IPV4), ETH_VLAN)

# What an IP parser has to refuse. Byte 14 holds the version and IPv4's header length; the length is at 16 or 18.
BAD_IP = {
    "ipv4-version-6": patched(ip4(udp(b"data")), 14, b"\x65"),
    "ipv4-header-length-16": patched(ip4(udp(b"data")), 14, b"\x44"),
    "ipv4-length-below-header": patched(ip4(udp(b"data")), 16, b"\x00\x13"),
    "ipv4-length-beyond-frame": patched(ip4(udp(b"data")), 16, b"\x00\x21"),
    "ipv6-version-4": patched(ip6(udp(b"data")), 14, b"\x40"),
    "ipv6-length-beyond-frame": patched(ip6(udp(b"data")), 18, b"\x00\x0d"),
}
