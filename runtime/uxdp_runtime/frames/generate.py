"""Generate frames that find what a program does: flows and their answers, well formed, broken, and made for it.

Equal arguments give equal frames. About one frame in four is damaged (see mutate); one in twenty is no IP at all. The
rest belongs to flows that come again in both directions (see flows), over IPv4 with options and fragments, over IPv6
with extension headers, in VLAN tags and in tunnels. The program's constants are planted in all of them.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final

from . import headers as h
from .constants import Steering
from .flows import Flow, Flows
from .mutate import Dice, Draft, mutate

ETH_HLEN: Final = 14
MAX_FRAME_BYTES: Final = 1514  # ETH_FRAME_LEN
_MIN_ETHERNET_BYTES: Final = 60  # ETH_ZLEN: what a network card pads to
_MAX_METADATA_WORDS: Final = 8

_LAYER_OF: Final = {
    h.IPPROTO_TCP: "tcp",
    h.IPPROTO_UDP: "udp",
    h.IPPROTO_ICMP: "icmp",
    h.IPPROTO_ICMPV6: "icmp",
}
_IPV4_OPTIONS: Final = (
    bytes.fromhex("94040000"),  # router alert
    b"\1\1\1\0",
    b"\1" * 40,
    bytes.fromhex("07270400") + bytes(36),  # record route, as long as it gets
    bytes.fromhex("830b04c6336401c633640200"),  # loose source route
)
_ROUTER_ALERT6: Final = bytes.fromhex("05020000")
_NO_IP: Final = (0x88CC, 0x8847, 0x8863, 0x0842, 0x9000, 0x0026, 0x05DC, 0xFFFF, 0x0000)
_CHECKSUM_AT: Final = {"tcp": 16, "udp": 6, "icmp": 2, "ipv4": 10}


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame to run a program on.

    ``ingress_ifindex`` and ``rx_queue_index`` are what BPF_PROG_TEST_RUN gives a program when it is told nothing.
    ``metadata`` lies in front of the frame, 0 to 32 bytes in steps of four.
    """

    data: bytes
    ingress_ifindex: int = 1
    rx_queue_index: int = 0
    metadata: bytes = b""
    description: str = ""


def generate(
    n: int,
    seed: int,
    constants: Collection[int | bytes] = (),
    *,
    min_length: int = ETH_HLEN,
    max_length: int = MAX_FRAME_BYTES,
) -> Iterator[Frame]:
    """Yield ``n`` frames, always the same ones for the same arguments.

    :param constants: the program's own, as from ``constants_of``, and keys of its maps, as bytes
    :param min_length: of a frame in bytes; BPF_PROG_TEST_RUN takes no fewer than 14
    :param max_length: of a frame in bytes
    """
    if n < 0 or not 0 < min_length <= max_length <= 0xFFFF:
        raise ValueError(f"{n} frames of {min_length} to {max_length} bytes; expected 1 to 65535 bytes, min <= max")
    generator = _Generator(seed, Steering(constants), min_length, max_length)
    return (generator.next_frame() for _ in range(n))


