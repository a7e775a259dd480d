"""Build protocol headers as bytes, with correct checksums, and say where their fields are.

A builder returns its header alone, or its header with the payload where a checksum covers both. Addresses are packed
bytes in network order, all else numbers; nothing is checked, since the generator also wants what no stack would send.

References: RFC 791, 8200 (IP), 9293 (TCP), 768 (UDP), 792, 4443 (ICMP), 2784, 2890 (GRE), 826 (ARP); IEEE 802.1Q
"""

import struct
from typing import Final, NamedTuple

ETH_P_IP: Final = 0x0800
ETH_P_ARP: Final = 0x0806
ETH_P_TEB: Final = 0x6558  # transparent Ethernet bridging: a whole frame inside of GRE
ETH_P_8021Q: Final = 0x8100
ETH_P_IPV6: Final = 0x86DD
ETH_P_8021AD: Final = 0x88A8

IPPROTO_HOPOPTS: Final = 0
IPPROTO_ICMP: Final = 1
IPPROTO_IPIP: Final = 4
IPPROTO_TCP: Final = 6
IPPROTO_UDP: Final = 17
IPPROTO_IPV6: Final = 41
IPPROTO_ROUTING: Final = 43
IPPROTO_FRAGMENT: Final = 44
IPPROTO_GRE: Final = 47
IPPROTO_ICMPV6: Final = 58
IPPROTO_NONE: Final = 59
IPPROTO_DSTOPTS: Final = 60

IP_DF: Final = 0x4000
IP_MF: Final = 0x2000

TCP_FIN: Final = 0x01
TCP_SYN: Final = 0x02
TCP_RST: Final = 0x04
TCP_PSH: Final = 0x08
TCP_ACK: Final = 0x10

_ETHERNET = struct.Struct("!6s6sH")
_TAG = struct.Struct("!HH")
_IPV4 = struct.Struct("!BBHHHBBH4s4s")
_IPV6 = struct.Struct("!IHBB16s16s")
_TCP = struct.Struct("!HHIIBBHHH")
_UDP = struct.Struct("!HHHH")
_ICMP = struct.Struct("!BBHHH")
_ARP = struct.Struct("!HHBBH6s4s6s4s")
_PSEUDO4 = struct.Struct("!4s4sBBH")
_PSEUDO6 = struct.Struct("!16s16sIHBB")


class Field(NamedTuple):
    """A field of a header: its offset from the header's first byte, its size in bytes, and what it holds."""

    offset: int
    size: int
    kind: str


# The fields of each header, by the name of the layer. Kinds: mac, ethertype, proto, addr4, addr6, port, length,
# number, and bits for a byte that holds several fields.
FIELDS: Final[dict[str, tuple[Field, ...]]] = {
    "eth": (Field(0, 6, "mac"), Field(6, 6, "mac"), Field(12, 2, "ethertype")),
    "vlan": (Field(0, 2, "number"), Field(2, 2, "ethertype")),
    "arp": (
        *(Field(0, 2, "number"), Field(2, 2, "ethertype"), Field(4, 1, "length"), Field(5, 1, "length")),
        *(Field(6, 2, "number"), Field(8, 6, "mac"), Field(14, 4, "addr4"), Field(18, 6, "mac"), Field(24, 4, "addr4")),
    ),
    "ipv4": (
        *(Field(0, 1, "bits"), Field(1, 1, "number"), Field(2, 2, "length"), Field(4, 2, "number")),
        *(Field(6, 2, "bits"), Field(8, 1, "number"), Field(9, 1, "proto"), Field(10, 2, "number")),
        *(Field(12, 4, "addr4"), Field(16, 4, "addr4")),
    ),
    "ipv6": (
        *(Field(0, 1, "bits"), Field(0, 4, "number"), Field(4, 2, "length"), Field(6, 1, "proto")),
        *(Field(7, 1, "number"), Field(8, 16, "addr6"), Field(24, 16, "addr6")),
    ),
    "ext": (Field(0, 1, "proto"), Field(1, 1, "length"), Field(2, 2, "bits"), Field(4, 4, "number")),
    "tcp": (
        *(Field(0, 2, "port"), Field(2, 2, "port"), Field(4, 4, "number"), Field(8, 4, "number")),
        *(Field(12, 1, "bits"), Field(13, 1, "bits"), Field(14, 2, "number"), Field(16, 2, "number")),
    ),
    "udp": (Field(0, 2, "port"), Field(2, 2, "port"), Field(4, 2, "length"), Field(6, 2, "number")),
    "icmp": (
        *(Field(0, 1, "number"), Field(1, 1, "number"), Field(2, 2, "number")),
        *(Field(4, 2, "number"), Field(6, 2, "number")),
    ),
    "gre": (Field(0, 2, "bits"), Field(2, 2, "ethertype")),
    "payload": (Field(0, 1, "number"), Field(0, 2, "number"), Field(0, 4, "number"), Field(0, 8, "number")),
}


def checksum(data: bytes) -> int:
    """Compute the Internet checksum (RFC 1071) of data; an odd byte at the end counts as the upper half of a word."""
    # Adding 16-bit words with the carry around is arithmetic modulo 0xffff, and 2**16 is 1 modulo 0xffff: so the sum
    # of the words is the whole number modulo 0xffff. Only all zeros give the sum 0, all else that divides 0xffff.
    number = int.from_bytes(data, "big")
    if len(data) % 2:
        number <<= 8
    if number == 0:
        return 0xFFFF
    return -number % 0xFFFF


