"""Traffic of the dispatcher with acl, meter and steer, as configured in its source and otherwise.

The other configuration is what libxdp would write into .rodata: steer is off, and acl's DROP does not end the chain.
"""

import ipaddress
import struct
from functools import partial

from uxdp_runtime.frames import headers as h

from .conversation import Conversation, NetworkFunction, Sent
from .packets import MAC_HERE, MAC_THERE, addr4, ethernet, frame

STATION, TAGGED_STATION, KEPT_STATION, LOST_STATION = (
    bytes.fromhex(f"0200000000{n}") for n in ("a1", "a2", "a3", "a4")
)
DENIED4, ALLOWED4, OTHER4 = addr4("10.1.2.3"), addr4("10.1.9.3"), addr4("192.0.2.1")
DENIED6, OTHER6 = (ipaddress.ip_address(text).packed for text in ("2001:db8:bad::1", "2001:db8::1"))
DENY, ALLOW, KEEP = 0, 1, 0xFFFF
PASS, DROP, EMPTY = 1 << 2, 1 << 1, 1 << 31
NUM_COUNTERS = 7
STEERED = range(4, 7)


def _prefix(text: str, vlan: int, verdict: int) -> str:
    network = ipaddress.ip_network(text)
    bits, address = network.prefixlen, network.network_address.packed
    if network.version == 4:
        bits, address = 96 + bits, bytes(10) + b"\xff\xff" + address
    key = struct.pack("=I", 32 + bits) + struct.pack("!HH", vlan, 0) + address
    return f"acl_prefixes:{key.hex(' ')}={verdict}"


def _station(mac: bytes, vlan: int, port: int, tag: int) -> str:
    key = mac + struct.pack("=H", vlan)
    return f"stations:{key.hex(' ')}={struct.pack('=IHH', port, tag, 0).hex(' ')}"


def _sent(source: bytes, *, dest_mac: bytes = MAC_HERE, vlan: int = 0, number: int = 0) -> bytes:
    dest = source[:-1] + bytes([number])
    segment = h.udp((source, dest), (number, 4242), b"payload")
    data = dest_mac + frame(source, dest, h.IPPROTO_UDP, segment)[6:]
    return data if not vlan else data[:12] + struct.pack("!HH", h.ETH_P_8021Q, vlan) + data[12:]


def conversation(*, chained: bool) -> Conversation:
    """Meet all three programs; ``chained`` is the configuration of the source."""
    for source in (DENIED4, DENIED6):
        yield Sent("denied", _sent(source), "DROP" if chained else "PASS")
    for source in (ALLOWED4, OTHER4, OTHER6):
        yield Sent("allowed", _sent(source), "PASS")
    yield Sent("denied elsewhere alone", _sent(DENIED4, vlan=7), "PASS")
    yield Sent("denied there alone", _sent(OTHER4, vlan=66), "DROP" if chained else "PASS")
    # More than the ring buffer has room for.
    for number in range(40):
        for _ in range(16):
            yield Sent("metered", _sent(OTHER4, number=number), "PASS")
    verdict = "REDIRECT" if chained else "PASS"
    moved = (
        ("untouched", STATION, 0, 0),
        ("tag away", STATION, 9, 0),
        ("tagged", TAGGED_STATION, 0, 100),
        ("tagged anew", TAGGED_STATION, 9, 100),
        ("kept", KEPT_STATION, 9, 9),
    )
    for text, mac, before, after in moved:
        for source in (OTHER4, OTHER6):
            sent = _sent(source, dest_mac=mac, vlan=before)
            done = yield Sent(text, sent, verdict)
            now, then = ethernet(done), ethernet(sent)
            assert now.vlans == ((after,) if after and chained else then.vlans if not chained else ())
            assert (now.dest, now.source, now.content) == (mac, MAC_THERE, then.content)
            assert now.ethertype == then.ethertype
    yield Sent("to nowhere", _sent(OTHER4, dest_mac=LOST_STATION), "DROP" if chained else "PASS")
    yield Sent("cut tag", _sent(OTHER4, vlan=9)[:16], "PASS")
    yield Sent("arp", h.ethernet(MAC_HERE, MAC_THERE, h.ETH_P_ARP) + bytes(46), "PASS")


def _conf(num_progs: int, actions: tuple[int, ...]) -> bytes:
    """Return struct xdp_dispatcher_conf."""
    return struct.pack("=4B15I", 236, 2, num_progs, 0, *actions, *(50,) * 5, *(0,) * 5)


_SOURCES = tuple(f"dispatcher/{name}.c" for name in ("dispatcher", "acl", "meter", "steer"))
_SETTINGS = (
    _prefix("10.1.0.0/16", 0, DENY),
    _prefix("10.1.9.0/24", 0, ALLOW),
    _prefix("0.0.0.0/0", 66, DENY),
    _prefix("2001:db8:bad::/48", 0, DENY),
    _station(STATION, 0, 1, 0),
    _station(STATION, 9, 2, 0),
    _station(TAGGED_STATION, 0, 1, 100),
    _station(TAGGED_STATION, 9, 2, 100),
    _station(KEPT_STATION, 9, 1, KEEP),
    _station(LOST_STATION, 0, 3, KEEP),
    'ports:1={"ifindex": 501}',
    'ports:2={"ifindex": 502}',
)
DISPATCHER = NetworkFunction(
    sources=_SOURCES,
    entry="dispatcher",
    conversation=partial(conversation, chained=True),
    settings=_SETTINGS,
    verdicts=frozenset({"PASS", "DROP", "REDIRECT"}),
)
DISPATCHER_SHORT = NetworkFunction(
    sources=_SOURCES,
    entry="dispatcher",
    conversation=partial(conversation, chained=False),
    settings=_SETTINGS,
    params={"conf": _conf(2, (EMPTY | PASS | DROP, EMPTY | PASS, 0, 0, 0))},
    not_counted=frozenset(STEERED),
    verdicts=frozenset({"PASS"}),
)
