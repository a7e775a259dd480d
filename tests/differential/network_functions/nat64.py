"""Traffic of nat64.c: clients of IPv6, their servers' answers, and what is not translated."""

import ipaddress
import struct

from uxdp_runtime.frames import headers as h

from .conversation import Conversation, NetworkFunction, Sent
from .packets import MAC_HERE, MAC_THERE, addr4, ethernet, frame4, frame6, icmp6, packet

PUBLIC = (addr4("192.0.2.33"), addr4("192.0.2.34"), addr4("192.0.2.35"))
SERVER = addr4("198.51.100.7")
PREFIX = bytes.fromhex("0064ff9b0000000000000000")
SERVER6 = PREFIX + SERVER
CLIENTS = tuple(ipaddress.ip_address(f"2001:db8:64::{number:x}").packed for number in range(1, 25))


def _turned(data: bytes) -> None:
    outside = ethernet(data)
    assert (outside.dest, outside.source) == (MAC_THERE, MAC_HERE)


def conversation() -> Conversation:
    """Translate both ways, several times per client. Who is led to the address that the pool lacks is refused."""
    refused = 0
    bound: tuple[bytes, int] | None = None
    for number, client in enumerate(CLIENTS):
        ports = (40000 + number, 443)
        payload = bytes(range(number, number + 11 + number % 3))
        for proto, build in ((h.IPPROTO_TCP, _tcp), (h.IPPROTO_UDP, h.udp)):
            out = frame6(client, SERVER6, proto, build((client, SERVER6), ports, payload), flow=0x0B8FFFFF)
            done = yield Sent("first to ipv4", out, "REDIRECT or DROP")
            if ethernet(done).ethertype == h.ETH_P_IPV6:
                refused += 1
                continue
            again = yield Sent("to ipv4", out, "REDIRECT")
            assert again == done
            _turned(done)
            seen = packet(done)
            assert (seen.dest, seen.proto, seen.ttl, seen.tos) == (SERVER, proto, 63, 0xB8)
            assert seen.source in PUBLIC
            assert seen.segment[-len(payload) :] == payload
            address, port = seen.source, seen.ports[0]
            assert (seen.ports[1], port >= 1024) == (443, True)
            answer = build((SERVER, address), (443, port), payload * 3)
            done = yield Sent("to ipv6", frame4(SERVER, address, proto, answer, tos=0x2E), "REDIRECT")
            _turned(done)
            seen = packet(done)
            assert (seen.source, seen.dest, seen.proto, seen.ttl, seen.tos) == (SERVER6, client, proto, 63, 0x2E)
            assert (seen.ports, seen.segment[-3 * len(payload) :]) == ((443, ports[0]), payload * 3)
            if proto == h.IPPROTO_UDP:
                bound = (address, port)
                yield from _without_checksum(bound, number)
        yield from _echo(client, number)
    assert 0 < refused < len(CLIENTS) // 2
    assert bound is not None
    yield from _not_translated(bound)


def _without_checksum(bound: tuple[bytes, int], number: int) -> Conversation:
    address, port = bound
    for size in (0, 1, 55, 56, 57, 63, 64, 300 + number, 1400):
        answer = h.udp((SERVER, address), (443, port), bytes(range(256)) * 6, with_checksum=False)[: 8 + size]
        answer = answer[:4] + struct.pack("!H", len(answer)) + answer[6:]
        done = yield Sent("without checksum", frame4(SERVER, address, h.IPPROTO_UDP, answer), "REDIRECT")
        assert packet(done).segment[8:] == answer[8:]


def _echo(client: bytes, number: int) -> Conversation:
    echo = icmp6(client, SERVER6, 128, 0, (7, number), b"echo" * number)
    done = yield Sent("echo", frame6(client, SERVER6, h.IPPROTO_ICMPV6, echo), "REDIRECT or DROP")
    if ethernet(done).ethertype == h.ETH_P_IPV6:
        return
    seen = packet(done)
    assert (seen.proto, seen.segment[0], seen.segment[8:]) == (h.IPPROTO_ICMP, 8, b"echo" * number)
    (identifier,) = struct.unpack_from("!H", seen.segment, 4)
    reply = h.icmp(0, 0, (identifier, number), b"echo" * number)
    done = yield Sent("echo reply", frame4(SERVER, seen.source, h.IPPROTO_ICMP, reply), "REDIRECT")
    seen = packet(done)
    assert (seen.source, seen.dest, seen.segment[0]) == (SERVER6, client, 129)
    assert struct.unpack_from("!HH", seen.segment, 4) == (7, number)


def _not_translated(bound: tuple[bytes, int]) -> Conversation:
    client = CLIENTS[0]
    udp = h.udp((client, SERVER6), (1, 2), b"")
    address, port = bound
    large = h.udp((SERVER, address), (443, port), bytes(1480))
    whole = h.udp((SERVER, address), (443, port), b"")
    unknown = h.udp((SERVER, PUBLIC[0]), (443, 3), b"")
    yield Sent("elsewhere", frame6(client, CLIENTS[1], h.IPPROTO_UDP, udp), "PASS")
    yield Sent("last hop", frame6(client, SERVER6, h.IPPROTO_UDP, udp, hop_limit=1), "DROP")
    yield Sent("last hop back", frame4(SERVER, address, h.IPPROTO_UDP, whole, ttl=1), "DROP")
    yield Sent("extension header", frame6(client, SERVER6, 0, h.ipv6_options(h.IPPROTO_UDP) + udp), "DROP")
    yield Sent("cut", frame6(client, SERVER6, h.IPPROTO_UDP, udp)[:-1], "DROP")
    yield Sent("length", frame6(client, SERVER6, h.IPPROTO_UDP, udp[:4] + b"\0\1" + udp[6:]), "DROP")
    yield Sent("too big", frame4(SERVER, address, h.IPPROTO_UDP, large), "DROP")
    yield Sent("fragment", frame4(SERVER, address, h.IPPROTO_UDP, whole, fragment=h.IP_MF), "PASS")
    yield Sent("unknown", frame4(SERVER, PUBLIC[0], h.IPPROTO_UDP, unknown), "PASS")
    yield Sent("other protocol", frame4(SERVER, PUBLIC[0], 47, bytes(8)), "PASS")
    yield Sent("arp", h.ethernet(MAC_HERE, MAC_THERE, h.ETH_P_ARP) + bytes(46), "PASS")


def _tcp(addresses: tuple[bytes, bytes], ports: tuple[int, int], payload: bytes) -> bytes:
    return h.tcp(addresses, ports, payload, flags=h.TCP_ACK, seq=1, ack=2)


NAT64 = NetworkFunction(
    sources=("nat64.c",),
    entry="nat64",
    conversation=conversation,
    settings=("pool:0=192.0.2.33", "pool:1=192.0.2.34", "pool:2=192.0.2.35", "ports:0=501", "ports:1=502"),
    params={"pool_size": 4},
    constants=(SERVER6, *PUBLIC, SERVER),
    verdicts=frozenset({"REDIRECT", "PASS", "DROP"}),
)
