"""Find the headers of a frame of which nothing is known but its bytes: where mutations find their fields."""

from typing import Final

from . import headers as h

_ETHERNET_BYTES: Final = 14
_TAG_BYTES: Final = 4
_TAGS: Final = frozenset({h.ETH_P_8021Q, h.ETH_P_8021AD})
_TRANSPORT: Final = {
    h.IPPROTO_TCP: "tcp",
    h.IPPROTO_UDP: "udp",
    h.IPPROTO_ICMP: "icmp",
    h.IPPROTO_ICMPV6: "icmp",
}
_EXTENSIONS: Final = frozenset({h.IPPROTO_HOPOPTS, h.IPPROTO_ROUTING, h.IPPROTO_DSTOPTS, h.IPPROTO_FRAGMENT})
_MAX_LAYERS: Final = 12


def layers_of(data: bytes) -> list[tuple[str, int]]:
    """Return the layers of a frame as ``mutate`` knows them: (name, offset), outermost first, as far as they go."""
    layers = [("eth", 0)]
    offset = _ETHERNET_BYTES
    kind = int.from_bytes(data[12:14], "big")
    while kind in _TAGS and offset + _TAG_BYTES <= len(data) and len(layers) < _MAX_LAYERS:
        layers.append(("vlan", offset))
        kind = int.from_bytes(data[offset + 2 : offset + 4], "big")
        offset += _TAG_BYTES
    _network(data, kind, offset, layers)
    return [layer for layer in layers if layer[1] < len(data)] or [("eth", 0)]


def _network(data: bytes, kind: int, offset: int, layers: list[tuple[str, int]]) -> None:
    if offset >= len(data) or len(layers) >= _MAX_LAYERS:
        return
    if kind == h.ETH_P_IP:
        layers.append(("ipv4", offset))
        if offset + 20 <= len(data):
            _transport(data, data[offset + 9], offset + max(20, 4 * (data[offset] & 0xF)), layers)
    elif kind == h.ETH_P_IPV6:
        layers.append(("ipv6", offset))
        if offset + 40 <= len(data):
            _transport(data, data[offset + 6], offset + 40, layers)
    else:
        layers.append(("arp" if kind == h.ETH_P_ARP else "payload", offset))


def _transport(data: bytes, proto: int, offset: int, layers: list[tuple[str, int]]) -> None:
    while proto in _EXTENSIONS and offset + 8 <= len(data) and len(layers) < _MAX_LAYERS:
        layers.append(("ext", offset))
        length = 8 if proto == h.IPPROTO_FRAGMENT else 8 * (1 + data[offset + 1])
        proto = data[offset]
        offset += length
    if offset >= len(data):
        return
    if proto in _TRANSPORT:
        layers.append((_TRANSPORT[proto], offset))
        header = 4 * (data[offset + 12] >> 4) if proto == h.IPPROTO_TCP and offset + 12 < len(data) else 8
        layers.append(("payload", offset + header))
    elif proto == h.IPPROTO_IPIP:
        _network(data, h.ETH_P_IP, offset, layers)
    elif proto == h.IPPROTO_IPV6:
        _network(data, h.ETH_P_IPV6, offset, layers)
    elif proto == h.IPPROTO_GRE:
        layers.append(("gre", offset))
        if offset + 4 <= len(data):
            _network(data, int.from_bytes(data[offset + 2 : offset + 4], "big"), offset + 4, layers)
    else:
        layers.append(("payload", offset))
