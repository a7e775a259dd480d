#!/usr/bin/env python3
"""Write a capture of what may come to a load balancer: python3 traffic.py OUT.pcap [PACKETS]

Six clients talk to a web server (198.51.100.10, port 80) and ask a name server (198.51.100.20, port 53); some ping the
first, some ask by ARP, some send what is none of its business, and a few have used up their TTL. Equal arguments give
equal files.
"""

import random
import sys
from ipaddress import IPv4Address

from uxdp_runtime.frames import headers as h
from uxdp_runtime.frames.capture_writer import CaptureWriter

CLIENTS = [IPv4Address(f"203.0.113.{number}").packed for number in (5, 17, 40, 99, 130, 201)]
WEB, DNS = IPv4Address("198.51.100.10").packed, IPv4Address("198.51.100.20").packed
GATEWAY_MAC, OWN_MAC = bytes.fromhex("0200000000fe"), bytes.fromhex("020000000001")
START_NS, STEP_NS = 1_700_000_000_000_000_000, 50_000


def ip(client: bytes, to: bytes, proto: int, segment: bytes, ttl: int = 64) -> bytes:
    """Build a frame from the gateway with an IPv4 packet."""
    header = h.ipv4(client, to, proto, len(segment), ttl=ttl)
    return h.ethernet(OWN_MAC, GATEWAY_MAC, h.ETH_P_IP) + header + segment


def packet(dice: random.Random, number: int) -> bytes:
    """Build one of the packets that clients send."""
    client = dice.choice(CLIENTS)
    kind = dice.random()
    port = 40_000 + CLIENTS.index(client)
    ttl = 1 if dice.random() < 0.01 else 64
    if kind < 0.6:
        flags = h.TCP_SYN if number < 12 else h.TCP_ACK | h.TCP_PSH
        data = b"" if flags == h.TCP_SYN else b"GET /%d HTTP/1.1\r\n" % number
        segment = h.tcp((client, WEB), (port, 80), data, flags=flags, seq=number, ack=0)
        return ip(client, WEB, h.IPPROTO_TCP, segment, ttl)
    if kind < 0.85:
        return ip(client, DNS, h.IPPROTO_UDP, h.udp((client, DNS), (port, 53), bytes(28)), ttl)
    if kind < 0.92:
        return ip(client, WEB, h.IPPROTO_ICMP, h.icmp(8, 0, (7, number & 0xFFFF), bytes(32)))
    if kind < 0.96:
        asked = h.arp(1, (GATEWAY_MAC, client), (bytes(6), WEB))
        return h.ethernet(b"\xff" * 6, GATEWAY_MAC, h.ETH_P_ARP) + asked
    return ip(client, WEB, h.IPPROTO_TCP, h.tcp((client, WEB), (port, 22), b"", flags=h.TCP_SYN, seq=1, ack=0))


def main() -> None:
    """Write the capture that the command line asks for."""
    path, packets = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 10_000
    dice = random.Random(1)
    with CaptureWriter(path) as writer:
        for number in range(packets):
            writer.write(packet(dice, number), START_NS + number * STEP_NS)


main()