class _Generator:
    def __init__(self, seed: int, steering: Steering, min_length: int, max_length: int) -> None:
        self._dice = Dice(seed)
        self._steering = steering
        self._flows = Flows(self._dice, steering)
        self._min_length = min_length
        self._max_length = max_length

    def next_frame(self) -> Frame:
        dice = self._dice
        notes: list[str] = []
        draft = self._other(notes) if dice.chance(0.05) else self._of_flow(notes)
        data = draft.data
        if dice.chance(0.24):
            notes += mutate(draft, dice, self._steering)
        elif len(data) < _MIN_ETHERNET_BYTES and dice.chance(0.4):
            data += bytes(_MIN_ETHERNET_BYTES - len(data))
            notes.append("padded")
        if len(data) > self._max_length:
            del data[self._max_length :]
            notes.append("cut to the limit")
        if len(data) < self._min_length:
            data += bytes(self._min_length - len(data))
        metadata = b""
        if dice.chance(0.02):
            metadata = dice.bytes(4 * (1 + dice.below(_MAX_METADATA_WORDS)))
            notes.append(f"{len(metadata)} bytes of metadata")
        notes.append(f"{len(data)} bytes")
        return Frame(bytes(data), metadata=metadata, description=", ".join(notes))

    def _of_flow(self, notes: list[str]) -> Draft:
        """Build the next frame of a flow, from the inside out: ``parts`` are (layer, header)."""
        dice = self._dice
        flow = self._flows.pick()
        reply = flow.segments > 0 and dice.chance(0.35)
        tunnel = dice.pick(("ipip", "gre", "gre key", "gre ethernet", "outer ipv6")) if dice.chance(0.06) else ""
        room = self._max_length - ETH_HLEN - 4 * len(flow.tags) - (40 if flow.is_ipv6 else 20) - (40 if tunnel else 0)
        segment, note = self._flows.segment(flow, reply=reply, room=room)
        notes.append(f"{note}, flow {flow.number}{' reply' if reply else ''}")
        addresses = flow.addresses[::-1] if reply else flow.addresses
        build = self._ipv6 if flow.is_ipv6 else self._ipv4
        parts = build(flow, addresses, segment, notes)
        ethertype = h.ETH_P_IPV6 if flow.is_ipv6 else h.ETH_P_IP
        if tunnel:
            ethertype = self._wrap(tunnel, flow, parts)
            notes.append(tunnel)
        for tpid, control in reversed(flow.tags):
            parts.insert(0, ("vlan", h.vlan_tag(control, ethertype)))
            ethertype = tpid
        if flow.tags:
            notes.append(f"{len(flow.tags)} tags")
        parts.insert(0, ("eth", h.ethernet(*self._flows.macs(flow, reply=reply), ethertype)))
        draft = self._assemble(parts)
        _mark_payload(draft)
        if dice.chance(0.04):
            self._break_checksum(draft, notes)
        return draft

    def _ipv4(
        self, flow: Flow, addresses: tuple[bytes, bytes], segment: bytes, notes: list[str]
    ) -> list[tuple[str, bytes]]:
        dice = self._dice
        layer, fragment, ident = _LAYER_OF.get(flow.proto, "payload"), dice.pick((0, h.IP_DF, h.IP_DF)), 0
        if dice.chance(0.05):
            ident = flow.segments
            offset, more, segment = self._fragment(segment)
            fragment = offset // 8 | (h.IP_MF if more else 0)
            layer = layer if offset == 0 else "payload"
            notes.append(f"fragment at {offset}")
        options = dice.pick(_IPV4_OPTIONS) if dice.chance(0.06) else b""
        if options:
            notes.append("ip options")
        tos = dice.bits(8) if dice.chance(0.2) else 0
        header = h.ipv4(
            *addresses,
            flow.proto,
            len(segment),
            ttl=flow.ttl,
            tos=tos,
            ident=ident,
            fragment=fragment,
            options=options,
        )
        notes[0] = f"ipv4 {notes[0]}"
        return [("ipv4", header), (layer, segment)]

    def _ipv6(
        self, flow: Flow, addresses: tuple[bytes, bytes], segment: bytes, notes: list[str]
    ) -> list[tuple[str, bytes]]:
        dice = self._dice
        proto, layer = flow.proto, _LAYER_OF.get(flow.proto, "payload")
        extensions: list[tuple[str, bytes]] = []
        if dice.chance(0.2):
            for kind in self._chain():
                header, segment, layer = self._extension(kind, proto, segment, layer, flow)
                extensions.insert(0, ("ext", header))
                proto = kind
            notes.append(f"{len(extensions)} extension headers")
        length = sum(len(header) for _, header in extensions) + len(segment)
        label = dice.bits(28) if dice.chance(0.2) else 0
        header = h.ipv6(*addresses, proto, length, hop_limit=flow.ttl, flow=label)
        notes[0] = f"ipv6 {notes[0]}"
        return [("ipv6", header), *extensions, (layer, segment)]

    def _chain(self) -> list[int]:
        """Return the protocol numbers of extension headers, innermost first, mostly in the order of RFC 8200."""
        dice = self._dice
        order = (h.IPPROTO_DSTOPTS, h.IPPROTO_FRAGMENT, h.IPPROTO_ROUTING, h.IPPROTO_HOPOPTS)
        if dice.chance(0.15):
            return [dice.pick(order) for _ in range(1 + dice.below(4))]
        return [kind for kind in order if dice.chance(0.4)] or [dice.pick(order)]

    def _extension(self, kind: int, proto: int, segment: bytes, layer: str, flow: Flow) -> tuple[bytes, bytes, str]:
        """Return one extension header, and the segment that is left behind it, with its layer."""
        dice = self._dice
        if kind == h.IPPROTO_FRAGMENT:
            offset, more, segment = self._fragment(segment)
            header = h.ipv6_fragment(proto, offset, more=more, ident=flow.segments)
            return header, segment, layer if offset == 0 else "payload"
        if kind == h.IPPROTO_ROUTING:
            hops = tuple(self._flows.address(v6=True) for _ in range(dice.below(3)))
            return h.ipv6_routing(proto, dice.pick((0, 2, 4)), dice.below(len(hops) + 1), hops), segment, layer
        return h.ipv6_options(proto, dice.pick((b"", _ROUTER_ALERT6, bytes(12)))), segment, layer

    def _fragment(self, segment: bytes) -> tuple[int, bool, bytes]:
        """Return one fragment of a segment: its offset, whether more follow, its bytes."""
        dice = self._dice
        form = dice.below(4)
        middle = 8 * (1 + dice.below(max(1, len(segment) // 8)))
        if form == 0:
            return 0, False, segment  # an atomic fragment, in IPv4 just a header with an identification
        if form == 1:
            return 0, True, segment[:middle]
        if form == 2:
            return middle, False, segment[middle:]
        return 8, True, segment[8 : 8 + middle]

    def _wrap(self, tunnel: str, flow: Flow, parts: list[tuple[str, bytes]]) -> int:
        """Put a packet into a tunnel; return the ethertype of what carries it."""
        v6_outside = tunnel == "outer ipv6"
        inner_type = h.ETH_P_IPV6 if flow.is_ipv6 else h.ETH_P_IP
        proto = h.IPPROTO_IPV6 if flow.is_ipv6 else h.IPPROTO_IPIP
        if tunnel.startswith("gre"):
            proto = h.IPPROTO_GRE
            if tunnel == "gre ethernet":
                parts.insert(0, ("eth", h.ethernet(self._flows.mac(), self._flows.mac(), inner_type)))
                inner_type = h.ETH_P_TEB
            content = b"".join(header for _, header in parts)
            key = self._dice.bits(32) if tunnel == "gre key" else None
            whole = h.gre(inner_type, content, key=key, with_checksum=self._dice.chance(0.3))
            parts.insert(0, ("gre", whole[: len(whole) - len(content)]))
        addresses = (self._flows.address(v6=v6_outside), self._flows.address(v6=v6_outside))
        length = sum(len(header) for _, header in parts)
        if v6_outside:
            parts.insert(0, ("ipv6", h.ipv6(*addresses, proto, length)))
            return h.ETH_P_IPV6
        parts.insert(0, ("ipv4", h.ipv4(*addresses, proto, length)))
        return h.ETH_P_IP

    def _other(self, notes: list[str]) -> Draft:
        """Build a frame that is neither IPv4 nor IPv6: ARP, or an ethertype without a parser."""
        dice, flows = self._dice, self._flows
        sender, target = (flows.mac(), flows.address(v6=False)), (flows.mac(), flows.address(v6=False))
        if dice.chance(0.7):
            notes.append("arp")
            operation = dice.pick((1, 1, 2, 2, 8, 0))
            dst = b"\xff" * 6 if operation == 1 else target[0]
            packet = h.arp(operation, sender, (bytes(6), target[1]) if operation == 1 else target)
            return self._assemble([("eth", h.ethernet(dst, sender[0], h.ETH_P_ARP)), ("arp", packet)])
        constants = self._steering.ports  # every number of two bytes, ethertypes among them
        ethertype = dice.pick(constants) if constants and dice.chance(0.5) else dice.pick(_NO_IP)
        notes.append(f"ethertype {ethertype:#06x}")
        data = dice.bytes(dice.below(100))
        return self._assemble([("eth", h.ethernet(target[0], sender[0], ethertype)), ("payload", data)])

    def _break_checksum(self, draft: Draft, notes: list[str]) -> None:
        places = [(name, offset + _CHECKSUM_AT[name]) for name, offset in draft.layers if name in _CHECKSUM_AT]
        if places:
            name, offset = self._dice.pick(places)
            if offset < len(draft.data):
                draft.data[offset] ^= 1 << self._dice.below(8)
                notes.append(f"bad {name} checksum")

    def _assemble(self, parts: list[tuple[str, bytes]]) -> Draft:
        layers = []
        offset = 0
        for name, header in parts:
            layers.append((name, offset))
            offset += len(header)
        return Draft(bytearray().join([header for _, header in parts]), layers, min(self._min_length, offset))


def _mark_payload(draft: Draft) -> None:
    """Make what a transport header carries a layer of its own."""
    name, offset = draft.layers[-1]
    if name == "tcp" and offset + 12 < len(draft.data):
        offset += (draft.data[offset + 12] >> 4) * 4
    elif name in ("udp", "icmp"):
        offset += 8
    if name != "payload" and offset < len(draft.data):
        draft.layers.append(("payload", offset))