def ethernet(dst: bytes, src: bytes, ethertype: int) -> bytes:
    """Build an Ethernet header; an ethertype up to 1500 is the length of an IEEE 802.3 frame."""
    return _ETHERNET.pack(dst, src, ethertype)


def vlan_tag(control: int, ethertype: int) -> bytes:
    """Build what follows the TPID of a VLAN tag: tag control information and the next ethertype."""
    return _TAG.pack(control, ethertype)


def arp(operation: int, sender: tuple[bytes, bytes], target: tuple[bytes, bytes]) -> bytes:
    """Build an ARP packet for Ethernet and IPv4; ``sender`` and ``target`` are (MAC, IPv4 address)."""
    return _ARP.pack(1, ETH_P_IP, 6, 4, operation, *sender, *target)


def ipv4(
    src: bytes,
    dst: bytes,
    proto: int,
    payload_len: int,
    *,
    ttl: int = 64,
    tos: int = 0,
    ident: int = 0,
    fragment: int = 0,
    options: bytes = b"",
) -> bytes:
    """Build an IPv4 header.

    :param fragment: the 16 bits of flags and fragment offset
    :param options: up to 40 bytes, a multiple of four
    """
    words = 5 + len(options) // 4
    head = (0x40 | words, tos, words * 4 + payload_len & 0xFFFF, ident, fragment, ttl, proto)
    check = checksum(_IPV4.pack(*head, 0, src, dst) + options)
    return _IPV4.pack(*head, check, src, dst) + options


def ipv6(src: bytes, dst: bytes, proto: int, payload_len: int, *, hop_limit: int = 64, flow: int = 0) -> bytes:
    """Build an IPv6 header; ``flow`` is traffic class and flow label, 28 bits."""
    return _IPV6.pack(6 << 28 | flow, payload_len & 0xFFFF, proto, hop_limit, src, dst)


def ipv6_options(proto: int, options: bytes = b"") -> bytes:
    """Build a hop-by-hop or destination options header, padded to a multiple of 8 bytes."""
    missing = -(2 + len(options)) % 8
    padding = b"\0" if missing == 1 else bytes([1, missing - 2]).ljust(missing, b"\0") if missing else b""
    return bytes([proto, (2 + len(options) + missing) // 8 - 1]) + options + padding


def ipv6_routing(proto: int, kind: int, segments_left: int, addresses: tuple[bytes, ...]) -> bytes:
    """Build a routing header with a list of addresses, as types 0, 2 and 4 have it."""
    return bytes([proto, len(addresses) * 2, kind, segments_left, 0, 0, 0, 0]) + b"".join(addresses)


def ipv6_fragment(proto: int, offset: int, *, more: bool, ident: int) -> bytes:
    """Build a fragment header; ``offset`` counts bytes and is a multiple of 8."""
    return struct.pack("!BBHI", proto, 0, offset & 0xFFF8 | more, ident)


def pseudo_header(src: bytes, dst: bytes, proto: int, length: int) -> bytes:
    """Build what transport checksums cover besides the segment; the addresses' length tells the IP version."""
    if len(src) == 4:
        return _PSEUDO4.pack(src, dst, 0, proto, length & 0xFFFF)
    return _PSEUDO6.pack(src, dst, length, 0, 0, proto)


def tcp(
    addresses: tuple[bytes, bytes],
    ports: tuple[int, int],
    payload: bytes,
    *,
    flags: int,
    seq: int,
    ack: int,
    window: int = 0xFFFF,
    options: bytes = b"",
) -> bytes:
    """Build a TCP segment; ``options`` is up to 40 bytes, a multiple of four."""
    head = (*ports, seq, ack, 0x50 + len(options) * 4, flags, window)
    rest = options + payload
    pseudo = pseudo_header(*addresses, IPPROTO_TCP, 20 + len(rest))
    return _TCP.pack(*head, checksum(pseudo + _TCP.pack(*head, 0, 0) + rest), 0) + rest


def udp(addresses: tuple[bytes, bytes], ports: tuple[int, int], payload: bytes, *, with_checksum: bool = True) -> bytes:
    """Build a UDP datagram; without a checksum the field is zero."""
    length = 8 + len(payload)
    if not with_checksum:
        return _UDP.pack(*ports, length & 0xFFFF, 0) + payload
    pseudo = pseudo_header(*addresses, IPPROTO_UDP, length)
    check = checksum(pseudo + _UDP.pack(*ports, length & 0xFFFF, 0) + payload)
    return _UDP.pack(*ports, length & 0xFFFF, check or 0xFFFF) + payload  # zero would mean: no checksum


def icmp(kind: int, code: int, rest: tuple[int, int], payload: bytes, *, pseudo: bytes = b"") -> bytes:
    """Build an ICMP message, or with its pseudo-header an ICMPv6 message; ``rest`` is the header's second word."""
    check = checksum(pseudo + _ICMP.pack(kind, code, 0, *rest) + payload)
    return _ICMP.pack(kind, code, check, *rest) + payload


def gre(ethertype: int, payload: bytes, *, key: int | None = None, with_checksum: bool = False) -> bytes:
    """Build a GRE header with its payload."""
    flags = (0x8000 if with_checksum else 0) | (0x2000 if key is not None else 0)
    head = struct.pack("!HH", flags, ethertype)
    optional = b"" if key is None else struct.pack("!I", key)
    if with_checksum:
        check = checksum(head + bytes(4) + optional + payload)
        optional = struct.pack("!HH", check, 0) + optional
    return head + optional + payload
