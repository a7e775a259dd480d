"""Flows: who talks to whom, and the transport segments of their conversation, one after the other, in both directions.

Programs keep state per flow, so frames of the same flows must come again and again, and answers too: a TCP flow
begins with SYN, SYN-ACK, goes on with data in both directions, and ends; an echo request is followed by its reply.
"""

from dataclasses import dataclass, field
from typing import Final

from . import headers as h
from .constants import Endpoint, Steering
from .mutate import Dice

_NUM_FLOWS: Final = 48  # alive at a time; each is seen some dozen times before another takes its place
_PAYLOADS: Final = 1 << 16

_MACS: Final = tuple(bytes.fromhex(f"02000000000{digit}") for digit in "12345678")
_GROUP_MACS: Final = (b"\xff" * 6, bytes.fromhex("01005e000001"), bytes.fromhex("333300000001"))
_SPECIAL4: Final = tuple(
    bytes(octets)
    for octets in ((0, 0, 0, 0), (255,) * 4, (127, 0, 0, 1), (224, 0, 0, 1), (239, 1, 2, 3), (169, 254, 1, 1))
)
_SPECIAL6: Final = (
    *(bytes(16), bytes(15) + b"\1", bytes.fromhex("ff02" + "00" * 13 + "01"), b"\xff" * 16),
    *(bytes.fromhex("fe80" + "00" * 13 + "01"), bytes(10) + b"\xff\xff" + bytes((192, 0, 2, 1))),
)
_SUBNETS4: Final = (b"\x0a\0\0", b"\x0a\1\2", b"\xc0\0\2", b"\xc6\x33\x64", b"\xcb\0\x71", b"\xc0\xa8\1")
_SUBNETS6: Final = (bytes.fromhex("20010db80000000000000000000000"), bytes.fromhex("20010db8000f00000000000000"))
_PORTS: Final = (22, 53, 67, 80, 123, 443, 2152, 4789, 5000, 8080, 11211, 65535)
_TPIDS: Final = (h.ETH_P_8021Q, h.ETH_P_8021AD)
_RARE_FLAGS: Final = (h.TCP_SYN | h.TCP_FIN, 0, 0xFF, h.TCP_RST, h.TCP_RST | h.TCP_ACK, h.TCP_FIN | h.TCP_ACK, 0xC0)
_MSS: Final = bytes.fromhex("020405b4")
_SYN_OPTIONS: Final = _MSS + bytes.fromhex("0402080a000000010000000001030307")
_TIMESTAMPS: Final = bytes.fromhex("0101080a0000000a0000000b")
_OTHER_PROTOCOLS: Final = (2, 50, 51, 89, 103, 112, 132, 136, 253, 255)


@dataclass(slots=True)
class Flow:
    """One conversation; ``addresses``, ``macs`` and ``ports`` are (client, server)."""

    number: int
    proto: int
    addresses: tuple[bytes, bytes]
    ports: tuple[int, int]
    macs: tuple[bytes, bytes]
    tags: tuple[tuple[int, int], ...]  # of (TPID, tag control)
    ttl: int
    payload_at: int  # in the pool of payloads: equal flows send equal data again
    segments: int = 0
    sequence: list[int] = field(default_factory=lambda: [1000, 5000])

    @property
    def is_ipv6(self) -> bool:
        """Whether the addresses are IPv6's."""
        return len(self.addresses[0]) == 16


