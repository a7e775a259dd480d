"""Two network namespaces joined by a veth pair, which a test creates and removes; the machine's own are not touched."""

import ctypes
import fcntl
import os
import socket
import struct
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from uxdp_runtime.bpf.network_namespace import _move

SIOCETHTOOL, ETHTOOL_SGRO = 0x8946, 0x2C
HOST_ADDRESS, PEER_ADDRESS = "10.77.0.2", "10.77.0.1"
HOST_MAC, PEER_MAC = "02:00:00:00:00:0b", "02:00:00:00:00:0a"


@dataclass(frozen=True)
class VethPair:
    """``host`` is the namespace of the served interface, ``peer`` the other; the interfaces are veth0 in both."""

    host: str
    peer: str
    interface: str = "veth0"

    def run(self, namespace: str, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command in a namespace."""
        return subprocess.run(
            ["ip", "netns", "exec", namespace, *command], check=check, capture_output=True, text=True, timeout=60
        )

    def ip(self, namespace: str, *arguments: str) -> None:
        """Run ip(8) in a namespace."""
        subprocess.run(["ip", "-n", namespace, *arguments], check=True, capture_output=True, text=True, timeout=60)

    def add(self, name: str, *options: str) -> None:
        """Add another pair between the namespaces, up and without addresses; its peer takes what XDP transmits."""
        self.ip(self.host, "link", "add", name, *options, "type", "veth", "peer", "name", name, "netns", self.peer)
        for namespace in (self.host, self.peer):
            self.ip(namespace, "link", "set", name, "up")
        self.set_gro(self.peer, on=True, interface=name)

    def index(self, interface: str) -> int:
        """Return an interface's index in the host's namespace."""
        with self.entered(self.host):
            return socket.if_nametoindex(interface)

    def set_gro(self, namespace: str, *, on: bool, interface: str = "") -> None:
        """Switch GRO of an interface: with it a veth has NAPI, and takes what XDP transmits at the other end."""
        value = ctypes.create_string_buffer(struct.pack("=II", ETHTOOL_SGRO, on), 8)
        request = (interface or self.interface).encode().ljust(16, b"\0") + struct.pack("=Q", ctypes.addressof(value))
        with self.entered(namespace), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            fcntl.ioctl(control.fileno(), SIOCETHTOOL, request.ljust(40, b"\0"))

    @contextmanager
    def entered(self, namespace: str) -> Iterator[None]:
        """Have the calling thread in a namespace meanwhile."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        there = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
        try:
            _move(there)
            try:
                yield
            finally:
                _move(home)
        finally:
            os.close(home)
            os.close(there)


@contextmanager
def veth_pair(queues: int = 1) -> Iterator[VethPair]:
    """Make the pair: up, with addresses, without IPv6, so that nothing is sent that a test does not send."""
    mark = uuid.uuid4().hex[:8]
    pair = VethPair(f"uxdp-h-{mark}", f"uxdp-p-{mark}")
    made: list[str] = []
    try:
        for namespace in (pair.host, pair.peer):
            subprocess.run(["ip", "netns", "add", namespace], check=True, timeout=60)
            made.append(namespace)
        count = ("numrxqueues", str(queues), "numtxqueues", str(queues))
        pair.ip(
            pair.host,
            *("link", "add", pair.interface, *count, "type", "veth", "peer", "name", pair.interface, *count),
            *("netns", pair.peer),
        )
        for namespace, mac, address in ((pair.host, HOST_MAC, HOST_ADDRESS), (pair.peer, PEER_MAC, PEER_ADDRESS)):
            pair.run(namespace, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
            pair.ip(namespace, "link", "set", pair.interface, "address", mac)
            pair.ip(namespace, "link", "set", "lo", "up")
            pair.ip(namespace, "link", "set", pair.interface, "up")
            pair.ip(namespace, "addr", "add", f"{address}/24", "dev", pair.interface)
        yield pair
    finally:
        for namespace in made:
            subprocess.run(["ip", "netns", "del", namespace], check=False, timeout=60)
