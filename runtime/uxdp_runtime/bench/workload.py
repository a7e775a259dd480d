"""What is measured with: a frame that differs from flow to flow, and what the maps hold.

Every flow has its own source address and source port; all else is equal. The heads of a million frames are made by
native code (native/bench.c, uxdp_bench_fill), which needs to know only where in the frame these lie.
"""

import ipaddress
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ..errors import ParameterError
from ..frames import headers as h

HEAD_BYTES: Final = 64  # UXDP_BENCH_HEAD, native/bench.c
_ETHERNET_BYTES: Final = 14
_MACS: Final = (bytes.fromhex("020000000001"), bytes.fromhex("020000000002"))
# Flows' addresses are these with other last 24 bits.
_SOURCE4: Final = ipaddress.ip_address("10.0.0.0").packed
_SOURCE6: Final = ipaddress.ip_address("2001:db8:1::").packed
_PROTOCOLS: Final = ("tcp", "udp", "icmp")
_MAX_PAYLOAD_BYTES: Final = 1400
_MEMBERS: Final = frozenset({"proto", "destination", "port", "payload_bytes"})


@dataclass(frozen=True, slots=True)
class FlowFrame:
    """The frame of flow 0, and the offsets in its head of what differs; 0: there is no such field."""

    data: bytes
    address: int  # the last four bytes of the source address, of which three differ
    port: int
    ip_check: int
    transport_check: int


def flow_frame(
    *, proto: str = "udp", destination: str = "192.0.2.1", port: int = 80, payload_bytes: int = 18
) -> FlowFrame:
    """Build the frame: TCP (an established connection's), UDP or an echo request, over IPv4 or IPv6.

    :param destination: address; its version is the frame's
    :raises ParameterError: something that cannot be a frame
    """
    if proto not in _PROTOCOLS:
        raise ParameterError(f"{proto!r}, expected one of {', '.join(_PROTOCOLS)}", context="frame.proto")
    if not 0 <= port <= 0xFFFF:
        raise ParameterError(f"{port}, expected 0..65535", context="frame.port")
    if not 0 <= payload_bytes <= _MAX_PAYLOAD_BYTES:
        raise ParameterError(f"{payload_bytes}, expected 0..{_MAX_PAYLOAD_BYTES}", context="frame.payload_bytes")
    try:
        target = ipaddress.ip_address(destination)
    except ValueError as cause:
        raise ParameterError(f"{destination!r}, expected an address", context="frame.destination") from cause
    is_ipv6 = target.version == 6
    addresses = (_SOURCE6 if is_ipv6 else _SOURCE4, target.packed)
    payload = bytes(i & 0xFF for i in range(payload_bytes))
    ip_bytes = 40 if is_ipv6 else 20
    transport = _ETHERNET_BYTES + ip_bytes
    segment, number, check = _segment(proto, addresses, port, payload)
    if transport + check >= HEAD_BYTES:
        raise ParameterError(
            f"{proto} over IPv6 has its checksum behind the first {HEAD_BYTES} bytes, which are all that differs",
            context="frame.proto",
            remedy="use udp",
        )
    if is_ipv6:
        ip = h.ipv6(*addresses, number, len(segment))
    else:
        ip = h.ipv4(*addresses, number, len(segment))
    data = h.ethernet(_MACS[0], _MACS[1], h.ETH_P_IPV6 if is_ipv6 else h.ETH_P_IP) + ip + segment
    # Frames are at least 60 bytes on a wire, and the restored head is 64.
    return FlowFrame(
        data.ljust(HEAD_BYTES, b"\0"),
        address=_ETHERNET_BYTES + (20 if is_ipv6 else 12),
        port=0 if proto == "icmp" else transport,
        ip_check=0 if is_ipv6 else _ETHERNET_BYTES + 10,
        # ICMP's checksum does not cover addresses; ICMPv6's does.
        transport_check=0 if proto == "icmp" and not is_ipv6 else transport + check,
    )


def _segment(proto: str, addresses: tuple[bytes, bytes], port: int, payload: bytes) -> tuple[bytes, int, int]:
    """Return the segment, its protocol number, and where its checksum is."""
    if proto == "tcp":
        return h.tcp(addresses, (0, port), payload, seq=1, ack=1, flags=h.TCP_ACK), h.IPPROTO_TCP, 16
    if proto == "udp":
        return h.udp(addresses, (0, port), payload), h.IPPROTO_UDP, 6
    if len(addresses[0]) == 4:
        return h.icmp(8, 0, (1, 1), payload), h.IPPROTO_ICMP, 2
    pseudo = h.pseudo_header(*addresses, h.IPPROTO_ICMPV6, 8 + len(payload))
    return h.icmp(128, 0, (1, 1), payload, pseudo=pseudo), h.IPPROTO_ICMPV6, 2


@dataclass(frozen=True, slots=True)
class Workload:
    """A frame, and the maps' content as JSON text of the form that ``map_file`` reads."""

    frame: FlowFrame
    maps: str


def read_workload(path: Path | None) -> Workload:
    """Read a workload: ``{"frame": {"proto", "destination", "port", "payload_bytes"}, "maps": {…}}``, all optional.

    :param path: the file; None for UDP to 192.0.2.1 and empty maps
    :raises ParameterError: it cannot be read, or is not of this form
    """
    if path is None:
        return Workload(flow_frame(), "{}")
    where = str(path)
    try:
        document: Any = json.loads(path.read_bytes())
    except OSError as cause:
        raise ParameterError(f"cannot be read: {cause.strerror or cause}", context=where) from cause
    except ValueError as cause:
        raise ParameterError(f"no JSON: {cause}", context=where) from cause
    if not isinstance(document, dict) or not document.keys() <= {"frame", "maps"}:
        raise ParameterError("expected an object with frame and maps", context=where)
    frame = document.get("frame", {})
    if not isinstance(frame, Mapping) or not frame.keys() <= _MEMBERS:
        raise ParameterError(f"frame: expected an object with {', '.join(sorted(_MEMBERS))}", context=where)
    for name, kind in (("proto", str), ("destination", str), ("port", int), ("payload_bytes", int)):
        if name in frame and (not isinstance(frame[name], kind) or isinstance(frame[name], bool)):
            raise ParameterError(f"frame.{name}: {frame[name]!r}, expected {kind.__name__}", context=where)
    return Workload(flow_frame(**frame), json.dumps(document.get("maps", {})))