class Flows:
    """The flows that are alive."""

    def __init__(self, dice: Dice, steering: Steering) -> None:
        self._dice = dice
        self._steering = steering
        self._payloads = dice.bytes(_PAYLOADS)
        self._alive: list[Flow] = []
        self._next = 0

    def pick(self) -> Flow:
        """Return a flow that goes on, or a new one."""
        if self._alive and not self._dice.chance(0.08 if len(self._alive) == _NUM_FLOWS else 0.4):
            return self._dice.pick(self._alive)
        flow = self._new()
        if len(self._alive) < _NUM_FLOWS:
            self._alive.append(flow)
        else:
            self._alive[self._next % _NUM_FLOWS] = flow
        self._next += 1
        return flow

    def payload(self, flow: Flow, room: int) -> bytes:
        """Return data of a random length that fits into ``room`` bytes."""
        dice = self._dice
        form = dice.below(20)
        if form < 2 or room <= 0:
            return b""
        if form < 11:
            length = 1 + dice.below(64)
        elif form < 16:
            length = dice.below(512)
        else:
            length = room - dice.pick((0, 0, 1, 4, dice.below(room)))
        start = flow.payload_at + dice.pick((0, 0, 0, 32))
        return self._payloads[start : start + max(0, min(length, room))]

    def segment(self, flow: Flow, *, reply: bool, room: int) -> tuple[bytes, str]:
        """Return the flow's next segment in one direction, and what it is in a few words."""
        flow.segments += 1
        addresses, ports = flow.addresses, flow.ports
        if reply:
            addresses, ports = addresses[::-1], ports[::-1]
        if flow.proto == h.IPPROTO_TCP:
            return self._tcp(flow, addresses, ports, reply=reply, room=room)
        if flow.proto == h.IPPROTO_UDP:
            data = self.payload(flow, room - 8)
            with_checksum = flow.is_ipv6 or not self._dice.chance(0.1)
            return h.udp(addresses, ports, data, with_checksum=with_checksum), "udp"
        if flow.proto in (h.IPPROTO_ICMP, h.IPPROTO_ICMPV6):
            return self._icmp(flow, addresses, reply=reply, room=room)
        return self.payload(flow, room), f"protocol {flow.proto}"

    def macs(self, flow: Flow, *, reply: bool) -> tuple[bytes, bytes]:
        """Return destination and source."""
        client, server = flow.macs
        return (client, server) if reply else (server, client)

    def address(self, *, v6: bool) -> bytes:
        """Return an address: the program's own, of a small network, a special or any one."""
        dice = self._dice
        size = 16 if v6 else 4
        constants = self._steering.of_size[size]
        if constants and dice.chance(0.35):
            return self._near(dice.pick(constants))
        if dice.chance(0.08):
            return dice.pick(_SPECIAL6 if v6 else _SPECIAL4)
        if dice.chance(0.08):
            return dice.bytes(size)
        subnet = dice.pick(_SUBNETS6 if v6 else _SUBNETS4)
        return subnet.ljust(size - 1, b"\0") + bytes((dice.below(32),))

    def mac(self) -> bytes:
        """Return a MAC address: mostly of a few stations, sometimes the program's own or a group's."""
        constants = self._steering.of_size[6]
        if constants and self._dice.chance(0.2):
            return self._dice.pick(constants)
        return self._dice.pick(_GROUP_MACS if self._dice.chance(0.04) else _MACS)

    def _near(self, address: bytes) -> bytes:
        """Return an address, now and then another one of its network, for programs that look for prefixes."""
        if not self._dice.chance(0.15):
            return address
        host = self._dice.bits(self._dice.pick((1, 4, 8, 12, 16)))
        return (int.from_bytes(address, "big") ^ host).to_bytes(len(address), "big")

    def _new(self) -> Flow:
        dice, steering = self._dice, self._steering
        v6 = dice.chance(0.4)
        endpoint = dice.pick(steering.endpoints) if steering.endpoints and dice.chance(0.75) else None
        if endpoint is not None:
            v6 = bool(endpoint.addresses6) and (not endpoint.addresses4 or dice.chance(0.5))
        addresses = (self.address(v6=v6), self.address(v6=v6))
        ports = (self._port(ephemeral=True), self._port(ephemeral=False))
        proto = self._protocol(v6=v6)
        if endpoint is not None:
            addresses, ports, proto = self._at(endpoint, addresses, ports, proto)
        return Flow(
            number=self._next,
            proto=proto,
            addresses=addresses,
            ports=ports,
            macs=(self.mac(), self.mac()),
            tags=self._tags(),
            ttl=dice.pick((64, 64, 64, 64, 128, 255, 2, 1, 0)),
            payload_at=dice.below(32) * 64,
        )

    def _at(
        self, endpoint: Endpoint, addresses: tuple[bytes, bytes], ports: tuple[int, int], proto: int
    ) -> tuple[tuple[bytes, bytes], tuple[int, int], int]:
        """Make a flow one that a long constant of the program may describe."""
        dice = self._dice
        known = endpoint.addresses6 if len(addresses[0]) == 16 else endpoint.addresses4
        if endpoint.ports and endpoint.protocols and dice.chance(0.5):  # all of it: whatever compares it is to find it
            return (addresses[0], known[0]), (ports[0], endpoint.ports[0]), endpoint.protocols[0]
        if len(known) > 1 and dice.chance(0.4):
            addresses = (known[0], known[1])
        else:
            addresses = (addresses[0], self._near(dice.pick(known)))
        if len(endpoint.ports) > 1 and dice.chance(0.3):
            ports = (endpoint.ports[0], endpoint.ports[1])
        elif endpoint.ports:
            ports = (ports[0], endpoint.ports[0] if dice.chance(0.7) else dice.pick(endpoint.ports))
        if endpoint.protocols and dice.chance(0.8):
            proto = dice.pick(endpoint.protocols)
        return (addresses[::-1] if dice.chance(0.15) else addresses), ports, proto

    def _port(self, *, ephemeral: bool) -> int:
        dice = self._dice
        if self._steering.ports and dice.chance(0.1 if ephemeral else 0.4):
            return dice.pick(self._steering.ports)
        if not ephemeral and dice.chance(0.7):
            return dice.pick(_PORTS)
        return 1024 + dice.below(64512) if dice.chance(0.9) else dice.below(65536)

    def _protocol(self, *, v6: bool) -> int:
        dice = self._dice
        form = dice.below(20)
        if form < 9:
            return h.IPPROTO_TCP
        if form < 15:
            return h.IPPROTO_UDP
        if form < 18:
            return h.IPPROTO_ICMPV6 if v6 else h.IPPROTO_ICMP
        if form < 19 and self._steering.protocols:
            return dice.pick(self._steering.protocols)
        return dice.pick(_OTHER_PROTOCOLS)

    def _tags(self) -> tuple[tuple[int, int], ...]:
        dice = self._dice
        form = dice.below(20)
        if form < 15:
            return ()
        control = dice.pick((0, 1, 100, 0xFFF, dice.bits(16)))
        if form < 18:
            return ((dice.pick(_TPIDS) if dice.chance(0.2) else h.ETH_P_8021Q, control),)
        if form < 19:
            return ((h.ETH_P_8021AD, dice.bits(16)), (h.ETH_P_8021Q, control))
        return tuple((dice.pick(_TPIDS), dice.bits(16)) for _ in range(2 + dice.below(3)))

    def _tcp(
        self, flow: Flow, addresses: tuple[bytes, bytes], ports: tuple[int, int], *, reply: bool, room: int
    ) -> tuple[bytes, str]:
        dice = self._dice
        options, data = b"", b""
        if dice.chance(0.03):
            flags, note = dice.pick(_RARE_FLAGS), "tcp rare flags"
        elif flow.segments == 1:
            flags, options, note = h.TCP_SYN, dice.pick((b"", _MSS, _SYN_OPTIONS)), "tcp syn"
        elif flow.segments == 2 and reply:
            flags, options, note = h.TCP_SYN | h.TCP_ACK, _SYN_OPTIONS, "tcp syn-ack"
        elif dice.chance(0.05):
            flags, note = h.TCP_FIN | h.TCP_ACK, "tcp fin"
            flow.segments = 0
        else:
            options = dice.pick((b"", b"", _TIMESTAMPS, b"\1" * 40 if dice.chance(0.1) else b""))
            data = self.payload(flow, room - 20 - len(options))
            flags, note = h.TCP_ACK | (h.TCP_PSH if data else 0), "tcp"
        seq, ack = flow.sequence[reply], flow.sequence[not reply]
        flow.sequence[reply] = seq + max(len(data), bool(flags & (h.TCP_SYN | h.TCP_FIN))) & 0xFFFFFFFF
        return h.tcp(addresses, ports, data, flags=flags, seq=seq, ack=ack, options=options), note

    def _icmp(self, flow: Flow, addresses: tuple[bytes, bytes], *, reply: bool, room: int) -> tuple[bytes, str]:
        """Return an echo request or reply, or an error that quotes a packet of the other direction."""
        dice = self._dice
        v6 = flow.is_ipv6
        kinds = (128, 129) if v6 else (8, 0)
        if dice.chance(0.25):
            kind, code = dice.pick(((1, 4), (2, 0), (3, 0)) if v6 else ((3, 1), (3, 4), (11, 0), (5, 1)))
            quoted = h.udp(addresses[::-1], flow.ports, b"")
            if v6:
                data = h.ipv6(addresses[1], addresses[0], h.IPPROTO_UDP, len(quoted)) + quoted
            else:
                data = h.ipv4(addresses[1], addresses[0], h.IPPROTO_UDP, len(quoted)) + quoted
            note = "icmp error"
        else:
            kind, code = kinds[reply], 0
            data = self.payload(flow, room - 8)
            note = "icmp echo reply" if reply else "icmp echo"
        pseudo = h.pseudo_header(*addresses, h.IPPROTO_ICMPV6, 8 + len(data)) if v6 else b""
        return h.icmp(kind, code, (flow.ports[0], flow.segments & 0xFFFF), data, pseudo=pseudo), note
