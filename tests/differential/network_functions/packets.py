"""Build frames for network functions, and take apart what they made of them; whatever is malformed fails the test."""

import struct
from dataclasses import dataclass

from uxdp_runtime.frames import headers as h

MAC_HERE = bytes.fromhex("020000000001")
MAC_THERE = bytes.fromhex("020000000002")


def addr4(text: str) -> bytes:
    """Return an IPv4 address's bytes."""
    return bytes(int(part) for part in text.split("."))


def frame4(
    source: bytes, dest: bytes, proto: int, segment: bytes, *, ttl: int = 64, tos: int = 0, fragment: int = 0
) -> bytes:
    """Build an Ethernet frame with an IPv4 packet."""
    ip = h.ipv4(source, dest, proto, len(segment), ttl=ttl, tos=tos, fragment=fragment)
    return h.ethernet(MAC_HERE, MAC_THERE, h.ETH_P_IP) + ip + segment


def frame6(source: bytes, dest: bytes, proto: int, segment: bytes, *, hop_limit: int = 64, flow: int = 0) -> bytes:
    """Build an Ethernet frame with an IPv6 packet."""
    ip = h.ipv6(source, dest, proto, len(segment), hop_limit=hop_limit, flow=flow)
    return h.ethernet(MAC_HERE, MAC_THERE, h.ETH_P_IPV6) + ip + segment


def frame(source: bytes, dest: bytes, proto: int, segment: bytes, *, ttl: int = 64) -> bytes:
    """Build an Ethernet frame with a packet of the version that the addresses have."""
    if len(source) == 4:
        return frame4(source, dest, proto, segment, ttl=ttl)
    return frame6(source, dest, proto, segment, hop_limit=ttl)


def icmp6(source: bytes, dest: bytes, kind: int, code: int, rest: tuple[int, int], payload: bytes) -> bytes:
    """Build an ICMPv6 message."""
    pseudo = h.pseudo_header(source, dest, h.IPPROTO_ICMPV6, 8 + len(payload))
    return h.icmp(kind, code, rest, payload, pseudo=pseudo)


@dataclass(frozen=True, slots=True)
class Packet:
    """An IP packet with right lengths and checksums; ``segment`` is what its header is followed by."""

    source: bytes
    dest: bytes
    proto: int
    ttl: int
    tos: int
    segment: bytes

    @property
    def ports(self) -> tuple[int, int]:
        """The ports of TCP or UDP."""
        source, dest = struct.unpack_from("!HH", self.segment)
        return source, dest


@dataclass(frozen=True, slots=True)
class EthernetFrame:
    """Destination, source, VLAN identifiers from the outside in, ethertype and content."""

    dest: bytes
    source: bytes
    vlans: tuple[int, ...]
    ethertype: int
    content: bytes


def ethernet(data: bytes) -> EthernetFrame:
    """Take an Ethernet frame apart."""
    vlans: list[int] = []
    (ethertype,) = struct.unpack_from("!H", data, 12)
    start = 14
    while ethertype in (h.ETH_P_8021Q, h.ETH_P_8021AD):
        control, ethertype = struct.unpack_from("!HH", data, start)
        vlans.append(control & 0xFFF)
        start += 4
    return EthernetFrame(data[:6], data[6:12], tuple(vlans), ethertype, data[start:])


def packet(data: bytes, *, is_tunnel: bool = False) -> Packet:
    """Take the IP packet in an Ethernet frame apart, and check its lengths and checksums.

    :param is_tunnel: UDP may be without a checksum over IPv6, too (RFC 6935)
    """
    outside = ethernet(data)
    version = {h.ETH_P_IP: 4, h.ETH_P_IPV6: 6}[outside.ethertype]
    assert outside.content[0] >> 4 == version
    return ip_packet(outside.content, is_tunnel=is_tunnel)


def ip_packet(data: bytes, *, is_tunnel: bool = False) -> Packet:
    """Take an IP packet apart, and check its lengths and checksums, also the transport header's."""
    if data[0] >> 4 == 4:
        _, tos, length, _, fragment, ttl, proto, _, source, dest = struct.unpack_from("!BBHHHBBH4s4s", data)
        head = (data[0] & 0xF) * 4
        assert h.checksum(data[:head]) in (0, 0xFFFF), f"IPv4 header {data[:head].hex(' ')}"
        assert head <= length <= len(data), f"{length} bytes of {len(data)}"
        segment = data[head:length]
        if fragment & 0x3FFF:
            return Packet(source, dest, proto, ttl, tos, segment)
    else:
        first, length, proto, ttl, source, dest = struct.unpack_from("!IHBB16s16s", data)
        tos = first >> 20 & 0xFF
        assert 40 + length <= len(data), f"40 + {length} bytes of {len(data)}"
        segment = data[40 : 40 + length]
    if not (is_tunnel and proto == h.IPPROTO_UDP and segment[6:8] == bytes(2)):
        _check_segment(source, dest, proto, segment)
    return Packet(source, dest, proto, ttl, tos, segment)


def _check_segment(source: bytes, dest: bytes, proto: int, segment: bytes) -> None:
    covered = segment
    if proto in (h.IPPROTO_TCP, h.IPPROTO_UDP, h.IPPROTO_ICMPV6):
        covered = h.pseudo_header(source, dest, proto, len(segment)) + segment
    elif proto != h.IPPROTO_ICMP:
        return
    if proto == h.IPPROTO_UDP:
        _, _, length, check = struct.unpack_from("!HHHH", segment)
        assert length == len(segment), f"UDP length {length} of {len(segment)}"
        if check == 0:
            assert len(source) == 4, "UDP over IPv6 without a checksum"
            return
    assert h.checksum(covered) in (0, 0xFFFF), f"checksum of protocol {proto}, {segment[:32].hex(' ')}"
